#include "loader/exposition.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "loader/clock.h"
#include "loader/connection.h"
#include "loader/reply.h"

/* ---- Labels and text -------------------------------------------------------------------- */

/* A label's value: backslash, quote and newline escaped. */
static void write_label(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\\' || *text == '"') {
            fputc('\\', out);
        }
        if (*text == '\n') {
            fputs("\\n", out);
        } else {
            fputc(*text, out);
        }
    }
}

static void write_html(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '&': fputs("&amp;", out); break;
        case '"': fputs("&quot;", out); break;
        default: fputc(*text, out);
        }
    }
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double uptime_seconds(const struct server *server)
{
    return (double)(clock_now_ns() - server->started_ns) / 1e9;
}

/* ---- Prometheus ------------------------------------------------------------------------- */

static void write_family(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP penstock_%s %s\n# TYPE penstock_%s %s\n", name, help, name, type);
}

static void write_metric(FILE *out, const char *name, const char *type, const char *help,
                         double value)
{
    write_family(out, name, type, help);
    fprintf(out, "penstock_%s %.17g\n", name, value);
}

/* The figures of one session that are shown. */
enum session_figure {
    FIGURE_RATE,
    FIGURE_WAIT,
    FIGURE_READY,
    FIGURE_SLOTS,
    FIGURE_EPOCH,
    FIGURE_BATCHES,
    FIGURE_SAMPLES,
    FIGURE_BAD,
    FIGURES
};

static const struct {
    const char *name, *type, *help;
} session_figures[FIGURES] = {
    [FIGURE_RATE] = {"rank_images_per_second", "gauge", "Images published in the last second."},
    [FIGURE_WAIT] = {"rank_wait_seconds_total", "counter",
                     "Time the trainer waited for batches, as it says."},
    [FIGURE_READY] = {"rank_ring_ready_slots", "gauge", "Batches published and not given back."},
    [FIGURE_SLOTS] = {"rank_ring_slots", "gauge", "Slots of the ring."},
    [FIGURE_EPOCH] = {"rank_epoch", "gauge", "Epoch of the last published batch."},
    [FIGURE_BATCHES] = {"rank_batches_total", "counter", "Batches published."},
    [FIGURE_SAMPLES] = {"rank_samples_total", "counter", "Samples published."},
    [FIGURE_BAD] = {"rank_bad_samples_total", "counter", "Samples that could not be made."},
};

static double session_figure(const struct session_stats *stats, enum session_figure figure)
{
    switch (figure) {
    case FIGURE_RATE: return stats->images_per_second;
    case FIGURE_WAIT: return (double)stats->waited_ns / 1e9;
    case FIGURE_READY: return stats->ring.published_count;
    case FIGURE_SLOTS: return stats->slot_count;
    case FIGURE_EPOCH: return (double)stats->epoch;
    case FIGURE_BATCHES: return (double)stats->batch_count;
    case FIGURE_SAMPLES: return (double)stats->sample_count;
    case FIGURE_BAD: return (double)stats->bad_count;
    case FIGURES: break;
    }
    return 0;
}

/* Loaders of the same job and rank (train and eval) are told apart by a small number, not by an
 * id: the oldest is 0. New connections are put at the list's head. */
static unsigned loader_number(const struct connection *connection)
{
    const struct session_spec *spec = session_spec(connection->session);
    unsigned number = 0;
    for (const struct connection *c = connection->next; c != NULL; c = c->next) {
        if (c->session != NULL && session_spec(c->session)->rank == spec->rank &&
            strcmp(session_spec(c->session)->job, spec->job) == 0) {
            number++;
        }
    }
    return number;
}

static void write_sessions(FILE *out, const struct server *server)
{
    for (int figure = 0; figure < FIGURES; figure++) {
        write_family(out, session_figures[figure].name, session_figures[figure].type,
                     session_figures[figure].help);
        for (const struct connection *c = server->connections; c != NULL; c = c->next) {
            if (c->session == NULL) {
                continue;
            }
            const struct session_spec *spec = session_spec(c->session);
            struct pipeline_session_stats stats =
                pipeline_session_stats(server->pipeline, c->session);
            fprintf(out, "penstock_%s{job=\"", session_figures[figure].name);
            write_label(out, spec->job);
            fprintf(out, "\",rank=\"%u\",loader=\"%u\"} %.17g\n", spec->rank, loader_number(c),
                    session_figure(&stats.session, (enum session_figure)figure));
        }
    }
}

/* The cache of remote objects. */
static void write_store(FILE *out, const struct server *server)
{
    if (server->store == NULL) {
        return;
    }
    struct store_stats stats;
    store_stats_get(server->store, &stats);
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } figures[] = {
        {"cache_memory_hit_bytes_total", "counter", "Read from memory.", stats.memory_hit_bytes},
        {"cache_disk_hit_bytes_total", "counter", "Read from disk.", stats.disk_hit_bytes},
        {"cache_joined_bytes_total", "counter", "Read while being fetched.", stats.joined_bytes},
        {"cache_miss_bytes_total", "counter", "Read that started a fetch.", stats.miss_bytes},
        {"cache_fetched_bytes_total", "counter", "From the origin.", stats.fetched_bytes},
        {"cache_evictions_total", "counter", "Files removed for others.", stats.evicted_count},
        {"cache_corrupt_total", "counter", "Files that failed a check.", stats.corrupt_count},
        {"cache_write_failures_total", "counter", "Writes failed.", stats.write_failed_count},
        {"cache_disk_bytes", "gauge", "In chunk files.", stats.disk_used_bytes},
        {"cache_disk_limit_bytes", "gauge", "Limit of the files.", stats.disk_limit_bytes},
        {"cache_memory_bytes", "gauge", "In memory.", stats.memory_used_bytes},
        {"cache_ahead_bytes", "gauge", "Fetched and not read yet.", stats.ahead_bytes},
        {"cache_in_flight_bytes", "gauge", "Being fetched.", stats.bytes_in_flight},
    };
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        write_metric(out, figures[i].name, figures[i].type, figures[i].help,
                     (double)figures[i].value);
    }
}

char *exposition_metrics(const struct server *server)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) {
        return NULL;
    }
    struct pipeline_stats stats = pipeline_stats(server->pipeline);
    write_family(out, "build_info", "gauge", "Constant 1; the version is a label.");
    fprintf(out, "penstock_build_info{version=\"%s\",io=\"%s\",kernels=\"%s\"} 1\n",
            PENSTOCK_VERSION, stats.engine == SOURCE_URING ? "io_uring" : "pread",
            kernel_level_name(stats.level));
    write_metric(out, "uptime_seconds", "gauge", "Since the daemon started.",
                 uptime_seconds(server));
    write_metric(out, "cpu_seconds_total", "counter", "User and system time of the daemon.",
                 cpu_seconds());
    write_metric(out, "threads", "gauge", "Decode threads.", stats.thread_count);
    write_metric(out, "clients", "gauge", "Connections to the control socket.",
                 server->connection_count);
    write_metric(out, "sessions", "gauge", "Loaders that are attached.", stats.session_count);
    write_metric(out, "samples_total", "counter", "Samples decoded, bad ones included.",
                 (double)stats.sample_count);
    write_metric(out, "bad_samples_total", "counter", "Samples that could not be made.",
                 (double)stats.bad_count);
    write_metric(out, "batches_total", "counter", "Batches published.", (double)stats.batch_count);
    write_metric(out, "read_bytes_total", "counter", "Bytes of samples read.",
                 (double)stats.read_bytes);
    write_metric(out, "decode_seconds_total", "counter", "Time of threads spent decoding.",
                 (double)stats.busy_ns / 1e9);
    write_metric(out, "read_wait_seconds_total", "counter",
                 "Time of threads that had nothing to decode while reads were under way.",
                 (double)stats.read_wait_ns / 1e9);
    write_store(out, server);
    write_sessions(out, server);
    return fclose(out) == 0 ? text : (free(text), NULL);
}

/* ---- The page --------------------------------------------------------------------------- */

static const char page_head[] =
    "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=2>"
    "<meta name=viewport content='width=device-width'><title>Penstock</title><style>"
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:68rem;padding:0 1rem;"
    "color:#1a2733;background:#fbfcfd}h1{font-size:1.4rem;margin:0}"
    "p{margin:.3rem 0 1.2rem;color:#54636f}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .7rem;"
    "border-bottom:1px solid #dde4ea}th{font-weight:600;color:#54636f}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}"
    "@media(prefers-color-scheme:dark){body{background:#12181d;color:#dde6ee}"
    "th,td{border-color:#2b3640}p,th{color:#93a4b2}}</style><h1>Penstock</h1>";

static void write_row(FILE *out, const struct server *server, const struct connection *connection,
                      const struct pipeline_stats *pool)
{
    const struct session_spec *spec = session_spec(connection->session);
    struct pipeline_session_stats stats =
        pipeline_session_stats(server->pipeline, connection->session);
    const struct session_stats *s = &stats.session;
    fputs("<tr><td>", out);
    write_html(out, spec->job[0] != '\0' ? spec->job : "-");
    fprintf(out, "<td class=n>%u of %u<td class=n>%llu<td class=n>%llu of ", spec->rank,
            spec->world, (unsigned long long)s->epoch, (unsigned long long)s->step);
    if (s->batches_per_epoch == UINT64_MAX) {
        fputs("?", out);
    } else {
        fprintf(out, "%llu", (unsigned long long)s->batches_per_epoch);
    }
    fprintf(out,
            "<td class=n>%.0f<td class=n>%.1f&thinsp;%%<td class=n>%u of %u<td class=n>%llu<td>",
            s->images_per_second, 100 * s->wait_ratio, s->ring.published_count, s->slot_count,
            (unsigned long long)s->bad_count);
    write_html(out, reply_verdict(&stats, pool));
    fputs("</tr>\n", out);
}

char *exposition_page(const struct server *server)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) {
        return NULL;
    }
    struct pipeline_stats pool = pipeline_stats(server->pipeline);
    fputs(page_head, out);
    fprintf(out,
            "<p>penstockd %s, pid %d, up %.0f s, %u decode threads %.0f&thinsp;%% busy, %s, %s; "
            "%llu samples, %llu bad. <a href=/metrics>metrics</a></p>",
            PENSTOCK_VERSION, (int)getpid(), uptime_seconds(server), pool.thread_count,
            100 * server->busy_ratio, pool.engine == SOURCE_URING ? "io_uring" : "pread",
            kernel_level_name(pool.level), (unsigned long long)pool.sample_count,
            (unsigned long long)pool.bad_count);
    fputs("<table><tr><th>Job<th class=n>Rank<th class=n>Epoch<th class=n>Step<th class=n>Images/s"
          "<th class=n>Wait<th class=n>Ring<th class=n>Bad<th>What limits</tr>\n",
          out);
    bool any = false;
    for (const struct connection *c = server->connections; c != NULL; c = c->next) {
        if (c->session != NULL) {
            write_row(out, server, c, &pool);
            any = true;
        }
    }
    fputs("</table>", out);
    if (!any) {
        fputs("<p>No loader is attached.</p>", out);
    }
    return fclose(out) == 0 ? text : (free(text), NULL);
}
