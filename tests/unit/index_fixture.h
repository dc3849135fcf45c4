/*
 * index_fixture.h - what the tests of indices share: a folder, opening an index of it, comparing.
 */
#ifndef PENSTOCK_TESTS_INDEX_FIXTURE_H
#define PENSTOCK_TESTS_INDEX_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loader/index.h"
#include "tests/tools/tar_maker.h"
#include "tests/tools/temporary_folder.h"

static inline int set_up(void **state)
{
    struct temporary_folder *folder = calloc(1, sizeof *folder);
    temporary_folder_create(folder);
    *state = folder;
    return 0;
}

static inline int tear_down(void **state)
{
    temporary_folder_destroy(*state);
    free(*state);
    return 0;
}

/* index_open() of one url; fails the test with its error. `cache` may be NULL. */
static inline struct index *open_url(const char *url, const char *cache, bool *was_built)
{
    const char *urls[] = {url};
    struct index_options options = {
        .urls = urls, .url_count = 1, .cache_folder = cache, .thread_count = 3};
    struct index *index;
    struct error error;
    char warning[ERROR_TEXT_BYTES];
    if (index_open(&options, NULL, &index, was_built, warning, &error) < 0) {
        fail_msg("%s", error.text);
    }
    assert_string_equal(warning, "");
    return index;
}

static inline void expect_refusal(const char *url, const char *part)
{
    const char *urls[] = {url};
    struct index_options options = {.urls = urls, .url_count = 1, .thread_count = 2};
    struct index *index;
    struct error error = {0};
    assert_int_equal(index_open(&options, NULL, &index, NULL, NULL, &error), -1);
    assert_int_equal(error.kind, ERROR_DATASET);
    assert_null(index);
    if (strstr(error.text, part) == NULL) {
        fail_msg("\"%s\" does not speak of \"%s\"", error.text, part);
    }
}

/* Compare all samples, as "label:name" with the folder left out. */
static inline void expect_samples(const struct index *index, size_t skip, const char *joined)
{
    char text[2048] = "";
    for (uint64_t i = 0; i < index_sample_count(index); i++) {
        char label[1024], piece[1100];
        index_sample_label(index, i, label, sizeof label);
        struct index_fields *fields;
        const char *all[] = {"jpg;txt;cls"};
        struct sample_place place;
        char buffer[4096];
        assert_int_equal(index_fields_create(index, all, 1, true, &fields, NULL), 0);
        assert_int_equal(index_sample_place(index, fields, i, &place, buffer, sizeof buffer), 0);
        index_fields_destroy(fields);
        snprintf(piece, sizeof piece, "%s%lld:%s", i > 0 ? " " : "", (long long)place.label,
                 label + skip);
        strcat(text, piece);
    }
    assert_string_equal(text, joined);
}

static inline void make_folder(const struct temporary_folder *folder)
{
    static const char *const files[] = {
        "f/b/2.JPG",    "f/b/1.jpg",      "f/b/sub/1.png",
        "f/a/x/3.jpeg", "f/a/x-y/q.webp", "f/a/note.txt",
        "f/a-b/.jpg",   "f/a-b/Z.tif",    "f/a-b/z.ppm",
        "f/top.jpg",    "f/a/z.bmp",      "f/a/x/Z.tiff",
        "f/none/",      "f/none/x/",      "f/b/jpg",
        "f/b/x.jpg.gz", "f/b/sub/2.pgm",  "f/\xc3\xa9/\xf0\x9f\x90\x88.jpg"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        temporary_file(folder, files[i], "12345");
    }
}

#define FOLDER_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif /* PENSTOCK_TESTS_INDEX_FIXTURE_H */
