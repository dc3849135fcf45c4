#include "loader/index_hash.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* XXH3's 64-bit and 128-bit digests share one state. */
struct index_hash {
    XXH3_state_t *state;
};

uint64_t index_hash64(const void *bytes, size_t size_bytes)
{
    return XXH3_64bits(bytes, size_bytes);
}

void index_hash128(const void *bytes, size_t size_bytes, uint8_t value[INDEX_HASH_BYTES])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, size_bytes));
    memcpy(value, canonical.digest, INDEX_HASH_BYTES);
}

struct index_hash *index_hash_create(void)
{
    struct index_hash *hash = malloc(sizeof *hash);
    if (hash == NULL) {
        return NULL;
    }
    hash->state = XXH3_createState();
    if (hash->state == NULL) {
        free(hash);
        return NULL;
    }
    XXH3_64bits_reset(hash->state);
    return hash;
}

void index_hash_destroy(struct index_hash *hash)
{
    if (hash == NULL) {
        return;
    }
    XXH3_freeState(hash->state);
    free(hash);
}

void index_hash_add(struct index_hash *hash, const void *bytes, size_t size_bytes)
{
    XXH3_64bits_update(hash->state, bytes, size_bytes);
}

void index_hash_add_text(struct index_hash *hash, const char *text)
{
    index_hash_add(hash, text, strlen(text) + 1);
}

void index_hash_add_u64(struct index_hash *hash, uint64_t value)
{
    index_hash_add(hash, &value, sizeof value);
}

uint64_t index_hash_value64(const struct index_hash *hash)
{
    return XXH3_64bits_digest(hash->state);
}

void index_hash_value128(const struct index_hash *hash, uint8_t value[INDEX_HASH_BYTES])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(hash->state));
    static_assert(sizeof canonical.digest == INDEX_HASH_BYTES, "XXH3-128");
    memcpy(value, canonical.digest, INDEX_HASH_BYTES);
}
