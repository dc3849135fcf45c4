#include "loader/index_join.h"

#include <assert.h>
#include <string.h>

#include "loader/index_map.h"

struct index_part index_part_of_scan(const char *path, const char *tag,
                                     const struct shard_scan *scan)
{
    return (struct index_part){
        .path = path,
        .tag = tag,
        .size_bytes = scan->size_bytes,
        .mtime_ns = scan->mtime_ns,
        .data_bytes = scan->data_bytes,
        .samples = (const struct index_sample *)scan->samples.bytes,
        .members = (const struct index_member *)scan->members.bytes,
        .extensions = (const uint64_t *)scan->extensions.bytes,
        .strings = (const char *)scan->strings.bytes,
        .sample_count = scan->samples.size_bytes / sizeof(struct index_sample),
        .member_count = scan->members.size_bytes / sizeof(struct index_member),
        .extension_count = scan->extensions.size_bytes / sizeof(uint64_t),
    };
}

struct index_part index_part_of_index(const struct index *index)
{
    assert(index->header->kind == INDEX_TAR && index->shard_count == 1);
    const struct index_shard *shard = &index->shards[0];
    return (struct index_part){
        .path = index_string(index, shard->path),
        .tag = index_string(index, shard->tag),
        .size_bytes = shard->size_bytes,
        .mtime_ns = shard->mtime_ns,
        .data_bytes = index->header->data_bytes,
        .samples = index->samples,
        .members = index->members,
        .extensions = index->extensions,
        .strings = index->strings,
        .sample_count = index->sample_count,
        .member_count = index->header->section[INDEX_MEMBERS].bytes / sizeof(struct index_member),
        .extension_count = index->extension_count,
    };
}

/* The number in the draft of each extension of a shard; false when memory is short. */
static bool join_extensions(struct index_draft *draft, const struct index_part *part,
                            struct growing *numbers)
{
    uint32_t *to = growing_add(numbers, part->extension_count * sizeof *to);
    if (to == NULL) {
        return false;
    }
    for (size_t i = 0; i < part->extension_count; i++) {
        const char *text = part->strings + part->extensions[i];
        size_t known = index_draft_count(draft, INDEX_EXTENSIONS, sizeof(uint64_t));
        size_t number = 0;
        for (; number < known; number++) {
            const uint64_t *all = (const uint64_t *)draft->section[INDEX_EXTENSIONS].bytes;
            if (strcmp((char *)draft->section[INDEX_STRINGS].bytes + all[number], text) == 0) {
                break;
            }
        }
        if (number == known) {
            uint64_t offset = index_draft_string(draft, text, strlen(text));
            index_draft_add(draft, INDEX_EXTENSIONS, &offset, sizeof offset);
        }
        to[i] = (uint32_t)number;
    }
    return !draft->is_out_of_memory;
}

static void join_samples(struct index_draft *draft, const struct index_part *part, uint32_t place,
                         const uint32_t *extension_numbers)
{
    uint64_t member_base = index_draft_count(draft, INDEX_MEMBERS, sizeof(struct index_member));
    for (size_t i = 0; i < part->sample_count; i++) {
        struct index_sample sample = part->samples[i];
        const char *key = part->strings + sample.name;
        sample.name = index_draft_string(draft, key, strlen(key));
        sample.member_first += member_base;
        sample.place = place;
        index_draft_add(draft, INDEX_SAMPLES, &sample, sizeof sample);
    }
    for (size_t i = 0; i < part->member_count; i++) {
        struct index_member member = part->members[i];
        member.extension = extension_numbers[member.extension];
        index_draft_add(draft, INDEX_MEMBERS, &member, sizeof member);
    }
    draft->data_bytes += part->data_bytes;
}

void index_join(struct index_draft *draft, const struct index_part *part)
{
    size_t place = index_draft_count(draft, INDEX_SHARDS, sizeof(struct index_shard));
    struct index_shard shard = {
        .path = index_draft_string(draft, part->path, strlen(part->path)),
        .sample_first = index_draft_count(draft, INDEX_SAMPLES, sizeof(struct index_sample)),
        .size_bytes = part->size_bytes,
        .mtime_ns = part->mtime_ns,
        .tag = part->tag[0] == '\0' ? 0 : index_draft_string(draft, part->tag, strlen(part->tag)),
    };
    index_draft_add(draft, INDEX_SHARDS, &shard, sizeof shard);
    struct growing numbers = {0};
    if (join_extensions(draft, part, &numbers)) {
        join_samples(draft, part, (uint32_t)place, (const uint32_t *)numbers.bytes);
    } else {
        draft->is_out_of_memory = true;
    }
    growing_clear(&numbers);
}
