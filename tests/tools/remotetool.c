/* What loader/remote/ does, for tests in Python: head, list, read, write, and objects in parts. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "loader/clock.h"
#include "loader/log.h"
#include "loader/remote/remote.h"

static const char help[] =
    "Usage: remotetool COMMAND [ARGUMENT]...\n"
    "  head URL                  prints size and tag\n"
    "  list URL [shallow]        prints a line per entry: size, tag, URL\n"
    "  read URL                  a small object to stdout\n"
    "  write URL FILE            puts a file\n"
    "  get FILE|- PARTBYTES AHEAD URL...  objects one after another, in parts, AHEAD at once, "
    "into\n"
    "                            FILE (-: nowhere); prints figures\n"
    "Settings as loader/remote/ finds them; the profile from REMOTETOOL_PROFILE, limits from\n"
    "REMOTETOOL_STALL_MS, _GIVE_UP_MS, _CONNECTIONS, _HEDGE_PERCENT.\n"
    "Exit 0, or 1 with \"KIND: text\" on stderr.\n";

static uint32_t number_of(const char *name)
{
    const char *value = getenv(name);
    return value != NULL ? (uint32_t)strtoul(value, NULL, 10) : 0;
}

static int complain(const struct error *error)
{
    fprintf(stderr, "%s: %s\n", error_kind_name(error->kind), error->text);
    return 1;
}

static bool print_entry(void *context, const struct remote_entry *entry)
{
    (void)context;
    if (entry->is_prefix) {
        printf("- - %s\n", entry->url);
    } else {
        printf("%" PRIu64 " %s %s\n", entry->version.size_bytes,
               entry->version.tag[0] != '\0' ? entry->version.tag : "-", entry->url);
    }
    return true;
}

/* ---- Objects in parts ----------------------------------------------------------------------- */

struct gathering {
    struct remote *remote;
    const char *profile;
    int file;
    uint64_t part_bytes;
    char **urls;
    struct remote_version *versions;
    int url_count;
    uint64_t *starts; /* of the objects in the file */

    pthread_mutex_t lock;
    pthread_cond_t news;
    int url_next;
    uint64_t offset_next;
    int in_flight;
    struct error error;
    uint64_t progress_calls;
    uint64_t received_bytes;
};

struct piece {
    struct remote_part part;
    struct gathering *gathering;
    uint64_t file_offset;
};

/* Give the piece the next range; false: there is none. With the lock held. */
static bool next_range(struct gathering *gathering, struct piece *piece)
{
    while (gathering->url_next < gathering->url_count &&
           gathering->offset_next >= gathering->versions[gathering->url_next].size_bytes) {
        gathering->url_next++;
        gathering->offset_next = 0;
    }
    if (gathering->url_next == gathering->url_count || gathering->error.kind != ERROR_NONE) {
        return false;
    }
    const struct remote_version *version = &gathering->versions[gathering->url_next];
    uint64_t left = version->size_bytes - gathering->offset_next;
    piece->part.url = gathering->urls[gathering->url_next];
    piece->part.version = *version;
    piece->part.offset_bytes = gathering->offset_next;
    piece->part.length_bytes = left < gathering->part_bytes ? left : gathering->part_bytes;
    piece->file_offset = gathering->starts[gathering->url_next] + gathering->offset_next;
    gathering->offset_next += piece->part.length_bytes;
    return true;
}

static void on_progress(struct remote_part *part, uint64_t contiguous_bytes)
{
    struct piece *piece = part->owner;
    (void)contiguous_bytes;
    pthread_mutex_lock(&piece->gathering->lock);
    piece->gathering->progress_calls++;
    pthread_mutex_unlock(&piece->gathering->lock);
}

static void on_done(struct remote_part *part)
{
    struct piece *piece = part->owner;
    struct gathering *gathering = piece->gathering;
    bool is_file_bad = part->error.kind == ERROR_NONE && gathering->file >= 0 &&
                       pwrite(gathering->file, part->buffer, part->length_bytes,
                              (off_t)piece->file_offset) != (ssize_t)part->length_bytes;
    pthread_mutex_lock(&gathering->lock);
    gathering->received_bytes += part->received_bytes;
    if (is_file_bad) {
        error_set(&gathering->error, ERROR_IO, "pwrite: %s", strerror(errno));
    } else if (part->error.kind != ERROR_NONE && gathering->error.kind == ERROR_NONE) {
        gathering->error = part->error;
    }
    bool goes_on = next_range(gathering, piece);
    gathering->in_flight -= !goes_on;
    pthread_cond_signal(&gathering->news);
    pthread_mutex_unlock(&gathering->lock);
    if (goes_on) {
        remote_part_start(gathering->remote, part);
    }
}

static void print_figures(const struct gathering *gathering, uint64_t begin_ns)
{
    struct remote_stats stats;
    struct rusage usage;
    remote_stats_get(gathering->remote, &stats);
    getrusage(RUSAGE_SELF, &usage);
    double cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    double seconds = (double)(clock_now_ns() - begin_ns) / 1e9;
    printf("{\"bytes\": %" PRIu64 ", \"seconds\": %.3f, \"cpu_seconds\": %.3f, "
           "\"requests\": %" PRIu64 ", \"retries\": %" PRIu64 ", \"hedges\": %" PRIu64
           ", \"hedges_won\": %" PRIu64 ", \"connections\": %" PRIu64 ", \"wasted\": %" PRIu64
           ", \"failed_check\": %" PRIu64 ", \"failed_stall\": %" PRIu64 ", \"progress\": %" PRIu64
           "}\n",
           gathering->received_bytes, seconds, cpu_s, stats.requests, stats.retries, stats.hedges,
           stats.hedges_won, stats.connections, stats.wasted_bytes, stats.failed_check,
           stats.failed_stall, gathering->progress_calls);
}

static int gather(struct gathering *gathering, int ahead)
{
    struct piece *pieces = calloc((size_t)ahead, sizeof *pieces);
    uint64_t begin_ns = clock_now_ns();
    pthread_mutex_init(&gathering->lock, NULL);
    pthread_cond_init(&gathering->news, NULL);
    for (int i = 0; i < ahead; i++) {
        pieces[i].gathering = gathering;
        pieces[i].part.profile = gathering->profile;
        pieces[i].part.owner = &pieces[i];
        pieces[i].part.on_done = on_done;
        pieces[i].part.on_progress = on_progress;
        pieces[i].part.buffer = malloc(gathering->part_bytes);
        pthread_mutex_lock(&gathering->lock);
        bool is_started = next_range(gathering, &pieces[i]);
        gathering->in_flight += is_started;
        pthread_mutex_unlock(&gathering->lock);
        if (is_started) {
            remote_part_start(gathering->remote, &pieces[i].part);
        }
    }
    pthread_mutex_lock(&gathering->lock);
    while (gathering->in_flight > 0) {
        pthread_cond_wait(&gathering->news, &gathering->lock);
    }
    pthread_mutex_unlock(&gathering->lock);
    for (int i = 0; i < ahead; i++) {
        free(pieces[i].part.buffer);
    }
    free(pieces);
    print_figures(gathering, begin_ns);
    return gathering->error.kind == ERROR_NONE ? 0 : complain(&gathering->error);
}

static int get(struct remote *remote, const struct remote_call *call, int argc, char **argv)
{
    struct gathering gathering = {.remote = remote,
                                  .profile = call->profile,
                                  .file = -1,
                                  .part_bytes = strtoull(argv[1], NULL, 10),
                                  .urls = argv + 3,
                                  .url_count = argc - 3};
    struct error error = {0};
    gathering.versions = calloc((size_t)argc, sizeof *gathering.versions);
    gathering.starts = calloc((size_t)argc, sizeof *gathering.starts);
    int status = 0;
    for (int i = 0; i < gathering.url_count && status == 0; i++) {
        status = remote_head(remote, gathering.urls[i], call, &gathering.versions[i], &error);
        gathering.starts[i + 1] = gathering.starts[i] + gathering.versions[i].size_bytes;
    }
    if (status == 0 && strcmp(argv[0], "-") != 0) {
        gathering.file = open(argv[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    }
    status = status == 0 ? gather(&gathering, atoi(argv[2])) : complain(&error);
    free(gathering.versions);
    free(gathering.starts);
    if (gathering.file >= 0) {
        close(gathering.file);
    }
    return status;
}

/* ---- The others ----------------------------------------------------------------------------- */

static int write_file(struct remote *remote, const struct remote_call *call, const char *url,
                      const char *path, struct error *error)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return error_set(error, ERROR_USAGE, "%s: %s", path, strerror(errno));
    }
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *content = malloc(size + 1);
    size = fread(content, 1, size, file);
    fclose(file);
    int status = remote_write(remote, url, content, size, call, error);
    free(content);
    return status;
}

static int run(struct remote *remote, const struct remote_call *call, int argc, char **argv)
{
    struct error error = {0};
    struct remote_version version;
    const char *command = argv[0], *url = argv[1];
    if (strcmp(command, "head") == 0 && argc == 2) {
        if (remote_head(remote, url, call, &version, &error) != 0) {
            return complain(&error);
        }
        printf("%" PRIu64 " %s\n", version.size_bytes, version.tag);
    } else if (strcmp(command, "list") == 0 && argc <= 3) {
        if (remote_list(remote, url, argc == 2, call, print_entry, NULL, &error) != 0) {
            return complain(&error);
        }
    } else if (strcmp(command, "read") == 0 && argc == 2) {
        void *content;
        size_t size;
        if (remote_read(remote, url, 64 << 20, call, &content, &size, NULL, &error) != 0) {
            return complain(&error);
        }
        fwrite(content, 1, size, stdout);
        free(content);
    } else if (strcmp(command, "write") == 0 && argc == 3) {
        if (write_file(remote, call, url, argv[2], &error) != 0) {
            return complain(&error);
        }
    } else if (strcmp(command, "get") == 0 && argc >= 5) {
        return get(remote, call, argc - 1, argv + 1);
    } else {
        fputs(help, stderr);
        return 2;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs(help, argc == 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
        return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
    }
    struct error error;
    struct remote_options options = {
        .stall_timeout_ms = number_of("REMOTETOOL_STALL_MS"),
        .give_up_ms = number_of("REMOTETOOL_GIVE_UP_MS"),
        .connections_max = number_of("REMOTETOOL_CONNECTIONS"),
        .hedge_percent = number_of("REMOTETOOL_HEDGE_PERCENT"),
    };
    log_open(NULL, getenv("REMOTETOOL_DEBUG") != NULL ? LOG_DEBUG : LOG_WARN);
    struct remote *remote = remote_create(&options, &error);
    if (remote == NULL) {
        return complain(&error);
    }
    struct remote_call call = {.profile = getenv("REMOTETOOL_PROFILE")};
    int status = run(remote, &call, argc - 1, argv + 1);
    remote_destroy(remote);
    return status;
}
