/* The walk against plan.c on a whole index: every position, batch, rank and window. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "loader/window_walk.h"

enum { SHARDS = 23 };

struct shards {
    uint64_t first[SHARDS + 1];
    bool is_known[SHARDS];
};

static int64_t count_of(void *context, uint32_t shard)
{
    struct shards *shards = context;
    return shards->is_known[shard] ? (int64_t)(shards->first[shard + 1] - shards->first[shard])
                                   : WALK_UNKNOWN;
}

static void make_shards(struct shards *shards, bool is_known)
{
    shards->first[0] = 0;
    for (uint32_t i = 0; i < SHARDS; i++) {
        shards->first[i + 1] = shards->first[i] + 1 + (i * 7 + 3) % 13;
        shards->is_known[i] = is_known;
    }
}

static struct plan_order make_order(const struct shards *shards, uint32_t window_shards)
{
    return (struct plan_order){.kind = PLAN_WINDOW,
                               .seed = 99,
                               .sample_count = shards->first[SHARDS],
                               .shard_count = SHARDS,
                               .window_shards = window_shards,
                               .shard_first = shards->first};
}

static void expect_place(const struct shards *shards, const struct plan_epoch *epoch,
                         const struct window_walk *walk, uint64_t position)
{
    struct plan_place place = window_walk_at(walk, position);
    assert_int_equal(shards->first[place.shard] + place.position, plan_index(epoch, position));
    struct plan_window window = window_walk_window(walk, position);
    struct plan_window wanted = plan_epoch_window(epoch, position);
    assert_int_equal(window.ordinal, wanted.ordinal);
    assert_int_equal(window.position_first, wanted.position_first);
    assert_int_equal(window.sample_count, wanted.sample_count);
}

/* From every position on, told the window it lies in and nothing before. */
static void test_positions_and_resumes(void **state)
{
    (void)state;
    struct shards shards;
    make_shards(&shards, true);
    for (uint32_t window_shards = 1; window_shards <= SHARDS + 2; window_shards += 3) {
        struct plan_order order = make_order(&shards, window_shards);
        struct window_walk *walk = window_walk_create(&order, count_of, &shards);
        for (uint64_t number = 0; number < 3; number++) {
            struct plan_epoch *epoch = plan_epoch_create(&order, number);
            for (uint64_t start = 0; start < order.sample_count; start++) {
                struct plan_window window = plan_epoch_window(epoch, start);
                window_walk_start(walk, number, window.ordinal, window.position_first);
                for (uint64_t at = start; at < order.sample_count; at += 1 + at % 3) {
                    assert_int_equal(window_walk_reach(walk, at), WALK_READY);
                    expect_place(&shards, epoch, walk, at);
                    window_walk_forget(walk, at);
                }
                assert_int_equal(window_walk_reach(walk, order.sample_count), WALK_OVER);
                assert_true(window_walk_is_complete(walk));
                assert_int_equal(window_walk_end(walk), order.sample_count);
            }
            plan_epoch_destroy(epoch);
        }
        window_walk_destroy(walk);
    }
}

static void expect_batches(const struct plan_order *order, struct window_walk *walk,
                           const struct plan_cut *cut, bool is_count_known)
{
    window_walk_start(walk, 1, 0, 0);
    struct plan_cut rest = *cut;
    rest.sample_count = is_count_known ? order->sample_count : WALK_UNKNOWN_COUNT;
    uint64_t count = plan_batch_count(cut);
    for (uint64_t number = 0; number < count; number++) {
        for (uint32_t rank = 0; rank < cut->world; rank++) {
            struct walk_batch batch;
            assert_int_equal(window_walk_batch(walk, &rest, rank, &batch), WALK_READY);
            struct plan_slice wanted = plan_slice(cut, number, rank);
            assert_int_equal(batch.slice.first, wanted.first);
            assert_int_equal(batch.slice.count, wanted.count);
            assert_int_equal(batch.slice.padded_count, wanted.padded_count);
            assert_int_equal(batch.is_last, number + 1 == count);
            assert_int_equal(batch.next_position, plan_position_after(cut, number));
        }
        rest.start = plan_position_after(cut, number);
        window_walk_forget(walk, rest.start);
    }
    struct walk_batch batch;
    assert_int_equal(window_walk_batch(walk, &rest, 0, &batch), WALK_OVER);
}

static void test_batches(void **state)
{
    (void)state;
    struct shards shards;
    make_shards(&shards, true);
    for (uint32_t window_shards = 1; window_shards < SHARDS; window_shards += 5) {
        struct plan_order order = make_order(&shards, window_shards);
        struct window_walk *walk = window_walk_create(&order, count_of, &shards);
        for (uint32_t world = 1; world <= 8; world++) {
            for (uint64_t size = world; size < 200; size += 7) {
                for (enum plan_tail tail = PLAN_DROP; tail <= PLAN_PAD; tail++) {
                    struct plan_cut cut = {order.sample_count, 0, size, world, tail};
                    expect_batches(&order, walk, &cut, false);
                    expect_batches(&order, walk, &cut, true);
                }
            }
        }
        window_walk_destroy(walk);
    }
}

/* Shards become known in order of the epoch: what can be told at each moment, and no more. */
static void test_waiting(void **state)
{
    (void)state;
    struct shards shards;
    make_shards(&shards, false);
    struct plan_order order = make_order(&shards, 4);
    struct plan_epoch *epoch = plan_epoch_create(&order, 0);
    struct window_walk *walk = window_walk_create(&order, count_of, &shards);
    window_walk_start(walk, 0, 0, 0);
    uint64_t position = 0;
    for (uint32_t place = 0; place < SHARDS; place++) {
        uint32_t taken = 0;
        while (window_walk_reach(walk, position) == WALK_READY) {
            expect_place(&shards, epoch, walk, position);
            position++;
            taken++;
        }
        assert_int_equal(window_walk_reach(walk, position), WALK_WAIT);
        struct plan_window next = window_walk_next(walk);
        assert_in_range(place, next.shard_first, next.shard_first + next.shard_count - 1);
        assert_true(taken > 0 || place != next.shard_first || place == 0);
        struct walk_batch batch;
        struct plan_cut cut = {WALK_UNKNOWN_COUNT, position, 5, 2, PLAN_EVEN};
        assert_int_equal(window_walk_batch(walk, &cut, 1, &batch), WALK_WAIT);
        shards.is_known[plan_shard(&order, 0, place)] = true;
    }
    while (window_walk_reach(walk, position) == WALK_READY) {
        expect_place(&shards, epoch, walk, position++);
    }
    assert_int_equal(position, order.sample_count);
    window_walk_destroy(walk);
    plan_epoch_destroy(epoch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_positions_and_resumes),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
