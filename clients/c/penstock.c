#include "clients/c/penstock.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clients/c/ring_private.h"
#include "ipc/layout.h"
#include "ipc/region.h"

struct penstock_ring {
    struct region region;
    const struct ring_header *header;
    struct ring_releases *releases;
    int release_fd;
    pid_t pid; /* who opened it: a forked child has another one */
    /* Copied from page 0 once, when they were checked. */
    uint32_t slot_count;
    uint64_t slot_bytes;
    uint64_t slots_offset_bytes;
    /* Batches taken of this stream. Its low 32 bits are compared with published_count. */
    _Atomic uint64_t taken_count;
    uint64_t waited_us; /* belongs to the thread that waits */
    _Atomic uint32_t held_count;
    _Atomic uint32_t reference_count; /* the handle and every lease */
    void (*before_unmap)(void *argument);
    void *before_unmap_argument;
};

struct penstock_lease {
    struct penstock_ring *ring;
    uint32_t slot;
    _Atomic uint32_t reference_count;
    struct slot_header header; /* copied out once, so that it cannot change under its readers */
};

const char *penstock_version(void)
{
    return PENSTOCK_VERSION;
}

static penstock_status check_header(const struct ring_header *header, uint64_t region_bytes)
{
    if (memcmp(header->magic, LAYOUT_MAGIC, sizeof header->magic) != 0) {
        return PENSTOCK_INVALID;
    }
    if (header->layout_version != LAYOUT_VERSION) {
        return PENSTOCK_INCOMPATIBLE;
    }
    if (header->slot_count < 2 || header->slot_count > LAYOUT_SLOTS_MAX) {
        return PENSTOCK_INVALID;
    }
    if (header->slot_bytes < sizeof(struct slot_header) ||
        header->slot_bytes % LAYOUT_PAGE_BYTES != 0 ||
        header->slots_offset_bytes % LAYOUT_PAGE_BYTES != 0 ||
        header->slots_offset_bytes < 2 * LAYOUT_PAGE_BYTES ||
        header->slots_offset_bytes > region_bytes || header->region_bytes != region_bytes) {
        return PENSTOCK_INVALID;
    }
    uint64_t room_bytes = region_bytes - header->slots_offset_bytes;
    return header->slot_bytes <= room_bytes / header->slot_count ? PENSTOCK_OK : PENSTOCK_INVALID;
}

static penstock_status from_errno(int error)
{
    errno = error;
    return error == EINVAL ? PENSTOCK_INVALID
                           : (error == ENOMEM ? PENSTOCK_NO_MEMORY : PENSTOCK_SYSTEM);
}

penstock_status penstock_ring_open(int memory_fd, int release_fd, uint64_t region_bytes,
                                   penstock_ring **result)
{
    if (result == NULL) {
        return PENSTOCK_INVALID;
    }
    *result = NULL;
    if (memory_fd < 0 || release_fd < 0 || region_bytes > SIZE_MAX ||
        region_bytes < 2 * LAYOUT_PAGE_BYTES) {
        return PENSTOCK_INVALID;
    }
    struct penstock_ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL) {
        return PENSTOCK_NO_MEMORY;
    }
    int error = region_map(&ring->region, memory_fd, (size_t)region_bytes);
    if (error != 0) {
        free(ring);
        return from_errno(-error);
    }
    /* The daemon does not change these words any more; one copy is checked and used all the
     * same. */
    struct ring_header header;
    memcpy(&header, ring->region.base, sizeof header);
    penstock_status status = check_header(&header, region_bytes);
    if (status != PENSTOCK_OK) {
        ring->region.fd = -1; /* stays the caller's */
        region_close(&ring->region);
        free(ring);
        return status;
    }
    ring->header = (const struct ring_header *)ring->region.base;
    ring->releases = (struct ring_releases *)(ring->region.base + LAYOUT_PAGE_BYTES);
    ring->release_fd = release_fd;
    ring->pid = getpid();
    ring->slot_count = header.slot_count;
    ring->slot_bytes = header.slot_bytes;
    ring->slots_offset_bytes = header.slots_offset_bytes;
    atomic_init(&ring->reference_count, 1);
    *result = ring;
    return PENSTOCK_OK;
}

static bool is_forked(const struct penstock_ring *ring)
{
    return getpid() != ring->pid;
}

static void ring_unref(struct penstock_ring *ring)
{
    /* Acquire and release: what every holder did comes before the unmapping. */
    if (atomic_fetch_sub_explicit(&ring->reference_count, 1, memory_order_acq_rel) != 1) {
        return;
    }
    if (ring->before_unmap != NULL && !is_forked(ring)) {
        ring->before_unmap(ring->before_unmap_argument);
    }
    close(ring->release_fd);
    region_close(&ring->region);
    free(ring);
}

bool ring_before_unmap(penstock_ring *ring, void (*function)(void *argument), void *argument)
{
    if (ring->before_unmap != NULL) {
        return false;
    }
    ring->before_unmap = function;
    ring->before_unmap_argument = argument;
    return true;
}

void penstock_ring_close(penstock_ring *ring)
{
    if (ring != NULL) {
        ring_unref(ring);
    }
}

/* ---------------------------------------------------------------------------------- waiting */

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint32_t load_published(const struct penstock_ring *ring)
{
    /* Acquire: pairs with the release store in ring_publish(). */
    return atomic_load_explicit(&ring->header->published_count, memory_order_acquire);
}

/* Batches that are published and not taken. More than there are slots cannot be: then the daemon
 * has rewound and penstock_ring_rewind() was not called yet, and nothing is there for us. */
static uint32_t ready_count(const struct penstock_ring *ring, uint32_t published)
{
    uint64_t taken = atomic_load_explicit(&ring->taken_count, memory_order_relaxed);
    uint32_t count = published - (uint32_t)taken;
    return count <= ring->slot_count ? count : 0;
}

/* Look for a batch until deadline_us, which is near. */
static bool spin_until(const struct penstock_ring *ring, uint64_t deadline_us)
{
    enum { LOOKS_PER_CLOCK = 16 };
    do {
        for (int i = 0; i < LOOKS_PER_CLOCK; i++) {
            if (ready_count(ring, load_published(ring)) > 0) {
                return true;
            }
            cpu_pause();
        }
    } while (now_us() < deadline_us);
    return false;
}

/* Sleep until published_count is not `published` any more, at most left_us. False: a signal. */
static bool sleep_on_count(const struct penstock_ring *ring, uint32_t published, uint64_t left_us)
{
    struct timespec left = {(time_t)(left_us / 1000000u), (long)(left_us % 1000000u) * 1000};
    /* Not FUTEX_PRIVATE_FLAG: the word is in memory shared with the daemon. */
    long result =
        syscall(SYS_futex, &ring->header->published_count, FUTEX_WAIT, published, &left, NULL, 0);
    return result == 0 || errno != EINTR;
}

static penstock_status wait_from(const penstock_ring *ring, uint64_t begin_us, int32_t spin_us,
                                 int32_t timeout_ms)
{
    uint64_t deadline_us = begin_us + (uint64_t)timeout_ms * 1000u;
    uint64_t spin_end_us = begin_us + (uint32_t)spin_us;
    if (spin_until(ring, spin_end_us < deadline_us ? spin_end_us : deadline_us)) {
        return PENSTOCK_OK;
    }
    for (;;) {
        uint32_t published = load_published(ring);
        if (ready_count(ring, published) > 0) {
            return PENSTOCK_OK;
        }
        uint64_t at_us = now_us();
        if (at_us >= deadline_us) {
            return PENSTOCK_TIMED_OUT;
        }
        if (!sleep_on_count(ring, published, deadline_us - at_us)) {
            bool ready = ready_count(ring, load_published(ring)) > 0;
            return ready ? PENSTOCK_OK : PENSTOCK_TIMED_OUT;
        }
    }
}

penstock_status penstock_ring_wait(penstock_ring *ring, int32_t spin_us, int32_t timeout_ms)
{
    if (ring == NULL || spin_us < 0 || timeout_ms < 0) {
        return PENSTOCK_INVALID;
    }
    if (is_forked(ring)) {
        return PENSTOCK_FORKED;
    }
    if (ready_count(ring, load_published(ring)) > 0) {
        return PENSTOCK_OK;
    }
    if (timeout_ms == 0) {
        return PENSTOCK_TIMED_OUT;
    }
    uint64_t begin_us = now_us();
    penstock_status status = wait_from(ring, begin_us, spin_us, timeout_ms);
    ring->waited_us += now_us() - begin_us;
    /* Relaxed: a figure to be shown, that orders nothing. */
    atomic_store_explicit(&ring->releases->waited_ns, ring->waited_us * 1000, memory_order_relaxed);
    return status;
}

/* ----------------------------------------------------------------------------------- leases */

static uint8_t *slot_base(const struct penstock_ring *ring, uint32_t slot)
{
    return ring->region.base + ring->slots_offset_bytes + slot * ring->slot_bytes;
}

/* A batch's texts are empty: the larger part of the header stays in the daemon's caches then. */
static void copy_header(struct slot_header *to, const uint8_t *from)
{
    const size_t plain_bytes = offsetof(struct slot_header, error_kind);
    memcpy(to, from, plain_bytes);
    if (to->kind == SLOT_BATCH) {
        to->error_kind[0] = '\0';
        to->error_text[0] = '\0';
        return;
    }
    memcpy((uint8_t *)to + plain_bytes, from + plain_bytes, sizeof *to - plain_bytes);
    to->error_kind[sizeof to->error_kind - 1] = '\0';
    to->error_text[sizeof to->error_text - 1] = '\0';
}

penstock_status penstock_ring_take(penstock_ring *ring, penstock_lease **result)
{
    if (ring == NULL || result == NULL) {
        return PENSTOCK_INVALID;
    }
    *result = NULL;
    if (is_forked(ring)) {
        return PENSTOCK_FORKED;
    }
    if (ready_count(ring, load_published(ring)) == 0) {
        return PENSTOCK_TIMED_OUT;
    }
    uint64_t taken = atomic_load_explicit(&ring->taken_count, memory_order_relaxed);
    /* Relaxed: the acquire load of published_count above covers it. */
    uint32_t slot =
        atomic_load_explicit(&ring->header->entry[taken % ring->slot_count], memory_order_relaxed);
    if (slot >= ring->slot_count) {
        return PENSTOCK_INVALID;
    }
    struct penstock_lease *lease = malloc(sizeof *lease);
    if (lease == NULL) {
        return PENSTOCK_NO_MEMORY;
    }
    lease->ring = ring;
    lease->slot = slot;
    atomic_init(&lease->reference_count, 1);
    copy_header(&lease->header, slot_base(ring, slot));
    atomic_store_explicit(&ring->taken_count, taken + 1, memory_order_relaxed);
    /* Relaxed: a count alone; references are only ever made from one that is held. */
    atomic_fetch_add_explicit(&ring->held_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&ring->reference_count, 1, memory_order_relaxed);
    *result = lease;
    return PENSTOCK_OK;
}

void penstock_ring_rewind(penstock_ring *ring)
{
    if (ring != NULL && !is_forked(ring)) {
        atomic_store_explicit(&ring->taken_count, 0, memory_order_relaxed);
    }
}

penstock_status penstock_ring_describe(penstock_ring *ring, penstock_ring_info *info)
{
    if (ring == NULL || info == NULL) {
        return PENSTOCK_INVALID;
    }
    *info = (penstock_ring_info){
        .slot_count = ring->slot_count,
        .held_count = atomic_load_explicit(&ring->held_count, memory_order_relaxed),
        .ready_count = ready_count(ring, load_published(ring)),
        .taken_count = (uint32_t)atomic_load_explicit(&ring->taken_count, memory_order_relaxed),
        .slot_bytes = ring->slot_bytes,
        .region_bytes = ring->region.bytes,
        .base = ring->region.base,
    };
    return PENSTOCK_OK;
}

void penstock_lease_describe(const penstock_lease *lease, penstock_batch_info *info)
{
    const struct slot_header *header = &lease->header;
    *info = (penstock_batch_info){
        .base = slot_base(lease->ring, lease->slot),
        .kind = header->kind,
        .slot_index = lease->slot,
        .epoch = header->epoch,
        .step = header->step,
        .position = header->position,
        .next_epoch = header->next_epoch,
        .next_position = header->next_position,
        .next_window_ordinal = header->next_window_ordinal,
        .next_window_first = header->next_window_first,
        .place_count = header->place_count,
        .valid_count = header->valid_count,
        .bad_count = header->bad_count,
        .is_last = header->is_last,
        .ready_ns = header->ready_ns,
        .side_bytes = header->side_bytes,
        .error_kind = header->error_kind,
        .error_text = header->error_text,
        .held_count = atomic_load_explicit(&lease->ring->held_count, memory_order_relaxed),
    };
}

penstock_status penstock_ring_next(penstock_ring *ring, int32_t spin_us, int32_t timeout_ms,
                                   penstock_lease **lease, penstock_batch_info *info)
{
    if (lease == NULL || info == NULL) {
        return PENSTOCK_INVALID;
    }
    *lease = NULL;
    penstock_status status = penstock_ring_wait(ring, spin_us, timeout_ms);
    if (status != PENSTOCK_OK) {
        return status;
    }
    status = penstock_ring_take(ring, lease);
    if (status == PENSTOCK_OK) {
        penstock_lease_describe(*lease, info);
    }
    return status;
}

void penstock_lease_ref(penstock_lease *lease)
{
    /* Relaxed: the caller holds a reference, so the count cannot reach 0 meanwhile. */
    atomic_fetch_add_explicit(&lease->reference_count, 1, memory_order_relaxed);
}

/* Give the slot back: first the word, then the bell. */
static void release_slot(const struct penstock_lease *lease)
{
    struct penstock_ring *ring = lease->ring;
    /* Release: pairs with the acquire load in ring_collect(); our reads and writes of the slot
     * come before the daemon fills it anew. */
    atomic_store_explicit(&ring->releases->generation[lease->slot], lease->header.generation,
                          memory_order_release);
    const uint64_t one = 1;
    int saved_errno = errno; /* finalizers run anywhere */
    /* EAGAIN: the counter is full, so the daemon has its news. Other errors: it is gone. */
    ssize_t ignored = write(ring->release_fd, &one, sizeof one);
    (void)ignored;
    errno = saved_errno;
}

void penstock_lease_unref(penstock_lease *lease)
{
    if (lease == NULL) {
        return;
    }
    /* Acquire and release: what every thread did to the slot comes before its release. */
    if (atomic_fetch_sub_explicit(&lease->reference_count, 1, memory_order_acq_rel) != 1) {
        return;
    }
    struct penstock_ring *ring = lease->ring;
    if (!is_forked(ring)) { /* a child's copy goes; the parent's hold stays */
        release_slot(lease);
    }
    atomic_fetch_sub_explicit(&ring->held_count, 1, memory_order_relaxed);
    free(lease);
    ring_unref(ring);
}

void penstock_lease_clear(penstock_lease **lease)
{
    penstock_lease *held = *lease;
    *lease = NULL;
    penstock_lease_unref(held);
}
