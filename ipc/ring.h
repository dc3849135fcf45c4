/*
 * ring.h - the daemon's end of a ring of batch slots.
 *
 * The ring owns the region and the one true slot table, in private memory. Nothing that the
 * trainer writes is believed: a release counts only for a slot that is PUBLISHED in this table
 * and only with its current generation.
 *
 * Threads: one at a time (the pipeline's lock). Slot memory itself may be written by decode
 * threads while the slot is FILLING.
 */
#ifndef PENSTOCK_IPC_RING_H
#define PENSTOCK_IPC_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/layout.h"

struct ring;

/* slot_count 2..LAYOUT_SLOTS_MAX; slot_bytes includes the header page and is rounded up to pages.
 * 0 or a negative errno; *ring is the caller's. */
int ring_create(uint32_t slot_count, size_t slot_bytes, struct ring **ring);
void ring_destroy(struct ring *ring); /* NULL is accepted */

int ring_memory_fd(const struct ring *ring);  /* borrowed; to be passed to the trainer */
int ring_release_fd(const struct ring *ring); /* borrowed; eventfd that the trainer writes after a
                                                 release, non-blocking, to be polled here */
size_t ring_region_bytes(const struct ring *ring);
size_t ring_slot_bytes(const struct ring *ring);
uint32_t ring_slot_count(const struct ring *ring);

/* Take a free slot for filling; its index, or -1 when none is free. */
int ring_claim(struct ring *ring);
struct slot_header *ring_slot_header(struct ring *ring, uint32_t slot); /* write only */
uint8_t *ring_slot_base(struct ring *ring, uint32_t slot);

/* Publish a FILLING slot as the next batch: sets generation and ready_ns in its header, appends
 * it and wakes the trainer. All writes to the slot happen before. */
void ring_publish(struct ring *ring, uint32_t slot);

/* Put a FILLING slot back unpublished. */
void ring_abandon(struct ring *ring, uint32_t slot);

/* Look at the release words, make released slots FREE; returns how many were. Also drains the
 * eventfd. */
uint32_t ring_collect(struct ring *ring);

/* Begin a new stream (a seek): published batches that the trainer has not taken go back to FREE.
 * `taken_count`: how many it took in the old stream. -EINVAL if that is more than were published
 * or leaves more than slot_count outstanding. FILLING slots are not touched. */
int ring_rewind(struct ring *ring, uint32_t taken_count);

struct ring_usage {
    uint32_t free_count, filling_count, published_count; /* published: not yet released */
    uint32_t stream;
};
struct ring_usage ring_usage(const struct ring *ring);

/* How long the trainer says it has waited for batches. Its word: to be shown, not to be used. */
uint64_t ring_waited_ns(const struct ring *ring);

#endif /* PENSTOCK_IPC_RING_H */
