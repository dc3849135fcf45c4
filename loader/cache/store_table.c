/* Chunks and objects by name, and when they are forgotten. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader/cache/store_private.h"
#include "loader/index_hash.h"

enum { BUCKETS_MIN = 1024, KEY_TEXT_BYTES = REMOTE_URL_BYTES + REMOTE_TAG_BYTES + 64 };

static_assert((int)CHUNK_KEY_BYTES == (int)INDEX_HASH_BYTES, "the key is a hash");

void store_object_key(const struct store *store, const struct store_object *object,
                      uint8_t key[CHUNK_KEY_BYTES])
{
    char text[KEY_TEXT_BYTES];
    size_t url_bytes = strlen(object->url) + 1, tag_bytes = strlen(object->tag) + 1;
    uint64_t sizes[2] = {object->size_bytes, store->chunk_bytes};
    if (url_bytes + tag_bytes + sizeof sizes > sizeof text) {
        url_bytes = url_bytes > REMOTE_URL_BYTES ? REMOTE_URL_BYTES : url_bytes;
        tag_bytes = tag_bytes > REMOTE_TAG_BYTES ? REMOTE_TAG_BYTES : tag_bytes;
    }
    memcpy(text, object->url, url_bytes);
    memcpy(text + url_bytes, object->tag, tag_bytes);
    memcpy(text + url_bytes + tag_bytes, sizes, sizeof sizes);
    index_hash128(text, url_bytes + tag_bytes + sizeof sizes, key);
}

static uint64_t key_word(const uint8_t key[CHUNK_KEY_BYTES])
{
    uint64_t word; /* the key is a hash already */
    memcpy(&word, key, sizeof word);
    return word;
}

static size_t chunk_bucket(const struct store *store, const uint8_t *key, uint32_t number)
{
    return (key_word(key) + number * 0x9e3779b97f4a7c15u) & (store->bucket_count - 1);
}

/* Twice the buckets when there is a chunk for each; without memory longer chains will do. */
static void grow_buckets(struct store *store)
{
    size_t count = store->bucket_count == 0 ? BUCKETS_MIN : 2 * store->bucket_count;
    struct chunk **buckets = calloc(count, sizeof(*buckets));
    if (buckets == NULL) {
        return;
    }
    struct chunk **old = store->buckets;
    size_t old_count = store->bucket_count;
    store->buckets = buckets;
    store->bucket_count = count;
    for (size_t i = 0; i < old_count; i++) {
        while (old[i] != NULL) {
            struct chunk *chunk = old[i];
            old[i] = chunk->hash_next;
            struct chunk **head = &buckets[chunk_bucket(store, chunk->key, chunk->number)];
            chunk->hash_next = *head;
            *head = chunk;
        }
    }
    free(old);
}

struct chunk *chunk_find(struct store *store, const uint8_t key[CHUNK_KEY_BYTES], uint32_t number)
{
    if (store->bucket_count == 0) {
        return NULL;
    }
    struct chunk *chunk = store->buckets[chunk_bucket(store, key, number)];
    while (chunk != NULL &&
           (chunk->number != number || memcmp(chunk->key, key, CHUNK_KEY_BYTES) != 0)) {
        chunk = chunk->hash_next;
    }
    return chunk;
}

struct chunk *chunk_add(struct store *store, const uint8_t key[CHUNK_KEY_BYTES], uint32_t number)
{
    if (store->chunk_count >= store->bucket_count) {
        grow_buckets(store);
    }
    struct chunk *chunk = calloc(1, sizeof *chunk);
    if (chunk == NULL || store->bucket_count == 0) {
        free(chunk);
        return NULL;
    }
    memcpy(chunk->key, key, CHUNK_KEY_BYTES);
    chunk->number = number;
    chunk->disk_index = chunk->memory_index = chunk->victim_index = UINT32_MAX;
    chunk->used_at = ++store->clock;
    struct chunk **head = &store->buckets[chunk_bucket(store, key, number)];
    chunk->hash_next = *head;
    *head = chunk;
    store->chunk_count++;
    return chunk;
}

/* ---- Objects ---------------------------------------------------------------------------- */

static struct object **object_bucket(struct store *store, const uint8_t *key)
{
    return &store->object_buckets[key_word(key) & (store->object_bucket_count - 1)];
}

static void grow_objects(struct store *store)
{
    size_t count = store->object_bucket_count == 0 ? BUCKETS_MIN : 2 * store->object_bucket_count;
    struct object **buckets = calloc(count, sizeof(*buckets));
    if (buckets == NULL) {
        return;
    }
    struct object **old = store->object_buckets;
    size_t old_count = store->object_bucket_count;
    store->object_buckets = buckets;
    store->object_bucket_count = count;
    for (size_t i = 0; i < old_count; i++) {
        while (old[i] != NULL) {
            struct object *object = old[i];
            old[i] = object->next;
            struct object **head = object_bucket(store, object->key);
            object->next = *head;
            *head = object;
        }
    }
    free(old);
}

static struct object *add_object(struct store *store, const struct store_object *what,
                                 const uint8_t *key)
{
    if (store->object_count >= store->object_bucket_count) {
        grow_objects(store);
    }
    size_t url_bytes = strlen(what->url) + 1, tag_bytes = strlen(what->tag) + 1;
    struct object *object = calloc(1, sizeof *object + url_bytes + tag_bytes);
    char *profile = strdup(what->profile != NULL ? what->profile : "");
    if (object == NULL || profile == NULL || store->object_bucket_count == 0) {
        free(object);
        free(profile);
        return NULL;
    }
    memcpy(object->key, key, CHUNK_KEY_BYTES);
    object->size_bytes = what->size_bytes;
    object->profile = profile;
    memcpy(object->url, what->url, url_bytes);
    memcpy(object->url + url_bytes, what->tag, tag_bytes);
    object->tag = object->url + url_bytes;
    struct object **head = object_bucket(store, key);
    object->next = *head;
    *head = object;
    store->object_count++;
    return object;
}

static struct object *find_object(struct store *store, const uint8_t *key)
{
    struct object *object = store->object_bucket_count > 0 ? *object_bucket(store, key) : NULL;
    while (object != NULL && memcmp(object->key, key, CHUNK_KEY_BYTES) != 0) {
        object = object->next;
    }
    return object;
}

const char *object_profile(struct store *store, const uint8_t key[CHUNK_KEY_BYTES])
{
    const struct object *object = find_object(store, key);
    return object != NULL ? object->profile : NULL;
}

/* The object of that key, made when there is none; its profile becomes that of this asker. */
static struct object *take_object(struct store *store, const struct store_object *what,
                                  const uint8_t *key)
{
    struct object *object = find_object(store, key);
    if (object == NULL) {
        return add_object(store, what, key);
    }
    const char *profile = what->profile != NULL ? what->profile : "";
    if (strcmp(object->profile, profile) != 0) {
        char *copy = strdup(profile);
        if (copy != NULL) {
            free(object->profile);
            object->profile = copy;
        }
    }
    return object;
}

void object_release(struct store *store, struct object *object)
{
    if (object == NULL || --object->ref_count > 0) {
        return;
    }
    struct object **link = object_bucket(store, object->key);
    while (*link != object) {
        link = &(*link)->next;
    }
    *link = object->next;
    store->object_count--;
    free(object->profile);
    free(object);
}

/* ---- Chunks of objects ------------------------------------------------------------------- */

uint32_t chunk_data_bytes(const struct store *store, uint64_t object_bytes, uint32_t number)
{
    uint64_t begin = (uint64_t)number * store->chunk_bytes;
    assert(begin < object_bytes);
    uint64_t left = object_bytes - begin;
    return left < store->chunk_bytes ? (uint32_t)left : store->chunk_bytes;
}

bool chunk_set_object(struct store *store, struct chunk *chunk, const struct store_object *object)
{
    struct object *found = take_object(store, object, chunk->key);
    if (found == NULL) {
        return false;
    }
    if (chunk->object == NULL) {
        found->ref_count++;
        chunk->object = found;
        chunk->data_bytes = chunk_data_bytes(store, object->size_bytes, chunk->number);
        if (store->is_scanning && !chunk->on_disk) {
            disk_find(store, chunk);
        }
        rules_apply(store, chunk);
    }
    return true;
}

struct chunk *chunk_of_object(struct store *store, const struct store_object *object,
                              const uint8_t key[CHUNK_KEY_BYTES], uint32_t number)
{
    struct chunk *chunk = chunk_find(store, key, number);
    if (chunk == NULL) {
        chunk = chunk_add(store, key, number);
    }
    if (chunk != NULL && !chunk_set_object(store, chunk, object)) {
        chunk_forget_if_unused(store, chunk);
        return NULL;
    }
    return chunk;
}

void chunk_forget_if_unused(struct store *store, struct chunk *chunk)
{
    if (chunk->user_count > 0 || chunk->needs != NULL || chunk->on_disk || chunk->is_leaving ||
        chunk->buffer != NULL || chunk->fetch != NULL || chunk->is_queued) {
        return;
    }
    assert(chunk->waiters == NULL && chunk->file == NULL);
    struct chunk **link = &store->buckets[chunk_bucket(store, chunk->key, chunk->number)];
    while (*link != chunk) {
        link = &(*link)->hash_next;
    }
    *link = chunk->hash_next;
    store->chunk_count--;
    object_release(store, chunk->object);
    free(chunk);
}

void chunk_release(struct store *store, struct chunk *chunk)
{
    assert(chunk->user_count > 0);
    if (--chunk->user_count == 0) {
        if (chunk->is_void) {
            memory_release(store, chunk);
        }
        chunk_forget_if_unused(store, chunk);
    }
}

struct chunk_identity chunk_identity(const struct store *store, const struct chunk *chunk)
{
    struct chunk_identity identity = {
        .kind = CHUNK_OBJECT,
        .number = chunk->number,
        .object_bytes = chunk->object->size_bytes,
        .chunk_bytes = store->chunk_bytes,
        .data_bytes = chunk->data_bytes,
        .url = chunk->object->url,
        .tag = chunk->object->tag,
    };
    memcpy(identity.key, chunk->key, sizeof identity.key);
    return identity;
}

void store_table_clear(struct store *store)
{
    for (size_t i = 0; i < store->bucket_count; i++) {
        struct chunk *next;
        for (struct chunk *chunk = store->buckets[i]; chunk != NULL; chunk = next) {
            next = chunk->hash_next;
            assert(chunk->user_count == 0 && chunk->fetch == NULL);
            if (chunk->buffer != NULL) {
                memory_release(store, chunk);
            }
            object_release(store, chunk->object);
            chunk_file_close(chunk->file);
            free(chunk);
        }
    }
    free(store->buckets);
    free(store->object_buckets);
    free(store->disk_list);
    free(store->memory_list);
}
