#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/dataset.h"

static void expect_expansion(const char *pattern, const char *joined)
{
    struct text_list list = {0};
    assert_int_equal(pattern_expand(pattern, &list), 0);
    char text[1024] = "";
    for (size_t i = 0; i < list.count; i++) {
        strcat(text, i > 0 ? " " : "");
        strcat(text, list.texts[i]);
    }
    assert_string_equal(text, joined);
    text_list_clear(&list);
}

static void braces_are_expanded(void **state)
{
    (void)state;
    expect_expansion("plain", "plain");
    expect_expansion("a{0..3}b", "a0b a1b a2b a3b");
    expect_expansion("{008..011}", "008 009 010 011");
    expect_expansion("{8..011}", "008 009 010 011");
    expect_expansion("{3..1}", "3 2 1");
    expect_expansion("{0..10..5}", "0 5 10");
    expect_expansion("{10..0..-4}", "10 6 2");
    expect_expansion("{1..3..0}", "1 2 3");
    expect_expansion("{-1..1}", "-1 0 1");
    expect_expansion("{-01..1}", "-01 000 001");
    expect_expansion("{a..d}", "a b c d");
    expect_expansion("x{a,b}y{1,2}", "xay1 xay2 xby1 xby2");
    expect_expansion("{a,b{1..2}}.tar", "a.tar b1.tar b2.tar");
    expect_expansion("{a,}.tar", "a.tar .tar");
    expect_expansion("{,}", " ");
}

static void other_braces_stay(void **state)
{
    (void)state;
    expect_expansion("{}", "{}");
    expect_expansion("{a}", "{a}");
    expect_expansion("{a", "{a");
    expect_expansion("a}", "a}");
    expect_expansion("{1...3}", "{1...3}");
    expect_expansion("{1..x}", "{1..x}");
    expect_expansion("{a}{1..2}", "{a}1 {a}2");
    expect_expansion("{a{1..2}", "{a1 {a2");
    expect_expansion("{1234567890123456789012..3}", "{1234567890123456789012..3}");
}

static void huge_patterns_are_refused(void **state)
{
    (void)state;
    static const char *const patterns[] = {"{0..1000000}", "{0..999999999999999999}",
                                           "{0..99999}{0..99}"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        struct text_list list = {0};
        assert_int_equal(pattern_expand(patterns[i], &list), -E2BIG);
        text_list_clear(&list);
    }
    char nested[4096] = "";
    for (int i = 0; i < 300; i++) {
        strcat(nested, "{a,");
    }
    for (int i = 0; i < 300; i++) {
        strcat(nested, "}");
    }
    struct text_list list = {0};
    assert_int_equal(pattern_expand(nested, &list), -E2BIG);
    text_list_clear(&list);
}

/* A folder of a test's own, with a.tar, b-0.tar, b-1.tar, "odd{0..1}*.tar" and folder/. */
struct ground {
    char path[64];
};

static void make_file(const struct ground *ground, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", ground->path, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
}

static int set_up(void **state)
{
    struct ground *ground = calloc(1, sizeof *ground);
    strcpy(ground->path, "/tmp/penstock-dataset-XXXXXX");
    if (mkdtemp(ground->path) == NULL) {
        return -1;
    }
    make_file(ground, "a.tar");
    make_file(ground, "b-1.tar");
    make_file(ground, "b-0.tar");
    make_file(ground, "odd{0..1}*.tar");
    char path[256];
    snprintf(path, sizeof path, "%s/folder", ground->path);
    *state = ground;
    return mkdir(path, 0700);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

static int tear_down(void **state)
{
    struct ground *ground = *state;
    nftw(ground->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(ground);
    return 0;
}

/* `joined`: the names expected, relative to the ground; every "%" in url is the ground's path. */
static void expect_paths(const struct ground *ground, const char *url, enum index_kind kind,
                         const char *joined)
{
    char full[1024] = "", text[1024] = "";
    for (const char *at = url; *at != '\0'; at++) {
        if (*at == '%') {
            strcat(full, ground->path);
        } else {
            strncat(full, at, 1);
        }
    }
    struct dataset dataset;
    struct error error;
    const char *urls[] = {full};
    if (dataset_resolve(urls, 1, NULL, &dataset, &error) < 0) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(dataset.kind, kind);
    for (size_t i = 0; i < dataset.paths.count; i++) {
        assert_memory_equal(dataset.paths.texts[i], ground->path, strlen(ground->path));
        strcat(text, i > 0 ? " " : "");
        strcat(text, dataset.paths.texts[i] + strlen(ground->path));
    }
    assert_string_equal(text, joined);
    dataset_clear(&dataset);
}

static void names_become_paths(void **state)
{
    const struct ground *ground = *state;
    expect_paths(ground, "%/a.tar", INDEX_TAR, "/a.tar");
    expect_paths(ground, "%//./a.tar", INDEX_TAR, "/a.tar");
    expect_paths(ground, "file://%/a.tar", INDEX_TAR, "/a.tar");
    expect_paths(ground, "%/b-{1..0}.tar", INDEX_TAR, "/b-1.tar /b-0.tar");
    expect_paths(ground, "%/b-*.tar", INDEX_TAR, "/b-0.tar /b-1.tar");
    expect_paths(ground, "%/b-?.tar::%/{a,b-[1-9]}.tar", INDEX_TAR,
                 "/b-0.tar /b-1.tar /a.tar /b-1.tar");
    expect_paths(ground, "%/odd{0..1}*.tar", INDEX_TAR, "/odd{0..1}*.tar");
    expect_paths(ground, "%/folder", INDEX_FOLDER, "/folder");
    expect_paths(ground, "%/folder/", INDEX_FOLDER, "/folder");
}

static void relative_paths_start_here(void **state)
{
    const struct ground *ground = *state;
    char here[PATH_MAX];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(ground->path), 0);
    struct dataset dataset;
    const char *urls[] = {"./a.tar", "b-{0..1}.tar"};
    assert_int_equal(dataset_resolve(urls, 2, NULL, &dataset, NULL), 0);
    assert_int_equal(dataset.paths.count, 3);
    assert_int_equal(dataset.paths.texts[2][0], '/');
    assert_non_null(strstr(dataset.paths.texts[2], "/b-1.tar"));
    dataset_clear(&dataset);
    assert_int_equal(chdir(here), 0);
}

static void expect_refusal(const char *const *urls, size_t count, const char *part)
{
    struct dataset dataset;
    struct error error = {0};
    assert_int_equal(dataset_resolve(urls, count, NULL, &dataset, &error), -1);
    assert_int_equal(error.kind, ERROR_DATASET);
    if (strstr(error.text, part) == NULL) {
        fail_msg("\"%s\" does not speak of \"%s\"", error.text, part);
    }
}

static void what_cannot_be_used_is_refused(void **state)
{
    const struct ground *ground = *state;
    char tar[256], folder[256], missing[256], pattern[256];
    snprintf(tar, sizeof tar, "%s/a.tar", ground->path);
    snprintf(folder, sizeof folder, "%s/folder", ground->path);
    snprintf(missing, sizeof missing, "%s/b-{0..2}.tar", ground->path);
    snprintf(pattern, sizeof pattern, "%s/c*.tar", ground->path);
    expect_refusal(NULL, 0, "empty");
    expect_refusal((const char *[]){""}, 1, "empty path");
    expect_refusal((const char *[]){"s3://bucket/train-{000..146}.tar"}, 1, "cannot be read here");
    expect_refusal((const char *[]){tar, "https://host/a.tar"}, 2, "a URL beside local files");
    expect_refusal((const char *[]){"pipe:cat a.tar"}, 1, "cannot be read; what can");
    expect_refusal((const char *[]){missing}, 1, "(file 3 of 3): cannot be opened: No such file");
    expect_refusal((const char *[]){pattern}, 1, "no file matches");
    expect_refusal((const char *[]){tar, folder}, 2, "/*.tar");
    expect_refusal((const char *[]){folder, folder}, 2, "one folder of images");
    expect_refusal((const char *[]){"/dev/null"}, 1, "not a regular file");
    expect_refusal((const char *[]){"{0..99999999}.tar"}, 1, "Check the numbers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(braces_are_expanded),
        cmocka_unit_test(other_braces_stay),
        cmocka_unit_test(huge_patterns_are_refused),
        cmocka_unit_test(names_become_paths),
        cmocka_unit_test(relative_paths_start_here),
        cmocka_unit_test(what_cannot_be_used_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
