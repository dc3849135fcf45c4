/*
 * region.h - anonymous shared memory that two processes map: a sealed memfd.
 *
 * It has no name in /dev/shm, so it knows no 64 MB limit and leaves nothing behind; it counts
 * against the memory cgroup. F_SEAL_SHRINK keeps the other side from making our mapping fault.
 */
#ifndef PENSTOCK_IPC_REGION_H
#define PENSTOCK_IPC_REGION_H

#include <stddef.h>
#include <stdint.h>

struct region {
    int fd; /* -1 when closed */
    uint8_t *base;
    size_t bytes;
};

/* Make a region of `bytes` (a multiple of the page size), seal it and map it read-write; pages
 * are allocated when touched (transparent huge pages asked for). 0 or a negative errno. */
int region_create(struct region *region, const char *label, size_t bytes);

/* Map the region behind `fd`, made by another process; on success the region owns fd. Refuses
 * (-EINVAL) an fd that is no memfd sealed against shrinking, or smaller than `bytes`. */
int region_map(struct region *region, int fd, size_t bytes);

/* Unmap and close. A closed region is accepted. */
void region_close(struct region *region);

/* Bytes that this process may still allocate before its memory cgroup (v2 or v1, every level) or
 * the machine's MemAvailable ends it; UINT64_MAX when unknown. */
uint64_t region_memory_available_bytes(void);

#endif /* PENSTOCK_IPC_REGION_H */
