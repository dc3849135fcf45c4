/*
 * config.h - how the daemon was asked to run: command line over configuration file over defaults.
 *
 * The file is YAML with the names of the long options as keys ("log-level: info"); one more key,
 * allow_uids, lists the users who may attach besides the daemon's own.
 */
#ifndef PENSTOCK_LOADER_CONFIG_H
#define PENSTOCK_LOADER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "decode/kernels.h"
#include "loader/error.h"
#include "loader/log.h"
#include "loader/source.h"

enum { CONFIG_UIDS_MAX = 64, CONFIG_PATH_BYTES = 1024 };

struct config {
    char socket[108];              /* "" : the default, see config_load() */
    char cache[CONFIG_PATH_BYTES]; /* "": chosen; "none": no cache */
    uint64_t cache_limit_bytes;    /* of remote data on disk; 0: a fifth of the free space */
    uint64_t cache_free_bytes;     /* left free on that disk; 0: 5 %, at most 10 GiB */
    uint64_t cache_memory_bytes;   /* of remote data in memory; 0: a tenth, at most 1 GiB */
    char s3_endpoint[512]; /* of s3://; "": as the environment and the shared config files say */
    char s3_region[64];    /* the same, like these two */
    char s3_addressing[16];
    char ca_file[CONFIG_PATH_BYTES];
    bool s3_anonymous; /* false: as above */
    bool s3_requester_pays;
    uint32_t connections; /* requests for remote data at once; 0: 64 */
    char log_file[CONFIG_PATH_BYTES];
    char http[128]; /* "HOST:PORT"; "": none */
    enum log_level log_level;
    uint32_t threads; /* 0: one per CPU */
    enum source_engine engine;
    enum kernel_level level_max;
    bool is_private;
    bool foreground;
    uint32_t linger_seconds;
    uid_t allow_uids[CONFIG_UIDS_MAX];
    size_t allow_uid_count;
};

enum config_result { CONFIG_RUN, CONFIG_DONE /* --help, --version: printed */, CONFIG_BAD };

/* Read the command line and the file it names. CONFIG_BAD: *error says what is wrong. */
enum config_result config_load(int argc, char **argv, struct config *config, struct error *error);

#endif /* PENSTOCK_LOADER_CONFIG_H */
