/*
 * permutation.h - a keyed pseudo-random permutation of [0, n), any n, in constant time and memory.
 *
 * A position x < n is written as the pair (left, right) = (x mod a, x div a) with a about sqrt(n)
 * and b = ceil(n / a). A Feistel network adds a keyed hash of one
 * half to the other, in turns modulo a and modulo b; each round can be undone, so the network is
 * a permutation of [0, a * b). Where it leaves [0, n) it is applied again until it is back
 * ("cycle walking"), which makes it a permutation of [0, n). Since a * b - n < a, that happens
 * once in more than sqrt(n) positions. This is the generalised Feistel cipher of Black and
 * Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002), with a fast hash (multiply,
 * xor-shift) in the place of a cryptographic one: good to shuffle with, not to keep secrets.
 *
 * Few rounds do not mix small halves: with 8, some of the 120 permutations of 5 come twice as
 * often as others. Hence PERMUTATION_ROUNDS_MANY below PERMUTATION_COUNT_SMALL; what each number
 * of rounds was found good for is what tests/unit/test_permutation.c checks.
 */
#ifndef PENSTOCK_LOADER_PERMUTATION_H
#define PENSTOCK_LOADER_PERMUTATION_H

#include <stdint.h>

enum {
    PERMUTATION_ROUNDS = 12,
    PERMUTATION_ROUNDS_MANY = 32,
    PERMUTATION_COUNT_SMALL = 4096,
};

#define PERMUTATION_COUNT_MAX ((uint64_t)1 << 40)

/* Plain values; copy freely. */
struct permutation {
    uint64_t count;       /* n */
    uint32_t left_sides;  /* a */
    uint32_t right_sides; /* b */
    uint32_t round_count;
    uint64_t round_keys[PERMUTATION_ROUNDS_MANY];
};

/* The permutation of [0, count), count <= PERMUTATION_COUNT_MAX, that belongs to the key. `purpose`
 * tells apart several permutations of one epoch. With count 0 there is nothing to ask for. */
struct permutation permutation_begin(uint64_t seed, uint64_t epoch, uint64_t purpose,
                                     uint64_t count);

/* Where `place` (< count) goes; in [0, count), no two places to the same. */
uint64_t permutation_at(const struct permutation *permutation, uint64_t place);

#endif /* PENSTOCK_LOADER_PERMUTATION_H */
