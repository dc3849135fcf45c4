#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "loader/source.h"
#include "loader/source_engine.h"

enum { DEPTH = 32, FILE_BYTES_MAX = 8 << 20 };

/* Every test runs with both engines; where io_uring is refused its turn runs on pread threads. */
static const enum source_engine engines[] = {SOURCE_URING, SOURCE_PREAD};
#define FOR_EACH_ENGINE(source)                                                                    \
    for (size_t turn_ = 0; turn_ < 2; turn_++)                                                     \
        for (struct source *source = open_source(engines[turn_]); source != NULL;                  \
             source_destroy(source), source = NULL)

static char folder[64];

static struct source *open_source(enum source_engine engine)
{
    struct source *source = source_create(&(struct source_options){
        .engine = engine, .depth = DEPTH, .file_bytes_max = FILE_BYTES_MAX});
    assert_non_null(source);
    return source;
}

static const char *path_of(const char *name)
{
    static char paths[16][128];
    static unsigned turn;
    char *path = paths[turn++ % 16];
    snprintf(path, 128, "%s/%s", folder, name);
    return path;
}

static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)(offset * 2654435761u >> 13);
}

static void put_file(const char *name, size_t size_bytes)
{
    uint8_t *bytes = malloc(size_bytes + 1);
    for (size_t i = 0; i < size_bytes; i++) {
        bytes[i] = byte_at(i);
    }
    FILE *file = fopen(path_of(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size_bytes, file), size_bytes);
    fclose(file);
    free(bytes);
}

/* Submit one request and wait for it. */
static void read_one(struct source *source, struct read_request *request)
{
    struct read_request *done = NULL;
    source_submit(source, &request, 1);
    while (source_reap(source, &done, 1, 1000) == 0) {
        continue;
    }
    assert_ptr_equal(done, request);
}

static void assert_bytes(const struct read_request *request, uint64_t offset, size_t size_bytes)
{
    assert_int_equal(request->error, 0);
    assert_int_equal(request->size_bytes, size_bytes);
    for (size_t i = 0; i < size_bytes; i++) {
        if (request->bytes[i] != byte_at(offset + i)) {
            fail_msg("byte %zu differs", i);
        }
    }
    for (size_t i = 0; i < 64; i++) {
        assert_int_equal(request->bytes[size_bytes + i], 0);
    }
}

static void assert_fails(struct source *source, struct read_request *request, int error)
{
    read_one(source, request);
    assert_int_equal(request->error, error);
    assert_null(request->bytes);
    assert_int_equal(request->size_bytes, 0);
    read_request_clear(request);
}

/* ------------------------------------------------------------------------------ whole files */

static void test_whole_files_of_many_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 4095, 4096, 4097, 65472, 65536, 110000, 3000000};
    FOR_EACH_ENGINE(source)
    {
        struct read_request request = {0};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            put_file("file", sizes[i]);
            request.path = path_of("file");
            request.direct = false;
            read_one(source, &request);
            assert_bytes(&request, 0, sizes[i]);
            request.direct = true;
            read_one(source, &request);
            assert_bytes(&request, 0, sizes[i]);
        }
        read_request_clear(&request);
    }
}

static void test_many_at_once(void **state)
{
    (void)state;
    char names[DEPTH][16];
    for (int i = 0; i < DEPTH; i++) {
        snprintf(names[i], sizeof names[i], "many-%d", i);
        put_file(names[i], (size_t)i * 9973);
    }
    FOR_EACH_ENGINE(source)
    {
        static char paths[DEPTH][128];
        struct read_request requests[DEPTH] = {0}, *pointers[DEPTH], *done[DEPTH];
        for (int i = 0; i < DEPTH; i++) {
            strcpy(paths[i], path_of(names[i]));
            requests[i].path = paths[i];
            requests[i].direct = i % 5 == 0;
            requests[i].owner = &names[i];
            pointers[i] = &requests[i];
        }
        for (int round = 0; round < 20; round++) {
            source_submit(source, pointers, DEPTH);
            size_t count = 0;
            while (count < DEPTH) {
                count +=
                    source_reap(source, done + count, 7 < DEPTH - count ? 7 : DEPTH - count, 1000);
            }
            for (int i = 0; i < DEPTH; i++) {
                size_t number = (size_t)((char(*)[16])done[i]->owner - names);
                assert_ptr_equal(done[i], &requests[number]);
                assert_bytes(done[i], 0, number * 9973);
            }
        }
        assert_int_equal(source_reap(source, done, DEPTH, 0), 0);
        for (int i = 0; i < DEPTH; i++) {
            read_request_clear(&requests[i]);
        }
    }
}

static void test_what_is_no_file_is_refused(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
    put_file("secret", 10);
    put_file("big", FILE_BYTES_MAX + 1);
    chmod(path_of("secret"), 0);
    FOR_EACH_ENGINE(source)
    {
        for (int direct = 0; direct < 2; direct++) {
            struct read_request request = {.direct = direct == 1};
            request.path = path_of("missing");
            assert_fails(source, &request, ENOENT);
            request.path = folder;
            assert_fails(source, &request, EISDIR);
            request.path = path_of("fifo"); /* nobody writes to it: this must not wait */
            assert_fails(source, &request, EINVAL);
            request.path = "/dev/zero";
            assert_fails(source, &request, EINVAL);
            request.path = path_of("big");
            assert_fails(source, &request, EFBIG);
            request.path = "";
            assert_fails(source, &request, ENOENT);
            if (geteuid() != 0) {
                request.path = path_of("secret");
                assert_fails(source, &request, EACCES);
            }
        }
    }
}

static void test_buffers_are_kept_and_trimmed(void **state)
{
    (void)state;
    put_file("file", 500000);
    FOR_EACH_ENGINE(source)
    {
        struct read_request request = {.path = path_of("file")};
        read_one(source, &request);
        uint8_t *buffer = request.buffer;
        read_one(source, &request);
        assert_ptr_equal(request.buffer, buffer);
        assert_int_equal((uintptr_t)buffer % 4096, 0);
        read_request_trim(&request, 1 << 20);
        assert_ptr_equal(request.buffer, buffer);
        read_request_trim(&request, 1 << 18);
        assert_null(request.buffer);
        read_one(source, &request);
        assert_bytes(&request, 0, 500000);
        read_request_clear(&request);
    }
}

/* The steps by hand, to get between the look at the size and the read. */
static void test_a_file_that_changes_while_it_is_read(void **state)
{
    (void)state;
    for (int direct = 0; direct < 2; direct++) {
        struct read_request request = {.path = path_of("file"), .direct = direct == 1};
        put_file("file", 200000);
        read_begin(&request);
        read_opened(&request, open(request.path, read_open_flags(&request)), FILE_BYTES_MAX);
        assert_int_equal(request.state, READ_BYTES);
        assert_int_equal(truncate(request.path, 100000), 0);
        read_run(&request, FILE_BYTES_MAX);
        assert_int_equal(request.state, READ_DONE);
        assert_int_equal(request.error, ENODATA);

        read_begin(&request);
        read_opened(&request, open(request.path, read_open_flags(&request)), FILE_BYTES_MAX);
        put_file("file", 300000); /* grows: what was there when it was opened counts */
        read_run(&request, FILE_BYTES_MAX);
        assert_bytes(&request, 0, 100000);
        read_request_clear(&request);
    }
}

static void test_without_direct_reads_go_on_buffered(void **state)
{
    (void)state;
    put_file("file", 200000);
    struct read_request request = {
        .path = path_of("file"), .direct = true, .offset_bytes = 5000, .length_bytes = 100000};
    read_begin(&request);
    assert_true((read_open_flags(&request) & O_DIRECT) != 0);
    read_opened(&request, -EINVAL, FILE_BYTES_MAX); /* the file system knows no such flag */
    assert_int_equal(request.state, READ_OPEN);
    assert_true((read_open_flags(&request) & O_DIRECT) == 0);
    read_run(&request, FILE_BYTES_MAX);
    assert_bytes(&request, 5000, 100000);

    read_begin(&request);
    read_opened(&request, open(request.path, read_open_flags(&request)), FILE_BYTES_MAX);
    if (request.align_bytes != 0) {
        read_advance(&request, -EINVAL); /* it knows the flag and refuses the read */
    }
    assert_int_equal(request.state, READ_BYTES);
    assert_true((fcntl(request.fd, F_GETFL) & (O_DIRECT | O_NONBLOCK)) == 0);
    read_run(&request, FILE_BYTES_MAX);
    assert_bytes(&request, 5000, 100000);
    read_request_clear(&request);
}

/* ------------------------------------------------------------------------- ranges and shards */

static void test_ranges(void **state)
{
    (void)state;
    enum { SIZE = 100001 };
    put_file("shard", SIZE);
    static const struct {
        uint64_t offset, length;
        int error;
    } ranges[] = {
        {0, 1, 0},
        {1, 4095, 0},
        {4095, 2, 0},
        {4096, 8192, 0},
        {5000, 50000, 0},
        {SIZE - 1, 1, 0},
        {98304, 1697, 0},
        {98305, 1696, 0},
        {0, SIZE, 0},
        {0, SIZE + 1, ENODATA},
        {SIZE, 1, ENODATA},
        {UINT64_MAX, 2, ENODATA},
        {2, UINT64_MAX, EFBIG},
        {UINT64_MAX - 4095, 4096, ENODATA},
    };
    FOR_EACH_ENGINE(source)
    {
        struct read_request request = {.path = path_of("shard")};
        for (int variant = 0; variant < 4; variant++) {
            request.keep_open = (variant & 1) != 0;
            request.direct = (variant & 2) != 0;
            for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
                request.offset_bytes = ranges[i].offset;
                request.length_bytes = ranges[i].length;
                read_one(source, &request);
                assert_int_equal(request.error, ranges[i].error);
                if (ranges[i].error == 0) {
                    assert_bytes(&request, ranges[i].offset, ranges[i].length);
                }
            }
        }
        read_request_clear(&request);
    }
}

static void test_an_empty_member_of_a_shard_is_empty(void **state)
{
    (void)state;
    put_file("shard", 5000);
    FOR_EACH_ENGINE(source)
    {
        struct read_request request = {
            .path = path_of("shard"), .keep_open = true, .offset_bytes = 1024};
        read_one(source, &request);
        assert_bytes(&request, 0, 0);
        request.offset_bytes = 5000;
        read_one(source, &request);
        assert_bytes(&request, 0, 0);
        request.offset_bytes = 5001;
        assert_fails(source, &request, ENODATA);
    }
}

static int open_fd_count(void)
{
    int count = 0;
    DIR *entries = opendir("/proc/self/fd");
    while (readdir(entries) != NULL) {
        count++;
    }
    closedir(entries);
    return count;
}

static void test_shards_stay_open_within_a_limit(void **state)
{
    (void)state;
    enum { SHARDS = 300 };
    char name[16];
    for (int i = 0; i < SHARDS; i++) {
        snprintf(name, sizeof name, "shard-%d", i);
        put_file(name, 5000);
    }
    int before = open_fd_count();
    FOR_EACH_ENGINE(source)
    {
        int at_start = open_fd_count();
        struct read_request request = {
            .keep_open = true, .offset_bytes = 100, .length_bytes = 4000};
        for (int i = 0; i < SHARDS; i++) {
            for (int twice = 0; twice < 2; twice++) {
                snprintf(name, sizeof name, "shard-%d", i);
                request.path = path_of(name);
                read_one(source, &request);
                assert_bytes(&request, 100, 4000);
            }
            int expected = at_start + (i < 256 ? i + 1 : 256);
            assert_int_equal(open_fd_count(), expected);
        }
        read_request_clear(&request);
    }
    assert_int_equal(open_fd_count(), before);
}

static void test_a_changed_shard_is_stale(void **state)
{
    (void)state;
    FOR_EACH_ENGINE(source)
    {
        put_file("shard", 9000);
        struct stat status;
        assert_int_equal(stat(path_of("shard"), &status), 0);
        int64_t mtime_ns = (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
        struct read_request request = {.path = path_of("shard"),
                                       .keep_open = true,
                                       .offset_bytes = 10,
                                       .length_bytes = 100,
                                       .expect_bytes = 9000,
                                       .expect_mtime_ns = mtime_ns};
        read_one(source, &request);
        assert_bytes(&request, 10, 100);
        /* Replaced by rename: the open descriptor still has what is expected. */
        put_file("other", 9500);
        rename(path_of("other"), path_of("shard"));
        read_one(source, &request);
        assert_bytes(&request, 10, 100);
        /* Who expects the new file gets it. */
        request.expect_bytes = 9500;
        request.expect_mtime_ns = 0;
        read_one(source, &request);
        assert_bytes(&request, 10, 100);
        /* Written to in place. */
        assert_int_equal(truncate(path_of("shard"), 9400), 0);
        assert_fails(source, &request, ESTALE);
        request.expect_bytes = 9400;
        request.expect_mtime_ns = 12345;
        assert_fails(source, &request, ESTALE);
        request.expect_mtime_ns = 0;
        read_one(source, &request);
        assert_bytes(&request, 10, 100);
        unlink(path_of("shard"));
        request.expect_bytes = 9000;
        assert_fails(source, &request, ENOENT);
        request.path = folder;
        assert_fails(source, &request, EISDIR);
        read_request_clear(&request);
    }
}

/* -------------------------------------------------------------------- waiting, interrupt, end */

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static void *interrupt_soon(void *argument)
{
    nanosleep(&(struct timespec){.tv_nsec = 30 * 1000000}, NULL);
    source_interrupt(argument);
    return NULL;
}

static void test_interrupt_ends_a_wait(void **state)
{
    (void)state;
    FOR_EACH_ENGINE(source)
    {
        struct read_request *done[4];
        uint64_t begin = now_ms();
        assert_int_equal(source_reap(source, done, 4, 20), 0);
        assert_true(now_ms() - begin >= 19);
        for (int round = 0; round < 3; round++) {
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, source), 0);
            begin = now_ms();
            assert_int_equal(source_reap(source, done, 4, 30000), 0);
            assert_true(now_ms() - begin < 20000);
            pthread_join(thread, NULL);
        }
        source_interrupt(source); /* before the wait: the next one returns at once */
        begin = now_ms();
        assert_int_equal(source_reap(source, done, 4, 30000), 0);
        assert_true(now_ms() - begin < 20000);
        begin = now_ms();
        assert_int_equal(source_reap(source, done, 4, 10), 0);
        assert_true(now_ms() - begin >= 9);
    }
}

static void test_destroy_waits_for_reads(void **state)
{
    (void)state;
    put_file("file", 1000000);
    FOR_EACH_ENGINE(source)
    {
        struct read_request requests[DEPTH] = {0}, *pointers[DEPTH];
        for (int i = 0; i < DEPTH; i++) {
            requests[i].path = path_of("file");
            requests[i].keep_open = i % 2 == 0;
            requests[i].length_bytes = i % 2 == 0 ? 1000000 : 0;
            pointers[i] = &requests[i];
        }
        source_submit(source, pointers, DEPTH);
        source_destroy(source);
        for (int i = 0; i < DEPTH; i++) {
            assert_bytes(&requests[i], 0, 1000000);
            read_request_clear(&requests[i]);
        }
        source = open_source(SOURCE_PREAD); /* for the loop to close */
    }
    source_destroy(NULL);
}

struct shared_source {
    struct source *source;
    pthread_mutex_t lock;
    uint32_t left_count;
    const char *path;
};

/* Submit and reap from several threads, under a lock as the contract says. */
static void *read_in_turns(void *argument)
{
    struct shared_source *shared = argument;
    struct read_request request = {.path = shared->path}, *pointer = &request;
    bool mine_is_out = false;
    pthread_mutex_lock(&shared->lock);
    while (shared->left_count > 0 || mine_is_out) {
        if (!mine_is_out) {
            source_submit(shared->source, &pointer, 1);
            request.owner = &mine_is_out;
            mine_is_out = true;
            shared->left_count--;
        }
        struct read_request *done[2];
        size_t count = source_reap(shared->source, done, 2, 1);
        for (size_t i = 0; i < count; i++) {
            assert_bytes(done[i], 0, 70000);
            *(bool *)done[i]->owner = false;
        }
        pthread_mutex_unlock(&shared->lock);
        pthread_mutex_lock(&shared->lock);
    }
    pthread_mutex_unlock(&shared->lock);
    read_request_clear(&request);
    return NULL;
}

static void test_threads_take_turns(void **state)
{
    (void)state;
    put_file("file", 70000);
    FOR_EACH_ENGINE(source)
    {
        struct shared_source shared = {source, PTHREAD_MUTEX_INITIALIZER, 300, path_of("file")};
        pthread_t threads[3];
        for (int i = 0; i < 3; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, read_in_turns, &shared), 0);
        }
        for (int i = 0; i < 3; i++) {
            pthread_join(threads[i], NULL);
        }
    }
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/penstock-test-XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void)
{
#define FOLDER_TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(test_whole_files_of_many_sizes),
        FOLDER_TEST(test_many_at_once),
        FOLDER_TEST(test_what_is_no_file_is_refused),
        FOLDER_TEST(test_buffers_are_kept_and_trimmed),
        FOLDER_TEST(test_a_file_that_changes_while_it_is_read),
        FOLDER_TEST(test_without_direct_reads_go_on_buffered),
        FOLDER_TEST(test_ranges),
        FOLDER_TEST(test_an_empty_member_of_a_shard_is_empty),
        FOLDER_TEST(test_shards_stay_open_within_a_limit),
        FOLDER_TEST(test_a_changed_shard_is_stale),
        FOLDER_TEST(test_interrupt_ends_a_wait),
        FOLDER_TEST(test_destroy_waits_for_reads),
        FOLDER_TEST(test_threads_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
