/*
 * aws_config.h - the AWS SDKs' shared files: ~/.aws/config and ~/.aws/credentials.
 *
 * The files are read anew each time. They may hold secrets: what was read is wiped when it is
 * freed. A file that is not there is an empty one.
 */
#ifndef PENSTOCK_LOADER_REMOTE_AWS_CONFIG_H
#define PENSTOCK_LOADER_REMOTE_AWS_CONFIG_H

#include <stdbool.h>

#include "loader/error.h"

struct aws_config;

/* NULL with *error set when a file cannot be read or is no such file. */
struct aws_config *aws_config_open(const char *config_path, const char *credentials_path,
                                   struct error *error);
void aws_config_close(struct aws_config *config); /* may be NULL */

/* Whether either file has the profile. */
bool aws_config_has_profile(const struct aws_config *config, const char *profile);

/* A value of a profile: the credentials file goes before the config file. Keys of nested blocks are
 * written "s3.addressing_style". NULL: not there, or empty. */
const char *aws_config_get(const struct aws_config *config, const char *profile, const char *key);

/* The same of a section of the config file, as it is written in brackets: "services local". */
const char *aws_config_get_section(const struct aws_config *config, const char *section,
                                   const char *key);

#endif /* PENSTOCK_LOADER_REMOTE_AWS_CONFIG_H */
