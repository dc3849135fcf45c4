#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/cache/store_manage.h"
#include "tests/tools/made_origin.h"
#include "tests/tools/temporary_folder.h"

enum { CHUNK = 256 << 10, LIMIT_CHUNKS = 64 };

static struct temporary_folder folder;
static struct remote *origin;

static int set_up(void **state)
{
    (void)state;
    temporary_folder_create(&folder);
    origin = remote_create(NULL, NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remote_destroy(origin);
    temporary_folder_destroy(&folder);
    return 0;
}

static struct store *open_store(uint64_t disk_bytes)
{
    struct store_options options = {
        .folder = disk_bytes > 0 ? folder.path : "",
        .disk_limit_bytes = disk_bytes,
        .free_floor_bytes = 1,
        .memory_limit_bytes = 8 * CHUNK,
        .chunk_bytes = CHUNK,
        .remote = origin,
    };
    struct error error;
    struct store *store = store_create(&options, &error);
    assert_non_null(store);
    return store;
}

static struct store_stats stats_of(struct store *store)
{
    struct store_stats stats;
    store_stats_get(store, &stats);
    return stats;
}

static void read_object(struct store *store, const char *url, const char *tag, uint64_t size)
{
    struct store_object object = {.url = url, .tag = tag, .size_bytes = size};
    uint8_t *bytes = malloc(size), *expected = malloc(size);
    struct error error = {.text = ""};
    if (store_read(store, &object, 0, size, bytes, NULL, &error) != 0) {
        fail_msg("%s", error.text);
    }
    made_bytes(url, 0, size, expected);
    assert_memory_equal(bytes, expected, size);
    free(bytes);
    free(expected);
}

/* Wait until the writers have nothing to do. */
static void settle(struct store *store)
{
    struct store_stats before = {.written_bytes = 1}, now = {0};
    for (int same = 0; same < 5;) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        now = stats_of(store);
        bool is_same = !now.is_scanning && now.bytes_in_flight == 0 &&
                       now.written_bytes == before.written_bytes &&
                       now.evicted_count == before.evicted_count;
        same = is_same ? same + 1 : 0;
        before = now;
    }
}

struct listed {
    char text[2000]; /* "URL TAG chunks/total pinned|-;" of each */
    bool expires;
};

static bool list_one(void *context, const struct store_entry *entry)
{
    struct listed *listed = context;
    size_t used = strlen(listed->text);
    snprintf(listed->text + used, sizeof listed->text - used, "%s %s %u/%u %s;", entry->url,
             entry->tag, entry->chunk_count, entry->chunks_total,
             entry->is_pinned ? "pinned" : "-");
    listed->expires |= entry->expires_s > 0;
    return true;
}

static struct listed list_of(struct store *store, const char *prefix)
{
    struct listed listed = {.text = ""};
    struct error error;
    assert_int_equal(store_list(store, prefix, list_one, &listed, &error), 0);
    return listed;
}

static struct store_evicted evict(struct store *store, struct store_choice choice)
{
    struct store_evicted evicted;
    struct error error;
    assert_int_equal(store_evict(store, &choice, NULL, &evicted, &error), 0);
    return evicted;
}

static void fill(struct store *store)
{
    read_object(store, "s3://b/train/0", "\"1\"", 3 * CHUNK);
    read_object(store, "s3://b/train/1", "\"1\"", CHUNK + 1);
    read_object(store, "s3://b/val/0", "\"1\"", 100);
    settle(store);
}

/* ---- Looking ------------------------------------------------------------------------------- */

static void listing_is_the_same_after_a_restart(void **state)
{
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        struct store *store = open_store(LIMIT_CHUNKS * CHUNK);
        if (turn == 0) {
            fill(store);
            struct store_object part = {.url = "s3://b/part", .tag = "\"1\""};
            part.size_bytes = 5 * CHUNK;
            uint8_t byte;
            assert_int_equal(store_read(store, &part, 2 * CHUNK, 1, &byte, NULL, NULL), 0);
            settle(store);
        }
        assert_string_equal(list_of(store, "").text,
                            "s3://b/part \"1\" 1/5 -;s3://b/train/0 \"1\" 3/3 -;"
                            "s3://b/train/1 \"1\" 2/2 -;s3://b/val/0 \"1\" 1/1 -;");
        assert_string_equal(list_of(store, "s3://b/v").text, "s3://b/val/0 \"1\" 1/1 -;");
        assert_string_equal(list_of(store, "s3://c").text, "");
        struct store_usage usage;
        assert_int_equal(store_usage(store, "s3://b/", &usage, NULL), 0);
        assert_int_equal(usage.object_count, 4);
        assert_int_equal(usage.complete_count, 3);
        assert_int_equal(usage.chunk_count, 7);
        assert_int_equal(usage.object_bytes, 9 * CHUNK + 101);
        assert_int_equal(usage.disk_bytes, stats_of(store).disk_used_bytes);
        assert_int_equal(usage.memory_bytes, 0);
        store_destroy(store);
    }
}

static void memory_is_listed_without_a_disk(void **state)
{
    (void)state;
    struct store *store = open_store(0);
    struct error error;
    read_object(store, "s3://b/a", "\"1\"", CHUNK + 7);
    assert_string_equal(list_of(store, "").text, "s3://b/a \"1\" 2/2 -;");
    assert_int_equal(store_pin(store, "s3://b", &error), -1);
    assert_int_equal(error.kind, ERROR_STATE);
    assert_int_equal(evict(store, (struct store_choice){.prefix = ""}).bytes, CHUNK + 7);
    assert_string_equal(list_of(store, "").text, "");
    assert_int_equal(stats_of(store).memory_used_bytes, 0);
    store_destroy(store);
}

/* Change a byte of each chunk file's header. */
static void damage_headers(void)
{
    char command[700];
    snprintf(command, sizeof command,
             "find '%s/chunks' -name '*-*-*' -exec dd if=/dev/zero of={} bs=1 seek=40 count=8 "
             "conv=notrunc status=none ';'",
             folder.path);
    assert_int_equal(system(command), 0);
}

static void damaged_headers_are_dropped(void **state)
{
    (void)state;
    struct store *store = open_store(LIMIT_CHUNKS * CHUNK);
    fill(store);
    store_destroy(store);
    damage_headers();
    store = open_store(LIMIT_CHUNKS * CHUNK);
    assert_string_equal(list_of(store, "").text, "");
    struct store_stats stats = stats_of(store);
    assert_int_equal(stats.corrupt_count, 6);
    assert_int_equal(stats.disk_used_bytes, 0);
    fill(store);
    store_destroy(store);
}

/* ---- Rules --------------------------------------------------------------------------------- */

static void pinned_chunks_stay_under_pressure(void **state)
{
    (void)state;
    for (int turn = 0; turn < 2; turn++) { /* pins survive a restart */
        struct store *store = open_store(20 * CHUNK);
        if (turn == 0) {
            fill(store);
            assert_int_equal(store_pin(store, "s3://b/train/0", NULL), 0);
        }
        char url[40];
        for (int i = 0; i < 60; i++) {
            snprintf(url, sizeof url, "s3://other/%d", 100 * turn + i);
            read_object(store, url, "\"1\"", CHUNK);
            if (i % 8 == 7) {
                settle(store);
            }
            assert_true(stats_of(store).disk_used_bytes <= 20 * CHUNK);
        }
        settle(store);
        assert_true(stats_of(store).evicted_count > 0);
        assert_string_equal(list_of(store, "s3://b/train/0").text,
                            "s3://b/train/0 \"1\" 3/3 pinned;");
        uint64_t bytes = made_byte_count(origin);
        read_object(store, "s3://b/train/0", "\"1\"", 3 * CHUNK);
        assert_int_equal(made_byte_count(origin), bytes);
        store_destroy(store);
    }
    struct store *store = open_store(4 * CHUNK); /* a lower limit goes before pins */
    settle(store);
    assert_true(stats_of(store).disk_used_bytes <= 4 * CHUNK);
    store_destroy(store);
}

static void count_rules(void *context, const struct store_rule *rule)
{
    char *text = context;
    size_t used = strlen(text);
    snprintf(text + used, 1000 - used, "%s %d %d;", rule->prefix, rule->is_pinned,
             (int)rule->ttl_seconds);
}

static void rules_are_changed_and_kept(void **state)
{
    (void)state;
    struct store *store = open_store(LIMIT_CHUNKS * CHUNK);
    struct store *second = open_store(LIMIT_CHUNKS * CHUNK);
    struct error error;
    char text[1000] = "";
    fill(store);
    assert_int_equal(store_pin(second, "s3://b/", &error), -1); /* the folder is the first one's */
    assert_int_equal(error.kind, ERROR_STATE);
    assert_int_equal(store_pin(store, "s3://b/", NULL), 0);
    assert_int_equal(store_pin(store, "s3://b/train/", NULL), 0);
    assert_int_equal(store_ttl(store, "s3://b/train/", 3600, NULL), 0);
    assert_int_equal(store_ttl(store, "s3://c/\"\n", UINT64_MAX, NULL), 0);
    assert_int_equal(store_unpin(store, "s3://b/t", NULL), 0); /* takes back the longer one */
    store_rules(store, count_rules, text);
    assert_string_equal(text, "s3://b/ 1 0;s3://b/train/ 0 3600;s3://c/\"\n 0 -1;");
    assert_string_equal(list_of(store, "s3://b/train/1").text, "s3://b/train/1 \"1\" 2/2 pinned;");
    assert_int_equal(store_unpin(store, "", NULL), 0);
    assert_string_equal(list_of(store, "s3://b/val/").text, "s3://b/val/0 \"1\" 1/1 -;");
    assert_true(list_of(store, "s3://b/train").expires);
    assert_false(list_of(store, "s3://b/val").expires);
    store_destroy(second);
    store_destroy(store);
    store = open_store(LIMIT_CHUNKS * CHUNK);
    assert_true(list_of(store, "s3://b/train").expires);
    text[0] = '\0';
    store_rules(store, count_rules, text);
    assert_string_equal(text, "s3://b/train/ 0 3600;s3://c/\"\n 0 -1;");
    store_destroy(store);
}

static void damaged_rules_are_not_used(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{\"version\": 2, \"rules\": []}",
        "{\"version\": 1, \"rules\": [{\"prefix\": 3}]}",
        "{\"version\": 1, \"rules\": [{\"prefix\": \"s3://b\", \"ttl_seconds\": -1}]}",
        "{\"version\": 1, \"rules\": {}}",
    };
    struct store *store = open_store(LIMIT_CHUNKS * CHUNK);
    fill(store);
    store_destroy(store);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char text[1000] = "";
        temporary_file(&folder, "chunks/rules.json", texts[i]);
        store = open_store(LIMIT_CHUNKS * CHUNK);
        settle(store);
        store_rules(store, count_rules, text);
        assert_string_equal(text, "");
        assert_int_equal(stats_of(store).disk_chunk_count, 6);
        store_destroy(store);
    }
}

static void chunks_expire(void **state)
{
    (void)state;
    struct store *store = open_store(LIMIT_CHUNKS * CHUNK);
    fill(store);
    assert_int_equal(store_pin(store, "s3://b/train/1", NULL), 0);
    assert_int_equal(store_ttl(store, "s3://b/", 3600, NULL), 0);
    assert_int_equal(store_ttl(store, "s3://b/train", 1, NULL), 0); /* the longer one decides */
    for (int i = 0; i < 500 && stats_of(store).disk_chunk_count > 3; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    assert_string_equal(list_of(store, "").text,
                        "s3://b/train/1 \"1\" 2/2 pinned;s3://b/val/0 \"1\" 1/1 -;");
    uint64_t bytes = made_byte_count(origin);
    read_object(store, "s3://b/train/0", "\"1\"", 3 * CHUNK); /* from the origin again */
    assert_int_equal(made_byte_count(origin), bytes + 3 * CHUNK);
    store_destroy(store);
}

/* ---- Evicting ------------------------------------------------------------------------------ */

static void evicting_takes_what_matches(void **state)
{
    (void)state;
    struct store *store = open_store(LIMIT_CHUNKS * CHUNK);
    fill(store);
    uint64_t before = stats_of(store).disk_used_bytes;
    assert_int_equal(store_pin(store, "s3://b/train/1", NULL), 0);
    struct store_choice choice = {.prefix = "s3://b/train/", .is_dry = true};
    struct store_evicted dry = evict(store, choice);
    assert_int_equal(stats_of(store).disk_used_bytes, before);
    choice.is_dry = false;
    struct store_evicted done = evict(store, choice);
    assert_memory_equal(&dry, &done, sizeof dry);
    assert_int_equal(done.chunk_count, 3);
    assert_int_equal(done.pinned_count, 2);
    assert_int_equal(done.busy_count, 0);
    assert_int_equal(stats_of(store).disk_used_bytes, before - done.bytes);
    assert_string_equal(list_of(store, "").text,
                        "s3://b/train/1 \"1\" 2/2 pinned;s3://b/val/0 \"1\" 1/1 -;");
    choice.is_forced = true;
    assert_int_equal(evict(store, choice).chunk_count, 2);
    uint64_t bytes = made_byte_count(origin);
    read_object(store, "s3://b/train/0", "\"1\"", 3 * CHUNK);
    assert_int_equal(made_byte_count(origin), bytes + 3 * CHUNK);
    store_destroy(store);
}

static bool is_old(void *context, const struct store_entry *entry)
{
    return strcmp(entry->tag, context) != 0;
}

static void evicting_old_versions(void **state)
{
    (void)state;
    struct store *store = open_store(LIMIT_CHUNKS * CHUNK);
    read_object(store, "s3://b/a", "\"1\"", 2 * CHUNK);
    read_object(store, "s3://b/a", "\"2\"", 2 * CHUNK);
    settle(store);
    struct store_choice choice = {
        .prefix = "s3://b/a", .wants = is_old, .context = (void *)"\"2\""};
    assert_int_equal(evict(store, choice).chunk_count, 2);
    assert_string_equal(list_of(store, "").text, "s3://b/a \"2\" 2/2 -;");
    store_destroy(store);
}

struct reading {
    struct store *store;
    atomic_bool is_ended;
};

static void *read_on(void *argument)
{
    struct reading *reading = argument;
    for (int i = 0; !atomic_load(&reading->is_ended); i++) {
        char url[40];
        snprintf(url, sizeof url, "s3://b/%d", i % 10);
        read_object(reading->store, url, "\"1\"", 2 * CHUNK + 1);
    }
    return NULL;
}

static void evicting_while_others_read(void **state)
{
    (void)state;
    struct store *store = open_store(LIMIT_CHUNKS * CHUNK);
    struct reading reading = {.store = store};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, read_on, &reading);
    }
    uint64_t evicted = 0;
    for (int i = 0; i < 100 || evicted < 20; i++) {
        evicted += evict(store, (struct store_choice){.prefix = "s3://b/"}).chunk_count;
        list_of(store, i % 2 == 0 ? "" : "s3://b/1");
        if (i % 10 == 0) {
            assert_int_equal(store_pin(store, "s3://b/3", NULL), 0);
        } else if (i % 10 == 5) {
            assert_int_equal(store_unpin(store, "", NULL), 0);
        }
    }
    atomic_store(&reading.is_ended, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    settle(store);
    struct store_choice all = {.prefix = "", .is_forced = true};
    assert_int_equal(evict(store, all).busy_count, 0);
    assert_int_equal(stats_of(store).disk_used_bytes, 0);
    assert_int_equal(stats_of(store).memory_used_bytes, 0);
    store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(listing_is_the_same_after_a_restart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(memory_is_listed_without_a_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damaged_headers_are_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pinned_chunks_stay_under_pressure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rules_are_changed_and_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damaged_rules_are_not_used, set_up, tear_down),
        cmocka_unit_test_setup_teardown(chunks_expire, set_up, tear_down),
        cmocka_unit_test_setup_teardown(evicting_takes_what_matches, set_up, tear_down),
        cmocka_unit_test_setup_teardown(evicting_old_versions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(evicting_while_others_read, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
