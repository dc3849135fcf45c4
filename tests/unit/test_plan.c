#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "loader/plan.h"

/* ---- Orders ---------------------------------------------------------------------------------- */

enum { SHARDS = 40 };

/* Shards of 0 .. 12 samples, the same every time. */
static uint64_t make_shards(uint64_t shard_first[SHARDS + 1])
{
    uint64_t total = 0;
    for (int i = 0; i < SHARDS; i++) {
        shard_first[i] = total;
        total += (uint64_t)(i * 7 + 3) % 13;
    }
    shard_first[SHARDS] = total;
    return total;
}

static void check_each_once(const struct plan_order *order, uint64_t epoch_number)
{
    struct plan_epoch *epoch = plan_epoch_create(order, epoch_number);
    assert_non_null(epoch);
    uint8_t *seen = calloc(order->sample_count + 1, 1);
    assert_non_null(seen);
    for (uint64_t position = 0; position < order->sample_count; position++) {
        uint64_t index = plan_index(epoch, position);
        assert_true(index < order->sample_count);
        assert_false(seen[index]);
        seen[index] = 1;
    }
    free(seen);
    plan_epoch_destroy(epoch);
}

static void test_orders_hold_each_sample_once(void **state)
{
    (void)state;
    uint64_t shard_first[SHARDS + 1];
    uint64_t total = make_shards(shard_first);
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        for (uint64_t count = 0; count < 70; count++) {
            check_each_once(&(struct plan_order){PLAN_SEQUENTIAL, 5, count, 0, 0, NULL}, epoch);
            check_each_once(&(struct plan_order){PLAN_FULL, 5, count, 0, 0, NULL}, epoch);
        }
        for (uint32_t window = 1; window <= SHARDS + 2; window++) {
            check_each_once(
                &(struct plan_order){PLAN_WINDOW, 5, total, SHARDS, window, shard_first}, epoch);
        }
    }
}

static void test_sequential_is_canonical(void **state)
{
    (void)state;
    struct plan_epoch *epoch =
        plan_epoch_create(&(struct plan_order){PLAN_SEQUENTIAL, 9, 100, 0, 0, NULL}, 4);
    assert_non_null(epoch);
    for (uint64_t position = 0; position < 100; position++) {
        assert_true(plan_index(epoch, position) == position);
    }
    plan_epoch_destroy(epoch);
}

static void check_window_sizes(uint64_t epoch, uint32_t window_shards, const uint32_t *sizes,
                               size_t size_count)
{
    struct plan_order order = {
        .kind = PLAN_WINDOW, .seed = 1, .shard_count = SHARDS, .window_shards = window_shards};
    uint32_t first = 0;
    for (size_t i = 0; i < size_count; i++) {
        struct plan_window window = plan_window(&order, epoch, i);
        assert_int_equal(window.shard_count, sizes[i]);
        assert_int_equal(window.shard_first, first);
        first += sizes[i];
    }
    assert_int_equal(first, SHARDS);
    assert_int_equal(plan_window(&order, epoch, size_count).shard_count, 0);
    assert_int_equal(plan_window(&order, epoch, UINT64_MAX).shard_count, 0);
}

static void test_window_sizes(void **state)
{
    (void)state;
    check_window_sizes(0, 16, (const uint32_t[]){1, 2, 4, 8, 16, 9}, 6);
    check_window_sizes(1, 16, (const uint32_t[]){16, 16, 8}, 3);
    check_window_sizes(0, 10, (const uint32_t[]){1, 2, 4, 8, 10, 10, 5}, 7);
    check_window_sizes(2, 10, (const uint32_t[]){10, 10, 10, 10}, 4);
    check_window_sizes(0, 100, (const uint32_t[]){1, 2, 4, 8, 16, 9}, 6);
    check_window_sizes(1, 100, (const uint32_t[]){40}, 1);
    check_window_sizes(
        0, 2, (const uint32_t[]){1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1},
        21);
}

static uint32_t shard_of(const uint64_t *shard_first, uint64_t index)
{
    uint32_t shard = 0;
    while (index >= shard_first[shard + 1]) {
        shard++;
    }
    return shard;
}

/* What can be said with one window's counts alone is what the whole index says. */
static void check_windows_agree(uint64_t epoch_number, uint32_t window_shards)
{
    uint64_t shard_first[SHARDS + 1];
    uint64_t total = make_shards(shard_first);
    struct plan_order order = {PLAN_WINDOW, 77, total, SHARDS, window_shards, shard_first};
    struct plan_order blind = order;
    blind.sample_count = 0;
    blind.shard_first = NULL;
    struct plan_epoch *epoch = plan_epoch_create(&order, epoch_number);
    assert_non_null(epoch);
    uint64_t position = 0;
    for (uint64_t ordinal = 0;; ordinal++) {
        struct plan_window window = plan_window(&blind, epoch_number, ordinal);
        if (window.shard_count == 0) {
            break;
        }
        uint64_t counts[SHARDS], sum = 0;
        for (uint32_t i = 0; i < window.shard_count; i++) {
            uint32_t shard = plan_shard(&blind, epoch_number, window.shard_first + i);
            counts[i] = shard_first[shard + 1] - shard_first[shard];
            sum += counts[i];
        }
        for (uint64_t offset = 0; offset < sum; offset++, position++) {
            struct plan_place place =
                plan_window_sample(&blind, epoch_number, &window, counts, offset);
            uint64_t index = plan_index(epoch, position);
            assert_int_equal(place.shard, shard_of(shard_first, index));
            assert_true(shard_first[place.shard] + place.position == index);
            struct plan_window found = plan_epoch_window(epoch, position);
            assert_true(found.ordinal == ordinal && found.sample_count == sum);
            assert_true(found.position_first == position - offset);
        }
    }
    assert_true(position == total);
    plan_epoch_destroy(epoch);
}

static void test_windows_need_only_their_own_shards(void **state)
{
    (void)state;
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        check_windows_agree(epoch, 1);
        check_windows_agree(epoch, 5);
        check_windows_agree(epoch, 16);
        check_windows_agree(epoch, 64);
    }
}

/* ---- Golden orders --------------------------------------------------------------------------- */

static uint32_t crc32_of_positions(const struct plan_order *order, uint64_t epoch_number)
{
    struct plan_epoch *epoch = plan_epoch_create(order, epoch_number);
    assert_non_null(epoch);
    uint32_t crc = 0xffffffff;
    for (uint64_t position = 0; position < 1000 && position < order->sample_count; position++) {
        uint64_t index = plan_index(epoch, position);
        for (int byte = 0; byte < 8; byte++) {
            crc ^= (uint8_t)(index >> 8 * byte);
            for (int bit = 0; bit < 8; bit++) {
                crc = crc >> 1 ^ (0xedb88320 & (0 - (crc & 1)));
            }
        }
    }
    plan_epoch_destroy(epoch);
    return ~crc;
}

/* These say that an order saved in a checkpoint is still the order of this version. A change
 * here breaks every run that resumes: do not adapt the numbers, mend the code. */
static void test_orders_never_change(void **state)
{
    (void)state;
    uint64_t shard_first[SHARDS + 1];
    uint64_t total = make_shards(shard_first);
    static const struct {
        uint64_t seed, epoch, sample_count;
        uint32_t crc;
    } full[] = {
        {0, 0, 1281167, 0xaad92752},
        {0, 1, 1281167, 0x7aaf4e55},
        {1, 0, 1281167, 0x0580c7c4},
        {0x123456789abcdef0, 89, 50000, 0x008ea806},
        {0, 0, (uint64_t)1 << 40, 0x0f7f7b68},
        {3, 2, 1000, 0x81a6d0ba},
        {3, 2, 10, 0x23fbdc7d},
    };
    for (size_t i = 0; i < sizeof full / sizeof *full; i++) {
        struct plan_order order = {PLAN_FULL, full[i].seed, full[i].sample_count, 0, 0, NULL};
        assert_int_equal(crc32_of_positions(&order, full[i].epoch), full[i].crc);
    }
    static const struct {
        uint64_t seed, epoch;
        uint32_t window_shards, crc;
    } window[] = {{0, 0, 16, 0xc4a966cf}, {0, 1, 16, 0x44c1f053}, {9, 0, 5, 0x0c4c999c}};
    for (size_t i = 0; i < sizeof window / sizeof *window; i++) {
        struct plan_order order = {PLAN_WINDOW, window[i].seed,          total,
                                   SHARDS,      window[i].window_shards, shard_first};
        assert_int_equal(crc32_of_positions(&order, window[i].epoch), window[i].crc);
    }
}

/* ---- Cutting --------------------------------------------------------------------------------- */

/* Check one global batch over all ranks; hand the position after it back. */
static uint64_t check_batch(const struct plan_cut *cut, uint64_t batch, uint64_t position)
{
    uint64_t left = cut->sample_count - position;
    uint64_t count = left < cut->batch ? left : cut->batch, begin = position;
    uint32_t least = UINT32_MAX, most = 0;
    for (uint32_t rank = 0; rank < cut->world; rank++) {
        struct plan_slice slice = plan_slice(cut, batch, rank);
        uint32_t places = slice.count + slice.padded_count;
        assert_true(slice.first == position);
        assert_true(places >= 1);
        position += slice.count;
        least = slice.count < least ? slice.count : least;
        most = slice.count > most ? slice.count : most;
        uint64_t full = cut->batch * (rank + 1) / cut->world - cut->batch * rank / cut->world;
        if (count == cut->batch || cut->tail == PLAN_PAD) {
            assert_int_equal(places, full);
        } else {
            assert_int_equal(slice.padded_count, slice.count == 0);
        }
        if (count == cut->batch) {
            assert_int_equal(slice.padded_count, 0);
        }
    }
    assert_true(position == begin + count);
    assert_true(most - least <= 1 ||
                (cut->tail == PLAN_PAD && cut->batch % cut->world != 0 && most - least <= 2));
    assert_true(plan_position_after(cut, batch) == position);
    return position;
}

static void check_cut(const struct plan_cut *cut)
{
    assert_true(plan_cut_is_valid(cut));
    uint64_t batch_count = plan_batch_count(cut), position = cut->start;
    for (uint64_t batch = 0; batch < batch_count; batch++) {
        position = check_batch(cut, batch, position);
    }
    uint64_t dropped = cut->tail == PLAN_DROP ? (cut->sample_count - cut->start) % cut->batch : 0;
    assert_true(position == cut->sample_count - dropped);
}

static void test_every_small_cut(void **state)
{
    (void)state;
    for (uint64_t count = 0; count <= 60; count++) {
        for (uint32_t world = 1; world <= 8; world++) {
            for (uint64_t batch = world; batch <= 24; batch++) {
                for (uint64_t start = 0; start <= count; start += 1 + count / 7) {
                    for (enum plan_tail tail = PLAN_DROP; tail <= PLAN_PAD; tail++) {
                        check_cut(&(struct plan_cut){count, start, batch, world, tail});
                    }
                }
            }
        }
    }
}

/* Stop after any batch and go on with another batch and world: nothing lost, nothing twice. */
static void test_cut_anew(void **state)
{
    (void)state;
    const uint64_t count = 173;
    const uint32_t worlds[] = {8, 6, 16, 1, 3};
    for (uint64_t stop = 0; stop < 5; stop++) {
        uint64_t position = 0;
        for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++) {
            struct plan_cut cut = {count, position, 16 + i % 2, worlds[i], PLAN_EVEN};
            uint64_t batch_count = plan_batch_count(&cut);
            for (uint64_t batch = 0; batch < batch_count && (batch <= stop || i == 4); batch++) {
                position = check_batch(&cut, batch, position);
            }
        }
        assert_true(position == count);
    }
}

static void test_large_numbers_do_not_overflow(void **state)
{
    (void)state;
    struct plan_cut cut = {PLAN_SAMPLES_MAX, PLAN_SAMPLES_MAX - UINT32_MAX - 5, UINT32_MAX,
                           UINT32_MAX, PLAN_PAD};
    assert_true(plan_batch_count(&cut) == 2);
    struct plan_slice slice = plan_slice(&cut, 0, UINT32_MAX - 1);
    assert_true(slice.first == PLAN_SAMPLES_MAX - 6 && slice.count == 1);
    slice = plan_slice(&cut, 1, UINT32_MAX - 1);
    assert_true(slice.count == 1 && slice.first == PLAN_SAMPLES_MAX - 1);
}

static void test_invalid_cuts(void **state)
{
    (void)state;
    assert_true(plan_cut_is_valid(&(struct plan_cut){10, 10, 1, 1, PLAN_EVEN}));
    assert_false(plan_cut_is_valid(&(struct plan_cut){10, 11, 1, 1, PLAN_EVEN}));
    assert_false(plan_cut_is_valid(&(struct plan_cut){10, 0, 0, 1, PLAN_EVEN}));
    assert_false(plan_cut_is_valid(&(struct plan_cut){10, 0, 4, 0, PLAN_EVEN}));
    assert_false(plan_cut_is_valid(&(struct plan_cut){10, 0, 4, 5, PLAN_EVEN}));
    assert_false(plan_cut_is_valid(&(struct plan_cut){10, 0, (uint64_t)1 << 32, 5, PLAN_EVEN}));
    assert_false(plan_cut_is_valid(&(struct plan_cut){10, 0, 4, 2, (enum plan_tail)0}));
    assert_false(plan_cut_is_valid(&(struct plan_cut){UINT64_MAX, 0, 4, 2, PLAN_PAD}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders_hold_each_sample_once),
        cmocka_unit_test(test_sequential_is_canonical),
        cmocka_unit_test(test_window_sizes),
        cmocka_unit_test(test_windows_need_only_their_own_shards),
        cmocka_unit_test(test_orders_never_change),
        cmocka_unit_test(test_every_small_cut),
        cmocka_unit_test(test_cut_anew),
        cmocka_unit_test(test_large_numbers_do_not_overflow),
        cmocka_unit_test(test_invalid_cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
