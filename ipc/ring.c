#include "ipc/ring.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "ipc/region.h"

enum slot_state { SLOT_FREE = 0, SLOT_FILLING, SLOT_PUBLISHED };

struct slot {
    enum slot_state state;
    uint32_t generation;   /* of the last publication; 0 before the first */
    uint64_t published_as; /* which batch of the ring's stream it is, when PUBLISHED */
    uint32_t stream;       /* and of which stream */
};

struct ring {
    struct region region;
    struct ring_header *header;     /* page 0: only ever stored to */
    struct ring_releases *releases; /* page 1: the trainer's words */
    int release_fd;
    uint32_t slot_count;
    size_t slot_bytes;
    /* The truth behind published_count and stream of page 0. 64 bits: the entries of batches go
     * round modulo slot_count without a jump where the shared word wraps. */
    uint64_t published_count;
    uint32_t stream;
    uint32_t entry[LAYOUT_SLOTS_MAX]; /* slot of batch k at k % slot_count, as on page 0 */
    struct slot slots[LAYOUT_SLOTS_MAX];
};

enum { SLOTS_OFFSET_BYTES = 2 * LAYOUT_PAGE_BYTES };

static void write_header(struct ring *ring)
{
    struct ring_header *header = ring->header;
    memcpy(header->magic, LAYOUT_MAGIC, sizeof header->magic);
    header->layout_version = LAYOUT_VERSION;
    header->slot_count = ring->slot_count;
    header->slot_bytes = ring->slot_bytes;
    header->slots_offset_bytes = SLOTS_OFFSET_BYTES;
    header->region_bytes = ring->region.bytes;
}

int ring_create(uint32_t slot_count, size_t slot_bytes, struct ring **result)
{
    *result = NULL;
    if (slot_count < 2 || slot_count > LAYOUT_SLOTS_MAX || slot_bytes < LAYOUT_PAGE_BYTES) {
        return -EINVAL;
    }
    size_t slot_bytes_max = ((size_t)INT64_MAX - SLOTS_OFFSET_BYTES) / slot_count;
    if (slot_bytes > slot_bytes_max - LAYOUT_PAGE_BYTES) {
        return -EINVAL;
    }
    slot_bytes = (slot_bytes + LAYOUT_PAGE_BYTES - 1) / LAYOUT_PAGE_BYTES * LAYOUT_PAGE_BYTES;

    struct ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL) {
        return -ENOMEM;
    }
    ring->release_fd = -1;
    ring->slot_count = slot_count;
    ring->slot_bytes = slot_bytes;
    int error =
        region_create(&ring->region, "penstock-ring", SLOTS_OFFSET_BYTES + slot_count * slot_bytes);
    if (error == 0) {
        ring->release_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        error = ring->release_fd < 0 ? -errno : 0;
    }
    if (error != 0) {
        ring_destroy(ring);
        return error;
    }
    ring->header = (struct ring_header *)ring->region.base;
    ring->releases = (struct ring_releases *)(ring->region.base + LAYOUT_PAGE_BYTES);
    write_header(ring);
    *result = ring;
    return 0;
}

void ring_destroy(struct ring *ring)
{
    if (ring == NULL) {
        return;
    }
    if (ring->release_fd >= 0) {
        close(ring->release_fd);
    }
    region_close(&ring->region);
    free(ring);
}

int ring_memory_fd(const struct ring *ring)
{
    return ring->region.fd;
}

int ring_release_fd(const struct ring *ring)
{
    return ring->release_fd;
}

size_t ring_region_bytes(const struct ring *ring)
{
    return ring->region.bytes;
}

size_t ring_slot_bytes(const struct ring *ring)
{
    return ring->slot_bytes;
}

uint32_t ring_slot_count(const struct ring *ring)
{
    return ring->slot_count;
}

int ring_claim(struct ring *ring)
{
    /* The lowest free one, so that slots that were never needed stay untouched memory. */
    for (uint32_t i = 0; i < ring->slot_count; i++) {
        if (ring->slots[i].state == SLOT_FREE) {
            ring->slots[i].state = SLOT_FILLING;
            return (int)i;
        }
    }
    return -1;
}

uint8_t *ring_slot_base(struct ring *ring, uint32_t slot)
{
    assert(slot < ring->slot_count);
    return ring->region.base + SLOTS_OFFSET_BYTES + slot * ring->slot_bytes;
}

struct slot_header *ring_slot_header(struct ring *ring, uint32_t slot)
{
    return (struct slot_header *)ring_slot_base(ring, slot);
}

static void wake_all(const _Atomic uint32_t *word)
{
    /* Not FUTEX_PRIVATE_FLAG: the sleeper is another process. Nobody sleeping is no error. */
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void ring_publish(struct ring *ring, uint32_t index)
{
    assert(index < ring->slot_count);
    struct slot *slot = &ring->slots[index];
    assert(slot->state == SLOT_FILLING);
    slot->state = SLOT_PUBLISHED;
    slot->generation = slot->generation == UINT32_MAX ? 1 : slot->generation + 1;
    slot->published_as = ring->published_count;
    slot->stream = ring->stream;

    struct slot_header *header = ring_slot_header(ring, index);
    header->generation = slot->generation;
    header->ready_ns = now_ns();

    uint32_t place = (uint32_t)(ring->published_count % ring->slot_count);
    ring->entry[place] = index;
    ring->published_count++;
    /* Relaxed: the store of published_count below carries it. */
    atomic_store_explicit(&ring->header->entry[place], index, memory_order_relaxed);
    /* Release: pairs with the acquire load in penstock_ring_wait() and penstock_ring_take(); who
     * sees the count sees the entry, the slot's header and its fields. A plain store of our own
     * count, so that whatever the trainer wrote there is overwritten, not added to. */
    atomic_store_explicit(&ring->header->published_count, (uint32_t)ring->published_count,
                          memory_order_release);
    wake_all(&ring->header->published_count);
}

void ring_abandon(struct ring *ring, uint32_t slot)
{
    assert(slot < ring->slot_count && ring->slots[slot].state == SLOT_FILLING);
    ring->slots[slot].state = SLOT_FREE;
}

/* Empty the eventfd without ever blocking. The trainer shares its file description and may have
 * cleared O_NONBLOCK, so that flag is not relied upon. */
static void drain_release_fd(const struct ring *ring)
{
    uint64_t count;
    struct iovec to = {&count, sizeof count};
    if (preadv2(ring->release_fd, &to, 1, -1, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP) {
        return;
    }
    /* Kernels before 5.8 have no RWF_NOWAIT for an eventfd. */
    struct pollfd readable = {.fd = ring->release_fd, .events = POLLIN};
    if (poll(&readable, 1, 0) == 1) {
        ssize_t ignored = read(ring->release_fd, &count, sizeof count);
        (void)ignored;
    }
}

uint32_t ring_collect(struct ring *ring)
{
    uint32_t released_count = 0;
    drain_release_fd(ring); /* before the words: a release after this look makes it readable */
    for (uint32_t i = 0; i < ring->slot_count; i++) {
        struct slot *slot = &ring->slots[i];
        if (slot->state != SLOT_PUBLISHED) {
            continue;
        }
        /* Acquire: pairs with the release store in penstock_lease_unref(); the trainer's last
         * reads of the slot come before our next writes to it. */
        uint32_t word = atomic_load_explicit(&ring->releases->generation[i], memory_order_acquire);
        if (word == slot->generation) {
            slot->state = SLOT_FREE;
            released_count++;
        }
    }
    return released_count;
}

int ring_rewind(struct ring *ring, uint32_t taken_count)
{
    uint32_t untaken_count = (uint32_t)ring->published_count - taken_count;
    if (untaken_count > ring->slot_count || untaken_count > ring->published_count) {
        return -EINVAL;
    }
    for (uint64_t k = ring->published_count - untaken_count; k < ring->published_count; k++) {
        struct slot *slot = &ring->slots[ring->entry[k % ring->slot_count]];
        /* A trainer that released what it never took may have made the slot another batch. */
        if (slot->state == SLOT_PUBLISHED && slot->stream == ring->stream &&
            slot->published_as == k) {
            slot->state = SLOT_FREE;
        }
    }
    ring->stream++;
    ring->published_count = 0;
    /* Relaxed and release: the trainer looks at neither before the daemon's answer to its seek
     * arrives, and that orders them; release only keeps the two in order for a curious reader. */
    atomic_store_explicit(&ring->header->published_count, 0, memory_order_relaxed);
    atomic_store_explicit(&ring->header->stream, ring->stream, memory_order_release);
    return 0;
}

struct ring_usage ring_usage(const struct ring *ring)
{
    struct ring_usage usage = {.stream = ring->stream};
    for (uint32_t i = 0; i < ring->slot_count; i++) {
        switch (ring->slots[i].state) {
        case SLOT_FREE: usage.free_count++; break;
        case SLOT_FILLING: usage.filling_count++; break;
        case SLOT_PUBLISHED: usage.published_count++; break;
        }
    }
    return usage;
}

uint64_t ring_waited_ns(const struct ring *ring)
{
    return atomic_load_explicit(&ring->releases->waited_ns, memory_order_relaxed);
}
