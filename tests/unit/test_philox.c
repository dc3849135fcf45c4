#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "decode/philox.h"

/* The known answers that the authors publish with Random123 (kat_vectors). */
static void test_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], random[4];
    } answers[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        uint32_t random[4];
        philox4x32_10(answers[i].counter, answers[i].key, random);
        assert_memory_equal(random, answers[i].random, sizeof random);
    }
}

static void test_stream_is_the_documented_mapping(void **state)
{
    (void)state;
    uint64_t seed = 0x1122334455667788, epoch = 0x99aabbcc, sample_id = 0x0102030405060708;
    struct philox_stream stream = philox_stream_begin(seed, epoch, sample_id, 0xfffe);
    for (uint32_t block = 0; block < 3; block++) {
        const uint32_t counter[4] = {0xfffe0000u | block, 0x99aabbcc, 0x05060708, 0x01020304};
        const uint32_t key[2] = {0x55667788, 0x11223344};
        uint32_t random[4];
        philox4x32_10(counter, key, random);
        assert_int_equal(philox_u32(&stream), random[0]);
        uint64_t pair = philox_u64(&stream);
        assert_true(pair == (random[1] | (uint64_t)random[2] << 32));
        assert_int_equal(philox_u32(&stream), random[3]);
    }
}

static void test_streams_are_distinct(void **state)
{
    (void)state;
    enum { COUNT = 11 };
    const uint64_t big = (uint64_t)1 << 32;
    struct philox_stream streams[COUNT] = {
        philox_stream_begin(0, 0, 0, 0),   philox_stream_begin(1, 0, 0, 0),
        philox_stream_begin(big, 0, 0, 0), philox_stream_begin(0, 1, 0, 0),
        philox_stream_begin(0, 2, 0, 0),   philox_stream_begin(0, 0, 1, 0),
        philox_stream_begin(0, 0, big, 0), philox_stream_begin(0, 0, 0, 1),
        philox_stream_begin(0, 0, 0, 2),   philox_stream_begin(0, 0, 0, PHILOX_OPERATION_PLAN),
        philox_stream_begin(1, big, 0, 0),
    };
    uint64_t draws[COUNT];
    for (int i = 0; i < COUNT; i++) {
        draws[i] = philox_u64(&streams[i]);
        for (int j = 0; j < i; j++) {
            assert_true(draws[i] != draws[j]);
        }
    }
}

static void test_unit(void **state)
{
    (void)state;
    struct philox_stream stream = philox_stream_begin(7, 0, 0, 3);
    double sum = 0, square_sum = 0;
    enum { COUNT = 100000 };
    for (int i = 0; i < COUNT; i++) {
        double unit = philox_unit(&stream);
        assert_true(unit >= 0 && unit < 1);
        sum += unit;
        square_sum += unit * unit;
    }
    double mean = sum / COUNT;
    assert_true(fabs(mean - 0.5) < 0.005);
    assert_true(fabs(square_sum / COUNT - mean * mean - 1.0 / 12) < 0.002);
}

static void test_below(void **state)
{
    (void)state;
    struct philox_stream stream = philox_stream_begin(7, 0, 0, 4);
    uint32_t hits[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t draw = philox_below(&stream, 7);
        assert_true(draw < 7);
        hits[draw]++;
    }
    for (int i = 0; i < 7; i++) {
        assert_in_range(hits[i], 9600, 10400);
    }
    for (int i = 0; i < 100; i++) {
        assert_true(philox_below(&stream, 1) == 0);
        uint64_t most = ((uint64_t)1 << 63) + 1; /* half of all draws are dropped */
        assert_true(philox_below(&stream, most) < most);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_stream_is_the_documented_mapping),
        cmocka_unit_test(test_streams_are_distinct),
        cmocka_unit_test(test_unit),
        cmocka_unit_test(test_below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
