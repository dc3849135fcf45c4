/*
 * credentials_private.h - what the places share in which credentials are looked for.
 */
#ifndef PENSTOCK_LOADER_REMOTE_CREDENTIALS_PRIVATE_H
#define PENSTOCK_LOADER_REMOTE_CREDENTIALS_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>

#include "loader/remote/aws_config.h"
#include "loader/remote/credentials.h"
#include "loader/remote/fetch.h"

/* What a place says. */
enum finding {
    FINDING_NOTHING, /* nothing is set up here: look on */
    FINDING_KEYS,    /* search->identity has them */
    FINDING_FAILED,  /* set up, but it does not work: search->error says why */
};

struct search {
    const struct remote_options *options;
    const char *profile; /* never "" */
    bool is_profile_named;
    const char *config_path;
    struct aws_config *config;
    struct identity *identity;
    bool is_temporary; /* a failure that may pass */
    struct error error;
};

/* A variable of the environment; NULL when it is unset or empty. */
const char *search_variable(const char *name);

/* Keep copies of the keys (token may be NULL), with the source in words. */
enum finding search_keep(struct search *search, const char *access_key, const char *secret_key,
                         const char *token, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

enum finding search_fail(struct search *search, bool is_temporary, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A time like "2026-11-23T14:31:55Z", in seconds since 1970; 0: it is no such time. */
int64_t search_parse_time(const char *text);

/* A JSON object with AccessKeyId, SecretAccessKey, Token (or SessionToken) and Expiration. */
enum finding search_take_json(struct search *search, const char *text, size_t text_bytes,
                              const char *token_name, const char *source);

/* The whole of a small file, which the caller wipes and frees, without white space at its ends;
 * NULL: errno says why. */
char *search_read_file(const char *path);
void search_wipe(char *secret);

/* credentials_process.c: a program that prints them. */
enum finding search_process(struct search *search, const char *command);

/* credentials_sts.c: roles. The first is for a role that search->identity's keys may take. */
enum finding search_assume_role(struct search *search, const char *role, const char *profile);
enum finding search_web_identity(struct search *search, const char *role, const char *token_file,
                                 const char *session_name);

/* credentials_local.c: services at addresses that only this machine or container reaches. */
enum finding search_container(struct search *search);
enum finding search_instance(struct search *search);

#endif /* PENSTOCK_LOADER_REMOTE_CREDENTIALS_PRIVATE_H */
