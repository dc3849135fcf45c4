/*
 * penstock.h - libpenstock: the trainer's end of a ring of batches.
 *
 *     attach over the control socket (docs/protocol.md) gives two descriptors
 *     penstock_ring_open -> penstock_ring_wait -> penstock_ring_take -> lease ... unref -> close
 *
 * Ownership  A lease is a counted hold on one slot. Its memory stays as it is until the last
 *            reference is dropped, whatever the daemon does; so a tensor that views the memory
 *            holds one reference. Leases keep the mapping alive beyond penstock_ring_close().
 * Threads    wait and take: one thread at a time. References: any thread.
 * Fork       After fork() the child may read what it inherited, but never releases a slot and
 *            gets PENSTOCK_FORKED from wait and take.
 * Errors     Negative values of enum penstock_status; nothing is printed.
 */
#ifndef PENSTOCK_H
#define PENSTOCK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* bindings: begin - the Python build reads from here to "end"; plain declarations only. */

typedef enum penstock_status {
    PENSTOCK_OK = 0,
    PENSTOCK_TIMED_OUT = -1,    /* nothing was published within timeout_ms */
    PENSTOCK_INVALID = -2,      /* an argument is out of range, or the region is not a ring */
    PENSTOCK_INCOMPATIBLE = -3, /* the daemon speaks another layout version */
    PENSTOCK_NO_MEMORY = -4,
    PENSTOCK_FORKED = -5, /* this handle was made by the parent process */
    PENSTOCK_SYSTEM = -6  /* a system call failed; errno says which way */
} penstock_status;

typedef struct penstock_ring penstock_ring;
typedef struct penstock_lease penstock_lease;

/* Library version, "0.1.0". */
const char *penstock_version(void);

/* Map the ring behind memory_fd (region_bytes long); release_fd is the eventfd that tells the
 * daemon of releases. Both descriptors are the ring's on PENSTOCK_OK and stay the caller's on
 * failure. */
penstock_status penstock_ring_open(int memory_fd, int release_fd, uint64_t region_bytes,
                                   penstock_ring **ring);

/* Drop the handle; the mapping goes with the last lease. NULL is accepted. */
void penstock_ring_close(penstock_ring *ring);

/* Wait until a batch is there that was not taken yet. Spins spin_us microseconds, then sleeps in
 * the kernel; timeout_ms 0 only looks. PENSTOCK_OK, TIMED_OUT (also after a signal), FORKED. */
penstock_status penstock_ring_wait(penstock_ring *ring, int32_t spin_us, int32_t timeout_ms);

/* Take the next batch: a lease with one reference. PENSTOCK_TIMED_OUT when none is there. */
penstock_status penstock_ring_take(penstock_ring *ring, penstock_lease **lease);

/* Begin the new stream after the daemon acknowledged a seek. */
void penstock_ring_rewind(penstock_ring *ring);

typedef struct penstock_ring_info {
    uint32_t slot_count;
    uint32_t held_count;  /* slots that leases hold */
    uint32_t ready_count; /* published and not taken */
    uint32_t taken_count; /* of this stream */
    uint64_t slot_bytes;
    uint64_t region_bytes;
    void *base; /* of the mapping, for cudaHostRegister */
} penstock_ring_info;

penstock_status penstock_ring_describe(penstock_ring *ring, penstock_ring_info *info);

/* The slot: base address, and its header as plain numbers. Borrowed from the lease. */
typedef struct penstock_batch_info {
    uint8_t *base;
    uint32_t kind; /* 0 a batch, 1 an error */
    uint32_t slot_index;
    uint64_t epoch;
    uint64_t step;
    uint64_t position;
    uint64_t next_epoch;
    uint64_t next_position;
    uint64_t next_window_ordinal;
    uint64_t next_window_first;
    uint32_t place_count;
    uint32_t valid_count;
    uint32_t bad_count;
    uint32_t is_last;
    uint64_t ready_ns;
    uint64_t side_bytes;
    const char *error_kind;
    const char *error_text;
    uint32_t held_count; /* of the ring's slots, this one included, when it was described */
} penstock_batch_info;

void penstock_lease_describe(const penstock_lease *lease, penstock_batch_info *info);

/* penstock_ring_wait(), penstock_ring_take() and penstock_lease_describe() in one call, for a
 * trainer to whom each costs. The errors are theirs; *lease is NULL unless PENSTOCK_OK. */
penstock_status penstock_ring_next(penstock_ring *ring, int32_t spin_us, int32_t timeout_ms,
                                   penstock_lease **lease, penstock_batch_info *info);

void penstock_lease_ref(penstock_lease *lease);
/* Drop one reference; the last gives the slot back to the daemon. NULL is accepted. */
void penstock_lease_unref(penstock_lease *lease);
/* The same with *lease, which becomes NULL: a finalizer for languages that run those where an
 * exception out of a signal handler would be lost, so that none of their own code may run. */
void penstock_lease_clear(penstock_lease **lease);

/* bindings: end */

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif /* PENSTOCK_H */
