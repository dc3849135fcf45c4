#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clients/c/penstock.h"
#include "ipc/layout.h"
#include "ipc/ring.h"

enum { SLOTS = 4, SLOT_BYTES = 3 * LAYOUT_PAGE_BYTES };

/* Both ends in one process; the tests with two processes fork the trainer off. */
struct pair {
    struct ring *daemon;
    penstock_ring *trainer;
};

static penstock_status open_trainer(const struct ring *daemon, penstock_ring **trainer)
{
    int memory_fd = dup(ring_memory_fd(daemon)), release_fd = dup(ring_release_fd(daemon));
    penstock_status status =
        penstock_ring_open(memory_fd, release_fd, ring_region_bytes(daemon), trainer);
    if (status != PENSTOCK_OK) {
        close(memory_fd);
        close(release_fd);
    }
    return status;
}

static int pair_open(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    *state = pair;
    if (ring_create(SLOTS, SLOT_BYTES, &pair->daemon) != 0) {
        return -1;
    }
    return open_trainer(pair->daemon, &pair->trainer);
}

static int pair_close(void **state)
{
    struct pair *pair = *state;
    penstock_ring_close(pair->trainer);
    ring_destroy(pair->daemon);
    free(pair);
    return 0;
}

/* A batch whose bytes tell its number. */
static bool publish(struct ring *daemon, uint64_t step)
{
    int slot = ring_claim(daemon);
    if (slot < 0) {
        return false;
    }
    *ring_slot_header(daemon, (uint32_t)slot) = (struct slot_header){
        .step = step, .place_count = 2, .epoch = 3, .next_position = step + 1, .valid_count = 1};
    memset(ring_slot_base(daemon, (uint32_t)slot) + LAYOUT_PAGE_BYTES, (int)(step & 0xff),
           SLOT_BYTES - LAYOUT_PAGE_BYTES);
    ring_publish(daemon, (uint32_t)slot);
    return true;
}

static uint64_t lease_step(const penstock_lease *lease)
{
    penstock_batch_info info;
    penstock_lease_describe(lease, &info);
    const uint8_t *bytes = info.base + LAYOUT_PAGE_BYTES;
    for (size_t i = 0; i < SLOT_BYTES - LAYOUT_PAGE_BYTES; i++) {
        if (bytes[i] != (info.step & 0xff)) {
            return UINT64_MAX;
        }
    }
    return info.step;
}

static void test_open_checks_the_region(void **state)
{
    struct pair *pair = *state;
    penstock_ring *ring;
    size_t bytes = ring_region_bytes(pair->daemon);
    int memory_fd = ring_memory_fd(pair->daemon), release_fd = ring_release_fd(pair->daemon);
    assert_int_equal(penstock_ring_open(memory_fd, release_fd, bytes + 4096, &ring),
                     PENSTOCK_INVALID);
    assert_int_equal(penstock_ring_open(memory_fd, release_fd, bytes - 4096, &ring),
                     PENSTOCK_INVALID);
    assert_int_equal(penstock_ring_open(memory_fd, release_fd, 0, &ring), PENSTOCK_INVALID);
    assert_int_equal(penstock_ring_open(-1, release_fd, bytes, &ring), PENSTOCK_INVALID);
    assert_int_equal(penstock_ring_open(release_fd, memory_fd, bytes, &ring), PENSTOCK_INVALID);
    assert_true(fcntl(memory_fd, F_GETFD) >= 0 && fcntl(release_fd, F_GETFD) >= 0);

    struct ring_header *header =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    header->layout_version++;
    assert_int_equal(open_trainer(pair->daemon, &ring), PENSTOCK_INCOMPATIBLE);
    header->layout_version--;
    header->slot_count++;
    assert_int_equal(open_trainer(pair->daemon, &ring), PENSTOCK_INVALID);
    header->slot_count = 0;
    assert_int_equal(open_trainer(pair->daemon, &ring), PENSTOCK_INVALID);
    header->slot_count = SLOTS;
    header->slot_bytes = UINT64_MAX / 2 / 4096 * 4096;
    assert_int_equal(open_trainer(pair->daemon, &ring), PENSTOCK_INVALID);
    header->magic[0] = 'X';
    assert_int_equal(open_trainer(pair->daemon, &ring), PENSTOCK_INVALID);
    munmap(header, bytes);
}

static void test_batches_come_in_order_with_their_header(void **state)
{
    struct pair *pair = *state;
    penstock_lease *lease;
    assert_int_equal(penstock_ring_wait(pair->trainer, 0, 0), PENSTOCK_TIMED_OUT);
    assert_int_equal(penstock_ring_take(pair->trainer, &lease), PENSTOCK_TIMED_OUT);
    assert_null(lease);
    for (uint64_t step = 0; step < 20; step++) {
        assert_true(publish(pair->daemon, step));
        assert_int_equal(penstock_ring_wait(pair->trainer, 0, 0), PENSTOCK_OK);
        assert_int_equal(penstock_ring_take(pair->trainer, &lease), PENSTOCK_OK);
        assert_int_equal(lease_step(lease), step);
        penstock_batch_info info;
        penstock_lease_describe(lease, &info);
        assert_int_equal(info.epoch, 3);
        assert_int_equal(info.next_position, step + 1);
        assert_int_equal(info.place_count, 2);
        assert_int_equal(info.valid_count, 1);
        assert_string_equal(info.error_text, "");
        penstock_lease_unref(lease);
        assert_int_equal(ring_collect(pair->daemon), 1);
    }
    penstock_ring_info info;
    assert_int_equal(penstock_ring_describe(pair->trainer, &info), PENSTOCK_OK);
    assert_int_equal(info.taken_count, 20);
    assert_int_equal(info.held_count, 0);
    assert_int_equal(info.slot_count, SLOTS);
}

static void test_next_waits_takes_and_describes(void **state)
{
    struct pair *pair = *state;
    penstock_lease *lease;
    penstock_batch_info info;
    assert_int_equal(penstock_ring_next(pair->trainer, 0, 1, &lease, &info), PENSTOCK_TIMED_OUT);
    assert_null(lease);
    assert_int_equal(penstock_ring_next(pair->trainer, -1, 1, &lease, &info), PENSTOCK_INVALID);
    assert_int_equal(penstock_ring_next(pair->trainer, 0, 1, &lease, NULL), PENSTOCK_INVALID);
    assert_true(publish(pair->daemon, 4) && publish(pair->daemon, 5));
    penstock_lease *second;
    assert_int_equal(penstock_ring_next(pair->trainer, 0, 0, &lease, &info), PENSTOCK_OK);
    assert_int_equal(info.step, 4);
    assert_int_equal(info.held_count, 1);
    assert_int_equal(penstock_ring_next(pair->trainer, 0, 0, &second, &info), PENSTOCK_OK);
    assert_int_equal(info.step, 5);
    assert_int_equal(info.held_count, 2);
    assert_int_equal(lease_step(lease), 4);
    penstock_lease_unref(lease);
    penstock_lease_unref(second);
    assert_int_equal(ring_collect(pair->daemon), 2);
}

static void test_errors_come_with_their_texts(void **state)
{
    struct pair *pair = *state;
    int slot = ring_claim(pair->daemon);
    struct slot_header *header = ring_slot_header(pair->daemon, (uint32_t)slot);
    *header = (struct slot_header){.kind = SLOT_ERROR, .error_kind = "sample"};
    memset(header->error_text, 'x', sizeof header->error_text); /* without its NUL */
    ring_publish(pair->daemon, (uint32_t)slot);
    penstock_lease *lease;
    penstock_batch_info info;
    assert_int_equal(penstock_ring_next(pair->trainer, 0, 0, &lease, &info), PENSTOCK_OK);
    assert_int_equal(info.kind, SLOT_ERROR);
    assert_string_equal(info.error_kind, "sample");
    assert_int_equal(strlen(info.error_text), LAYOUT_ERROR_BYTES - 1);
    penstock_lease_unref(lease);
}

static void test_a_lease_holds_its_slot_until_the_last_reference(void **state)
{
    struct pair *pair = *state;
    penstock_lease *lease;
    publish(pair->daemon, 5);
    penstock_ring_take(pair->trainer, &lease);
    penstock_lease_ref(lease);
    penstock_lease_unref(lease);
    assert_int_equal(ring_collect(pair->daemon), 0);
    assert_true(publish(pair->daemon, 6) && publish(pair->daemon, 7) && publish(pair->daemon, 8));
    assert_false(publish(pair->daemon, 9));
    penstock_ring_info info;
    penstock_ring_describe(pair->trainer, &info);
    assert_int_equal(info.held_count, 1);
    assert_int_equal(info.ready_count, 3);
    assert_int_equal(lease_step(lease), 5);
    penstock_lease_unref(lease);
    struct pollfd bell = {.fd = ring_release_fd(pair->daemon), .events = POLLIN};
    assert_int_equal(poll(&bell, 1, 0), 1);
    assert_int_equal(ring_collect(pair->daemon), 1);
    assert_int_equal(poll(&bell, 1, 0), 0);
}

static void test_clearing_drops_what_is_there(void **state)
{
    struct pair *pair = *state;
    penstock_lease *lease = NULL;
    penstock_lease_clear(&lease);
    publish(pair->daemon, 5);
    penstock_ring_take(pair->trainer, &lease);
    penstock_lease_clear(&lease);
    assert_null(lease);
    penstock_lease_clear(&lease);
    assert_int_equal(ring_collect(pair->daemon), 1);
}

static void test_leases_outlive_the_handle_and_the_daemon(void **state)
{
    (void)state;
    struct ring *daemon;
    penstock_ring *trainer;
    penstock_lease *lease;
    assert_int_equal(ring_create(SLOTS, SLOT_BYTES, &daemon), 0);
    assert_int_equal(open_trainer(daemon, &trainer), PENSTOCK_OK);
    publish(daemon, 77);
    penstock_ring_take(trainer, &lease);
    penstock_ring_close(trainer);
    ring_destroy(daemon);
    assert_int_equal(lease_step(lease), 77);
    penstock_lease_unref(lease);
    penstock_ring_close(NULL);
    penstock_lease_unref(NULL);
}

static void test_rewind_starts_a_new_stream(void **state)
{
    struct pair *pair = *state;
    penstock_lease *held, *lease;
    publish(pair->daemon, 0);
    publish(pair->daemon, 1);
    publish(pair->daemon, 2);
    penstock_ring_take(pair->trainer, &held);
    assert_int_equal(ring_rewind(pair->daemon, 1), 0);
    /* Before the trainer knows of it nothing is there, although the counts differ. */
    assert_int_equal(penstock_ring_wait(pair->trainer, 0, 0), PENSTOCK_TIMED_OUT);
    assert_int_equal(penstock_ring_take(pair->trainer, &lease), PENSTOCK_TIMED_OUT);
    publish(pair->daemon, 50);
    penstock_ring_rewind(pair->trainer);
    assert_int_equal(penstock_ring_take(pair->trainer, &lease), PENSTOCK_OK);
    assert_int_equal(lease_step(lease), 50);
    assert_int_equal(lease_step(held), 0);
    penstock_lease_unref(held);
    penstock_lease_unref(lease);
    assert_int_equal(ring_collect(pair->daemon), 2);
    assert_int_equal(ring_usage(pair->daemon).free_count, SLOTS);
}

static void test_a_wild_entry_is_refused(void **state)
{
    struct pair *pair = *state;
    penstock_lease *lease;
    penstock_ring_info info;
    penstock_ring_describe(pair->trainer, &info);
    publish(pair->daemon, 0);
    atomic_store(&((struct ring_header *)info.base)->entry[0], 0x10000);
    assert_int_equal(penstock_ring_take(pair->trainer, &lease), PENSTOCK_INVALID);
    assert_null(lease);
}

/* ---------------------------------------------------------------------------------- waiting */

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void test_wait_ends_at_its_timeout(void **state)
{
    struct pair *pair = *state;
    uint64_t begin = now_ns();
    assert_int_equal(penstock_ring_wait(pair->trainer, 100, 30), PENSTOCK_TIMED_OUT);
    uint64_t slept = now_ns() - begin;
    assert_true(slept >= 29 * 1000000u && slept < 2000 * 1000000u);
    uint64_t waited_ns = ring_waited_ns(pair->daemon); /* the trainer tells the daemon */
    assert_true(waited_ns >= 29 * 1000000u && waited_ns <= slept);
    assert_int_equal(penstock_ring_wait(pair->trainer, 1000000, 5), PENSTOCK_TIMED_OUT);
    assert_int_equal(penstock_ring_wait(pair->trainer, -1, 5), PENSTOCK_INVALID);
    assert_int_equal(penstock_ring_wait(pair->trainer, 0, -5), PENSTOCK_INVALID);
}

static void on_alarm(int number)
{
    (void)number;
}

static void test_a_signal_ends_the_wait(void **state)
{
    struct pair *pair = *state;
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART}, old;
    sigaction(SIGALRM, &action, &old);
    /* Again and again: the first may come before the wait has begun. */
    struct itimerval timer = {{.tv_usec = 20000}, {.tv_usec = 20000}}, none = {0};
    setitimer(ITIMER_REAL, &timer, NULL);
    uint64_t begin = now_ns();
    assert_int_equal(penstock_ring_wait(pair->trainer, 0, 20000), PENSTOCK_TIMED_OUT);
    assert_true(now_ns() - begin < 10000 * 1000000u);
    setitimer(ITIMER_REAL, &none, NULL);
    sigaction(SIGALRM, &old, NULL);
}

/* The daemon's part of the tests with two processes: publish `count` batches. Exits. */
static void run_daemon(struct ring *daemon, uint64_t count)
{
    alarm(60);
    for (uint64_t step = 0; step < count;) {
        if (publish(daemon, step)) {
            step++;
            continue;
        }
        struct pollfd bell = {.fd = ring_release_fd(daemon), .events = POLLIN};
        poll(&bell, 1, -1);
        ring_collect(daemon);
    }
    _exit(0);
}

static void assert_exits_with(pid_t child, int code)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
}

static void test_two_processes(void **state)
{
    struct pair *pair = *state;
    enum { BATCHES = 5000 };
    pid_t child = fork();
    if (child == 0) {
        run_daemon(pair->daemon, BATCHES);
    }
    penstock_lease *held[2] = {NULL, NULL};
    for (uint64_t step = 0; step < BATCHES; step++) {
        penstock_status status = PENSTOCK_TIMED_OUT;
        for (int i = 0; status == PENSTOCK_TIMED_OUT && i < 200; i++) {
            status = penstock_ring_wait(pair->trainer, step % 3 == 0 ? 50 : 0, 100);
        }
        assert_int_equal(status, PENSTOCK_OK);
        penstock_lease *lease;
        assert_int_equal(penstock_ring_take(pair->trainer, &lease), PENSTOCK_OK);
        if (step % 64 == 0) {
            assert_int_equal(lease_step(lease), step);
        }
        penstock_lease_unref(held[step % 2]); /* two stay held all the time */
        held[step % 2] = lease;
    }
    penstock_lease_unref(held[0]);
    penstock_lease_unref(held[1]);
    assert_exits_with(child, 0);
}

static int compare_ages(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void test_a_sleeping_trainer_is_woken(void **state)
{
    struct pair *pair = *state;
    enum { BATCHES = 41 };
    pid_t child = fork();
    if (child == 0) {
        for (uint64_t step = 0; step < BATCHES; step++) {
            nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
            while (!publish(pair->daemon, step)) {
                ring_collect(pair->daemon);
            }
        }
        _exit(0);
    }
    uint64_t ages_ns[BATCHES];
    for (int i = 0; i < BATCHES; i++) {
        penstock_lease *lease;
        penstock_batch_info info;
        assert_int_equal(penstock_ring_wait(pair->trainer, 0, 30000), PENSTOCK_OK);
        assert_int_equal(penstock_ring_take(pair->trainer, &lease), PENSTOCK_OK);
        penstock_lease_describe(lease, &info);
        ages_ns[i] = now_ns() - info.ready_ns;
        penstock_lease_unref(lease);
    }
    assert_exits_with(child, 0);
    /* Typically 10 us; the median of a busy machine is still far from any polling interval. */
    qsort(ages_ns, BATCHES, sizeof *ages_ns, compare_ages);
    assert_true(ages_ns[BATCHES / 2] < 20 * 1000000u);
}

/* ------------------------------------------------------------------------------------- fork */

static void test_a_forked_child_never_releases(void **state)
{
    struct pair *pair = *state;
    penstock_lease *lease;
    publish(pair->daemon, 9);
    penstock_ring_take(pair->trainer, &lease);
    pid_t child = fork();
    if (child == 0) {
        penstock_lease *other;
        bool good = lease_step(lease) == 9 &&
                    penstock_ring_wait(pair->trainer, 0, 0) == PENSTOCK_FORKED &&
                    penstock_ring_take(pair->trainer, &other) == PENSTOCK_FORKED;
        penstock_ring_rewind(pair->trainer);
        penstock_lease_unref(lease);
        penstock_ring_close(pair->trainer);
        _exit(good ? 0 : 1);
    }
    assert_exits_with(child, 0);
    assert_int_equal(ring_collect(pair->daemon), 0);
    assert_int_equal(lease_step(lease), 9);
    penstock_ring_info info;
    penstock_ring_describe(pair->trainer, &info);
    assert_int_equal(info.taken_count, 1);
    assert_int_equal(info.held_count, 1);
    penstock_lease_unref(lease);
    assert_int_equal(ring_collect(pair->daemon), 1);
}

/* ---------------------------------------------------------------------------------- threads */

static void *drop_references(void *argument)
{
    penstock_lease **leases = argument;
    for (int i = 0; i < SLOTS; i++) {
        if (lease_step(leases[i]) == UINT64_MAX) {
            return leases;
        }
        penstock_lease_ref(leases[i]);
        penstock_lease_unref(leases[i]);
        penstock_lease_unref(leases[i]);
    }
    return NULL;
}

static void test_references_are_dropped_from_any_thread(void **state)
{
    struct pair *pair = *state;
    enum { THREADS = 4 };
    for (int round = 0; round < 100; round++) {
        penstock_lease *leases[SLOTS];
        for (int i = 0; i < SLOTS; i++) {
            assert_true(publish(pair->daemon, (uint64_t)i));
            assert_int_equal(penstock_ring_take(pair->trainer, &leases[i]), PENSTOCK_OK);
            for (int thread = 1; thread < THREADS; thread++) {
                penstock_lease_ref(leases[i]);
            }
        }
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, drop_references, leases), 0);
        }
        /* The daemon looks all the while. */
        uint32_t collected = 0;
        while (collected < SLOTS) {
            collected += ring_collect(pair->daemon);
        }
        for (int i = 0; i < THREADS; i++) {
            void *failed;
            pthread_join(threads[i], &failed);
            assert_null(failed);
        }
        assert_int_equal(collected, SLOTS);
    }
}

int main(void)
{
#define PAIR_TEST(name) cmocka_unit_test_setup_teardown(name, pair_open, pair_close)
    const struct CMUnitTest tests[] = {
        PAIR_TEST(test_open_checks_the_region),
        PAIR_TEST(test_batches_come_in_order_with_their_header),
        PAIR_TEST(test_next_waits_takes_and_describes),
        PAIR_TEST(test_errors_come_with_their_texts),
        PAIR_TEST(test_a_lease_holds_its_slot_until_the_last_reference),
        PAIR_TEST(test_clearing_drops_what_is_there),
        cmocka_unit_test(test_leases_outlive_the_handle_and_the_daemon),
        PAIR_TEST(test_rewind_starts_a_new_stream),
        PAIR_TEST(test_a_wild_entry_is_refused),
        PAIR_TEST(test_wait_ends_at_its_timeout),
        PAIR_TEST(test_a_signal_ends_the_wait),
        PAIR_TEST(test_two_processes),
        PAIR_TEST(test_a_sleeping_trainer_is_woken),
        PAIR_TEST(test_a_forked_child_never_releases),
        PAIR_TEST(test_references_are_dropped_from_any_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
