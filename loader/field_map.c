#include "loader/field_map.h"

#include <string.h>

int field_map_init(struct field_map *map, const struct index *index,
                   const struct session_spec *spec, struct error *error)
{
    memset(map, 0, sizeof *map);
    bool is_folder = index_header(index)->kind == INDEX_FOLDER;
    size_t image_count = 0;
    for (size_t i = 0; i < spec->field_count; i++) {
        enum field_kind kind = spec->fields[i].kind;
        if (is_folder && (kind == FIELD_TEXT || kind == FIELD_BYTES)) {
            return error_set(error, ERROR_USAGE,
                             "field \"%s\": a folder of images has no text or bytes fields; put "
                             "them into WebDataset tar shards.",
                             spec->fields[i].name);
        }
        if (kind == FIELD_IMAGE) {
            map->image = i;
            image_count++;
        }
        if (kind != FIELD_LABEL) {
            map->member[i] = map->member_count;
            map->patterns[map->member_count++] = spec->fields[i].pattern;
        }
    }
    if (image_count != 1) {
        return error_set(error, ERROR_USAGE, "fields: exactly one must be an image, not %zu.",
                         image_count);
    }
    return index_fields_create(index, map->patterns, map->member_count, true, &map->members, error);
}

int field_map_resolve(const struct field_map *map, const struct index *index,
                      struct index_fields **members)
{
    return index_fields_create(index, map->patterns, map->member_count, false, members, NULL);
}

void field_map_clear(struct field_map *map)
{
    index_fields_destroy(map->members);
    map->members = NULL;
}

bool field_map_range(const struct field_map *map, const struct sample_place *place, size_t field,
                     uint64_t size_bytes, uint64_t *offset_bytes, uint64_t *length_bytes)
{
    if (!place->is_shard) {
        *offset_bytes = 0;
        *length_bytes = size_bytes;
        return true;
    }
    *offset_bytes = place->field[map->member[field]].offset_bytes;
    *length_bytes = place->field[map->member[field]].length_bytes;
    return *length_bytes != UINT64_MAX;
}
