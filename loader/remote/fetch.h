/*
 * fetch.h - one HTTP request that is waited for, for what gives credentials. Never on the network
 * thread.
 */
#ifndef PENSTOCK_LOADER_REMOTE_FETCH_H
#define PENSTOCK_LOADER_REMOTE_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FETCH_HEADERS = 4, FETCH_BYTES_MAX = 256 * 1024, FETCH_WHY_BYTES = 256 };

struct fetch {
    const char *method; /* "GET", "PUT" (without a body) or "POST" */
    const char *url;
    const char *headers[FETCH_HEADERS]; /* "Name: value"; up to the first NULL */
    const char *form;                   /* body of a POST */
    const char *signing;                /* "aws:amz:REGION:sts"; NULL: unsigned */
    const char *access_key, *secret_key;
    const char *ca_file;
    uint32_t timeout_ms;
    bool is_direct; /* through no proxy */
};

struct fetch_answer {
    int status; /* 0: no answer came */
    char *text; /* with a 0 behind it */
    size_t text_bytes;
    char why[FETCH_WHY_BYTES]; /* when none came */
};

/* *answer is filled in in any case; fetch_wipe() it. True when the status is 200. */
bool fetch(const struct fetch *what, struct fetch_answer *answer);

void fetch_wipe(struct fetch_answer *answer);

#endif /* PENSTOCK_LOADER_REMOTE_FETCH_H */
