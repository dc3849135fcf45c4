/*
 * bad_samples.h - the latest samples that could not be made, for `penstock errors`.
 *
 * A bounded list; older ones fall out but stay in the total. Threads: any (one lock inside).
 */
#ifndef PENSTOCK_LOADER_BAD_SAMPLES_H
#define PENSTOCK_LOADER_BAD_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

enum { BAD_SAMPLES_KEPT = 1000, BAD_SAMPLE_NAME_BYTES = 512, BAD_SAMPLE_REASON_BYTES = 256 };

struct bad_sample {
    int64_t time_s; /* Unix time */
    char job[64];
    uint32_t rank;
    uint64_t epoch;
    uint64_t sample_id;
    uint64_t offset_bytes;
    char name[BAD_SAMPLE_NAME_BYTES];     /* file, or shard:key */
    char reason[BAD_SAMPLE_REASON_BYTES]; /* "truncated: ..." */
    const char *action;                   /* "raised", "skipped", "zeroed", "replaced"; constant */
};

struct bad_samples;
struct bad_samples *bad_samples_create(void); /* NULL when memory is short */
void bad_samples_destroy(struct bad_samples *list);
void bad_samples_add(struct bad_samples *list, const struct bad_sample *sample);
uint64_t bad_samples_total(struct bad_samples *list);
/* The newest, at most `count`, oldest first. */
void bad_samples_recent(struct bad_samples *list, size_t count,
                        void (*take)(void *context, const struct bad_sample *sample),
                        void *context);

#endif /* PENSTOCK_LOADER_BAD_SAMPLES_H */
