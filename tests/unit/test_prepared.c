/* Shelves of prepared records: found again, never the wrong one, within their limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>

#include "loader/prepared/prepared.h"
#include "tests/tools/temporary_folder.h"

enum { SAMPLES = 200, RECORD_BYTES_MAX = 5000 };

static int setup(void **state)
{
    struct temporary_folder *folder = malloc(sizeof *folder);
    temporary_folder_create(folder);
    *state = folder;
    return 0;
}

static int teardown(void **state)
{
    temporary_folder_destroy(*state);
    free(*state);
    return 0;
}

static struct prepared *open_all(const struct temporary_folder *folder, uint64_t limit_bytes)
{
    struct error error;
    const struct prepared_options options = {folder->path, limit_bytes, 0};
    struct prepared *prepared = prepared_create(&options, &error);
    assert_non_null(prepared);
    return prepared;
}

static struct shelf_about about(uint8_t number)
{
    struct shelf_about about = {.form = 1, .sample_count = SAMPLES};
    memset(about.key, number, sizeof about.key);
    snprintf(about.name, sizeof about.name, "/data/%u", number);
    return about;
}

static struct shelf *open_one(struct prepared *prepared, uint8_t number)
{
    const struct shelf_about which = about(number);
    return shelf_open(prepared, &which);
}

/* The record of a sample: other bytes and another length for each. */
static size_t make_record(uint64_t canonical, uint8_t *record)
{
    size_t bytes = 100 + canonical * 37 % (RECORD_BYTES_MAX - 100);
    for (size_t i = 0; i < bytes; i++) {
        record[i] = (uint8_t)(canonical * 131 + i * 7);
    }
    return bytes;
}

static struct shelf_source source_of(uint64_t canonical)
{
    return (struct shelf_source){1000 + canonical, (int64_t)canonical * 1000000007};
}

static int add(struct shelf *shelf, uint64_t canonical)
{
    uint8_t record[RECORD_BYTES_MAX];
    size_t bytes = make_record(canonical, record);
    const struct shelf_source source = source_of(canonical);
    return shelf_add(shelf, canonical, &source, record, bytes);
}

/* 1: found and right, 0: absent, -1: what was read is not the sample's. */
static int look(struct shelf *shelf, uint64_t canonical)
{
    struct shelf_place place;
    if (shelf_find(shelf, canonical, &place) != SHELF_PRESENT) {
        return 0;
    }
    assert_int_equal(place.source.size_bytes, source_of(canonical).size_bytes);
    uint8_t *bytes = malloc(place.length_bytes);
    int fd = open(place.path, O_RDONLY);
    ssize_t size = pread(fd, bytes, place.length_bytes, (off_t)place.offset_bytes);
    close(fd);
    const uint8_t *record;
    size_t record_bytes;
    int result = -1;
    if (size >= 0 &&
        shelf_record(shelf, canonical, &place, bytes, (size_t)size, &record, &record_bytes)) {
        uint8_t expected[RECORD_BYTES_MAX];
        size_t expected_bytes = make_record(canonical, expected);
        assert_int_equal(record_bytes, expected_bytes);
        result = memcmp(record, expected, record_bytes) == 0 ? 1 : -1;
    }
    free(bytes);
    return result;
}

static void records_are_found_again_after_a_restart(void **state)
{
    struct prepared *prepared = open_all(*state, 1 << 30);
    struct shelf *shelf = open_one(prepared, 7);
    assert_ptr_equal(open_one(prepared, 7), shelf);
    shelf_close(shelf);
    for (uint64_t i = 0; i < SAMPLES; i += 2) {
        assert_int_equal(add(shelf, i), 0);
        assert_int_equal(add(shelf, i), -EEXIST);
    }
    const struct shelf_source source = source_of(5);
    shelf_mark_unsuitable(shelf, 5, &source);
    assert_int_equal(add(shelf, SAMPLES), -EINVAL);
    for (int turn = 0; turn < 2; turn++) {
        for (uint64_t i = 0; i < SAMPLES; i++) {
            assert_int_equal(look(shelf, i), i % 2 == 0);
        }
        struct shelf_place place;
        assert_int_equal(shelf_find(shelf, 5, &place), SHELF_UNSUITABLE);
        assert_int_equal(place.source.mtime_ns, source.mtime_ns);
        struct shelf_stats stats = shelf_stats(shelf);
        assert_int_equal(stats.record_count, SAMPLES / 2);
        assert_int_equal(stats.unsuitable_count, 1);
        shelf_close(shelf);
        prepared_destroy(prepared);
        prepared = open_all(*state, 1 << 30);
        shelf = open_one(prepared, 7);
    }
    shelf_drop(shelf, 4, SHELF_OUTDATED);
    assert_int_equal(look(shelf, 4), 0);
    assert_int_equal(add(shelf, 4), 0);
    assert_int_equal(look(shelf, 4), 1);
    shelf_close(shelf);
    prepared_destroy(prepared);
}

/* The path of the journal, or of the newest pack, of shelf 7. */
static void file_of(const struct temporary_folder *folder, const char *prefix, char *path,
                    size_t path_bytes)
{
    const char *place = temporary_path(folder, "prepared/07070707070707070707070707070707");
    DIR *names = opendir(place);
    assert_non_null(names);
    path[0] = '\0';
    for (struct dirent *entry; (entry = readdir(names)) != NULL;) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0) {
            snprintf(path, path_bytes, "%s/%s", place, entry->d_name);
        }
    }
    closedir(names);
    assert_string_not_equal(path, "");
}

static void a_torn_journal_is_read_up_to_the_tear(void **state)
{
    struct prepared *prepared = open_all(*state, 1 << 30);
    struct shelf *shelf = open_one(prepared, 7);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(add(shelf, i), 0);
    }
    shelf_close(shelf);
    char journal[600];
    file_of(*state, "journal", journal, sizeof journal);
    struct stat status;
    assert_int_equal(stat(journal, &status), 0);
    assert_int_equal(truncate(journal, status.st_size - 20), 0);
    shelf = open_one(prepared, 7);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(look(shelf, i), i < 9);
    }
    assert_int_equal(add(shelf, 9), 0); /* appended where the tear was */
    shelf_close(shelf);
    shelf = open_one(prepared, 7);
    assert_int_equal(look(shelf, 9), 1);
    shelf_close(shelf);
    prepared_destroy(prepared);
}

static void bytes_of_another_place_are_refused(void **state)
{
    struct prepared *prepared = open_all(*state, 1 << 30);
    struct shelf *shelf = open_one(prepared, 7);
    for (uint64_t i = 0; i < 20; i++) {
        assert_int_equal(add(shelf, i), 0);
    }
    char pack[600];
    file_of(*state, "pack-", pack, sizeof pack);
    struct shelf_place first, second;
    shelf_find(shelf, 3, &first);
    shelf_find(shelf, 4, &second);
    uint8_t bytes[6000];
    int fd = open(pack, O_RDWR);
    assert_true(pread(fd, bytes, first.length_bytes, (off_t)first.offset_bytes) > 0);
    assert_true(pwrite(fd, bytes, first.length_bytes, (off_t)second.offset_bytes) > 0);
    memset(bytes, 0, 64);
    shelf_find(shelf, 7, &second);
    assert_true(pwrite(fd, bytes, 64, (off_t)second.offset_bytes) == 64);
    close(fd);
    assert_int_equal(look(shelf, 4), -1);
    assert_int_equal(look(shelf, 7), -1);
    assert_int_equal(look(shelf, 3), 1);
    shelf_drop(shelf, 4, SHELF_CORRUPT);
    assert_int_equal(shelf_stats(shelf).corrupt_count, 1);
    assert_int_equal(prepared_stats(prepared).corrupt_count, 1);
    shelf_close(shelf);
    assert_int_equal(truncate(pack, 0), 0);
    shelf = open_one(prepared, 7);
    assert_int_equal(look(shelf, 3), -1);
    shelf_close(shelf);
    prepared_destroy(prepared);
}

static void every_flipped_byte_of_the_journal_is_noticed(void **state)
{
    struct prepared *prepared = open_all(*state, 1 << 30);
    struct shelf *shelf = open_one(prepared, 7);
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(add(shelf, i), 0);
    }
    shelf_close(shelf);
    char journal[600];
    file_of(*state, "journal", journal, sizeof journal);
    for (int byte = 0; byte < 52; byte++) {
        uint8_t value;
        off_t offset = 4096 + 56 + byte; /* the second entry */
        int fd = open(journal, O_RDWR);
        assert_int_equal(pread(fd, &value, 1, offset), 1);
        value ^= 0x10;
        assert_int_equal(pwrite(fd, &value, 1, offset), 1);
        close(fd);
        shelf = open_one(prepared, 7);
        assert_int_equal(look(shelf, 0), 1);
        assert_int_equal(look(shelf, 1), 0);
        assert_int_equal(add(shelf, 1), 0);
        assert_int_equal(add(shelf, 2), 0);
        shelf_close(shelf);
    }
    prepared_destroy(prepared);
}

static void the_limit_holds_and_old_shelves_make_room(void **state)
{
    struct prepared *prepared = open_all(*state, 300000);
    struct shelf *old = open_one(prepared, 7);
    uint64_t count = 0;
    while (add(old, count) == 0) {
        count++;
    }
    assert_in_range(count, 50, SAMPLES - 1);
    assert_true(shelf_is_full(old));
    for (uint64_t i = count; i < SAMPLES; i++) {
        add(old, i); /* the small ones that still fit */
    }
    assert_true(prepared_stats(prepared).used_bytes <= 300000);
    struct shelf *new = open_one(prepared, 8);
    assert_int_equal(add(new, 130), -ENOSPC); /* the other is open */
    shelf_close(new);
    uint8_t key[SHELF_KEY_BYTES];
    memset(key, 7, sizeof key);
    assert_int_equal(prepared_remove(prepared, key), -EBUSY);
    shelf_close(old);
    new = open_one(prepared, 8);
    assert_int_equal(add(new, 130), 0);
    assert_int_equal(look(new, 130), 1);
    assert_int_equal(prepared_remove(prepared, key), -ENOENT);
    shelf_close(new);
    prepared_destroy(prepared);
}

static bool count_shelves(void *context, const struct shelf_entry *entry)
{
    unsigned *count = context;
    assert_int_equal(entry->about.sample_count, SAMPLES);
    assert_string_equal(entry->about.name, entry->about.key[0] == 7 ? "/data/7" : "/data/8");
    assert_int_equal(entry->stats.record_count, entry->about.key[0] == 7 ? 2 : 1);
    assert_int_equal(entry->is_open, entry->about.key[0] == 8);
    assert_true(entry->stats.disk_bytes > 0);
    (*count)++;
    return true;
}

static void shelves_are_listed_and_removed(void **state)
{
    struct prepared *prepared = open_all(*state, 1 << 30);
    struct shelf *closed = open_one(prepared, 7);
    assert_int_equal(add(closed, 1) | add(closed, 2), 0);
    shelf_close(closed);
    struct shelf *open = open_one(prepared, 8);
    assert_int_equal(add(open, 1), 0);
    unsigned count = 0;
    prepared_list(prepared, count_shelves, &count);
    assert_int_equal(count, 2);
    uint8_t key[SHELF_KEY_BYTES];
    memset(key, 7, sizeof key);
    assert_int_equal(prepared_remove(prepared, key), 0);
    assert_int_equal(prepared_remove(prepared, key), -ENOENT);
    shelf_close(open);
    prepared_destroy(prepared);
}

static void a_second_daemon_does_without(void **state)
{
    struct prepared *first = open_all(*state, 1 << 30), *second = open_all(*state, 1 << 30);
    struct shelf *shelf = open_one(first, 7);
    assert_null(open_one(second, 7));
    shelf_close(shelf);
    shelf = open_one(second, 7);
    assert_non_null(shelf);
    shelf_close(shelf);
    prepared_destroy(first);
    prepared_destroy(second);
}

static void *add_many(void *context)
{
    for (uint64_t i = 0; i < SAMPLES; i++) {
        int status = add(context, i);
        assert(status == 0 || status == -EEXIST);
        assert(look(context, i) >= 0);
    }
    return NULL;
}

static void threads_add_each_sample_once(void **state)
{
    struct prepared *prepared = open_all(*state, 1 << 30);
    struct shelf *shelf = open_one(prepared, 7);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, shelf), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(shelf_stats(shelf).record_count, SAMPLES);
    assert_int_equal(prepared_stats(prepared).added_count, SAMPLES);
    for (uint64_t i = 0; i < SAMPLES; i++) {
        assert_int_equal(look(shelf, i), 1);
    }
    shelf_close(shelf);
    prepared_destroy(prepared);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(records_are_found_again_after_a_restart),
        TEST(a_torn_journal_is_read_up_to_the_tear),
        TEST(bytes_of_another_place_are_refused),
        TEST(every_flipped_byte_of_the_journal_is_noticed),
        TEST(the_limit_holds_and_old_shelves_make_room),
        TEST(shelves_are_listed_and_removed),
        TEST(a_second_daemon_does_without),
        TEST(threads_add_each_sample_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
