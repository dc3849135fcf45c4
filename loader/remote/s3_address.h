/*
 * s3_address.h - where a URL of the user's leads: endpoint, host, path, region.
 *
 * Pure; any thread.
 */
#ifndef PENSTOCK_LOADER_REMOTE_S3_ADDRESS_H
#define PENSTOCK_LOADER_REMOTE_S3_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "loader/error.h"

enum s3_addressing {
    S3_ADDRESSING_AUTO, /* virtual hosts on AWS where the bucket's name allows it, else paths */
    S3_ADDRESSING_PATH,
    S3_ADDRESSING_VIRTUAL,
};

enum { S3_ENDPOINT_BYTES = 512, S3_REGION_BYTES = 64, S3_BUCKET_BYTES = 256 };

/* What the options, the environment and the config files say about the way to S3. */
struct s3_settings {
    char endpoint[S3_ENDPOINT_BYTES]; /* "http(s)://host[:port][/path]", no '/' at the end; "":
                                         AWS's own of the region */
    char region[S3_REGION_BYTES];
    enum s3_addressing addressing;
    bool is_anonymous;
    bool requester_pays;
};

struct s3_target {
    char bucket[S3_BUCKET_BYTES]; /* "" for http(s):// */
    char region[S3_REGION_BYTES]; /* to sign for; "" for http(s):// */
    char *url;                    /* as it is requested; the caller frees it */
};

/* false: "path" and the like, which are not ours. */
bool s3_address_is_s3(const char *url);

/* Take "http://host:9000/" in as an endpoint. */
int s3_address_set_endpoint(struct s3_settings *settings, const char *endpoint,
                            struct error *error);

/* "auto", "path" or "virtual". */
int s3_address_set_addressing(struct s3_settings *settings, const char *name, struct error *error);

/* Bucket of an s3:// URL, and where its key starts in it. -1: there is no bucket, or it is no
 * bucket's name. */
int s3_address_split(const char *url, char bucket[S3_BUCKET_BYTES], const char **key,
                     struct error *error);

/* The target of `url`. `query` (NULL: none) is appended after a '?'; with it the key is left out:
 * the bucket is meant. `region` (NULL or "": the settings') is the one that the bucket was found to
 * be in. */
int s3_address_build(const struct s3_settings *settings, const char *url, const char *query,
                     const char *region, struct s3_target *target, struct error *error);

/* Percent-encode as SigV4 wants it: all but letters, digits and "-._~", and '/' if it is kept.
 * Returns a text that the caller frees; NULL: out of memory. */
char *s3_address_encode(const char *text, bool is_slash_kept);

/* The URL without what may be secret: user information, and the query of an http(s):// URL. Cut to
 * fit; returns buffer. */
const char *s3_address_public(const char *url, char *buffer, size_t buffer_bytes);

#endif /* PENSTOCK_LOADER_REMOTE_S3_ADDRESS_H */
