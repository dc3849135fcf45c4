/* What an administrator does with the cache. */
#include "loader/cache/store_manage.h"

#include "loader/cache/store_private.h"

void rules_load(struct store *store)
{
    (void)store;
}

void rules_destroy(struct store *store)
{
    (void)store;
}

void rules_apply(struct store *store, struct chunk *chunk)
{
    (void)store;
    (void)chunk;
}

void rules_identify_all(struct store *store)
{
    (void)store;
}

bool rules_exist(const struct store *store)
{
    return store->rules != NULL;
}

bool rules_expired(const struct store *store, const struct chunk *chunk, int64_t now_s)
{
    (void)store;
    (void)chunk;
    (void)now_s;
    return false;
}
