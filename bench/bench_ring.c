/*
 * bench_ring.c - times the hand-off of a finished batch from the daemon's process to a trainer's.
 *
 *   bench_ring [--json] [--rounds N]
 *
 * The daemon writes the last sample of a slot of 38.5 MB (256 uint8 images of 224x224) or of
 * one page, publishes it, and the trainer, which waits, takes it: microseconds from publishing
 * (ready_ns in the slot's header) to the lease in hand. N rounds (default 5) of 400 batches, one
 * every 2 ms. "spin" does not go to sleep in the gap, "sleep" goes to sleep at once; "written" has
 * the daemon write all of the slot before, otherwise only its header. The trainer only looks at
 * the header: it gets a view, not a copy.
 */
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clients/c/penstock.h"
#include "ipc/ring.h"

enum {
    SLOTS = 4,
    BATCHES_PER_ROUND = 400,
    GAP_NS = 2000000,
    BATCH_BYTES = 256 * 3 * 224 * 224, /* uint8 */
    ROUNDS_MAX = 1000,
};

struct handoff {
    const char *name;
    size_t slot_bytes;
    bool written;
    int32_t spin_us;
};

static const struct handoff handoffs[] = {
    {"1 page, spin", 2 * LAYOUT_PAGE_BYTES, true, 2 * GAP_NS / 1000},
    {"1 page, sleep", 2 * LAYOUT_PAGE_BYTES, true, 0},
    {"38.5 MB, spin", BATCH_BYTES + LAYOUT_PAGE_BYTES, false, 2 * GAP_NS / 1000},
    {"38.5 MB, sleep", BATCH_BYTES + LAYOUT_PAGE_BYTES, false, 0},
    {"38.5 MB written, sleep", BATCH_BYTES + LAYOUT_PAGE_BYTES, true, 0},
};
enum { HANDOFFS = sizeof handoffs / sizeof *handoffs };

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* The trainer: take every batch, note how old it is, write the ages to `out_fd`. */
static void run_trainer(struct ring *ring, const struct handoff *handoff, uint32_t count,
                        int out_fd)
{
    penstock_ring *trainer;
    double *ages_us = calloc(count, sizeof *ages_us);
    if (ages_us == NULL || penstock_ring_open(dup(ring_memory_fd(ring)), dup(ring_release_fd(ring)),
                                              ring_region_bytes(ring), &trainer) != PENSTOCK_OK) {
        fail("bench_ring: trainer");
    }
    for (uint32_t i = 0; i < count; i++) {
        penstock_lease *lease;
        while (penstock_ring_wait(trainer, handoff->spin_us, 100) != PENSTOCK_OK) {
            continue;
        }
        if (penstock_ring_take(trainer, &lease) != PENSTOCK_OK) {
            fail("bench_ring: take");
        }
        uint64_t taken_ns = now_ns();
        penstock_batch_info info;
        penstock_lease_describe(lease, &info);
        ages_us[i] = (double)(taken_ns - info.ready_ns) / 1e3;
        penstock_lease_unref(lease);
    }
    const char *bytes = (const char *)ages_us;
    for (size_t left = count * sizeof *ages_us; left > 0;) {
        ssize_t written = write(out_fd, bytes, left);
        if (written <= 0) {
            fail("bench_ring: write");
        }
        bytes += written;
        left -= (size_t)written;
    }
    _exit(0);
}

static void run_daemon(struct ring *ring, const struct handoff *handoff, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        nanosleep(&(struct timespec){.tv_nsec = GAP_NS}, NULL);
        ring_collect(ring);
        int slot = ring_claim(ring);
        while (slot < 0) {
            struct pollfd bell = {.fd = ring_release_fd(ring), .events = POLLIN};
            poll(&bell, 1, 1000);
            ring_collect(ring);
            slot = ring_claim(ring);
        }
        *ring_slot_header(ring, (uint32_t)slot) = (struct slot_header){.step = i};
        if (handoff->written) {
            memset(ring_slot_base(ring, (uint32_t)slot) + LAYOUT_PAGE_BYTES, (int)i,
                   handoff->slot_bytes - LAYOUT_PAGE_BYTES);
        }
        ring_publish(ring, (uint32_t)slot);
    }
}

/* Ages in microseconds of `count` batches. */
static void measure(const struct handoff *handoff, uint32_t count, double *ages_us)
{
    struct ring *ring;
    int pipe_fds[2];
    if (ring_create(SLOTS, handoff->slot_bytes, &ring) != 0 || pipe(pipe_fds) != 0) {
        fail("bench_ring: ring");
    }
    pid_t trainer = fork();
    if (trainer < 0) {
        fail("bench_ring: fork");
    }
    if (trainer == 0) {
        run_trainer(ring, handoff, count, pipe_fds[1]);
    }
    close(pipe_fds[1]);
    run_daemon(ring, handoff, count);
    char *bytes = (char *)ages_us;
    for (size_t left = count * sizeof *ages_us; left > 0;) {
        ssize_t got = read(pipe_fds[0], bytes, left);
        if (got <= 0) {
            fail("bench_ring: read");
        }
        bytes += got;
        left -= (size_t)got;
    }
    close(pipe_fds[0]);
    waitpid(trainer, NULL, 0);
    ring_destroy(ring);
}

static int compare_doubles(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

static void print_case(const struct handoff *handoff, double *ages_us, uint32_t count, bool json,
                       bool first)
{
    qsort(ages_us, count, sizeof *ages_us, compare_doubles);
    double p50 = ages_us[count / 2], p99 = ages_us[(uint64_t)count * 99 / 100];
    double p999 = ages_us[(uint64_t)count * 999 / 1000], greatest = ages_us[count - 1];
    const char *format = json ? "%s{\"name\": \"%s\", \"p50_us\": %.2f, \"p99_us\": %.2f, "
                                "\"p99.9_us\": %.2f, \"greatest_us\": %.2f}"
                              : "%s%-24s %9.1f %9.1f %9.1f %9.1f\n";
    printf(format, json && !first ? ", " : "", handoff->name, p50, p99, p999, greatest);
}

int main(int argc, char **argv)
{
    bool json = false;
    int rounds = 5;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
            rounds = atoi(argv[++i]);
        } else {
            rounds = 0;
        }
    }
    if (rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: bench_ring [--json] [--rounds N]\n");
        return 2;
    }
    uint32_t count = (uint32_t)rounds * BATCHES_PER_ROUND;
    double *ages_us = calloc((size_t)HANDOFFS * count, sizeof *ages_us);
    if (ages_us == NULL) {
        fail("bench_ring");
    }
    for (int round = 0; round < rounds; round++) {
        for (size_t i = 0; i < HANDOFFS; i++) {
            measure(&handoffs[i], BATCHES_PER_ROUND,
                    ages_us + i * count + (size_t)round * BATCHES_PER_ROUND);
        }
    }
    if (json) {
        printf("{\"batches\": %u, \"cases\": [", count);
    } else {
        printf("publishing to taking, us, of %u batches\n%-24s %9s %9s %9s %9s\n", count, "", "p50",
               "p99", "p99.9", "greatest");
    }
    for (size_t i = 0; i < HANDOFFS; i++) {
        print_case(&handoffs[i], ages_us + i * count, count, json, i == 0);
    }
    printf("%s", json ? "]}\n" : "");
    free(ages_us);
    return 0;
}
