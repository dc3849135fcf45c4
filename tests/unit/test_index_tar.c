#include "tests/unit/index_fixture.h"

static void make_shards(const struct temporary_folder *folder)
{
    struct tar_maker maker = {0};
    maker_header(&maker, "d/", '5', 0);
    maker_file(&maker, "d/0.jpg", "image 0");
    maker_file(&maker, "d/0.cls", "17\n");
    maker_file(&maker, "d/0.seg.PNG", "mask 0");
    maker_file(&maker, "d/.hidden.jpg", "left out");
    maker_file(&maker, "d/README", "left out");
    maker_file(&maker, "d/1.cls", " -3");
    maker_file(&maker, "d/1.JPEG", "image 1");
    maker_end(&maker);
    maker_save(&maker, temporary_path(folder, "s-0.tar"));
    maker_clear(&maker);
    maker_file(&maker, "d/0.png", ""); /* the same key in another shard is another sample */
    maker_file(&maker, "x.y/2.txt", "a text");
    maker_file(&maker, "x.y/2.cls", "cat");
    maker_file(&maker, "x.y/3.cls", "9223372036854775808");
    maker_end(&maker);
    maker_save(&maker, temporary_path(folder, "s-1.tar"));
    maker_clear(&maker);
}

/* Read a field of a sample as a user of the index would. */
static void expect_field(const struct sample_place *place, size_t field, const char *text)
{
    if (text == NULL) {
        assert_true(place->field[field].length_bytes == UINT64_MAX);
        return;
    }
    assert_int_equal(place->field[field].length_bytes, strlen(text));
    assert_true(place->field[field].offset_bytes + strlen(text) <= place->length_bytes);
    char bytes[64] = "";
    FILE *file = fopen(place->path, "rb");
    assert_non_null(file);
    fseek(file, (long)(place->offset_bytes + place->field[field].offset_bytes), SEEK_SET);
    assert_int_equal(fread(bytes, 1, strlen(text), file), strlen(text));
    fclose(file);
    assert_string_equal(bytes, text);
}

static void samples_of_shards_have_fields(void **state)
{
    const struct temporary_folder *folder = *state;
    make_shards(folder);
    struct index *index = open_url(temporary_path(folder, "s-{0..1}.tar"), NULL, NULL);
    assert_int_equal(index_sample_count(index), 5);
    assert_int_equal(index_shard_count(index), 2);
    assert_int_equal(index_class_count(index), 0);
    expect_samples(index, strlen(folder->path) + 1,
                   "17:s-0.tar:d/0 -3:s-0.tar:d/1 -1:s-1.tar:d/0 -1:s-1.tar:x.y/2 "
                   "-1:s-1.tar:x.y/3");
    assert_int_equal(index_sample_id(index, 3), (UINT64_C(1) << 32) + 1);
    uint64_t canonical;
    assert_true(index_sample_find(index, (UINT64_C(1) << 32) + 1, &canonical));
    assert_int_equal(canonical, 3);
    assert_false(index_sample_find(index, (UINT64_C(1) << 32) + 3, &canonical));
    assert_false(index_sample_find(index, 2, &canonical));

    static const char *const patterns[] = {"png;.jpeg;JPG", "cls", "seg.png"};
    static const char *const expected[][3] = {{"image 0", "17\n", "mask 0"},
                                              {"image 1", " -3", NULL},
                                              {"", NULL, NULL},
                                              {NULL, "cat", NULL},
                                              {NULL, "9223372036854775808", NULL}};
    struct index_fields *fields;
    assert_int_equal(index_fields_create(index, patterns, 3, true, &fields, NULL), 0);
    for (uint64_t i = 0; i < 5; i++) {
        struct sample_place place;
        assert_int_equal(index_sample_place(index, fields, i, &place, NULL, 0), 0);
        assert_true(place.is_shard);
        struct stat status;
        assert_int_equal(stat(place.path, &status), 0);
        assert_int_equal(place.shard_bytes, status.st_size);
        for (size_t f = 0; f < 3; f++) {
            expect_field(&place, f, expected[i][f]);
        }
    }
    index_fields_destroy(fields);
    index_unref(index);
}

static void fields_that_are_nowhere_are_refused(void **state)
{
    const struct temporary_folder *folder = *state;
    make_shards(folder);
    make_folder(folder);
    struct index *index = open_url(temporary_path(folder, "s-*.tar"), NULL, NULL);
    struct index_fields *fields;
    struct error error;
    static const char *const patterns[] = {"jpg", "json;yaml"};
    assert_int_equal(index_fields_create(index, patterns, 2, true, &fields, &error), -1);
    assert_non_null(strstr(error.text, "json;yaml"));
    assert_non_null(strstr(error.text, "jpg, cls, seg.png, jpeg, png, txt"));
    assert_int_equal(index_fields_create(index, patterns, 0, true, &fields, &error), -1);
    assert_int_equal(index_fields_create(index, patterns, 9, true, &fields, &error), -1);
    index_unref(index);
    index = open_url(temporary_path(folder, "f"), NULL, NULL);
    assert_int_equal(index_fields_create(index, patterns, 2, true, &fields, &error), -1);
    assert_int_equal(error.kind, ERROR_USAGE);
    index_unref(index);
}

static void bad_shards_are_refused(void **state)
{
    const struct temporary_folder *folder = *state;
    char path[256];
    strcpy(path, temporary_path(folder, "bad.tar"));
    temporary_file(folder, "bad.tar", "");
    expect_refusal(path, "bad.tar: the file is empty");
    temporary_file(folder, "bad.tar", "\x1f\x8b\x08 and so on");
    expect_refusal(path, "gzip");
    temporary_file(folder, "bad.tar", "PK\x03\x04 and so on");
    expect_refusal(path, "zip archive");
    temporary_file(folder, "bad.tar", "short");
    expect_refusal(path, "bad.tar: at offset 0: the file ends in the middle of a header");

    struct tar_maker maker = {0};
    maker_end(&maker);
    maker_save(&maker, path);
    expect_refusal(path, "no sample is inside");
    maker_clear(&maker);

    maker_file(&maker, "1.jpg", "a");
    maker_file(&maker, "1.txt", "b");
    maker_file(&maker, "1.JPG", "c");
    maker_save(&maker, path);
    expect_refusal(path, "at offset 2048: the sample \"1\" has a second member \"jpg\"; the first "
                         "has its data at offset 512");
    maker_clear(&maker);

    maker_file(&maker, "1.jpg", "a");
    maker_file(&maker, "2.jpg", "b");
    maker_file(&maker, "1.cls", "c");
    maker_save(&maker, path);
    expect_refusal(path, "at offset 2048: the sample \"1\" comes again; its other members are at "
                         "offset 0");
    maker_clear(&maker);

    maker_file(&maker, "1.jpg", "a");
    maker_header(&maker, "2.jpg", '0', 5000);
    maker_grow(&maker, 4096);
    maker_save(&maker, path);
    expect_refusal(path, "at offset 1024: the file ends in the middle of this member");
    maker_clear(&maker);

    maker_file(&maker, "a/../../1.jpg", "a");
    maker_save(&maker, path);
    expect_refusal(path, "at offset 0: its name leads out");
    maker_clear(&maker);

    for (int i = 0; i < 1100; i++) {
        char name[32];
        snprintf(name, sizeof name, "img.%d.jpg", i);
        maker_file(&maker, name, "");
    }
    maker_save(&maker, path);
    expect_refusal(path, "more than 1024 different extensions");
    maker_clear(&maker);
}

static void many_keys_in_one_shard(void **state)
{
    const struct temporary_folder *folder = *state;
    struct tar_maker maker = {0};
    enum { KEYS = 5000 };
    uint8_t *room = maker_grow(&maker, KEYS * (size_t)MAKER_BLOCK_BYTES);
    (void)room;
    for (int i = 0; i < KEYS; i++) {
        struct tar_maker one = {0};
        char name[32];
        snprintf(name, sizeof name, "%05d.cls", i);
        maker_header(&one, name, '0', 0);
        memcpy(maker.bytes + i * (size_t)MAKER_BLOCK_BYTES, one.bytes, MAKER_BLOCK_BYTES);
        maker_clear(&one);
    }
    maker_end(&maker);
    maker_save(&maker, temporary_path(folder, "a.tar"));
    maker_clear(&maker);
    struct index *index = open_url(temporary_path(folder, "a.tar"), NULL, NULL);
    assert_int_equal(index_sample_count(index), KEYS);
    index_unref(index);
}

static void a_missing_end_is_told(void **state)
{
    const struct temporary_folder *folder = *state;
    struct tar_maker maker = {0};
    maker_file(&maker, "1.jpg", "a");
    maker_save(&maker, temporary_path(folder, "a.tar"));
    maker_clear(&maker);
    char path[256];
    strcpy(path, temporary_path(folder, "a.tar"));
    const char *urls[] = {path};
    struct index_options options = {.urls = urls, .url_count = 1, .thread_count = 1};
    struct index *index;
    char warning[ERROR_TEXT_BYTES];
    assert_int_equal(index_open(&options, NULL, &index, NULL, warning, NULL), 0);
    assert_non_null(strstr(warning, "1 of 1 shards have no end-of-archive mark"));
    index_unref(index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(samples_of_shards_have_fields),
        FOLDER_TEST(fields_that_are_nowhere_are_refused),
        FOLDER_TEST(bad_shards_are_refused),
        FOLDER_TEST(many_keys_in_one_shard),
        FOLDER_TEST(a_missing_end_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
