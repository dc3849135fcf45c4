/* Which bytes of which file the wanted fields of a sample are. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "loader/index_map.h"

struct index_fields {
    size_t count;
    /* rank[field * extension_count + extension]: 0: not this field; else 1 for the extension
     * that is preferred most, and so on. */
    uint32_t extension_count;
    uint16_t rank[];
};

enum { RANKS_MAX = UINT16_MAX };

static bool is_extension(const char *extension, const char *wanted, size_t length)
{
    return strlen(extension) == length && strncasecmp(extension, wanted, length) == 0;
}

/* One pattern "jpg;jpeg;png" over all extensions; whether any of them is in the index. */
static bool resolve_pattern(const struct index *index, const char *pattern, uint16_t *ranks)
{
    bool is_found = false;
    uint16_t rank = 0;
    for (const char *at = pattern; *at != '\0' && rank < RANKS_MAX;) {
        size_t length = strcspn(at, ";");
        const char *wanted = at + (*at == '.');
        size_t wanted_length = length - (size_t)(*at == '.');
        rank++;
        for (uint32_t i = 0; i < index->extension_count; i++) {
            if (ranks[i] == 0 &&
                is_extension(index_string(index, index->extensions[i]), wanted, wanted_length)) {
                ranks[i] = rank;
                is_found = true;
            }
        }
        at += length + (at[length] == ';');
    }
    return is_found;
}

static int no_such_field(const struct index *index, const char *pattern, struct error *error)
{
    char known[512];
    size_t length = 0;
    known[0] = '\0';
    for (uint32_t i = 0; i < index->extension_count && length < sizeof known - 1; i++) {
        int added = snprintf(known + length, sizeof known - length, "%s%s", i > 0 ? ", " : "",
                             index_string(index, index->extensions[i]));
        length += added > 0 ? (size_t)added : 0;
    }
    return error_set(error, ERROR_DATASET,
                     "No member of the tar files has the extension \"%.200s\". Their extensions "
                     "are: %s. Ask for one of these.",
                     pattern, known);
}

int index_fields_create(const struct index *index, const char *const *patterns, size_t count,
                        bool must_have, struct index_fields **fields, struct error *error)
{
    *fields = NULL;
    bool is_tar = index->header->kind == INDEX_TAR;
    if (count < 1 || count > INDEX_FIELDS_MAX) {
        return error_set(error, ERROR_USAGE, "%zu fields are asked for; 1 to %d are possible.",
                         count, INDEX_FIELDS_MAX);
    }
    if (!is_tar && count > 1) {
        return error_set(error, ERROR_USAGE,
                         "A folder of images has one field, the image; \"%.200s\" can only be in "
                         "tar files. Ask for the image alone.",
                         patterns[1]);
    }
    size_t ranks = count * index->extension_count;
    struct index_fields *made = calloc(1, sizeof *made + ranks * sizeof made->rank[0]);
    if (made == NULL) {
        return error_set(error, ERROR_MEMORY, "No memory is left. Free some and try again.");
    }
    made->count = count;
    made->extension_count = index->extension_count;
    for (size_t i = 0; i < count && is_tar; i++) {
        if (!resolve_pattern(index, patterns[i], made->rank + i * made->extension_count) &&
            must_have) {
            free(made);
            return no_such_field(index, patterns[i], error);
        }
    }
    *fields = made;
    return 0;
}

void index_fields_destroy(struct index_fields *fields)
{
    free(fields);
}

/* The member of a sample that is field `number`; NULL: it has none. */
static const struct index_member *find_member(const struct index *index,
                                              const struct index_fields *fields, size_t number,
                                              const struct index_sample *sample)
{
    const uint16_t *ranks = fields->rank + number * fields->extension_count;
    const struct index_member *best = NULL;
    uint16_t best_rank = RANKS_MAX;
    for (uint32_t i = 0; i < sample->member_count; i++) {
        const struct index_member *member = &index->members[sample->member_first + i];
        uint16_t rank = ranks[member->extension];
        if (rank != 0 && (best == NULL || rank < best_rank)) {
            best = member;
            best_rank = rank;
        }
    }
    return best;
}

static void place_in_shard(const struct index *index, const struct index_fields *fields,
                           const struct index_sample *sample, struct sample_place *place)
{
    const struct index_shard *shard = &index->shards[sample->place];
    const struct index_member *found[INDEX_FIELDS_MAX];
    uint64_t start = UINT64_MAX, end = 0;
    for (size_t i = 0; i < fields->count; i++) {
        found[i] = find_member(index, fields, i, sample);
        if (found[i] == NULL) {
            continue;
        }
        uint64_t member_end = found[i]->offset_bytes + found[i]->size_bytes;
        start = found[i]->offset_bytes < start ? found[i]->offset_bytes : start;
        end = member_end > end ? member_end : end;
    }
    place->path = index_string(index, shard->path);
    place->is_shard = true;
    place->shard_bytes = shard->size_bytes;
    place->shard_mtime_ns = shard->mtime_ns == INDEX_MTIME_RACY ? 0 : shard->mtime_ns;
    const char *tag = index_string(index, shard->tag);
    place->tag = tag[0] != '\0' ? tag : NULL;
    place->object_bytes = shard->size_bytes;
    place->offset_bytes = end > start ? start : 0;
    place->length_bytes = end > start ? end - start : 0;
    for (size_t i = 0; i < fields->count; i++) {
        place->field[i].offset_bytes =
            found[i] != NULL && end > start ? found[i]->offset_bytes - start : 0;
        place->field[i].length_bytes = found[i] != NULL ? found[i]->size_bytes : UINT64_MAX;
    }
}

static char *append(char *to, const char *text, size_t length)
{
    memcpy(to, text, length);
    return to + length;
}

/* root/directory/name; false: too long. */
static bool join_path(const struct index *index, const struct index_sample *sample, char *buffer,
                      size_t buffer_bytes)
{
    const char *root = index_string(index, index->shards[0].path);
    const char *directory = index_string(index, index->directories[sample->place].path);
    const char *name = index_string(index, sample->name);
    size_t root_length = strlen(root), directory_length = strlen(directory);
    size_t name_length = strlen(name);
    if (root_length + directory_length + name_length + 3 > buffer_bytes) {
        return false;
    }
    char *end = append(buffer, root, root_length);
    *end++ = '/';
    end = append(end, directory, directory_length);
    *end++ = '/';
    append(end, name, name_length + 1);
    return true;
}

int index_sample_place(const struct index *index, const struct index_fields *fields,
                       uint64_t canonical, struct sample_place *place, char *buffer,
                       size_t buffer_bytes)
{
    assert(canonical < index->sample_count);
    const struct index_sample *sample = &index->samples[canonical];
    *place = (struct sample_place){.label = sample->label};
    for (size_t i = 0; i < INDEX_FIELDS_MAX; i++) {
        place->field[i].length_bytes = UINT64_MAX;
    }
    if (index->header->kind == INDEX_TAR) {
        place_in_shard(index, fields, sample, place);
        return 0;
    }
    /* The file's length is found when it is opened: its field is all of it. */
    place->field[0].length_bytes = 0;
    place->path = buffer;
    if (index->object_count > 0) {
        place->tag = index_string(index, index->objects[canonical].tag);
        place->object_bytes = index->objects[canonical].size_bytes;
    }
    return join_path(index, sample, buffer, buffer_bytes) ? 0 : -1;
}
