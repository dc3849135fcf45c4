/*
 * needs.h - the chunks of remote objects that one rank's samples lie in, with the positions of
 * their first and last use: what a store_plan says of an epoch.
 *
 * Work in proportion to the samples gone through. One thread at a time.
 */
#ifndef PENSTOCK_LOADER_NEEDS_H
#define PENSTOCK_LOADER_NEEDS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "loader/cache/store.h"
#include "loader/read_ahead.h"

struct needs;

/* The options are borrowed. NULL: no memory. */
struct needs *needs_create(const struct read_ahead_options *options);
void needs_destroy(struct needs *needs); /* NULL is accepted */

struct needs_place {
    uint64_t epoch, position, window_ordinal, window_first;
};

/* List what the epoch needs from a place on, of at most count_max positions; what the plan points
 * to lives until the next call. True when that is all of the epoch: nothing is unknown, nothing was
 * left out. *cancel ends it early. Without memory the plan is empty. */
bool needs_list(struct needs *needs, const struct needs_place *from, uint64_t count_max,
                const atomic_bool *cancel, struct store_plan *plan);

/* Raised when more can be listed than before. */
uint64_t needs_changes(const struct needs *needs);

#endif /* PENSTOCK_LOADER_NEEDS_H */
