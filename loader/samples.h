/*
 * samples.h - the samples of a session and where their bytes are: of a whole index, or of a catalog
 * whose shards become known one by one.
 *
 * A sample is named by a number: its canonical index in a whole index, its id (shard << 32 |
 * position) in a catalog.
 */
#ifndef PENSTOCK_LOADER_SAMPLES_H
#define PENSTOCK_LOADER_SAMPLES_H

#include <stdbool.h>
#include <stdint.h>

#include "loader/catalog.h"
#include "loader/field_map.h"
#include "loader/index.h"

struct samples {
    struct index *index;     /* a reference; NULL with a catalog */
    struct catalog *catalog; /* a reference; NULL with an index */
    struct field_map fields;
    struct index_fields **shard_fields; /* catalog: by shard, made when first asked for */
};

/* Takes references of its own; one of index and catalog is given. */
void samples_init(struct samples *samples, struct index *index, struct catalog *catalog);
void samples_clear(struct samples *samples);

/* Resolve the fields; with a catalog against `shard`, which is known: its shards are taken to have
 * the same fields. 0, or -1 and *error. */
int samples_resolve(struct samples *samples, const struct session_spec *spec, uint32_t shard,
                    struct error *error);

uint64_t samples_id(const struct samples *samples, uint64_t number);
void samples_label(const struct samples *samples, uint64_t number, char *text, size_t bytes);
/* As index_sample_place(); also -1 when memory for a shard's fields is short. */
int samples_place(struct samples *samples, uint64_t number, struct sample_place *place,
                  char *buffer, size_t buffer_bytes);

uint64_t samples_data_bytes(const struct samples *samples);
uint64_t samples_mean_bytes(const struct samples *samples); /* of a sample; 0: unknown */

#endif /* PENSTOCK_LOADER_SAMPLES_H */
