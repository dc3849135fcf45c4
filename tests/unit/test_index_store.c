#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/unit/index_fixture.h"

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

/* Images of containers and reproducible archives have such times. */
static void the_first_second_of_1970_is_a_time_like_others(void **state)
{
    const struct temporary_folder *folder = *state;
    const struct timespec epoch[2] = {{0, 0}, {0, 0}};
    temporary_file(folder, "f/a/1.jpg", "");
    assert_int_equal(utimensat(AT_FDCWD, temporary_path(folder, "f/a"), epoch, 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, temporary_path(folder, "f"), epoch, 0), 0);
    assert_true(is_built_again(folder, "f"));
    assert_false(is_built_again(folder, "f"));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(stored_indices_are_used_until_a_folder_changes),
        FOLDER_TEST(stored_indices_are_used_until_a_shard_changes),
        FOLDER_TEST(the_first_second_of_1970_is_a_time_like_others),
        FOLDER_TEST(damaged_files_are_built_again),
        FOLDER_TEST(an_index_that_cannot_be_stored_stays_in_memory),
        FOLDER_TEST(leftovers_of_a_crash_are_removed),
        FOLDER_TEST(processes_may_build_the_same_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
