/*
 * data_change.h - which object of a remote data set is no longer what it was.
 */
#ifndef PENSTOCK_LOADER_DATA_CHANGE_H
#define PENSTOCK_LOADER_DATA_CHANGE_H

#include <stdbool.h>
#include <stddef.h>

struct catalog;
struct index;

/* What is known of a data set: an index or, without one, a catalog of remote shards. Borrowed. */
struct data_view {
    const struct index *index;
    const struct catalog *catalog; /* looked at when index is NULL */
};

/* The first difference in the order of the objects: "URL was replaced", "URL was added" or "URL was
 * removed", cut to text_bytes. False: there is none, or one of the two is nothing or local. */
bool data_change_describe(const struct data_view *before, const struct data_view *after, char *text,
                          size_t text_bytes);

#endif /* PENSTOCK_LOADER_DATA_CHANGE_H */
