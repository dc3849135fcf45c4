#include "loader/permutation.h"

#include <assert.h>
#include <math.h>

#include "decode/philox.h"

/* The smallest number whose square is at least count. */
static uint32_t root_ceiling(uint64_t count)
{
    uint64_t root = (uint64_t)sqrt((double)count);
    while (root * root < count) {
        root++;
    }
    while (root > 0 && (root - 1) * (root - 1) >= count) {
        root--;
    }
    return (uint32_t)root;
}

struct permutation permutation_begin(uint64_t seed, uint64_t epoch, uint64_t purpose,
                                     uint64_t count)
{
    assert(count <= PERMUTATION_COUNT_MAX);
    struct permutation permutation = {
        .count = count,
        .round_count =
            count < PERMUTATION_COUNT_SMALL ? PERMUTATION_ROUNDS_MANY : PERMUTATION_ROUNDS,
    };
    if (count > 0) {
        permutation.left_sides = root_ceiling(count);
        permutation.right_sides =
            (uint32_t)((count + permutation.left_sides - 1) / permutation.left_sides);
    }
    struct philox_stream stream = philox_stream_begin(seed, epoch, purpose, PHILOX_OPERATION_PLAN);
    for (uint32_t round = 0; round < permutation.round_count; round++) {
        permutation.round_keys[round] = philox_u64(&stream);
    }
    return permutation;
}

/* A keyed hash of `half`, scaled down to [0, sides). */
static inline uint32_t round_value(uint64_t key, uint32_t half, uint32_t sides)
{
    uint64_t hash = (half + key) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
    hash *= 0xD6E8FEB86659FD93u;
    hash ^= hash >> 32;
    hash *= 0xD6E8FEB86659FD93u;
    return (uint32_t)((unsigned __int128)hash * sides >> 64);
}

static inline uint32_t add_modulo(uint32_t a, uint32_t b, uint32_t modulus)
{
    uint32_t sum = a + b; /* both below the modulus, which is at most 2^20 */
    return sum >= modulus ? sum - modulus : sum;
}

uint64_t permutation_at(const struct permutation *permutation, uint64_t place)
{
    assert(place < permutation->count);
    const uint32_t left_sides = permutation->left_sides, right_sides = permutation->right_sides;
    do {
        uint32_t left = (uint32_t)(place % left_sides), right = (uint32_t)(place / left_sides);
        for (uint32_t round = 0; round < permutation->round_count; round += 2) {
            const uint64_t *keys = permutation->round_keys + round;
            left = add_modulo(left, round_value(keys[0], right, left_sides), left_sides);
            right = add_modulo(right, round_value(keys[1], left, right_sides), right_sides);
        }
        place = (uint64_t)right * left_sides + left;
    } while (place >= permutation->count);
    return place;
}
