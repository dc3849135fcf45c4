#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "loader/index.h"
#include "tests/tools/tar_maker.h"
#include "tests/tools/temporary_folder.h"

static int set_up(void **state)
{
    struct temporary_folder *folder = calloc(1, sizeof *folder);
    temporary_folder_create(folder);
    *state = folder;
    return 0;
}

static int tear_down(void **state)
{
    temporary_folder_destroy(*state);
    free(*state);
    return 0;
}

/* index_open() of one url; fails the test with its error. `cache` may be NULL. */
static struct index *open_url(const char *url, const char *cache, bool *was_built)
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

static void expect_refusal(const char *url, const char *part)
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
static void expect_samples(const struct index *index, size_t skip, const char *joined)
{
    char text[2048] = "";
    for (uint64_t i = 0; i < index_sample_count(index); i++) {
        char label[1024], piece[1100];
        index_sample_label(index, i, label, sizeof label);
        struct index_fields *fields;
        const char *all[] = {"jpg;txt;cls"};
        struct sample_place place;
        char buffer[4096];
        assert_int_equal(index_fields_create(index, all, 1, &fields, NULL), 0);
        assert_int_equal(index_sample_place(index, fields, i, &place, buffer, sizeof buffer), 0);
        index_fields_destroy(fields);
        snprintf(piece, sizeof piece, "%s%lld:%s", i > 0 ? " " : "", (long long)place.label,
                 label + skip);
        strcat(text, piece);
    }
    assert_string_equal(text, joined);
}

static void make_folder(const struct temporary_folder *folder)
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

/* The only file in CACHE/index, or "". */
static void find_stored(const struct temporary_folder *folder, char *name, size_t name_bytes)
{
    DIR *entries = opendir(temporary_path(folder, "cache/index"));
    assert_non_null(entries);
    name[0] = '\0';
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (entry->d_name[0] != '.') {
            assert_string_equal(name, "");
            snprintf(name, name_bytes, "cache/index/%s", entry->d_name);
        }
    }
    closedir(entries);
}

static bool is_built_again(const struct temporary_folder *folder, const char *name)
{
    char cache[256];
    strcpy(cache, temporary_path(folder, "cache"));
    bool was_built;
    index_unref(open_url(temporary_path(folder, "%s", name), cache, &was_built));
    return was_built;
}

static void stored_indices_are_used_until_a_folder_changes(void **state)
{
    const struct temporary_folder *folder = *state;
    make_folder(folder);
    temporary_age(temporary_path(folder, "f"));
    assert_true(is_built_again(folder, "f"));
    assert_false(is_built_again(folder, "f"));
    struct stat status;
    char name[300];
    find_stored(folder, name, sizeof name);
    assert_int_equal(stat(temporary_path(folder, "%s", name), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(stat(temporary_path(folder, "cache/index"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);

    temporary_file(folder, "f/b/sub/3.jpg", "");
    assert_true(is_built_again(folder, "f"));
    /* A file added in the same tick would not change the time: not trusted yet. */
    assert_true(is_built_again(folder, "f"));
    temporary_age(temporary_path(folder, "f"));
    assert_true(is_built_again(folder, "f"));
    assert_false(is_built_again(folder, "f"));
    assert_int_equal(mkdir(temporary_path(folder, "f/new"), 0700), 0);
    assert_true(is_built_again(folder, "f"));
}

static void stored_indices_are_used_until_a_shard_changes(void **state)
{
    const struct temporary_folder *folder = *state;
    struct tar_maker maker = {0};
    maker_file(&maker, "1.jpg", "abc");
    maker_end(&maker);
    maker_save(&maker, temporary_path(folder, "a.tar"));
    assert_true(is_built_again(folder, "a.tar"));
    assert_true(is_built_again(folder, "a.tar")); /* too young to be trusted */
    temporary_age(temporary_path(folder, "a.tar"));
    assert_true(is_built_again(folder, "a.tar"));
    assert_false(is_built_again(folder, "a.tar"));
    temporary_age(temporary_path(folder, "a.tar")); /* another time */
    assert_true(is_built_again(folder, "a.tar"));
    assert_false(is_built_again(folder, "a.tar"));
    maker_clear(&maker);
}

static void change_byte(const char *path, long at, int change)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, at, at < 0 ? SEEK_END : SEEK_SET);
    int byte = fgetc(file);
    fseek(file, -1, SEEK_CUR);
    fputc(byte ^ change, file);
    fclose(file);
}

static void damaged_files_are_built_again(void **state)
{
    const struct temporary_folder *folder = *state;
    make_folder(folder);
    temporary_age(temporary_path(folder, "f"));
    assert_true(is_built_again(folder, "f"));
    char name[300], path[512];
    find_stored(folder, name, sizeof name);
    strcpy(path, temporary_path(folder, "%s", name));
    static const long places[] = {0, 8, 20, 100, 180, 184, 300, -1, -20};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        assert_false(is_built_again(folder, "f"));
        change_byte(path, places[i], 0x11);
        assert_true(is_built_again(folder, "f"));
    }
    static const off_t sizes[] = {0, 1, 183, 184, 500, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(truncate(path, sizes[i]), 0);
        assert_true(is_built_again(folder, "f"));
        assert_false(is_built_again(folder, "f"));
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not be waited for */
    assert_true(is_built_again(folder, "f"));
    assert_false(is_built_again(folder, "f"));
}

/* Opened with a warning, kept in memory. */
static void expect_in_memory(const char *url, const char *cache)
{
    const char *urls[] = {url};
    struct index_options options = {
        .urls = urls, .url_count = 1, .cache_folder = cache, .thread_count = 1};
    struct index *index;
    char warning[ERROR_TEXT_BYTES];
    struct error error;
    if (index_open(&options, NULL, &index, NULL, warning, &error) < 0) {
        fail_msg("%s", error.text);
    }
    assert_non_null(strstr(warning, "kept in memory"));
    assert_true(fcntl(index_fd(index), F_GET_SEALS) & F_SEAL_WRITE);
    assert_int_equal(index_sample_count(index), 12);
    index_unref(index);
}

static void an_index_that_cannot_be_stored_stays_in_memory(void **state)
{
    const struct temporary_folder *folder = *state;
    make_folder(folder);
    char root[256];
    strcpy(root, temporary_path(folder, "f"));
    temporary_file(folder, "file", "");
    expect_in_memory(root, temporary_path(folder, "file/cache"));

    /* /dev/full has no folders; a limit on file sizes stands in for a full disk. */
    char cache[256];
    strcpy(cache, temporary_path(folder, "cache"));
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit = {500, 500};
        setrlimit(RLIMIT_FSIZE, &limit);
        const char *urls[] = {root};
        struct index_options options = {
            .urls = urls, .url_count = 1, .cache_folder = cache, .thread_count = 1};
        struct index *index;
        char warning[ERROR_TEXT_BYTES];
        struct error error;
        int result = index_open(&options, NULL, &index, NULL, warning, &error);
        /* The limit holds for memfds too: an error, and nothing left behind. */
        _exit(result == -1 && error.kind == ERROR_MEMORY ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    char name[300];
    find_stored(folder, name, sizeof name);
    assert_string_equal(name, "");
}

static void leftovers_of_a_crash_are_removed(void **state)
{
    const struct temporary_folder *folder = *state;
    make_folder(folder);
    temporary_file(folder, "cache/index/0123.psi.00ff.tmp", "half an index");
    temporary_age(temporary_path(folder, "cache/index"));
    assert_true(is_built_again(folder, "f"));
    char name[300];
    find_stored(folder, name, sizeof name); /* exactly one file */
    assert_null(strstr(name, ".tmp"));
    temporary_file(folder, "cache/index/4567.psi.00ff.tmp", "young: perhaps being written");
    assert_true(is_built_again(folder, "f"));
    assert_int_equal(access(temporary_path(folder, "cache/index/4567.psi.00ff.tmp"), F_OK), 0);
}

static void processes_may_build_the_same_index(void **state)
{
    const struct temporary_folder *folder = *state;
    make_folder(folder);
    temporary_age(temporary_path(folder, "f"));
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        if ((children[i] = fork()) == 0) {
            char root[256], cache[256];
            strcpy(root, temporary_path(folder, "f"));
            strcpy(cache, temporary_path(folder, "cache"));
            const char *urls[] = {root};
            for (int j = 0; j < 20; j++) {
                struct index_options options = {.urls = urls,
                                                .url_count = 1,
                                                .cache_folder = cache,
                                                .thread_count = 1,
                                                .rebuild = j % 2 == 0};
                struct index *index;
                char warning[ERROR_TEXT_BYTES];
                if (index_open(&options, NULL, &index, NULL, warning, NULL) < 0 ||
                    warning[0] != '\0' || index_sample_count(index) != 12) {
                    _exit(1);
                }
                index_unref(index);
            }
            _exit(0);
        }
    }
    for (int i = 0; i < 4; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    assert_false(is_built_again(folder, "f"));
    char name[300];
    find_stored(folder, name, sizeof name);
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
    assert_int_equal(index_fields_create(index, patterns, 3, &fields, NULL), 0);
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
    assert_int_equal(index_fields_create(index, patterns, 2, &fields, &error), -1);
    assert_non_null(strstr(error.text, "json;yaml"));
    assert_non_null(strstr(error.text, "jpg, cls, seg.png, jpeg, png, txt"));
    assert_int_equal(index_fields_create(index, patterns, 0, &fields, &error), -1);
    assert_int_equal(index_fields_create(index, patterns, 9, &fields, &error), -1);
    index_unref(index);
    index = open_url(temporary_path(folder, "f"), NULL, NULL);
    assert_int_equal(index_fields_create(index, patterns, 2, &fields, &error), -1);
    assert_int_equal(error.kind, ERROR_USAGE);
    index_unref(index);
}

static void paths_of_files_are_joined_or_too_long(void **state)
{
    const struct temporary_folder *folder = *state;
    make_folder(folder);
    struct index *index = open_url(temporary_path(folder, "f"), NULL, NULL);
    static const char *const pattern[] = {"jpg"};
    struct index_fields *fields;
    assert_int_equal(index_fields_create(index, pattern, 1, &fields, NULL), 0);
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

#define FOLDER_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(folders_are_listed_in_order),
        FOLDER_TEST(links_are_followed_but_not_in_circles),
        FOLDER_TEST(folders_without_classes_or_images_are_refused),
        FOLDER_TEST(any_number_of_threads_gives_the_same_bytes),
        FOLDER_TEST(stored_indices_are_used_until_a_folder_changes),
        FOLDER_TEST(stored_indices_are_used_until_a_shard_changes),
        FOLDER_TEST(damaged_files_are_built_again),
        FOLDER_TEST(an_index_that_cannot_be_stored_stays_in_memory),
        FOLDER_TEST(leftovers_of_a_crash_are_removed),
        FOLDER_TEST(processes_may_build_the_same_index),
        FOLDER_TEST(indexing_can_be_cancelled_and_shows_progress),
        FOLDER_TEST(samples_of_shards_have_fields),
        FOLDER_TEST(fields_that_are_nowhere_are_refused),
        FOLDER_TEST(paths_of_files_are_joined_or_too_long),
        FOLDER_TEST(same_data_elsewhere_has_the_same_fingerprint),
        FOLDER_TEST(bad_shards_are_refused),
        FOLDER_TEST(many_keys_in_one_shard),
        FOLDER_TEST(a_missing_end_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
