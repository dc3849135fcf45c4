/*
 * field_map.h - from the fields of a batch to the bytes of a sample.
 *
 * Labels come from the index; images, texts and bytes are members of a tar, or (the image alone)
 * a file. Immutable after creation.
 */
#ifndef PENSTOCK_LOADER_FIELD_MAP_H
#define PENSTOCK_LOADER_FIELD_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/error.h"
#include "loader/index.h"
#include "loader/session_spec.h"

struct field_map {
    struct index_fields *members;           /* the fields that are not labels */
    size_t member[INDEX_FIELDS_MAX];        /* by field of the spec: its place among them */
    size_t image;                           /* the field that is the image */
    const char *patterns[INDEX_FIELDS_MAX]; /* of the members; the spec's */
    size_t member_count;
};

/* Checks that there is exactly one image and that the data set can have the others. 0, or -1 and
 * *error; the caller passes it to field_map_clear() in either case. The spec must outlive it. */
int field_map_init(struct field_map *map, const struct index *index,
                   const struct session_spec *spec, struct error *error);
void field_map_clear(struct field_map *map);

/* The members of another index of the same data set, which need not have them all. 0, or -1: no
 * memory. */
int field_map_resolve(const struct field_map *map, const struct index *index,
                      struct index_fields **members);

/* Where field `field` (no label) lies in the bytes that were read for `place`; size_bytes is how
 * many those are. False if the sample has no such member. */
bool field_map_range(const struct field_map *map, const struct sample_place *place, size_t field,
                     uint64_t size_bytes, uint64_t *offset_bytes, uint64_t *length_bytes);

#endif /* PENSTOCK_LOADER_FIELD_MAP_H */
