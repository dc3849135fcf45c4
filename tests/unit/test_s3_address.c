#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "loader/remote/s3_address.h"

static void check(const struct s3_settings *settings, const char *url, const char *query,
                  const char *region, const char *wanted)
{
    struct s3_target target;
    struct error error = {0};
    if (s3_address_build(settings, url, query, region, &target, &error) != 0) {
        fail_msg("%s", error.text);
    }
    assert_string_equal(target.url, wanted);
    free(target.url);
}

static void refuse(const struct s3_settings *settings, const char *url, const char *words)
{
    struct s3_target target;
    struct error error = {0};
    assert_int_equal(s3_address_build(settings, url, NULL, NULL, &target, &error), -1);
    assert_int_equal(error.kind, ERROR_USAGE);
    assert_non_null(strstr(error.text, words));
}

static void test_aws(void **state)
{
    (void)state;
    struct s3_settings settings = {.region = "eu-west-1"};
    check(&settings, "s3://bucket/a/b.tar", NULL, NULL,
          "https://bucket.s3.eu-west-1.amazonaws.com/a/b.tar");
    check(&settings, "s3://bucket/a", NULL, "us-west-2",
          "https://bucket.s3.us-west-2.amazonaws.com/a");
    check(&settings, "s3://with.dots/a", NULL, NULL,
          "https://s3.eu-west-1.amazonaws.com/with.dots/a");
    check(&settings, "s3://Upper/a", NULL, NULL, "https://s3.eu-west-1.amazonaws.com/Upper/a");
    check(&settings, "s3://bucket/a", NULL, "cn-north-1",
          "https://bucket.s3.cn-north-1.amazonaws.com.cn/a");
    check(&settings, "s3://bucket/prefix/", "list-type=2&prefix=x", NULL,
          "https://bucket.s3.eu-west-1.amazonaws.com/?list-type=2&prefix=x");
    settings.addressing = S3_ADDRESSING_PATH;
    check(&settings, "s3://bucket/a", NULL, NULL, "https://s3.eu-west-1.amazonaws.com/bucket/a");
}

static void test_endpoint(void **state)
{
    (void)state;
    struct s3_settings settings = {.region = "r"};
    struct error error;
    assert_int_equal(s3_address_set_endpoint(&settings, "http://host:9000//", &error), 0);
    check(&settings, "s3://bucket/a", NULL, NULL, "http://host:9000/bucket/a");
    check(&settings, "s3://bucket", "list-type=2", NULL, "http://host:9000/bucket?list-type=2");
    settings.addressing = S3_ADDRESSING_VIRTUAL;
    check(&settings, "s3://bucket/a", NULL, NULL, "http://bucket.host:9000/a");
    assert_int_equal(s3_address_set_endpoint(&settings, "host:9000", &error), -1);
    assert_int_equal(s3_address_set_endpoint(&settings, "http://user:secret@host", &error), -1);
    assert_null(strstr(error.text, "secret"));
    assert_int_equal(s3_address_set_addressing(&settings, "virtual", &error), 0);
    assert_int_equal(s3_address_set_addressing(&settings, "host", &error), -1);
}

static void test_keys(void **state)
{
    (void)state;
    struct s3_settings settings = {.endpoint = "http://h", .region = "r"};
    check(&settings, "s3://b1/a b+c%20\xc3\xa4~(1)/../x", NULL, NULL,
          "http://h/b1/a%20b%2Bc%2520%C3%A4~%281%29/../x");
    check(&settings, "s3://b1//twice", NULL, NULL, "http://h/b1//twice");
}

static void test_refused(void **state)
{
    (void)state;
    struct s3_settings settings = {.region = "r"};
    refuse(&settings, "s3://", "bucket");
    refuse(&settings, "s3:///key", "bucket");
    refuse(&settings, "s3://bu cket/key", "bucket");
    refuse(&settings, "s3://-x/key", "bucket");
    refuse(&settings, "s3://evil.host#/key", "bucket");
    refuse(&settings, "s3://bucket/", "no object");
    refuse(&settings, "ftp://host/file", "no URL");
    refuse(&settings, "http://host/a b", "no URL");
    strcpy(settings.region, "r/../x");
    refuse(&settings, "s3://bucket/key", "region");
}

static void test_public(void **state)
{
    (void)state;
    char shown[100];
    assert_string_equal(
        s3_address_public("https://me:secret@host/a?X-Amz-Signature=1#f", shown, sizeof shown),
        "https://host/a");
    assert_string_equal(s3_address_public("s3://b/what?", shown, sizeof shown), "s3://b/what?");
    assert_string_equal(s3_address_public("http://host?q", shown, sizeof shown), "http://host");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aws),    cmocka_unit_test(test_endpoint),
        cmocka_unit_test(test_keys),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_public),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
