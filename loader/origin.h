/*
 * origin.h - what is needed to reach remote data: the network, the cache of its bytes, and whose
 * credentials. Zero means that remote data cannot be had here.
 */
#ifndef PENSTOCK_LOADER_ORIGIN_H
#define PENSTOCK_LOADER_ORIGIN_H

#include <stdatomic.h>

struct remote;
struct store;

/* Borrowed by whoever gets it. */
struct origin {
    struct remote *remote;
    struct store *store;
    const char *profile;       /* of the shared AWS config; NULL or "": the default */
    const atomic_bool *cancel; /* ends what waits; NULL: nothing does */
};

#endif /* PENSTOCK_LOADER_ORIGIN_H */
