#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ipc/ring.h"

/* The trainer's view: a second mapping of the same memory, written to without any rule. */
struct peer {
    uint8_t *base;
    size_t bytes;
    struct ring_header *header;
    struct ring_releases *releases;
};

static struct peer peer_map(const struct ring *ring)
{
    struct peer peer = {.bytes = ring_region_bytes(ring)};
    peer.base = mmap(NULL, peer.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring_memory_fd(ring), 0);
    assert_true(peer.base != MAP_FAILED);
    peer.header = (struct ring_header *)peer.base;
    peer.releases = (struct ring_releases *)(peer.base + LAYOUT_PAGE_BYTES);
    return peer;
}

static void peer_unmap(struct peer *peer)
{
    munmap(peer->base, peer->bytes);
}

static struct slot_header *peer_slot(const struct peer *peer, const struct ring *ring,
                                     uint32_t slot)
{
    size_t offset = peer->header->slots_offset_bytes + slot * ring_slot_bytes(ring);
    return (struct slot_header *)(peer->base + offset);
}

static void peer_release(const struct peer *peer, const struct ring *ring, uint32_t slot)
{
    atomic_store(&peer->releases->generation[slot], peer_slot(peer, ring, slot)->generation);
    const uint64_t one = 1;
    assert_int_equal(write(ring_release_fd(ring), &one, sizeof one), sizeof one);
}

static struct ring *new_ring(uint32_t slot_count)
{
    struct ring *ring;
    assert_int_equal(ring_create(slot_count, 10000, &ring), 0);
    return ring;
}

static void assert_usage(const struct ring *ring, uint32_t free, uint32_t filling,
                         uint32_t published)
{
    struct ring_usage usage = ring_usage(ring);
    assert_int_equal(usage.free_count, free);
    assert_int_equal(usage.filling_count, filling);
    assert_int_equal(usage.published_count, published);
}

static void publish_next(struct ring *ring, uint64_t step)
{
    int slot = ring_claim(ring);
    assert_true(slot >= 0);
    *ring_slot_header(ring, (uint32_t)slot) = (struct slot_header){.step = step};
    ring_publish(ring, (uint32_t)slot);
}

static void test_sizes_are_checked_and_rounded(void **state)
{
    (void)state;
    struct ring *ring;
    assert_int_equal(ring_create(1, 10000, &ring), -EINVAL);
    assert_int_equal(ring_create(LAYOUT_SLOTS_MAX + 1, 10000, &ring), -EINVAL);
    assert_int_equal(ring_create(4, LAYOUT_PAGE_BYTES - 1, &ring), -EINVAL);
    assert_int_equal(ring_create(4, SIZE_MAX, &ring), -EINVAL);
    assert_int_equal(ring_create(256, SIZE_MAX / 256, &ring), -EINVAL);
    assert_null(ring);
    ring = new_ring(3);
    assert_int_equal(ring_slot_bytes(ring), 12288);
    assert_int_equal(ring_region_bytes(ring), 2 * 4096 + 3 * 12288);
    struct peer peer = peer_map(ring);
    assert_memory_equal(peer.header->magic, LAYOUT_MAGIC, 8);
    assert_int_equal(peer.header->slot_bytes, 12288);
    assert_int_equal(peer.header->region_bytes, ring_region_bytes(ring));
    peer_unmap(&peer);
    ring_destroy(ring);
    ring_destroy(NULL);
}

static void test_a_slot_goes_round(void **state)
{
    (void)state;
    struct ring *ring = new_ring(2);
    struct peer peer = peer_map(ring);
    for (uint32_t k = 0; k < 10; k++) {
        int slot = ring_claim(ring);
        assert_usage(ring, 1, 1, 0);
        ring_slot_header(ring, (uint32_t)slot)->step = k;
        memset(ring_slot_base(ring, (uint32_t)slot) + LAYOUT_PAGE_BYTES, (int)k, 100);
        ring_publish(ring, (uint32_t)slot);
        assert_usage(ring, 1, 0, 1);
        assert_int_equal(atomic_load(&peer.header->published_count), k + 1);
        assert_int_equal(atomic_load(&peer.header->entry[k % 2]), slot);
        struct slot_header *seen = peer_slot(&peer, ring, (uint32_t)slot);
        assert_int_equal(seen->step, k);
        assert_int_equal(seen->generation, k + 1);
        assert_true(seen->ready_ns > 0);
        assert_int_equal(((uint8_t *)seen)[LAYOUT_PAGE_BYTES + 99], k);
        assert_int_equal(ring_collect(ring), 0);
        peer_release(&peer, ring, (uint32_t)slot);
        assert_int_equal(ring_collect(ring), 1);
        assert_int_equal(ring_collect(ring), 0);
        assert_usage(ring, 2, 0, 0);
    }
    peer_unmap(&peer);
    ring_destroy(ring);
}

static void test_slots_return_in_any_order(void **state)
{
    (void)state;
    struct ring *ring = new_ring(4);
    struct peer peer = peer_map(ring);
    for (uint64_t k = 0; k < 4; k++) {
        publish_next(ring, k);
    }
    assert_int_equal(ring_claim(ring), -1);
    peer_release(&peer, ring, 2);
    peer_release(&peer, ring, 0);
    assert_int_equal(ring_collect(ring), 2);
    publish_next(ring, 4);
    publish_next(ring, 5);
    assert_int_equal(ring_claim(ring), -1);
    assert_int_equal(peer_slot(&peer, ring, atomic_load(&peer.header->entry[0]))->step, 4);
    assert_int_equal(peer_slot(&peer, ring, atomic_load(&peer.header->entry[1]))->step, 5);
    assert_usage(ring, 0, 0, 4);
    peer_unmap(&peer);
    ring_destroy(ring);
}

static void test_abandoned_slots_are_free(void **state)
{
    (void)state;
    struct ring *ring = new_ring(2);
    int slot = ring_claim(ring);
    ring_abandon(ring, (uint32_t)slot);
    assert_usage(ring, 2, 0, 0);
    assert_int_equal(ring_claim(ring), slot);
    ring_destroy(ring);
}

static void test_only_the_current_generation_releases(void **state)
{
    (void)state;
    struct ring *ring = new_ring(2);
    struct peer peer = peer_map(ring);
    publish_next(ring, 0);
    peer_release(&peer, ring, 0);
    assert_int_equal(ring_collect(ring), 1);
    publish_next(ring, 1); /* slot 0 again, generation 2; the word still says 1 */
    assert_int_equal(ring_collect(ring), 0);
    atomic_store(&peer.releases->generation[0], 3);
    atomic_store(&peer.releases->generation[1], 1); /* free, never published */
    assert_int_equal(ring_collect(ring), 0);
    assert_int_equal(ring_claim(ring), 1);
    atomic_store(&peer.releases->generation[1], 0); /* filling, generation 0 so far */
    assert_int_equal(ring_collect(ring), 0);
    assert_usage(ring, 0, 1, 1);
    peer_unmap(&peer);
    ring_destroy(ring);
}

static void test_rewind_frees_what_was_not_taken(void **state)
{
    (void)state;
    struct ring *ring = new_ring(4);
    struct peer peer = peer_map(ring);
    publish_next(ring, 0);
    publish_next(ring, 1);
    publish_next(ring, 2);
    assert_int_equal(ring_rewind(ring, 4), -EINVAL);
    assert_int_equal(ring_rewind(ring, UINT32_MAX), -EINVAL);
    assert_usage(ring, 1, 0, 3);
    assert_int_equal(ring_rewind(ring, 1), 0); /* batch 0 is still held, 1 and 2 go back */
    assert_usage(ring, 3, 0, 1);
    assert_int_equal(ring_usage(ring).stream, 1);
    assert_int_equal(atomic_load(&peer.header->stream), 1);
    assert_int_equal(atomic_load(&peer.header->published_count), 0);
    publish_next(ring, 7);
    uint32_t slot = atomic_load(&peer.header->entry[0]);
    assert_int_equal(peer_slot(&peer, ring, slot)->step, 7);
    assert_int_not_equal(slot, 0);
    peer_release(&peer, ring, 0); /* a lease of the old stream ends */
    assert_int_equal(ring_collect(ring), 1);
    assert_usage(ring, 3, 0, 1);
    assert_int_equal(ring_rewind(ring, 1), 0);
    assert_usage(ring, 3, 0, 1);
    peer_unmap(&peer);
    ring_destroy(ring);
}

static void test_rewind_leaves_batches_that_replaced_forged_releases(void **state)
{
    (void)state;
    struct ring *ring = new_ring(2);
    struct peer peer = peer_map(ring);
    publish_next(ring, 0);
    peer_release(&peer, ring, 0); /* never taken */
    assert_int_equal(ring_collect(ring), 1);
    publish_next(ring, 1);
    publish_next(ring, 2);
    peer_release(&peer, ring, 0);
    assert_int_equal(ring_collect(ring), 1);
    publish_next(ring, 3);
    assert_int_equal(ring_rewind(ring, 0), -EINVAL); /* 4 outstanding in 2 slots */
    assert_int_equal(ring_rewind(ring, 2), 0);
    assert_usage(ring, 2, 0, 0);
    peer_unmap(&peer);
    ring_destroy(ring);
}

static void test_collect_never_blocks(void **state)
{
    (void)state;
    struct ring *ring = new_ring(2);
    int fd = ring_release_fd(ring);
    /* The trainer has the same file description and may do this. */
    assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0);
    assert_int_equal(ring_collect(ring), 0);
    const uint64_t count = UINT64_MAX - 1;
    assert_int_equal(write(fd, &count, sizeof count), sizeof count);
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&readable, 1, 0), 1);
    assert_int_equal(ring_collect(ring), 0);
    assert_int_equal(poll(&readable, 1, 0), 0);
    ring_destroy(ring);
}

/* ------------------------------------------------------------------------- a hostile trainer */

struct scribbler {
    struct peer peer;
    _Atomic bool stop;
};

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

enum { SCRIBBLED_SLOTS = 8 };

/* Writes garbage all over the region, and true and nearly true generations to the release words,
 * of slots that it never took. */
static void *scribble(void *argument)
{
    struct scribbler *scribbler = argument;
    uint64_t random = 88172645463325252u;
    _Atomic uint32_t *words = (_Atomic uint32_t *)scribbler->peer.base;
    size_t word_count = scribbler->peer.bytes / sizeof *words;
    size_t slots_word = 2 * LAYOUT_PAGE_BYTES / sizeof *words;
    size_t slot_words = (word_count - slots_word) / SCRIBBLED_SLOTS;
    while (!atomic_load_explicit(&scribbler->stop, memory_order_relaxed)) {
        uint64_t draw = random_next(&random) >> 16;
        size_t place = (draw >> 8) % word_count;
        uint32_t value = (uint32_t)(random_next(&random) >> 20);
        if ((draw & 3) != 0) {
            uint32_t slot = (draw >> 8) % SCRIBBLED_SLOTS;
            place = LAYOUT_PAGE_BYTES / sizeof *words + slot;
            size_t generation = slots_word + slot * slot_words +
                                offsetof(struct slot_header, generation) / sizeof *words;
            value = atomic_load_explicit(&words[generation], memory_order_relaxed);
            if ((draw & 4) != 0) { /* the header may be scribbled over already */
                value = (uint32_t)(random_next(&random) >> 20) % 4096;
            }
        }
        atomic_store_explicit(&words[place], value, memory_order_relaxed);
    }
    return NULL;
}

/* What must be true of the slot table, as far as the daemon's own calls tell. */
struct model {
    bool filling[SCRIBBLED_SLOTS];
    uint32_t published_count; /* of this stream */
    uint32_t freed_count, rewound_count;
};

static void do_anything(struct ring *ring, struct model *model, uint64_t draw)
{
    uint32_t slot = (uint32_t)(draw >> 16) % SCRIBBLED_SLOTS;
    struct ring_usage before = ring_usage(ring);
    switch (draw % 8) {
    case 0: {
        uint32_t freed = ring_collect(ring);
        assert_true(freed <= before.published_count);
        model->freed_count += freed;
        break;
    }
    case 1:
        if (model->filling[slot]) {
            ring_abandon(ring, slot);
        }
        model->filling[slot] = false;
        break;
    case 2:
        if ((draw >> 24) % 16 != 0) {
            break;
        }
        if (ring_rewind(ring, model->published_count - (draw >> 32) % 10) == 0) {
            model->published_count = 0;
            model->rewound_count++;
        }
        break;
    case 3:
    case 4:
    case 5:
        if (model->filling[slot]) {
            ring_publish(ring, slot);
            model->published_count++;
        }
        model->filling[slot] = false;
        break;
    default: {
        int claimed = ring_claim(ring);
        assert_true((claimed < 0) == (before.free_count == 0));
        assert_true(claimed < SCRIBBLED_SLOTS && (claimed < 0 || !model->filling[claimed]));
        if (claimed >= 0) {
            model->filling[claimed] = true;
        }
    }
    }
}

/* The slot table stays whole whatever the words say: states move only along the allowed edges. */
static void work_under_scribbling(struct ring *ring, struct model *model)
{
    uint64_t random = 1234567;
    for (int round = 0; round < 50000; round++) {
        do_anything(ring, model, random_next(&random) >> 8);
        struct ring_usage after = ring_usage(ring);
        uint32_t filling_count = 0;
        for (uint32_t i = 0; i < SCRIBBLED_SLOTS; i++) {
            filling_count += model->filling[i];
        }
        assert_int_equal(after.filling_count, filling_count);
        assert_int_equal(after.free_count + after.filling_count + after.published_count,
                         SCRIBBLED_SLOTS);
    }
}

static void test_scribbling_disturbs_only_the_scribbler(void **state)
{
    (void)state;
    struct ring *ring = new_ring(SCRIBBLED_SLOTS);
    struct scribbler scribbler = {.peer = peer_map(ring)};
    struct model model = {0};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, scribble, &scribbler), 0);
    for (int i = 0; i < 1000 && model.freed_count == 0; i++) { /* it may get a core late */
        work_under_scribbling(ring, &model);
    }
    assert_true(model.freed_count > 0); /* the scribbler did hit, and freed its own slots */
    assert_true(model.rewound_count > 0);
    atomic_store(&scribbler.stop, true);
    pthread_join(thread, NULL);
    memset(scribbler.peer.base, 0xff, scribbler.peer.bytes);
    work_under_scribbling(ring, &model);
    peer_unmap(&scribbler.peer);
    ring_destroy(ring);
}

static void test_the_region_cannot_be_resized(void **state)
{
    (void)state;
    struct ring *ring = new_ring(2);
    int fd = ring_memory_fd(ring);
    assert_int_equal(ftruncate(fd, 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, 1 << 20), -1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_int_equal(errno, EPERM);
    /* Holes may be punched: the pages read as zero, and the daemon's work goes on. */
    publish_next(ring, 0);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                               (off_t)ring_region_bytes(ring)),
                     0);
    assert_int_equal(ring_collect(ring), 0);
    publish_next(ring, 1);
    assert_usage(ring, 0, 0, 2);
    ring_destroy(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_are_checked_and_rounded),
        cmocka_unit_test(test_a_slot_goes_round),
        cmocka_unit_test(test_slots_return_in_any_order),
        cmocka_unit_test(test_abandoned_slots_are_free),
        cmocka_unit_test(test_only_the_current_generation_releases),
        cmocka_unit_test(test_rewind_frees_what_was_not_taken),
        cmocka_unit_test(test_rewind_leaves_batches_that_replaced_forged_releases),
        cmocka_unit_test(test_collect_never_blocks),
        cmocka_unit_test(test_scribbling_disturbs_only_the_scribbler),
        cmocka_unit_test(test_the_region_cannot_be_resized),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
