/*
 * credentials.h - where credentials and settings are looked for, in the order of the AWS SDKs.
 *
 * Environment, web identity, shared credentials and config files (keys, a process, a role),
 * container endpoint, instance metadata. Nothing found: requests go unsigned.
 */
#ifndef PENSTOCK_LOADER_REMOTE_CREDENTIALS_H
#define PENSTOCK_LOADER_REMOTE_CREDENTIALS_H

#include "loader/remote/identity.h"
#include "loader/remote/remote.h"

/* An identity_finder (identity.h); the context is a struct remote_options, whose settings go
 * before the environment's. Blocks: files, a process, HTTP with short timeouts. */
int credentials_find(void *options, const char *profile, struct identity **identity,
                     bool *is_temporary, struct error *error);

/* The CA file that the environment names, or NULL. */
const char *credentials_ca_file(void);

#endif /* PENSTOCK_LOADER_REMOTE_CREDENTIALS_H */
