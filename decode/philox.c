#include "decode/philox.h"

#include <assert.h>

enum { ROUNDS = 10, BLOCK_BITS = 16 };

void philox4x32_10(const uint32_t counter[4], const uint32_t key[2], uint32_t random[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t product0 = (uint64_t)0xD2511F53u * c0;
        uint64_t product1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    random[0] = c0;
    random[1] = c1;
    random[2] = c2;
    random[3] = c3;
}

struct philox_stream philox_stream_begin(uint64_t seed, uint64_t epoch, uint64_t sample_id,
                                         uint32_t operation)
{
    assert(operation <= 0xffff);
    return (struct philox_stream){
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32) ^ (uint32_t)(epoch >> 32)},
        .counter = {operation << BLOCK_BITS, (uint32_t)epoch, (uint32_t)sample_id,
                    (uint32_t)(sample_id >> 32)},
        .used_count = 4,
    };
}

uint32_t philox_u32(struct philox_stream *stream)
{
    if (stream->used_count == 4) {
        philox4x32_10(stream->counter, stream->key, stream->buffer);
        stream->counter[0]++;
        /* A carry would enter the next operation's stream. */
        assert((stream->counter[0] & ((1u << BLOCK_BITS) - 1)) != 0);
        stream->used_count = 0;
    }
    return stream->buffer[stream->used_count++];
}

uint64_t philox_u64(struct philox_stream *stream)
{
    uint64_t low = philox_u32(stream);
    return low | (uint64_t)philox_u32(stream) << 32;
}

double philox_unit(struct philox_stream *stream)
{
    return (double)(philox_u64(stream) >> 11) * 0x1p-53;
}

uint64_t philox_below(struct philox_stream *stream, uint64_t count)
{
    assert(count >= 1);
    /* The draws below 2^64 mod count are dropped; what is left is a multiple of count. */
    uint64_t dropped_count = (0 - count) % count;
    uint64_t draw;
    do {
        draw = philox_u64(stream);
    } while (draw < dropped_count);
    return draw % count;
}
