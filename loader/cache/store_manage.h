/*
 * store_manage.h - what an administrator does with the cache: look, pin, give a time to live,
 * evict.
 *
 * A prefix is the beginning of URLs ("s3://bucket/train-"); "" is everything. Pins and times to
 * live are rules on prefixes: they hold for chunks that come later too, and are kept in
 * "rules.json" beside the chunk files. Any pin that matches holds; of the times to live the one
 * with the longest prefix.
 *
 * Threads: any; these calls read headers of chunk files and may take long: not for the control
 * thread. One runs at a time, the others wait; a visitor calls none of them.
 */
#ifndef PENSTOCK_LOADER_CACHE_STORE_MANAGE_H
#define PENSTOCK_LOADER_CACHE_STORE_MANAGE_H

#include "loader/cache/store.h"

/* Lets a call that takes long be watched and ended (ERROR_CANCELLED). Members may be NULL. */
struct store_watch {
    const atomic_bool *cancel;
    atomic_uint_fast64_t *done_count, *total_count; /* chunk files looked at or removed */
};

/* Learn of every chunk file what it is of, after waiting for the folder to be looked through. The
 * calls below do the same first; once done it is quick. 0, or -1 and *error. */
int store_identify(struct store *store, const struct store_watch *watch, struct error *error);

/* An object of which something is in the cache. */
struct store_entry {
    const char *url, *tag;
    uint64_t size_bytes;   /* of the object */
    uint64_t disk_bytes;   /* in chunk files, headers included */
    uint64_t memory_bytes; /* in memory only */
    uint32_t chunk_count, chunks_total;
    bool is_pinned;
    int64_t expires_s; /* Unix time of the first chunk to expire; 0: never */
};

/* Objects under a prefix, in the order of their URLs and tags. The texts live until visit returns;
 * false ends the listing. 0, or -1 and *error. */
int store_list(struct store *store, const char *prefix,
               bool (*visit)(void *context, const struct store_entry *entry), void *context,
               struct error *error);

/* Sums over what store_list() gives. */
struct store_usage {
    uint64_t object_count, complete_count, chunk_count;
    uint64_t object_bytes, disk_bytes, memory_bytes, pinned_bytes;
};
int store_usage(struct store *store, const char *prefix, struct store_usage *usage,
                struct error *error);

/* Never evict what matches; the disk limit still holds, so pinning more than fits stops caching
 * of everything else. ERROR_STATE: this daemon has no chunk files. */
int store_pin(struct store *store, const char *prefix, struct error *error);
/* Takes back pins of exactly this prefix and of longer ones. */
int store_unpin(struct store *store, const char *prefix, struct error *error);

/* Chunks that match expire so long after they were fetched, unless pinned; 0 takes such rules
 * back, of this prefix and of longer ones. */
int store_ttl(struct store *store, const char *prefix, uint64_t seconds, struct error *error);

/* The rules, each with its prefix. */
struct store_rule {
    const char *prefix;
    bool is_pinned;
    uint64_t ttl_seconds; /* 0: none */
};
void store_rules(struct store *store, void (*visit)(void *context, const struct store_rule *rule),
                 void *context);

/* What to remove: what matches the prefix and, if `wants` is given, that says yes to. A job that
 * needs it will fetch it again. */
struct store_choice {
    const char *prefix;
    bool (*wants)(void *context, const struct store_entry *entry);
    void *context;
    bool is_forced; /* pinned ones, too */
    bool is_dry;    /* only count */
};

struct store_evicted {
    uint64_t chunk_count, bytes;
    uint64_t pinned_count; /* chunks left alone */
    uint64_t busy_count;   /* in use, so left alone as well */
};
int store_evict(struct store *store, const struct store_choice *choice,
                const struct store_watch *watch, struct store_evicted *evicted,
                struct error *error);

#endif /* PENSTOCK_LOADER_CACHE_STORE_MANAGE_H */
