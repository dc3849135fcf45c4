/*
 * philox.h - counter-based random numbers: Philox4x32-10 (Salmon et al., SC'11).
 *
 * A draw is a pure function of (seed, epoch, sample id, operation, index): the same crop for the
 * same sample in whatever thread, rank, order or restart it is made.
 *
 * How a stream uses the generator; this mapping is part of the results and never changes:
 *
 *     key[0], key[1]  = low and high word of the seed; the epoch's high word is xored into key[1]
 *     counter[0]      = operation << 16 | block, block counts 0, 1, 2, ... within the stream
 *     counter[1]      = low word of the epoch
 *     counter[2], [3] = low and high word of the sample id
 *
 * So every 64-bit sample id, 16-bit operation and 32-bit epoch has a stream of its own. Words are
 * given in the order random[0] .. random[3]; a 64-bit draw takes the low word first.
 */
#ifndef PENSTOCK_DECODE_PHILOX_H
#define PENSTOCK_DECODE_PHILOX_H

#include <stdint.h>

/* The raw generator: four words of counter and two of key to four random words. */
void philox4x32_10(const uint32_t counter[4], const uint32_t key[2], uint32_t random[4]);

/* A stream of at most 2^18 words. Copy freely; no other state exists. */
struct philox_stream {
    uint32_t key[2];
    uint32_t counter[4];
    uint32_t buffer[4];
    uint32_t used_count; /* words of buffer already given; 4 = empty */
};

/* Operations of one sample; each gets its own stream. The place of a transform in the list is
 * its operation; these two lie above every place. */
enum { PHILOX_OPERATION_REPLACE = 0xfffe, PHILOX_OPERATION_PLAN = 0xffff };

/* operation <= 0xffff. */
struct philox_stream philox_stream_begin(uint64_t seed, uint64_t epoch, uint64_t sample_id,
                                         uint32_t operation);

uint32_t philox_u32(struct philox_stream *stream);
uint64_t philox_u64(struct philox_stream *stream);
/* Uniform in [0, 1), 53 random bits. */
double philox_unit(struct philox_stream *stream);
/* Uniform in [0, count), count >= 1, without bias. */
uint64_t philox_below(struct philox_stream *stream, uint64_t count);

#endif /* PENSTOCK_DECODE_PHILOX_H */
