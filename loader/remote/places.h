/*
 * places.h - what was learned about buckets and hosts: regions, and who ever answered.
 *
 * One thread.
 */
#ifndef PENSTOCK_LOADER_REMOTE_PLACES_H
#define PENSTOCK_LOADER_REMOTE_PLACES_H

#include <stdbool.h>

#include "loader/remote/s3_address.h"

struct place {
    struct place *next;
    char *name;                   /* a bucket, or "http(s)://host:port" */
    char region[S3_REGION_BYTES]; /* "": as configured */
    bool has_answered;
};

struct places {
    struct place *first;
};

/* The place of a user's URL; made when there is none. NULL: out of memory. */
struct place *places_find(struct places *places, const char *url);

void places_free(struct places *places);

#endif /* PENSTOCK_LOADER_REMOTE_PLACES_H */
