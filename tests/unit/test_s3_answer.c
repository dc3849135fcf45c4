#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "loader/remote/answer.h"
#include "loader/remote/pace.h"
#include "loader/remote/s3_xml.h"

static struct answer parse(const char *const *lines)
{
    struct answer answer = {0};
    for (; *lines != NULL; lines++) {
        answer_take_line(&answer, *lines, strlen(*lines));
    }
    return answer;
}

#define ANSWER(...) parse((const char *const[]){__VA_ARGS__, NULL})

static const struct remote_version wanted = {.size_bytes = 1000, .tag = "\"t\""};

static void check(struct answer answer, uint64_t offset, uint64_t length, enum answer_verdict is)
{
    char why[ANSWER_WHY_BYTES] = "";
    assert_int_equal(answer_check(&answer, &wanted, offset, length, why), is);
    assert_int_equal(why[0] == '\0', is == ANSWER_GOOD);
}

static void test_ranges(void **state)
{
    (void)state;
    const char *ok = "HTTP/1.1 206 Partial Content\r\n", *tag = "ETag: \"t\"\r\n";
    check(ANSWER(ok, tag, "Content-Range: bytes 100-199/1000", "Content-Length: 100"), 100, 100,
          ANSWER_GOOD);
    check(ANSWER(ok, tag, "content-range: BYTES 100-199/*"), 100, 100, ANSWER_GOOD);
    check(ANSWER(ok, tag), 100, 100, ANSWER_BAD);
    check(ANSWER(ok, tag, "Content-Range: bytes 100-198/1000", "Content-Length: 99"), 100, 100,
          ANSWER_BAD);
    check(ANSWER(ok, tag, "Content-Range: bytes 100-199/1000", "Content-Length: 99"), 100, 100,
          ANSWER_BAD);
    check(ANSWER(ok, tag, "Content-Range: bytes 101-200/1000"), 100, 100, ANSWER_BAD);
    check(ANSWER(ok, tag, "Content-Range: bytes 100-199/999"), 100, 100, ANSWER_BAD);
    check(ANSWER(ok, tag, "Content-Range: bytes 100-199/199"), 100, 100, ANSWER_BAD);
    check(ANSWER(ok, tag, "Content-Range: bytes 100-199/1000x"), 100, 100, ANSWER_BAD);
    check(ANSWER(ok, tag, "Content-Range: bytes 99999999999999999999-1/1"), 100, 100, ANSWER_BAD);
    check(ANSWER(ok, tag, "Content-Range: bytes 100-199/1000", "Content-Range: bytes 0-99/1000"), 0,
          100, ANSWER_BAD);
}

static void test_whole(void **state)
{
    (void)state;
    const char *ok = "HTTP/1.1 200 OK", *tag = "ETag: \"t\"";
    check(ANSWER(ok, tag, "Content-Length: 1000"), 0, 1000, ANSWER_GOOD);
    check(ANSWER(ok, tag, "Content-Length: 1000"), 0, 100, ANSWER_BAD);
    check(ANSWER(ok, tag, "Content-Length: 1000"), 100, 900, ANSWER_BAD);
    check(ANSWER(ok, tag), 0, 1000, ANSWER_BAD);
}

static void test_versions(void **state)
{
    (void)state;
    const char *ok = "HTTP/1.1 206 Partial Content", *range = "Content-Range: bytes 0-9/1000";
    check(ANSWER(ok, range, "ETag: \"other\""), 0, 10, ANSWER_CHANGED);
    check(ANSWER(ok, range, "ETag: W/\"t\""), 0, 10, ANSWER_BAD);
    check(ANSWER(ok, range), 0, 10, ANSWER_BAD);
    check(ANSWER(ok, range, "ETag: t"), 0, 10, ANSWER_GOOD);
    struct answer answer = ANSWER(ok, range, "Last-Modified: Mon, 23 Nov 2026 14:00:00 GMT");
    struct remote_version seen, older = {.size_bytes = 1000, .tag = "@yesterday"};
    char why[ANSWER_WHY_BYTES];
    assert_true(answer_version(&answer, &seen));
    assert_string_equal(seen.tag, "@Mon, 23 Nov 2026 14:00:00 GMT");
    assert_int_equal(seen.size_bytes, 1000);
    assert_int_equal(answer_check(&answer, &older, 0, 10, why), ANSWER_CHANGED);
    assert_int_equal(answer_check(&answer, &seen, 0, 10, why), ANSWER_GOOD);
    seen.size_bytes = 999;
    assert_int_equal(answer_check(&answer, &seen, 0, 10, why), ANSWER_CHANGED);
    assert_false(answer_tag_is_usable("\"a\r\nX: y\""));
    assert_false(answer_tag_is_usable("\"a\"b\""));
    assert_false(answer_tag_is_usable(""));
}

static void check_sum(const char *line, const char *data, bool holds)
{
    struct answer answer = ANSWER("HTTP/1.1 200 OK", line);
    assert_int_not_equal(answer.checksum.kind, CHECKSUM_NONE);
    assert_int_equal(checksum_holds(&answer.checksum, (const uint8_t *)data, strlen(data)), holds);
}

static void test_checksums(void **state)
{
    (void)state;
    /* The check values of the catalogue of CRCs, and of FIPS 180. */
    check_sum("x-amz-checksum-crc32: y/Q5Jg==", "123456789", true);
    check_sum("x-amz-checksum-crc32c: 4waSgw==", "123456789", true);
    check_sum("x-amz-checksum-crc64nvme: rosUhgp5mIg=", "123456789", true);
    check_sum("x-amz-checksum-sha1: qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", "abc", true);
    check_sum("X-Amz-Checksum-Sha256: ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", "abc", true);
    check_sum("x-amz-checksum-crc32c: 4waSgw==", "123456788", false);
    struct answer parts = ANSWER("HTTP/1.1 200 OK", "x-amz-checksum-crc32c: 4waSgw==-2");
    assert_int_equal(parts.checksum.kind, CHECKSUM_NONE);
    parts = ANSWER("HTTP/1.1 200 OK", "x-amz-checksum-type: COMPOSITE");
    assert_true(parts.is_checksum_partial);
}

static bool count_entry(void *context, const struct s3_xml_entry *entry)
{
    char *names = context;
    snprintf(names + strlen(names), 100 - strlen(names), "%s%s:%llu;", entry->key,
             entry->is_prefix ? "/" : "", (unsigned long long)entry->size_bytes);
    return true;
}

static bool list(const char *text, char names[100], struct s3_xml_page *page)
{
    names[0] = '\0';
    return s3_xml_list(text, strlen(text), page, count_entry, names);
}

static void test_listings(void **state)
{
    (void)state;
    static struct s3_xml_page page;
    char names[100];
    assert_true(list("<ListBucketResult><Prefix>p</Prefix><IsTruncated>true</IsTruncated>"
                     "<Contents><Key>a&amp;b</Key><Size>7</Size><ETag>&quot;t&quot;</ETag>"
                     "<Owner><ID>me</ID></Owner></Contents>"
                     "<CommonPrefixes><Prefix>c</Prefix></CommonPrefixes>"
                     "<NextContinuationToken>n</NextContinuationToken></ListBucketResult>",
                     names, &page));
    assert_string_equal(names, "a&b:7;c/:0;");
    assert_true(page.is_truncated);
    assert_string_equal(page.token, "n");
    assert_true(list("<ListBucketResult/>", names, &page));
    assert_false(
        list("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", names, &page));
    assert_false(list("<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
                      names, &page));
    assert_false(list("<html/>", names, &page));
    assert_false(list("<ListBucketResult><Contents>", names, &page));
    assert_false(list("<!DOCTYPE x [<!ENTITY a 'b'>]><ListBucketResult/>", names, &page));
}

static void test_pace(void **state)
{
    (void)state;
    struct pace pace = {.random = 1};
    const uint64_t ms = 1000000;
    assert_false(pace_is_slow(&pace, 0, 8 << 20, 100000 * ms));
    for (int i = 0; i < 32; i++) {
        pace_note(&pace, 20 * ms, 8 << 20, 80 * ms); /* 100 MiB/s */
    }
    assert_false(pace_is_slow(&pace, 0, 8 << 20, 400 * ms)); /* 4 times, but soon yet */
    assert_true(pace_is_slow(&pace, 0, 8 << 20, 600 * ms));
    assert_true(pace_is_slow(&pace, 1 << 20, 7 << 20, 600 * ms));
    assert_false(pace_is_slow(&pace, 15 << 19, 1 << 19, 600 * ms)); /* nearly there */
    assert_false(pace_is_slow(&pace, 0, 80 << 20, 2000 * ms));
    pace.requests = 19;
    assert_false(pace_may_hedge(&pace, 5));
    pace.requests = 20;
    assert_true(pace_may_hedge(&pace, 5));
    pace.hedges = 1;
    assert_false(pace_may_hedge(&pace, 5));
    pace.requests = 100;
    assert_true(pace_may_hedge(&pace, 5));
    pace.hedges = 2;
    assert_false(pace_may_hedge(&pace, 5)); /* both in vain */
    pace.hedges_won = 2;
    assert_true(pace_may_hedge(&pace, 5));
    assert_false(pace_may_hedge(&pace, UINT32_MAX));
    for (uint32_t failures = 1; failures < 100; failures++) {
        uint64_t delay_ns = pace_delay_ns(&pace, failures, 2500);
        assert_in_range(delay_ns, 25 * ms, 2500 * ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),   cmocka_unit_test(test_whole),
        cmocka_unit_test(test_versions), cmocka_unit_test(test_checksums),
        cmocka_unit_test(test_listings), cmocka_unit_test(test_pace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
