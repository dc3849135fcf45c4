/*
 * batch_layout.h - where the fields of a batch lie inside a slot. Pure arithmetic.
 *
 *     header page | image, 4096-aligned | others, 64-aligned ... | ids | valid | side area
 *
 * Tensors are dense with the sample as first dimension; text and bytes fields are arrays of
 * struct slot_text whose bytes lie in the side area.
 */
#ifndef PENSTOCK_LOADER_BATCH_LAYOUT_H
#define PENSTOCK_LOADER_BATCH_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "loader/session_spec.h"

struct batch_layout {
    uint32_t place_count;                          /* samples that a slot can hold, >= 1 */
    uint64_t field_offset_bytes[INDEX_FIELDS_MAX]; /* in the order of session_spec.fields */
    uint64_t row_bytes[INDEX_FIELDS_MAX];          /* of one sample */
    size_t image_field;                            /* which of them is the image */
    uint64_t id_offset_bytes;                      /* uint64 each */
    uint64_t valid_offset_bytes;                   /* uint8 each */
    uint64_t side_offset_bytes, side_bytes;
    uint64_t slot_bytes;
};

/* Label of padding, of a bad sample under "zero", and of a sample that has none; and the id of
 * padding. */
#define BATCH_LABEL_NONE ((int64_t)-100)
#define BATCH_ID_NONE    UINT64_MAX

/* Places of this rank's largest batch. */
uint32_t batch_layout_places(const struct session_spec *spec);

struct batch_layout batch_layout_make(const struct session_spec *spec,
                                      const struct recipe_output *image);

#endif /* PENSTOCK_LOADER_BATCH_LAYOUT_H */
