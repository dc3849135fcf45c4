#include "tests/unit/index_fixture.h"

static void folders_are_listed_in_order(void **state)
{
    const struct temporary_folder *folder = *state;
    make_folder(folder);
    bool was_built;
    struct index *index = open_url(temporary_path(folder, "f"), NULL, &was_built);
    assert_true(was_built);
    expect_samples(index, strlen(folder->path) + 3,
                   "0:a/z.bmp 0:a/x/3.jpeg 0:a/x/Z.tiff 0:a/x-y/q.webp 1:a-b/.jpg 1:a-b/Z.tif "
                   "1:a-b/z.ppm 2:b/1.jpg 2:b/2.JPG 2:b/sub/1.png 2:b/sub/2.pgm "
                   "4:\xc3\xa9/\xf0\x9f\x90\x88.jpg");
    assert_int_equal(index_class_count(index), 5);
    assert_string_equal(index_class_name(index, 3), "none");
    assert_int_equal(index_shard_count(index), 1);
    assert_int_equal(index_header(index)->data_bytes, 12 * 5);
    assert_int_equal(index_shard_first(index)[0], 0);
    assert_int_equal(index_shard_first(index)[1], 12);
    assert_int_equal(index_sample_id(index, 11), 11);
    uint64_t canonical;
    assert_true(index_sample_find(index, 11, &canonical));
    assert_int_equal(canonical, 11);
    assert_false(index_sample_find(index, 12, &canonical));
    assert_false(index_sample_find(index, UINT64_C(1) << 32, &canonical));
    index_unref(index_ref(index));
    index_unref(index);
}

static void links_are_followed_but_not_in_circles(void **state)
{
    const struct temporary_folder *folder = *state;
    temporary_file(folder, "f/a/1.jpg", "");
    temporary_file(folder, "f/a/deep/2.jpg", "");
    temporary_file(folder, "elsewhere/3.jpg", "");
    assert_int_equal(symlink("..", temporary_path(folder, "f/a/deep/up")), 0);
    assert_int_equal(symlink(".", temporary_path(folder, "f/a/self")), 0);
    assert_int_equal(symlink("..", temporary_path(folder, "f/a/root")), 0);
    assert_int_equal(symlink("loop", temporary_path(folder, "f/a/loop")), 0);
    assert_int_equal(symlink("../elsewhere", temporary_path(folder, "f/linked")), 0);
    assert_int_equal(symlink("missing", temporary_path(folder, "f/a/broken.jpg")), 0);
    assert_int_equal(symlink("1.jpg", temporary_path(folder, "f/a/also.jpg")), 0);
    assert_int_equal(mkfifo(temporary_path(folder, "f/a/fifo.jpg"), 0600), 0);
    struct index *index = open_url(temporary_path(folder, "f"), NULL, NULL);
    expect_samples(index, strlen(folder->path) + 3,
                   "0:a/1.jpg 0:a/also.jpg 0:a/broken.jpg 0:a/deep/2.jpg 1:linked/3.jpg");
    index_unref(index);
}

static void folders_without_classes_or_images_are_refused(void **state)
{
    const struct temporary_folder *folder = *state;
    temporary_file(folder, "empty/", "");
    temporary_file(folder, "flat/1.jpg", "");
    temporary_file(folder, "none/a/readme.txt", "");
    expect_refusal(temporary_path(folder, "empty"), "no folder is inside");
    expect_refusal(temporary_path(folder, "flat"), "FOLDER/CLASS/IMAGE.jpg");
    expect_refusal(temporary_path(folder, "none"), "no image is inside");
    if (geteuid() == 0) {
        return; /* root may read everything */
    }
    temporary_file(folder, "locked/a/1.jpg", "");
    temporary_file(folder, "locked/b/", "");
    chmod(temporary_path(folder, "locked/b"), 0);
    expect_refusal(temporary_path(folder, "locked"), "locked/b: this folder cannot be listed");
}

static void any_number_of_threads_gives_the_same_bytes(void **state)
{
    const struct temporary_folder *folder = *state;
    for (int i = 0; i < 40; i++) {
        for (int j = 0; j < 20; j++) {
            char name[64];
            snprintf(name, sizeof name, "f/c%d/s%d/%d.jpg", i % 7, i, j * 7919 % 20);
            temporary_file(folder, name, "");
        }
    }
    char root[256];
    strcpy(root, temporary_path(folder, "f"));
    const char *urls[] = {root};
    struct index *indices[2];
    for (uint32_t i = 0; i < 2; i++) {
        struct index_options options = {.urls = urls, .url_count = 1, .thread_count = 1 + 7 * i};
        assert_int_equal(index_open(&options, NULL, &indices[i], NULL, NULL, NULL), 0);
    }
    assert_int_equal(index_sample_count(indices[0]), 800);
    assert_int_equal(index_header(indices[0])->file_bytes, index_header(indices[1])->file_bytes);
    assert_memory_equal(index_header(indices[0]), index_header(indices[1]),
                        index_header(indices[0])->file_bytes);
    index_unref(indices[0]);
    index_unref(indices[1]);
}

static void indexing_can_be_cancelled_and_shows_progress(void **state)
{
    const struct temporary_folder *folder = *state;
    make_folder(folder);
    struct tar_maker maker = {0};
    maker_file(&maker, "1.jpg", "abc");
    maker_end(&maker);
    maker_save(&maker, temporary_path(folder, "a.tar"));
    char root[256], tar[256];
    strcpy(root, temporary_path(folder, "f"));
    strcpy(tar, temporary_path(folder, "a.tar"));
    const char *urls[] = {root, tar};
    for (int i = 0; i < 2; i++) {
        struct index_options options = {.urls = &urls[i], .url_count = 1, .thread_count = 2};
        struct index_progress progress = {0};
        struct index *index;
        struct error error;
        assert_int_equal(index_open(&options, &progress, &index, NULL, NULL, NULL), 0);
        index_unref(index);
        assert_int_equal(progress.done_count, i == 0 ? 12 : maker.size_bytes);
        assert_int_equal(progress.total_count, i == 0 ? 0 : maker.size_bytes);
        atomic_store(&progress.is_cancelled, true);
        assert_int_equal(index_open(&options, &progress, &index, NULL, NULL, &error), -1);
        assert_non_null(strstr(error.text, "cancelled"));
    }
    maker_clear(&maker);
}

static void paths_of_files_are_joined_or_too_long(void **state)
{
    const struct temporary_folder *folder = *state;
    make_folder(folder);
    struct index *index = open_url(temporary_path(folder, "f"), NULL, NULL);
    static const char *const pattern[] = {"jpg"};
    struct index_fields *fields;
    assert_int_equal(index_fields_create(index, pattern, 1, true, &fields, NULL), 0);
    struct sample_place place;
    char buffer[4096];
    assert_int_equal(index_sample_place(index, fields, 1, &place, buffer, sizeof buffer), 0);
    assert_string_equal(place.path, temporary_path(folder, "f/a/x/3.jpeg"));
    assert_false(place.is_shard);
    size_t needed = strlen(buffer) + 1;
    assert_int_equal(index_sample_place(index, fields, 1, &place, buffer, needed), 0);
    assert_int_equal(index_sample_place(index, fields, 1, &place, buffer, needed - 1), -1);
    index_fields_destroy(fields);
    index_unref(index);
}

static void same_data_elsewhere_has_the_same_fingerprint(void **state)
{
    const struct temporary_folder *folder = *state;
    make_folder(folder);
    uint8_t first[16];
    struct index *index = open_url(temporary_path(folder, "f"), NULL, NULL);
    memcpy(first, index_header(index)->fingerprint, sizeof first);
    index_unref(index);
    assert_int_equal(rename(temporary_path(folder, "f"), temporary_path(folder, "g")), 0);
    index = open_url(temporary_path(folder, "g"), NULL, NULL);
    assert_memory_equal(first, index_header(index)->fingerprint, sizeof first);
    index_unref(index);
    assert_int_equal(
        rename(temporary_path(folder, "g/b/1.jpg"), temporary_path(folder, "g/b/3.jpg")), 0);
    index = open_url(temporary_path(folder, "g"), NULL, NULL);
    assert_memory_not_equal(first, index_header(index)->fingerprint, sizeof first);
    index_unref(index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(folders_are_listed_in_order),
        FOLDER_TEST(links_are_followed_but_not_in_circles),
        FOLDER_TEST(folders_without_classes_or_images_are_refused),
        FOLDER_TEST(any_number_of_threads_gives_the_same_bytes),
        FOLDER_TEST(paths_of_files_are_joined_or_too_long),
        FOLDER_TEST(same_data_elsewhere_has_the_same_fingerprint),
        FOLDER_TEST(indexing_can_be_cancelled_and_shows_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
