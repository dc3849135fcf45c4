#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loader/tar.h"
#include "tests/tools/tar_maker.h"

enum { MEMBERS_MAX = 16 };

/* What reading a whole archive gave. */
struct result {
    struct tar_member members[MEMBERS_MAX];
    size_t count;
    const char *problem; /* NULL: read to its end */
    uint64_t problem_offset;
    bool is_end_missing;
};

static struct result *read_archive(const struct tar_maker *maker)
{
    struct result *result = calloc(1, sizeof *result);
    struct tar *tar = malloc(sizeof *tar);
    assert_non_null(result);
    assert_non_null(tar);
    tar_init(tar, maker->size_bytes);
    uint64_t at;
    size_t length;
    while (tar_want(tar, &at, &length)) {
        assert_true(length >= 1 && length <= TAR_EXTENDED_BYTES_MAX);
        assert_true(at <= maker->size_bytes && length <= maker->size_bytes - at);
        assert_true(result->count < MEMBERS_MAX);
        /* A copy of exactly this size, so that a sanitizer sees a read past its end. */
        uint8_t *bytes = malloc(length);
        assert_non_null(bytes);
        memcpy(bytes, maker->bytes + at, length);
        struct tar_problem problem = {0};
        switch (tar_feed(tar, bytes, &result->members[result->count], &problem)) {
        case TAR_MORE: break;
        case TAR_MEMBER: result->count++; break;
        case TAR_BAD:
            result->problem = problem.text;
            result->problem_offset = problem.offset_bytes;
            break;
        }
        free(bytes);
    }
    result->is_end_missing = tar->is_end_missing;
    free(tar);
    return result;
}

/* Read, compare the problem by a part of its text and its offset, clear. */
static void expect_problem(struct tar_maker *maker, const char *part, uint64_t offset)
{
    struct result *result = read_archive(maker);
    if (result->problem == NULL) {
        fail_msg("no problem found; expected \"%s\"", part);
    }
    if (strstr(result->problem, part) == NULL) {
        fail_msg("\"%s\" does not speak of \"%s\"", result->problem, part);
    }
    assert_int_equal(result->problem_offset, offset);
    free(result);
    maker_clear(maker);
}

static struct result *expect_good(struct tar_maker *maker, size_t count)
{
    struct result *result = read_archive(maker);
    if (result->problem != NULL) {
        fail_msg("%s", result->problem);
    }
    assert_int_equal(result->count, count);
    maker_clear(maker);
    return result;
}

static void members_have_names_sizes_and_places(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    maker_header(&maker, "d/", '5', 0);
    maker_file(&maker, "d/a.jpg", "0123456789");
    maker_file(&maker, "d/empty.txt", "");
    maker_file(&maker, "d/b.jpg", "x");
    maker_end(&maker);
    struct result *result = expect_good(&maker, 4);
    assert_false(result->members[0].is_file);
    assert_true(result->members[1].is_file);
    assert_string_equal(result->members[1].name, "d/a.jpg");
    assert_int_equal(result->members[1].header_offset_bytes, 512);
    assert_int_equal(result->members[1].data_offset_bytes, 1024);
    assert_int_equal(result->members[1].size_bytes, 10);
    assert_int_equal(result->members[2].size_bytes, 0);
    assert_int_equal(result->members[3].data_offset_bytes, 2560);
    assert_false(result->is_end_missing);
    free(result);
}

static void prefix_is_joined_only_for_posix(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    size_t at = maker_header(&maker, "n.jpg", '0', 0);
    memcpy(maker.bytes + at + 345, "some/prefix", 11);
    maker_sum(&maker, at);
    at = maker_header(&maker, "m.jpg", '0', 0);
    memcpy(maker.bytes + at + 257, "ustar  ", 8); /* GNU: times lie where the prefix would */
    memcpy(maker.bytes + at + 345, "13141516", 8);
    maker_sum(&maker, at);
    maker_end(&maker);
    struct result *result = expect_good(&maker, 2);
    assert_string_equal(result->members[0].name, "some/prefix/n.jpg");
    assert_string_equal(result->members[1].name, "m.jpg");
    free(result);
}

static void fields_without_terminator_are_read(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    char name[101];
    memset(name, 'n', 100);
    name[100] = '\0';
    size_t at = maker_header(&maker, name, '0', 5);
    memset(maker.bytes + at + 345, 'p', 155);
    memcpy(maker.bytes + at + 124, "000000000005", 12);
    maker_sum(&maker, at);
    maker_data(&maker, "12345", 5);
    maker_end(&maker);
    struct result *result = expect_good(&maker, 1);
    assert_int_equal(strlen(result->members[0].name), 256);
    assert_int_equal(result->members[0].size_bytes, 5);
    free(result);
}

static void v7_headers_are_read(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    size_t at = maker_header(&maker, "old/", '\0', 7777); /* a directory: the size is no data */
    memset(maker.bytes + at + 257, 0, 8);
    maker_sum(&maker, at);
    at = maker_header(&maker, "old/a.jpg", '\0', 3);
    memset(maker.bytes + at + 257, 0, 8);
    maker_sum(&maker, at);
    maker_data(&maker, "abc", 3);
    maker_end(&maker);
    struct result *result = expect_good(&maker, 2);
    assert_false(result->members[0].is_file);
    assert_true(result->members[1].is_file);
    assert_int_equal(result->members[1].data_offset_bytes, 1024);
    free(result);
}

static void links_and_devices_have_no_data(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    for (char type = '1'; type <= '6'; type++) {
        maker_header(&maker, "../odd", type, 100);
    }
    maker_file(&maker, "a.jpg", "abc");
    maker_end(&maker);
    struct result *result = expect_good(&maker, 7);
    for (size_t i = 0; i < 6; i++) {
        assert_false(result->members[i].is_file);
    }
    assert_true(result->members[6].is_file);
    free(result);
}

static void unknown_types_are_skipped_with_their_data(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    maker_header(&maker, "label", 'V', 0);
    maker_header(&maker, "odd", 'Q', 700);
    maker_grow(&maker, 1024);
    maker_file(&maker, "a.jpg", "abc");
    maker_end(&maker);
    struct result *result = expect_good(&maker, 3);
    assert_false(result->members[1].is_file);
    assert_string_equal(result->members[2].name, "a.jpg");
    free(result);
}

static void pax_sets_name_and_size(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    char records[3000], value[1500];
    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    size_t length = maker_pax_record(records, sizeof records, "mtime", "1700000000.25");
    length += maker_pax_record(records + length, sizeof records - length, "path", value);
    length += maker_pax_record(records + length, sizeof records - length, "hdrcharset", "BINARY");
    length += maker_pax_record(records + length, sizeof records - length, "size", "4");
    maker_extended(&maker, 'x', records, length);
    maker_header(&maker, "short", '0', 0);
    maker_data(&maker, "abcd", 4);
    maker_file(&maker, "plain.jpg", "z"); /* the pax header holds for one member only */
    maker_end(&maker);
    struct result *result = expect_good(&maker, 2);
    assert_string_equal(result->members[0].name, value);
    assert_int_equal(result->members[0].size_bytes, 4);
    assert_int_equal(result->members[0].header_offset_bytes, 0);
    assert_string_equal(result->members[1].name, "plain.jpg");
    assert_int_equal(result->members[1].size_bytes, 1);
    free(result);
}

static void global_pax_holds_until_overridden(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    char record[100];
    size_t length = maker_pax_record(record, sizeof record, "path", "all.jpg");
    maker_extended(&maker, 'g', record, length);
    maker_file(&maker, "first.jpg", "1");
    length = maker_pax_record(record, sizeof record, "path", "own.jpg");
    maker_extended(&maker, 'x', record, length);
    maker_file(&maker, "second.jpg", "2");
    maker_end(&maker);
    struct result *result = expect_good(&maker, 2);
    assert_string_equal(result->members[0].name, "all.jpg");
    assert_string_equal(result->members[1].name, "own.jpg");
    free(result);
}

static void damaged_pax_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *part;
    } cases[] = {
        {"x", "damaged"},
        {"12", "damaged"},
        {"99 path=a\n", "damaged"},
        {"4 a\n", "damaged"},
        {"3 \n", "damaged"},
        {"0 path=a\n", "damaged"},
        {"10 path=ab", "damaged"},
        {"99999999999999999999 path=a\n", "damaged"},
        {"10 size=x\n", "not a number"},
        {"11 size=-1\n", "negative"},
        {"29 size=99999999999999999999\n", "absurd"},
        {"22 GNU.sparse.major=1\n", "sparse"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tar_maker maker = {0};
        maker_extended(&maker, 'x', cases[i].bytes, strlen(cases[i].bytes));
        maker_file(&maker, "a.jpg", "1");
        maker_end(&maker);
        expect_problem(&maker, cases[i].part, 0);
    }
    struct tar_maker maker = {0};
    maker_extended(&maker, 'x', "12 path=a\0b\n", 12);
    maker_file(&maker, "a.jpg", "1");
    expect_problem(&maker, "zero byte", 0);
}

static void gnu_long_names_are_read(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    char name[601];
    memset(name, 'y', 600);
    name[600] = '\0';
    maker_extended(&maker, 'K', "a link name", 12);
    maker_extended(&maker, 'L', name, sizeof name);
    maker_file(&maker, "cut", "abc");
    maker_end(&maker);
    struct result *result = expect_good(&maker, 1);
    assert_string_equal(result->members[0].name, name);
    free(result);

    char long_name[5000];
    memset(long_name, 'y', sizeof long_name);
    maker_extended(&maker, 'L', long_name, sizeof long_name);
    maker_file(&maker, "cut", "abc");
    expect_problem(&maker, "longer than 4095", 0);
}

static void base_256_sizes(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    size_t at = maker_header(&maker, "a.jpg", '0', 0);
    memcpy(maker.bytes + at + 124, "\x80\0\0\0\0\0\0\0\0\0\0\x03", 12);
    maker_sum(&maker, at);
    maker_data(&maker, "abc", 3);
    maker_end(&maker);
    struct result *result = expect_good(&maker, 1);
    assert_int_equal(result->members[0].size_bytes, 3);
    free(result);

    at = maker_header(&maker, "a.jpg", '0', 0);
    memset(maker.bytes + at + 124, 0xff, 12);
    maker_sum(&maker, at);
    expect_problem(&maker, "negative", 0);
    at = maker_header(&maker, "a.jpg", '0', 0);
    memset(maker.bytes + at + 124, 0x80, 12);
    maker_sum(&maker, at);
    expect_problem(&maker, "absurd", 0);
    at = maker_header(&maker, "a.jpg", '0', 0);
    memcpy(maker.bytes + at + 124, "\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12);
    maker_sum(&maker, at);
    expect_problem(&maker, "ends in the middle", 0);
}

static void bad_numbers_and_checksums_are_refused(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    size_t at = maker_header(&maker, "a.jpg", '0', 0);
    memcpy(maker.bytes + at + 124, "-0000000001", 12);
    maker_sum(&maker, at);
    expect_problem(&maker, "not a number", 0);

    maker_file(&maker, "good.jpg", "abc");
    at = maker_header(&maker, "a.jpg", '0', 0);
    maker.bytes[at] ^= 1;
    expect_problem(&maker, "checksum", 1024);

    memcpy(maker_grow(&maker, 600), "just some text, and no tar", 26);
    expect_problem(&maker, "checksum", 0);
}

static void signed_checksums_are_accepted(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    size_t at = maker_header(&maker, "\xc3\xa9.jpg", '0', 0);
    int sum = 8 * ' ';
    for (size_t i = 0; i < 512; i++) {
        sum += i >= 148 && i < 156 ? 0 : (int8_t)maker.bytes[at + i];
    }
    snprintf((char *)maker.bytes + at + 148, 8, "%06o", (unsigned)sum);
    maker_end(&maker);
    free(expect_good(&maker, 1));
}

static void cut_archives(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    maker_file(&maker, "a.jpg", "abc");
    maker_header(&maker, "b.jpg", '0', 1000);
    maker_grow(&maker, 999);
    expect_problem(&maker, "middle of this member", 1024);

    maker_file(&maker, "a.jpg", "abc");
    maker_header(&maker, "b.jpg", '0', 1000);
    maker_grow(&maker, 1023); /* all the data, but not all of the padding */
    expect_problem(&maker, "middle of this member", 1024);

    maker_file(&maker, "a.jpg", "abc");
    maker_grow(&maker, 100);
    expect_problem(&maker, "middle of a header", 1024);

    maker_file(&maker, "a.jpg", "abc");
    struct result *result = expect_good(&maker, 1);
    assert_true(result->is_end_missing);
    free(result);

    maker_extended(&maker, 'L', "name.jpg", 8);
    expect_problem(&maker, "before the member", 0);
    maker_header(&maker, "long", 'L', 700);
    maker_grow(&maker, 512);
    expect_problem(&maker, "middle of this member", 0);
    maker_header(&maker, "long", 'x', 2 << 20);
    maker_grow(&maker, 2 << 20);
    expect_problem(&maker, "larger than 1 MiB", 0);
}

static void only_zeros_may_follow_the_end(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    maker_file(&maker, "a.jpg", "abc");
    maker_grow(&maker, 10240);
    struct result *result = expect_good(&maker, 1);
    assert_false(result->is_end_missing);
    free(result);

    maker_file(&maker, "a.jpg", "abc");
    maker_end(&maker);
    maker_file(&maker, "lost.jpg", "abc");
    expect_problem(&maker, "more data follows", 1024);

    maker_file(&maker, "a.jpg", "abc");
    maker_grow(&maker, (1 << 20) + 1024);
    expect_problem(&maker, "more than 1 MiB follows", 1024);
}

static void names_that_lead_out_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"..", "../a.jpg", "a/../b.jpg", "a/..", "x//../y.jpg"};
    static const char *const good[] = {"a..b.jpg", "...", "..a/b.jpg", "a../b.jpg", "./a.jpg"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tar_maker maker = {0};
        maker_file(&maker, "first.jpg", "");
        maker_file(&maker, bad[i], "abc");
        expect_problem(&maker, "\"..\"", 512);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct tar_maker maker = {0};
        maker_file(&maker, good[i], "abc");
        free(expect_good(&maker, 1));
    }
    struct tar_maker maker = {0};
    maker_file(&maker, "/etc/passwd", "abc");
    expect_problem(&maker, "absolute", 0);
    maker_file(&maker, "", "abc");
    expect_problem(&maker, "no name", 0);
    maker_header(&maker, "a.jpg", 'S', 0);
    expect_problem(&maker, "sparse", 0);
}

static void empty_files_and_archives(void **state)
{
    (void)state;
    struct tar_maker maker = {0};
    struct tar tar;
    uint64_t at;
    size_t length;
    tar_init(&tar, 0);
    assert_false(tar_want(&tar, &at, &length));
    maker_end(&maker);
    free(expect_good(&maker, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_have_names_sizes_and_places),
        cmocka_unit_test(prefix_is_joined_only_for_posix),
        cmocka_unit_test(fields_without_terminator_are_read),
        cmocka_unit_test(v7_headers_are_read),
        cmocka_unit_test(links_and_devices_have_no_data),
        cmocka_unit_test(unknown_types_are_skipped_with_their_data),
        cmocka_unit_test(pax_sets_name_and_size),
        cmocka_unit_test(global_pax_holds_until_overridden),
        cmocka_unit_test(damaged_pax_is_refused),
        cmocka_unit_test(gnu_long_names_are_read),
        cmocka_unit_test(base_256_sizes),
        cmocka_unit_test(bad_numbers_and_checksums_are_refused),
        cmocka_unit_test(signed_checksums_are_accepted),
        cmocka_unit_test(cut_archives),
        cmocka_unit_test(only_zeros_may_follow_the_end),
        cmocka_unit_test(names_that_lead_out_are_refused),
        cmocka_unit_test(empty_files_and_archives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
