/*
 * layout.h - the bytes of a ring, as the daemon and one trainer share them.
 *
 *     page 0        page 1           page 2 ...
 *     ring_header   ring_releases    slot 0 | slot 1 | ... | slot_count - 1
 *
 *     a slot:  slot_header (one page) | fields, each at its own offset, 4096-aligned images
 *
 * One memfd per session, sealed against resizing. The daemon writes page 0 and every slot header,
 * the trainer writes page 1 and may write the fields of a slot that it holds (tensors are
 * writable). The daemon reads nothing from here but page 1, and there only copies that it checks:
 * its own slot table lives in private memory (ring.h).
 *
 * Life of a slot:  FREE -> FILLING -> PUBLISHED -> (taken by the trainer) -> released -> FREE
 *
 * All integers are little-endian. A change of any line below raises LAYOUT_VERSION.
 */
#ifndef PENSTOCK_IPC_LAYOUT_H
#define PENSTOCK_IPC_LAYOUT_H

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LAYOUT_VERSION = 1,
    LAYOUT_PAGE_BYTES = 4096,
    LAYOUT_SLOTS_MAX = 256,
    LAYOUT_ERROR_BYTES = 2048,
};

#define LAYOUT_MAGIC "PENSTOCK"

/* Page 0, written by the daemon only. */
struct ring_header {
    char magic[8];
    uint32_t layout_version;
    uint32_t slot_count;         /* 2 .. LAYOUT_SLOTS_MAX */
    uint64_t slot_bytes;         /* stride between slots, a multiple of LAYOUT_PAGE_BYTES */
    uint64_t slots_offset_bytes; /* of slot 0 from the start of the region */
    uint64_t region_bytes;
    /* Batches published since the ring was made or last rewound, modulo 2^32. The trainer waits
     * on this word (futex). Batch k is in slot entry[k % slot_count]. */
    alignas(64) _Atomic uint32_t published_count;
    /* Raised by one at each rewind (a seek); published_count starts again from 0. */
    _Atomic uint32_t stream;
    alignas(64) _Atomic uint32_t entry[LAYOUT_SLOTS_MAX];
};
static_assert(sizeof(struct ring_header) <= LAYOUT_PAGE_BYTES, "page 0");
static_assert(offsetof(struct ring_header, published_count) == 64, "own cache line");
static_assert(offsetof(struct ring_header, entry) == 128, "own cache line");

/* Page 1, written by the trainer: the generation it gives back, per slot. A slot is free again
 * when this equals the generation of the slot's last publication. */
struct ring_releases {
    _Atomic uint32_t generation[LAYOUT_SLOTS_MAX];
    /* For the daemon's status page only; nothing is decided by it. */
    alignas(64) _Atomic uint64_t waited_ns; /* in penstock_ring_wait(), since the ring was opened */
};
static_assert(sizeof(struct ring_releases) <= LAYOUT_PAGE_BYTES, "page 1");

enum slot_kind {
    SLOT_BATCH = 0, /* a batch */
    SLOT_ERROR = 1, /* no batch: error_kind and error_text say why; the stream ends here */
};

/* First page of each slot, written by the daemon before it publishes. */
struct slot_header {
    uint32_t kind;       /* enum slot_kind */
    uint32_t generation; /* the trainer writes this to release the slot; never 0 */
    uint64_t epoch;      /* of this batch */
    uint64_t step;       /* batches of this epoch before this one, counted from the epoch's
                            start or from the position that the stream was opened at */
    uint64_t position;   /* global position of the batch's first sample */
    uint64_t next_epoch; /* the state after this batch: where the stream goes on */
    uint64_t next_position;
    uint64_t next_window_ordinal; /* order "window" only */
    uint64_t next_window_first;
    uint32_t place_count; /* entries in this batch, padding included; the tensors' first size */
    uint32_t valid_count; /* real samples among them */
    uint32_t bad_count;   /* samples that could not be made (skipped, zeroed or replaced) */
    uint32_t is_last;     /* 1 on the last batch of its epoch */
    uint64_t ready_ns;    /* CLOCK_MONOTONIC when the last sample was written */
    uint64_t side_bytes;  /* bytes used of the side area (text fields) */
    char error_kind[32];  /* NUL-terminated; see docs/protocol.md */
    char error_text[LAYOUT_ERROR_BYTES];
};
static_assert(sizeof(struct slot_header) <= LAYOUT_PAGE_BYTES, "slot header");

/* A text or bytes field: place_count of these at the field's offset; the bytes themselves are in
 * the slot's side area. */
struct slot_text {
    uint32_t offset_bytes; /* from the start of the side area */
    uint32_t length_bytes;
};

#endif /* PENSTOCK_IPC_LAYOUT_H */
