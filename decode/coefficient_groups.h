/*
 * coefficient_groups.h - blocks out of a coefficient record, a group at a time.
 *
 *     coefficient_groups_open -> coefficient_groups_start -> coefficient_groups_read ...
 *
 * The record is borrowed until the next open. Belongs to one thread.
 */
#ifndef PENSTOCK_DECODE_COEFFICIENT_GROUPS_H
#define PENSTOCK_DECODE_COEFFICIENT_GROUPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/block_kernels.h"
#include "decode/coefficient_format.h"
#include "decode/status.h"

struct coefficient_groups;

/* NULL when memory is short. */
struct coefficient_groups *coefficient_groups_create(const struct block_kernels *kernels);
void coefficient_groups_destroy(struct coefficient_groups *groups); /* NULL is accepted */

/* Check the record: header, checksum, extent of all parts. */
enum decode_status coefficient_groups_open(struct coefficient_groups *groups, const uint8_t *record,
                                           size_t record_bytes, struct decode_error *error);

/* Of the record that is open. */
const struct coefficient_layout *coefficient_groups_layout(const struct coefficient_groups *groups);

/* Make the streams ready: a compact record's are decompressed. */
enum decode_status coefficient_groups_start(struct coefficient_groups *groups,
                                            struct decode_error *error);

/* Where in the streams the next group begins. Plain values. */
struct group_cursor {
    const struct coefficient_component *component;
    uint32_t group; /* of the block row */
    size_t index;   /* of the group in the record */
    const uint8_t *at[STREAM_COUNT];
};

/* The cursor of a group; of those left of it in its row only the index is looked at. */
struct group_cursor coefficient_groups_find(const struct coefficient_groups *groups,
                                            uint32_t component, uint32_t row, uint32_t group);

/* The next group's blocks, times quantisation[] (natural order), to `blocks`, which is aligned to
 * 64 bytes; the cursor moves to the group on its right. False: its content is impossible. */
bool coefficient_groups_read(struct coefficient_groups *groups, struct group_cursor *cursor,
                             const uint16_t quantisation[BLOCK_COEFFICIENTS], int16_t *blocks);

#endif /* PENSTOCK_DECODE_COEFFICIENT_GROUPS_H */
