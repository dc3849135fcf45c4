/*
 * kernels.h - the inner loops, in plain C and in variants for vector units, chosen at run time.
 *
 * kernels.c holds the plain C twins and the choice; kernels_avx2.c, kernels_avx512.c and
 * kernels_neon.c each hold the same functions for one level, compiled with their own flags.
 * Every variant gives the same bytes as its twin (tests/unit/test_kernels.c).
 */
#ifndef PENSTOCK_DECODE_KERNELS_H
#define PENSTOCK_DECODE_KERNELS_H

enum kernel_level { KERNEL_SCALAR = 0, KERNEL_NEON, KERNEL_AVX2, KERNEL_AVX512 };

struct kernels; /* a constant table of functions; see kernels_table.h */

/* The best level this processor runs, at most `level_max`. The environment is not consulted:
 * the daemon's configuration passes level_max. */
enum kernel_level kernels_detect(enum kernel_level level_max);

/* The table of a level that kernels_detect() has returned or that is below it. Never NULL;
 * constant, shared by all threads. */
const struct kernels *kernels_get(enum kernel_level level);

/* "scalar", "neon", "avx2", "avx512". */
const char *kernel_level_name(enum kernel_level level);

#endif /* PENSTOCK_DECODE_KERNELS_H */
