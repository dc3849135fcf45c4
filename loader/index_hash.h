/*
 * index_hash.h - XXH3 over bytes, at once or piece by piece.
 */
#ifndef PENSTOCK_LOADER_INDEX_HASH_H
#define PENSTOCK_LOADER_INDEX_HASH_H

#include <stddef.h>
#include <stdint.h>

enum { INDEX_HASH_BYTES = 16 };

uint64_t index_hash64(const void *bytes, size_t size_bytes);
void index_hash128(const void *bytes, size_t size_bytes, uint8_t value[INDEX_HASH_BYTES]);

/* A running hash; not shared between threads. */
struct index_hash;
struct index_hash *index_hash_create(void); /* NULL: no memory */
void index_hash_destroy(struct index_hash *hash);
void index_hash_add(struct index_hash *hash, const void *bytes, size_t size_bytes);
/* With its NUL, so that "ab","c" and "a","bc" differ. */
void index_hash_add_text(struct index_hash *hash, const char *text);
void index_hash_add_u64(struct index_hash *hash, uint64_t value);

/* The 64-bit hash of what was added equals index_hash64() of the same bytes in one piece. */
uint64_t index_hash_value64(const struct index_hash *hash);
void index_hash_value128(const struct index_hash *hash, uint8_t value[INDEX_HASH_BYTES]);

#endif /* PENSTOCK_LOADER_INDEX_HASH_H */
