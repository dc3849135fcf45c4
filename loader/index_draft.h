/*
 * index_draft.h - an index while it is being made: its sections as growing arrays.
 *
 * A draft belongs to one thread at a time. When memory runs out, additions do nothing and
 * is_out_of_memory is set; whoever finishes the draft looks once.
 */
#ifndef PENSTOCK_LOADER_INDEX_DRAFT_H
#define PENSTOCK_LOADER_INDEX_DRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/index_format.h"
#include "loader/error.h"
#include "loader/index_hash.h"

/* Bytes that grow at their end. Zero is empty. */
struct growing {
    uint8_t *bytes;
    size_t size_bytes, capacity_bytes;
};

/* Room for size_bytes more, counted as used; NULL when memory is short. Not cleared. */
void *growing_add(struct growing *growing, size_t size_bytes);
void growing_clear(struct growing *growing);

struct index_draft {
    enum index_kind kind;
    struct growing section[INDEX_SECTIONS];
    uint64_t data_bytes;
    uint8_t fingerprint[INDEX_HASH_BYTES];
    bool is_out_of_memory;
};

/* Starts with the empty string at offset 0. */
void index_draft_init(struct index_draft *draft, enum index_kind kind);
void index_draft_clear(struct index_draft *draft);

/* Append one element of size_bytes to a section. */
void index_draft_add(struct index_draft *draft, enum index_section section, const void *element,
                     size_t size_bytes);
/* Append a text of `length` bytes and a NUL to the strings; returns its offset. */
uint64_t index_draft_string(struct index_draft *draft, const char *text, size_t length);
/* Elements of size_bytes in a section. */
size_t index_draft_count(const struct index_draft *draft, enum index_section section,
                         size_t size_bytes);

/* Write the whole index file to fd, which is empty and at its start. 0, or -1 with errno. */
int index_draft_write(const struct index_draft *draft, int fd);

#endif /* PENSTOCK_LOADER_INDEX_DRAFT_H */
