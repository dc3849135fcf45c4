/*
 * fuzz.h - what a fuzz target gives to libFuzzer or to run_corpus.c.
 */
#ifndef PENSTOCK_TESTS_FUZZ_H
#define PENSTOCK_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* The target: one input, bytes[0, size_bytes), of any content. Returns 0; aborts on a finding. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes);

/* Optional (run_corpus.c refers to it weakly): write well-formed seed `index` (from 0) to
 * buffer[0, size_max_bytes) and return its size; 0 when there is no such seed. A seed longer than
 * the buffer is cut. Seeds are what -runs mutates when no files are given. */
size_t fuzz_seed(size_t index, uint8_t *buffer, size_t size_max_bytes);

#endif /* PENSTOCK_TESTS_FUZZ_H */
