/* A remote prefix with a class per first component becomes a draft, from its listing alone:
 * directories, classes and samples in the order in which a local folder has them. */
#include <stdlib.h>
#include <string.h>

#include "loader/index_build.h"

/* A key, cut up. */
struct entry {
    const struct dataset_object *object;
    const char *key;
    size_t class_length, directory_length;
    const char *name; /* "" for a directory without images */
};

static struct entry entry_of(const struct dataset_object *object)
{
    const char *slash = strrchr(object->key, '/');
    return (struct entry){
        .object = object,
        .key = object->key,
        .class_length = strcspn(object->key, "/"),
        .directory_length = (size_t)(slash - object->key),
        .name = slash + 1,
    };
}

static int compare_parts(const char *a, size_t a_length, const char *b, size_t b_length)
{
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

static int compare_directories(const struct entry *a, const struct entry *b)
{
    int order = compare_parts(a->key, a->class_length, b->key, b->class_length);
    return order != 0 ? order
                      : compare_parts(a->key, a->directory_length, b->key, b->directory_length);
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *left = a, *right = b;
    int order = compare_directories(left, right);
    return order != 0 ? order : strcmp(left->name, right->name);
}

static void add_directory(struct index_draft *draft, const char *path, size_t length)
{
    struct index_directory directory = {.path = index_draft_string(draft, path, length)};
    index_draft_add(draft, INDEX_DIRECTORIES, &directory, sizeof directory);
}

static void add_sample(struct index_draft *draft, const struct entry *entry)
{
    size_t directories =
        index_draft_count(draft, INDEX_DIRECTORIES, sizeof(struct index_directory));
    size_t classes = index_draft_count(draft, INDEX_CLASSES, sizeof(uint64_t));
    struct index_sample sample = {
        .name = index_draft_string(draft, entry->name, strlen(entry->name)),
        .place = (uint32_t)(directories - 1),
        .label = (int64_t)classes - 1,
    };
    struct index_object object = {
        .tag = index_draft_string(draft, entry->object->tag, strlen(entry->object->tag)),
        .size_bytes = entry->object->size_bytes,
    };
    index_draft_add(draft, INDEX_SAMPLES, &sample, sizeof sample);
    index_draft_add(draft, INDEX_OBJECTS, &object, sizeof object);
    draft->data_bytes += object.size_bytes;
}

static void add_entries(struct index_draft *draft, const struct entry *entries, size_t count)
{
    add_directory(draft, "", 0);
    for (size_t i = 0; i < count; i++) {
        const struct entry *entry = &entries[i], *before = i > 0 ? &entries[i - 1] : NULL;
        if (before == NULL || compare_parts(before->key, before->class_length, entry->key,
                                            entry->class_length) != 0) {
            uint64_t name = index_draft_string(draft, entry->key, entry->class_length);
            index_draft_add(draft, INDEX_CLASSES, &name, sizeof name);
        }
        if (before == NULL || compare_directories(before, entry) != 0) {
            add_directory(draft, entry->key, entry->directory_length);
        }
        if (entry->name[0] != '\0') {
            add_sample(draft, entry);
        }
    }
}

int index_build_prefix(const struct dataset *dataset, struct index_draft *draft,
                       struct error *error)
{
    if (dataset->object_count > UINT32_MAX) {
        return error_set(error, ERROR_DATASET,
                         "%s: more than 4,294,967,295 objects. Split the data set.",
                         dataset->paths.texts[0]);
    }
    struct entry *entries = calloc(dataset->object_count, sizeof *entries);
    if (entries == NULL || !dataset_fingerprint(dataset, draft->fingerprint)) {
        free(entries);
        return index_build_no_memory(error);
    }
    for (size_t i = 0; i < dataset->object_count; i++) {
        entries[i] = entry_of(&dataset->objects[i]);
    }
    qsort(entries, dataset->object_count, sizeof *entries, compare_entries);
    struct index_shard shard = {.path = index_draft_string(draft, dataset->paths.texts[0],
                                                           strlen(dataset->paths.texts[0]))};
    index_draft_add(draft, INDEX_SHARDS, &shard, sizeof shard);
    add_entries(draft, entries, dataset->object_count);
    free(entries);
    return draft->is_out_of_memory ? index_build_no_memory(error) : 0;
}
