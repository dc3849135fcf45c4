#include "loader/answers.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ipc/region.h"
#include "loader/clock.h"
#include "loader/log.h"
#include "loader/reply.h"

enum { PROTOCOL_VERSION = 1 };

static json_t *text_or_null(const char *text)
{
    return text[0] != '\0' ? json_string(text) : json_null();
}

static json_t *answer_hello(const struct server *server, const struct request *request,
                            struct error *error)
{
    if (request->protocol != PROTOCOL_VERSION) {
        error_set(error, ERROR_PROTOCOL,
                  "this daemon (penstockd %s, pid %d) speaks protocol %d, the client %llu. Use "
                  "client and daemon of one version: stop this daemon (`penstock stop`) or give "
                  "another address.",
                  PENSTOCK_VERSION, (int)getpid(), PROTOCOL_VERSION,
                  (unsigned long long)request->protocol);
        return NULL;
    }
    struct pipeline_stats stats = pipeline_stats(server->pipeline);
    return json_pack("{s:b, s:i, s:s, s:i, s:b, s:s, s:o, s:I, s:o}", "ok", 1, "protocol",
                     PROTOCOL_VERSION, "version", PENSTOCK_VERSION, "pid", (int)getpid(), "private",
                     server->config->is_private, "socket", server->config->socket, "cache_folder",
                     text_or_null(server->cache.path), "threads", (json_int_t)stats.thread_count,
                     "log_file", text_or_null(server->config->log_file));
}

/* ---- status ----------------------------------------------------------------------------- */

static uint64_t resident_bytes(void)
{
    unsigned long long total = 0;
    unsigned long long resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file != NULL) {
        if (fscanf(file, "%llu %llu", &total, &resident) != 2) {
            resident = 0;
        }
        fclose(file);
    }
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static json_t *describe_session(const struct connection *connection,
                                const struct pipeline_stats *pool)
{
    struct pipeline *pipeline = connection->server->pipeline;
    const struct session_spec *spec = session_spec(connection->session);
    struct pipeline_session_stats stats = pipeline_session_stats(pipeline, connection->session);
    const struct session_stats *s = &stats.session;
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:f, s:f, s:I, s:I, s:I, s:I, s:s}",
                     "job", spec->job, "name", spec->name, "rank", (json_int_t)spec->rank, "world",
                     (json_int_t)spec->world, "pid", (json_int_t)connection->peer.pid, "epoch",
                     (json_int_t)s->epoch, "step", (json_int_t)s->step, "batches_per_epoch",
                     reply_count(s->batches_per_epoch), "images_per_second", s->images_per_second,
                     "wait_ratio", s->wait_ratio, "ring_ready", (json_int_t)s->ring.published_count,
                     "ring_slots", (json_int_t)s->slot_count, "bad_samples",
                     (json_int_t)s->bad_count, "samples", (json_int_t)s->sample_count, "verdict",
                     reply_verdict(&stats, pool));
}

static json_t *answer_status(const struct server *server)
{
    struct pipeline_stats pool = pipeline_stats(server->pipeline);
    json_t *jobs = json_array();
    for (const struct connection *c = server->connections; c != NULL; c = c->next) {
        if (c->session != NULL) {
            json_array_append_new(jobs, describe_session(c, &pool));
        }
    }
    double uptime = (double)(clock_now_ns() - server->started_ns) / 1e9;
    return json_pack(
        "{s:b, s:{s:i, s:s, s:f, s:I, s:f, s:s, s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:I}, s:o}",
        "ok", 1, "daemon", "pid", (int)getpid(), "version", PENSTOCK_VERSION, "uptime_seconds",
        uptime, "threads", (json_int_t)pool.thread_count, "busy_ratio", server->busy_ratio,
        "socket", server->config->socket, "private", server->config->is_private, "engine",
        pool.engine == SOURCE_URING ? "io_uring" : "pread", "resident_bytes",
        (json_int_t)resident_bytes(), "clients", (json_int_t)server->connection_count, "batches",
        (json_int_t)pool.batch_count, "samples", (json_int_t)pool.sample_count, "bad_samples",
        (json_int_t)pool.bad_count, "read_bytes", (json_int_t)pool.read_bytes, "jobs", jobs);
}

/* ---- errors, logs, doctor --------------------------------------------------------------- */

/* A name may be no UTF-8: such bytes become '?'. */
static json_t *loose_text(const char *text)
{
    json_t *value = json_string(text);
    if (value != NULL) {
        return value;
    }
    char copy[BAD_SAMPLE_NAME_BYTES];
    snprintf(copy, sizeof copy, "%s", text);
    for (char *c = copy; *c != '\0'; c++) {
        *c = (unsigned char)*c < 0x80 ? *c : '?';
    }
    return json_string(copy);
}

static void take_bad(void *context, const struct bad_sample *bad)
{
    json_array_append_new(context,
                          json_pack("{s:I, s:o, s:I, s:I, s:I, s:o, s:I, s:o, s:s}", "time",
                                    (json_int_t)bad->time_s, "job", loose_text(bad->job), "rank",
                                    (json_int_t)bad->rank, "epoch", (json_int_t)bad->epoch,
                                    "sample_id", (json_int_t)bad->sample_id, "name",
                                    loose_text(bad->name), "offset", (json_int_t)bad->offset_bytes,
                                    "reason", loose_text(bad->reason), "action", bad->action));
}

static json_t *answer_errors(const struct server *server, const struct request *request)
{
    json_t *list = json_array();
    bad_samples_recent(server->bad_samples, request->count, take_bad, list);
    return json_pack("{s:b, s:o, s:I}", "ok", 1, "errors", list, "total",
                     (json_int_t)bad_samples_total(server->bad_samples));
}

static void take_line(void *context, const char *line)
{
    json_array_append_new(context, loose_text(line));
}

static json_t *answer_logs(const struct server *server, const struct request *request)
{
    json_t *lines = json_array();
    log_recent(request->count, take_line, lines);
    return json_pack("{s:b, s:o, s:o}", "ok", 1, "lines", lines, "file",
                     text_or_null(server->config->log_file));
}

/* The kernel's setting for huge pages in shared memory, e.g. "advise". */
static void read_huge_pages(char *text, size_t text_bytes)
{
    snprintf(text, text_bytes, "unknown");
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");
    char line[256];
    if (file != NULL) {
        if (fgets(line, sizeof line, file) != NULL && strchr(line, '[') != NULL) {
            char *begin = strchr(line, '[') + 1;
            snprintf(text, text_bytes, "%.*s", (int)strcspn(begin, "]"), begin);
        }
        fclose(file);
    }
}

static json_t *answer_doctor(const struct server *server)
{
    struct pipeline_stats pool = pipeline_stats(server->pipeline);
    char huge_pages[64];
    read_huge_pages(huge_pages, sizeof huge_pages);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    sched_getaffinity(0, sizeof cpus, &cpus);
    uint64_t available = region_memory_available_bytes();
    return json_pack(
        "{s:b, s:s, s:s, s:s, s:I, s:i, s:I, s:o, s:s, s:I, s:s}", "ok", 1, "engine",
        pool.engine == SOURCE_URING ? "io_uring" : "pread", "engine_reason", pool.engine_reason,
        "kernels", kernel_level_name(pool.level), "threads", (json_int_t)pool.thread_count, "cpus",
        CPU_COUNT(&cpus), "memory_available_bytes",
        (json_int_t)(available > INT64_MAX ? INT64_MAX : available), "cache_folder",
        text_or_null(server->cache.path), "cache_reason", server->cache.reason, "cache_limit_bytes",
        (json_int_t)server->cache.limit_bytes, "huge_pages", huge_pages);
}

/* ---- The session of this connection ----------------------------------------------------- */

static json_t *answer_seek(const struct connection *connection, const struct request *request,
                           struct error *error)
{
    struct session_place place = {.epoch = request->epoch,
                                  .position = request->position,
                                  .window_ordinal = request->spec.window_ordinal,
                                  .window_first = request->spec.window_first};
    uint64_t batches_left;
    if (pipeline_seek(connection->server->pipeline, connection->session, &place,
                      (uint32_t)request->taken, &batches_left, error) != 0) {
        return NULL;
    }
    struct pipeline_session_stats stats =
        pipeline_session_stats(connection->server->pipeline, connection->session);
    return json_pack("{s:b, s:I, s:o}", "ok", 1, "stream", (json_int_t)stats.session.ring.stream,
                     "batches_left", reply_count(batches_left));
}

static json_t *answer_stats(const struct connection *connection)
{
    struct pipeline *pipeline = connection->server->pipeline;
    struct pipeline_stats pool = pipeline_stats(pipeline);
    struct pipeline_session_stats stats = pipeline_session_stats(pipeline, connection->session);
    return reply_stats(&stats, &pool);
}

json_t *answer_request(struct connection *connection, const struct request *request,
                       struct error *error)
{
    struct server *server = connection->server;
    bool needs_session = request->op == REQUEST_SEEK || request->op == REQUEST_STATS;
    if (needs_session && connection->session == NULL) {
        error_set(error, ERROR_PROTOCOL, "this connection has no session: attach first.");
        return NULL;
    }
    switch (request->op) {
    case REQUEST_HELLO: return answer_hello(server, request, error);
    case REQUEST_SEEK: return answer_seek(connection, request, error);
    case REQUEST_STATS: return answer_stats(connection);
    case REQUEST_STATUS: return answer_status(server);
    case REQUEST_ERRORS: return answer_errors(server, request);
    case REQUEST_LOGS: return answer_logs(server, request);
    case REQUEST_DOCTOR: return answer_doctor(server);
    case REQUEST_STOP:
        log_info("stop_requested", "uid=%u pid=%d drain=%d", (unsigned)connection->peer.uid,
                 (int)connection->peer.pid, request->drain);
        server->is_stopping = true;
        server->is_in_haste = server->is_in_haste || !request->drain;
        return json_pack("{s:b, s:i}", "ok", 1, "pid", (int)getpid());
    case REQUEST_DATASET:
    case REQUEST_PLAN:
    case REQUEST_ATTACH:
    case REQUEST_SAMPLE:
    case REQUEST_CACHE:
    case REQUEST_PRELOAD: break;
    }
    error_set(error, ERROR_INTERNAL, "a request that needs a task was answered at once.");
    return NULL;
}
