#include "loader/config.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loader/remote/s3_address.h"

enum option_key {
    OPTION_CONFIG = 256,
    OPTION_SOCKET,
    OPTION_THREADS,
    OPTION_CACHE,
    OPTION_CACHE_LIMIT,
    OPTION_CACHE_FREE,
    OPTION_CACHE_MEMORY,
    OPTION_S3_ENDPOINT,
    OPTION_S3_REGION,
    OPTION_S3_ADDRESSING,
    OPTION_S3_ANONYMOUS,
    OPTION_S3_REQUESTER_PAYS,
    OPTION_CA_FILE,
    OPTION_CONNECTIONS,
    OPTION_LOG_FILE,
    OPTION_LOG_LEVEL,
    OPTION_IO,
    OPTION_KERNELS,
    OPTION_HTTP,
    OPTION_PRIVATE,
    OPTION_LINGER,
    OPTION_FOREGROUND,
    OPTION_VERSION,
    OPTION_HELP,
};

static const struct option options[] = {
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"cache", required_argument, NULL, OPTION_CACHE},
    {"cache-limit", required_argument, NULL, OPTION_CACHE_LIMIT},
    {"cache-free", required_argument, NULL, OPTION_CACHE_FREE},
    {"cache-memory", required_argument, NULL, OPTION_CACHE_MEMORY},
    {"s3-endpoint", required_argument, NULL, OPTION_S3_ENDPOINT},
    {"s3-region", required_argument, NULL, OPTION_S3_REGION},
    {"s3-addressing", required_argument, NULL, OPTION_S3_ADDRESSING},
    {"s3-anonymous", required_argument, NULL, OPTION_S3_ANONYMOUS},
    {"s3-requester-pays", required_argument, NULL, OPTION_S3_REQUESTER_PAYS},
    {"ca-file", required_argument, NULL, OPTION_CA_FILE},
    {"connections", required_argument, NULL, OPTION_CONNECTIONS},
    {"log-file", required_argument, NULL, OPTION_LOG_FILE},
    {"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
    {"io", required_argument, NULL, OPTION_IO},
    {"kernels", required_argument, NULL, OPTION_KERNELS},
    {"http", required_argument, NULL, OPTION_HTTP},
    {"private", no_argument, NULL, OPTION_PRIVATE},
    {"linger", required_argument, NULL, OPTION_LINGER},
    {"foreground", no_argument, NULL, OPTION_FOREGROUND},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static const char help[] =
    "Usage: penstockd [OPTION]...\n"
    "The Penstock daemon: decodes data sets into batches for the trainers of this node.\n"
    "Started by `penstock serve`, by systemd, or by the Python client on its own.\n"
    "\n"
    "  --config FILE       YAML with these options as keys, and allow_uids: [UID, ...]\n"
    "  --socket PATH       control socket (default: $XDG_RUNTIME_DIR/penstock/penstock.sock,\n"
    "                      as root /run/penstock/penstock.sock)\n"
    "  --threads N         decode threads (default: one per CPU that its trainers may use)\n"
    "  --cache DIR|none    where indexes and remote data are kept (default: $PENSTOCK_CACHE, else\n"
    "                      local scratch)\n"
    "  --cache-limit SIZE  of remote data on disk, as 500G (default: a fifth of the free space)\n"
    "  --cache-free SIZE   leave so much of that disk free (default: 5 %, at most 10G)\n"
    "  --cache-memory SIZE of remote data in memory (default: a tenth of it, at most 1G)\n"
    "  --s3-endpoint URL, --s3-region NAME, --s3-addressing auto|path|virtual\n"
    "                      where s3:// leads, over the AWS_ variables and the shared config files\n"
    "  --s3-anonymous yes|no, --s3-requester-pays yes|no\n"
    "                      sign nothing; agree to pay for requests (default: no)\n"
    "  --ca-file FILE      PEM of who is trusted with https:// (default: $AWS_CA_BUNDLE, else\n"
    "                      $SSL_CERT_FILE, else the system's)\n"
    "  --connections N     requests for remote data at once (default: 64)\n"
    "  --log-file FILE     append the log to FILE (default: stderr)\n"
    "  --log-level LEVEL   debug, info, warn or error (default: info)\n"
    "  --io ENGINE         auto, io_uring or pread (default: auto)\n"
    "  --kernels LEVEL     auto, scalar, neon, avx2 or avx512: at most this (default: auto)\n"
    "  --http HOST:PORT    serve /metrics, /healthz, /readyz and a status page (default: off)\n"
    "  --private           leave when the last client has gone; see --linger\n"
    "  --linger SECONDS    how long a private daemon stays without clients (default: 10)\n"
    "  --foreground        with --private: do not go into the background\n"
    "  --version, --help\n"
    "\n"
    "SIGTERM drains and ends; SIGINT ends.  Exit status: 0 done, 1 failed, 2 usage.\n";

/* The place of `text` in `names`, or -1. */
static int find_name(const char *text, const char *const *names)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(text, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static int set_path(const char *name, const char *value, char *path, size_t path_bytes,
                    struct error *error)
{
    if (strlen(value) >= path_bytes) {
        return error_set(error, ERROR_USAGE, "--%s: \"%.200s\" is longer than %zu bytes.", name,
                         value, path_bytes - 1);
    }
    memcpy(path, value, strlen(value) + 1);
    return 0;
}

static int set_number(const char *name, const char *value, uint32_t maximum, uint32_t *number,
                      struct error *error)
{
    char *end = NULL;
    unsigned long parsed = strtoul(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || parsed > maximum) {
        return error_set(error, ERROR_USAGE, "--%s: \"%.100s\" is no number from 0 to %u.", name,
                         value, maximum);
    }
    *number = (uint32_t)parsed;
    return 0;
}

/* A number of bytes, or of K, M, G or T: powers of 1024. */
static int set_size(const char *name, const char *value, uint64_t *size_bytes, struct error *error)
{
    static const char units[] = "KMGT";
    char *end = NULL;
    errno = 0;
    unsigned long long parsed = strtoull(value, &end, 10);
    const char *unit = *end != '\0' ? strchr(units, *end) : NULL;
    unsigned shift = unit != NULL ? 10 * (unsigned)(unit - units + 1) : 0;
    if (value[0] < '0' || value[0] > '9' || errno != 0 || parsed == 0 ||
        parsed > UINT64_MAX >> 1 >> shift || (unit != NULL ? end[1] : *end) != '\0') {
        return error_set(error, ERROR_USAGE,
                         "--%s: \"%.100s\" is no size such as 500G (K, M, G, T or bytes).", name,
                         value);
    }
    *size_bytes = (uint64_t)parsed << shift;
    return 0;
}

static int set_bool(const char *name, const char *value, bool *is_set, struct error *error)
{
    static const char *const names[] = {"no", "yes", "false", "true", NULL};
    int place = find_name(value, names);
    if (place < 0) {
        return error_set(error, ERROR_USAGE, "--%s: \"%.100s\" is not yes or no.", name, value);
    }
    *is_set = place % 2 == 1;
    return 0;
}

/* Options of the way to remote data; they are checked here, so that a wrong one stops the daemon
 * and not the first loader. */
static int set_remote(struct config *config, int key, const char *value, struct error *error)
{
    struct s3_settings scratch = {.endpoint = ""};
    switch (key) {
    case OPTION_S3_ENDPOINT:
        return s3_address_set_endpoint(&scratch, value, error) != 0
                   ? -1
                   : set_path("s3-endpoint", value, config->s3_endpoint, sizeof config->s3_endpoint,
                              error);
    case OPTION_S3_ADDRESSING:
        return s3_address_set_addressing(&scratch, value, error) != 0
                   ? -1
                   : set_path("s3-addressing", value, config->s3_addressing,
                              sizeof config->s3_addressing, error);
    case OPTION_S3_REGION:
        return set_path("s3-region", value, config->s3_region, sizeof config->s3_region, error);
    case OPTION_S3_ANONYMOUS: return set_bool("s3-anonymous", value, &config->s3_anonymous, error);
    case OPTION_S3_REQUESTER_PAYS:
        return set_bool("s3-requester-pays", value, &config->s3_requester_pays, error);
    case OPTION_CA_FILE:
        if (access(value, R_OK) != 0) {
            return error_set(error, ERROR_USAGE, "--ca-file: %.200s: %s.", value, strerror(errno));
        }
        return set_path("ca-file", value, config->ca_file, sizeof config->ca_file, error);
    default: return set_number("connections", value, 4096, &config->connections, error);
    }
}

static int set_choice(struct config *config, int key, const char *value, struct error *error)
{
    static const char *const engines[] = {"auto", "io_uring", "pread", NULL};
    static const char *const levels[] = {"scalar", "neon", "avx2", "avx512", "auto", NULL};
    int place = -1;
    switch (key) {
    case OPTION_LOG_LEVEL:
        if (log_level_parse(value, &config->log_level)) {
            return 0;
        }
        return error_set(error, ERROR_USAGE,
                         "--log-level: \"%.100s\" is not debug, info, warn or error.", value);
    case OPTION_IO:
        place = find_name(value, engines);
        config->engine = (enum source_engine)place;
        break;
    case OPTION_KERNELS:
        place = find_name(value, levels);
        config->level_max = place == 4 ? KERNEL_AVX512 : (enum kernel_level)place;
        break;
    default: break;
    }
    return place >= 0 ? 0
                      : error_set(error, ERROR_USAGE, "--%s: \"%.100s\" is not known; see --help.",
                                  key == OPTION_IO ? "io" : "kernels", value);
}

static int set_option(struct config *config, int key, const char *value, struct error *error)
{
    switch (key) {
    case OPTION_SOCKET:
        return set_path("socket", value, config->socket, sizeof config->socket, error);
    case OPTION_CACHE: return set_path("cache", value, config->cache, CONFIG_PATH_BYTES, error);
    case OPTION_CACHE_LIMIT:
        return set_size("cache-limit", value, &config->cache_limit_bytes, error);
    case OPTION_CACHE_FREE: return set_size("cache-free", value, &config->cache_free_bytes, error);
    case OPTION_CACHE_MEMORY:
        return set_size("cache-memory", value, &config->cache_memory_bytes, error);
    case OPTION_S3_ENDPOINT:
    case OPTION_S3_REGION:
    case OPTION_S3_ADDRESSING:
    case OPTION_S3_ANONYMOUS:
    case OPTION_S3_REQUESTER_PAYS:
    case OPTION_CA_FILE:
    case OPTION_CONNECTIONS: return set_remote(config, key, value, error);
    case OPTION_LOG_FILE:
        return set_path("log-file", value, config->log_file, CONFIG_PATH_BYTES, error);
    case OPTION_HTTP: return set_path("http", value, config->http, sizeof config->http, error);
    case OPTION_THREADS: return set_number("threads", value, 512, &config->threads, error);
    case OPTION_LINGER: return set_number("linger", value, 86400, &config->linger_seconds, error);
    case OPTION_PRIVATE: config->is_private = true; return 0;
    case OPTION_FOREGROUND: config->foreground = true; return 0;
    default: return set_choice(config, key, value, error);
    }
}

/* ---- The file --------------------------------------------------------------------------- */

static const int file_keys[] = {OPTION_SOCKET,
                                OPTION_THREADS,
                                OPTION_CACHE,
                                OPTION_LOG_FILE,
                                OPTION_LOG_LEVEL,
                                OPTION_IO,
                                OPTION_KERNELS,
                                OPTION_HTTP,
                                OPTION_LINGER,
                                OPTION_CACHE_LIMIT,
                                OPTION_CACHE_FREE,
                                OPTION_CACHE_MEMORY,
                                OPTION_S3_ENDPOINT,
                                OPTION_S3_REGION,
                                OPTION_S3_ADDRESSING,
                                OPTION_S3_ANONYMOUS,
                                OPTION_S3_REQUESTER_PAYS,
                                OPTION_CA_FILE,
                                OPTION_CONNECTIONS};

struct config_file {
    char *texts[sizeof file_keys / sizeof file_keys[0]]; /* in the order of file_keys */
    uint32_t *allow_uids;
    unsigned allow_uids_count;
};

static const cyaml_schema_value_t uid_schema = {
    CYAML_VALUE_UINT(CYAML_FLAG_DEFAULT, uint32_t),
};

#define FILE_TEXT(name, place)                                                                     \
    CYAML_FIELD_STRING_PTR(name, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct config_file,     \
                           texts[place], 0, CYAML_UNLIMITED)

static const cyaml_schema_field_t file_fields[] = {
    FILE_TEXT("socket", 0),
    FILE_TEXT("threads", 1),
    FILE_TEXT("cache", 2),
    FILE_TEXT("log-file", 3),
    FILE_TEXT("log-level", 4),
    FILE_TEXT("io", 5),
    FILE_TEXT("kernels", 6),
    FILE_TEXT("http", 7),
    FILE_TEXT("linger", 8),
    FILE_TEXT("cache-limit", 9),
    FILE_TEXT("cache-free", 10),
    FILE_TEXT("cache-memory", 11),
    FILE_TEXT("s3-endpoint", 12),
    FILE_TEXT("s3-region", 13),
    FILE_TEXT("s3-addressing", 14),
    FILE_TEXT("s3-anonymous", 15),
    FILE_TEXT("s3-requester-pays", 16),
    FILE_TEXT("ca-file", 17),
    FILE_TEXT("connections", 18),
    CYAML_FIELD_SEQUENCE("allow_uids", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct config_file,
                         allow_uids, &uid_schema, 0, CONFIG_UIDS_MAX),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t file_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct config_file, file_fields),
};

/* The parser's last complaint, for the user. */
static void keep_complaint(cyaml_log_t level, void *context, const char *format, va_list arguments)
{
    char *complaint = context;
    if (level >= CYAML_LOG_ERROR && complaint[0] == '\0') {
        vsnprintf(complaint, 256, format, arguments);
        complaint[strcspn(complaint, "\n")] = '\0';
    }
}

static int load_file(const char *path, struct config *config, struct error *error)
{
    char complaint[256] = "";
    cyaml_config_t cyaml = {
        .log_fn = keep_complaint,
        .log_ctx = complaint,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_ERROR,
        .flags = CYAML_CFG_DEFAULT,
    };
    struct config_file *file = NULL;
    cyaml_err_t status = cyaml_load_file(path, &cyaml, &file_schema, (cyaml_data_t **)&file, NULL);
    if (status != CYAML_OK) {
        return error_set(error, ERROR_USAGE,
                         "%s: %s. Keys are the long options of "
                         "penstockd --help, and allow_uids.",
                         path, complaint[0] != '\0' ? complaint : cyaml_strerror(status));
    }
    int result = 0;
    for (size_t i = 0; i < sizeof file_keys / sizeof file_keys[0] && result == 0; i++) {
        if (file->texts[i] != NULL) {
            result = set_option(config, file_keys[i], file->texts[i], error);
        }
    }
    for (unsigned i = 0; i < file->allow_uids_count; i++) {
        config->allow_uids[config->allow_uid_count++] = file->allow_uids[i];
    }
    cyaml_free(&cyaml, &file_schema, file, 0);
    return result;
}

/* ---- Both ------------------------------------------------------------------------------- */

static int set_default_socket(struct config *config, struct error *error)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int length;
    if (geteuid() == 0) {
        length = snprintf(config->socket, sizeof config->socket, "/run/penstock/penstock.sock");
    } else if (runtime != NULL && runtime[0] == '/') {
        length =
            snprintf(config->socket, sizeof config->socket, "%s/penstock/penstock.sock", runtime);
    } else {
        length = snprintf(config->socket, sizeof config->socket, "/tmp/penstock-%u/penstock.sock",
                          (unsigned)geteuid());
    }
    if (length < 0 || (size_t)length >= sizeof config->socket) {
        return error_set(error, ERROR_USAGE,
                         "XDG_RUNTIME_DIR is too long for a socket's path: "
                         "give a shorter one with --socket.");
    }
    return 0;
}

enum config_result config_load(int argc, char **argv, struct config *config, struct error *error)
{
    *config =
        (struct config){.log_level = LOG_INFO, .level_max = KERNEL_AVX512, .linger_seconds = 10};
    const char *cache = getenv("PENSTOCK_CACHE");
    if (cache != NULL && set_path("cache", cache, config->cache, CONFIG_PATH_BYTES, error) != 0) {
        return CONFIG_BAD;
    }
    /* Two passes, so that the command line overrides the file wherever --config stands. */
    for (int pass = 0; pass < 2; pass++) {
        int key;
        optind = 1;
        opterr = 0;
        while ((key = getopt_long(argc, argv, "", options, NULL)) != -1) {
            if (key == OPTION_HELP || key == OPTION_VERSION) {
                fputs(key == OPTION_HELP ? help : "penstockd " PENSTOCK_VERSION "\n", stdout);
                return CONFIG_DONE;
            }
            if (key == '?') {
                error_set(error, ERROR_USAGE, "%s is no option, or lacks its value; see --help.",
                          argv[optind - 1]);
                return CONFIG_BAD;
            }
            bool is_file = key == OPTION_CONFIG;
            int status = is_file && pass == 0    ? load_file(optarg, config, error)
                         : !is_file && pass == 1 ? set_option(config, key, optarg, error)
                                                 : 0;
            if (status != 0) {
                return CONFIG_BAD;
            }
        }
        if (optind < argc) {
            error_set(error, ERROR_USAGE, "\"%.100s\" is too much; see --help.", argv[optind]);
            return CONFIG_BAD;
        }
    }
    if (config->socket[0] == '\0' && set_default_socket(config, error) != 0) {
        return CONFIG_BAD;
    }
    return CONFIG_RUN;
}
