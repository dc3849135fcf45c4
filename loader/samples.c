#include "loader/samples.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void samples_init(struct samples *samples, struct index *index, struct catalog *catalog)
{
    assert((index == NULL) != (catalog == NULL));
    *samples = (struct samples){
        .index = index != NULL ? index_ref(index) : NULL,
        .catalog = catalog != NULL ? catalog_ref(catalog) : NULL,
    };
}

void samples_clear(struct samples *samples)
{
    for (uint32_t i = 0; samples->shard_fields != NULL && i < catalog_shard_count(samples->catalog);
         i++) {
        index_fields_destroy(samples->shard_fields[i]);
    }
    free(samples->shard_fields);
    field_map_clear(&samples->fields);
    index_unref(samples->index);
    catalog_unref(samples->catalog);
    *samples = (struct samples){0};
}

int samples_resolve(struct samples *samples, const struct session_spec *spec, uint32_t shard,
                    struct error *error)
{
    if (samples->catalog == NULL) {
        return field_map_init(&samples->fields, samples->index, spec, error);
    }
    samples->shard_fields =
        calloc(catalog_shard_count(samples->catalog), sizeof *samples->shard_fields);
    if (samples->shard_fields == NULL) {
        return error_set(error, ERROR_MEMORY, "no memory for the fields of a data set.");
    }
    return field_map_init(&samples->fields, catalog_shard(samples->catalog, shard), spec, error);
}

static const struct index *shard_of(const struct samples *samples, uint64_t number)
{
    const struct index *index = catalog_shard(samples->catalog, (uint32_t)(number >> 32));
    assert(index != NULL);
    return index;
}

uint64_t samples_id(const struct samples *samples, uint64_t number)
{
    return samples->catalog != NULL ? number : index_sample_id(samples->index, number);
}

void samples_label(const struct samples *samples, uint64_t number, char *text, size_t bytes)
{
    if (samples->catalog != NULL) {
        index_sample_label(shard_of(samples, number), number & UINT32_MAX, text, bytes);
    } else {
        index_sample_label(samples->index, number, text, bytes);
    }
}

int samples_place(struct samples *samples, uint64_t number, struct sample_place *place,
                  char *buffer, size_t buffer_bytes)
{
    if (samples->catalog == NULL) {
        return index_sample_place(samples->index, samples->fields.members, number, place, buffer,
                                  buffer_bytes);
    }
    const struct index *index = shard_of(samples, number);
    struct index_fields **fields = &samples->shard_fields[number >> 32];
    if (*fields == NULL && field_map_resolve(&samples->fields, index, fields) != 0) {
        *place = (struct sample_place){0};
        return -1;
    }
    return index_sample_place(index, *fields, number & UINT32_MAX, place, buffer, buffer_bytes);
}

uint64_t samples_data_bytes(const struct samples *samples)
{
    return samples->catalog != NULL ? catalog_data_bytes(samples->catalog)
                                    : index_header(samples->index)->data_bytes;
}

uint64_t samples_mean_bytes(const struct samples *samples)
{
    uint64_t count = samples->catalog != NULL ? catalog_sample_count(samples->catalog)
                                              : index_sample_count(samples->index);
    return count == UINT64_MAX || count == 0 ? 0 : samples_data_bytes(samples) / count;
}
