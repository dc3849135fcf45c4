/* The share of the last seconds that a trainer waited: at the start, sliding, and lied to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loader/wait_window.h"

static const uint64_t SECOND_NS = 1000000000;
static const uint64_t OPENED_NS = 1000 * 1000000000ull;

static uint64_t at(double seconds)
{
    return OPENED_NS + (uint64_t)(seconds * 1e9);
}

static void before_the_window_is_full_it_begins_at_the_opening(void **state)
{
    (void)state;
    struct wait_window window = {.opened_ns = OPENED_NS};
    assert_float_equal(wait_window_ratio(&window, at(0), 0), 0, 0);
    assert_float_equal(wait_window_ratio(&window, at(2), SECOND_NS), 0.5, 1e-9);
    wait_window_mark(&window, at(2), SECOND_NS);
    assert_float_equal(wait_window_ratio(&window, at(4), SECOND_NS), 0.25, 1e-9);
}

static void what_lies_before_the_window_is_forgotten(void **state)
{
    (void)state;
    struct wait_window window = {.opened_ns = OPENED_NS};
    /* It waited all the time for a minute, and then no more. */
    for (int second = 1; second <= 60; second++) {
        wait_window_mark(&window, at(second), (uint64_t)second * SECOND_NS);
    }
    assert_float_equal(wait_window_ratio(&window, at(60), 60 * SECOND_NS), 1, 1e-9);
    for (int second = 61; second <= 65; second++) {
        wait_window_mark(&window, at(second), 60 * SECOND_NS);
    }
    assert_float_equal(wait_window_ratio(&window, at(66), 60 * SECOND_NS), 0.4, 1e-9);
    for (int second = 66; second <= 70; second++) {
        wait_window_mark(&window, at(second), 60 * SECOND_NS);
    }
    assert_float_equal(wait_window_ratio(&window, at(70.5), 60 * SECOND_NS), 0, 0);
}

static void any_word_of_the_trainer_gives_a_share(void **state)
{
    (void)state;
    const uint64_t words[] = {0, 1, UINT64_MAX, 5 * SECOND_NS, UINT64_MAX / 2};
    enum { WORDS = sizeof words / sizeof words[0] };
    struct wait_window window = {.opened_ns = OPENED_NS};
    for (unsigned i = 0; i < 100; i++) {
        wait_window_mark(&window, at(i), words[i * 7 % WORDS]);
        double ratio = wait_window_ratio(&window, at(i), words[i * 3 % WORDS]);
        assert_true(ratio >= 0 && ratio <= 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_the_window_is_full_it_begins_at_the_opening),
        cmocka_unit_test(what_lies_before_the_window_is_forgotten),
        cmocka_unit_test(any_word_of_the_trainer_gives_a_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
