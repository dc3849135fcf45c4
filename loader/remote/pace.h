/*
 * pace.h - how fast answers come just now, and what follows from it: which request is slow, whether
 * a second one may be sent, and how long to wait before the next try.
 *
 * Pure arithmetic over what is noted; one thread.
 */
#ifndef PENSTOCK_LOADER_REMOTE_PACE_H
#define PENSTOCK_LOADER_REMOTE_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum { PACE_SAMPLES = 128 };

struct pace {
    uint64_t first_byte_ns[PACE_SAMPLES];
    uint64_t bytes_per_second[PACE_SAMPLES];
    uint32_t first_byte_count, rate_count; /* noted so far, also those that were overwritten */
    uint64_t median_first_byte_ns;         /* 0: too few */
    uint64_t median_bytes_per_second;
    uint64_t requests, hedges, hedges_won;
    uint64_t random; /* state of the generator; any seed but 0 */
};

/* A request that went well: the time to its first byte (0: not known), then its body. */
void pace_note(struct pace *pace, uint64_t first_byte_ns, uint64_t body_bytes, uint64_t body_ns);

/* Whether a request has taken unusually long, and a new one for the bytes that are left would
 * likely end much sooner. Never before enough went well. */
bool pace_is_slow(const struct pace *pace, uint64_t received_bytes, uint64_t left_bytes,
                  uint64_t elapsed_ns);

/* Whether one more second request stays within percent_max of all, and those that were in vain,
 * because the first ones ended sooner, within 1%. */
bool pace_may_hedge(const struct pace *pace, uint32_t percent_max);

/* Random, growing with the failures in a row (>= 1), at most delay_max_ms. */
uint64_t pace_delay_ns(struct pace *pace, uint32_t failures, uint32_t delay_max_ms);

#endif /* PENSTOCK_LOADER_REMOTE_PACE_H */
