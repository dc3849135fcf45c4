#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loader/permutation.h"

static void check_is_permutation(uint64_t count, uint64_t epoch)
{
    struct permutation permutation = permutation_begin(11, epoch, 0, count);
    uint8_t *seen = calloc(count, 1);
    assert_non_null(seen);
    for (uint64_t place = 0; place < count; place++) {
        uint64_t value = permutation_at(&permutation, place);
        assert_true(value < count);
        assert_false(seen[value]);
        seen[value] = 1;
    }
    free(seen);
}

static void test_every_count_is_a_permutation(void **state)
{
    (void)state;
    for (uint64_t count = 1; count <= 600; count++) {
        check_is_permutation(count, count % 3);
    }
    const uint64_t counts[] = {4095, 4096, 4097, 10000, 65535, 65536, 65537, 99991, 1281167};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        check_is_permutation(counts[i], 5);
    }
}

static int compare_u64(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* Too large to look at all: no two of the places looked at may meet. */
static void test_large_counts_do_not_collide(void **state)
{
    (void)state;
    enum { LOOKED_AT = 200000 };
    const uint64_t counts[] = {((uint64_t)1 << 32) - 1, (uint64_t)1 << 32, ((uint64_t)1 << 33) + 7,
                               999999999989, PERMUTATION_COUNT_MAX};
    uint64_t *values = calloc(LOOKED_AT, sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct permutation permutation = permutation_begin(3, 1, 0, counts[i]);
        for (uint64_t k = 0; k < LOOKED_AT; k++) {
            uint64_t place = k < LOOKED_AT / 2 ? k : counts[i] - 1 - (k - LOOKED_AT / 2);
            values[k] = permutation_at(&permutation, place);
            assert_true(values[k] < counts[i]);
        }
        qsort(values, LOOKED_AT, sizeof *values, compare_u64);
        for (uint64_t k = 1; k < LOOKED_AT; k++) {
            assert_true(values[k] != values[k - 1]);
        }
    }
    free(values);
}

/* Standard deviations by which a chi-square sum lies from its mean. */
static double deviations(double chi_square, double freedom)
{
    return (chi_square - freedom) / sqrt(2 * freedom);
}

static void test_small_counts_reach_every_permutation_equally(void **state)
{
    (void)state;
    uint64_t factorial = 1;
    for (uint64_t count = 2; count <= 5; count++) {
        factorial *= count;
        uint32_t hits[3125] = {0}; /* 5^5: the values as digits */
        const double expected = 400;
        for (uint64_t epoch = 0; epoch < factorial * 400; epoch++) {
            struct permutation permutation = permutation_begin(42, epoch, 0, count);
            uint32_t code = 0;
            for (uint64_t place = 0; place < count; place++) {
                code = code * (uint32_t)count + (uint32_t)permutation_at(&permutation, place);
            }
            hits[code]++;
        }
        double chi_square = 0;
        uint64_t reached = 0;
        for (size_t i = 0; i < sizeof hits / sizeof *hits; i++) {
            if (hits[i] > 0) {
                reached++;
                chi_square += (hits[i] - expected) * (hits[i] - expected) / expected;
            }
        }
        assert_true(reached == factorial);
        assert_true(fabs(deviations(chi_square, (double)(factorial - 1))) < 5);
    }
}

/* Over many epochs: every sample at every place, and every distance between neighbours, equally
 * often. */
static void check_no_bias(uint64_t count)
{
    uint32_t *placed = calloc(count * count, sizeof *placed);
    uint32_t *distances = calloc(count, sizeof *distances);
    assert_non_null(placed);
    assert_non_null(distances);
    const double epoch_count = 200.0 * (double)count;
    for (uint64_t epoch = 0; epoch < 200 * count; epoch++) {
        struct permutation permutation = permutation_begin(7, epoch, 0, count);
        uint64_t before = 0;
        for (uint64_t place = 0; place < count; place++) {
            uint64_t value = permutation_at(&permutation, place);
            placed[place * count + value]++;
            distances[(value + count - before) % count] += place > 0;
            before = value;
        }
    }
    double chi_placed = 0, chi_distances = 0;
    for (uint64_t i = 0; i < count * count; i++) {
        chi_placed += (placed[i] - 200.0) * (placed[i] - 200.0) / 200.0;
    }
    for (uint64_t i = 1; i < count; i++) {
        double off = distances[i] - epoch_count;
        chi_distances += off * off / epoch_count;
    }
    double freedom = (double)(count - 1) * (double)(count - 1);
    assert_true(fabs(deviations(chi_placed, freedom)) < 5);
    assert_true(fabs(deviations(chi_distances, (double)(count - 2))) < 5);
    free(placed);
    free(distances);
}

static void test_no_bias(void **state)
{
    (void)state;
    const uint64_t counts[] = {7, 16, 50, 64, 101};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        check_no_bias(counts[i]);
    }
}

/* One epoch of a large set: each 64th of the places holds each 64th of the samples. */
static void test_large_count_is_spread(void **state)
{
    (void)state;
    enum { PARTS = 64 };
    const uint64_t count = 1281167;
    struct permutation permutation = permutation_begin(0, 0, 0, count);
    static uint32_t hits[PARTS][PARTS];
    uint32_t rising = 0;
    uint64_t before = 0;
    for (uint64_t place = 0; place < count; place++) {
        uint64_t value = permutation_at(&permutation, place);
        hits[place * PARTS / count][value * PARTS / count]++;
        rising += value > before;
        before = value;
    }
    double expected = (double)count / PARTS / PARTS, chi_square = 0;
    for (int i = 0; i < PARTS * PARTS; i++) {
        double off = hits[i / PARTS][i % PARTS] - expected;
        chi_square += off * off / expected;
    }
    assert_true(fabs(deviations(chi_square, (PARTS - 1) * (PARTS - 1))) < 5);
    assert_true(fabs(rising - (double)count / 2) < 5 * sqrt((double)count / 12));
}

static void test_keys_matter(void **state)
{
    (void)state;
    const uint64_t count = 1000;
    struct permutation permutations[] = {
        permutation_begin(0, 0, 0, count), permutation_begin(1, 0, 0, count),
        permutation_begin(0, 1, 0, count), permutation_begin(0, 0, 1, count)};
    for (int i = 1; i < 4; i++) {
        int same = 0;
        for (uint64_t place = 0; place < count; place++) {
            same +=
                permutation_at(&permutations[0], place) == permutation_at(&permutations[i], place);
        }
        assert_true(same < 10); /* one fixed point is expected */
    }
}

/* The bound is loose enough for a sanitized build on a busy machine; the figure is printed. */
static void test_speed(void **state)
{
    (void)state;
    enum { PLACES = 200000 };
    struct permutation permutation = permutation_begin(0, 0, 0, 1281167);
    uint64_t sum = 0;
    struct timespec begin, end;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    for (uint64_t place = 0; place < PLACES; place++) {
        sum += permutation_at(&permutation, place);
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    double elapsed_ns =
        (double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec);
    print_message("permutation_at: %.0f ns (sum %llu)\n", elapsed_ns / PLACES,
                  (unsigned long long)sum);
    assert_true(elapsed_ns / PLACES < 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_count_is_a_permutation),
        cmocka_unit_test(test_large_counts_do_not_collide),
        cmocka_unit_test(test_small_counts_reach_every_permutation_equally),
        cmocka_unit_test(test_no_bias),
        cmocka_unit_test(test_large_count_is_spread),
        cmocka_unit_test(test_keys_matter),
        cmocka_unit_test(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
