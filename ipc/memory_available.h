/*
 * memory_available.h - how much memory this process may still allocate, as the kernel tells it in
 * files. Internal to region.c; apart so that a test can hand it a made-up tree of those files.
 */
#ifndef PENSTOCK_IPC_MEMORY_AVAILABLE_H
#define PENSTOCK_IPC_MEMORY_AVAILABLE_H

#include <stdint.h>

/* The least of MemAvailable and of what is left in every memory cgroup (v2 or v1) that this
 * process is in, up to the root. Page cache that the kernel would drop counts as free. All files
 * are looked up below `root` ("" for the real ones). UINT64_MAX when nothing is known. */
uint64_t memory_available_bytes(const char *root);

#endif /* PENSTOCK_IPC_MEMORY_AVAILABLE_H */
