#include "loader/connection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loader/answers.h"
#include "loader/catalog.h"
#include "loader/clock.h"
#include "loader/log.h"
#include "loader/reply.h"

enum { PROGRESS_INTERVAL_NS = 100000000, INDEX_THREADS = 16 };

/* ---- Sending ---------------------------------------------------------------------------- */

static void flush(struct connection *connection)
{
    int status = message_flush(connection->writer, connection->socket.fd);
    if (status < 0) {
        connection_close(connection, strerror(-status));
        return;
    }
    server_watch_change(connection->server, &connection->socket,
                        status == 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Takes over `reply`. */
static void send_reply(struct connection *connection, json_t *reply, const int *fds,
                       uint32_t fd_count)
{
    char *text = reply != NULL ? json_dumps(reply, JSON_COMPACT) : NULL;
    json_decref(reply);
    int status = -ENOMEM;
    if (text != NULL) {
        status = message_queue(connection->writer, text, strlen(text), fds, fd_count);
    }
    free(text);
    if (status != 0) {
        connection_close(connection, "an answer could not be queued");
    } else {
        flush(connection);
    }
}

static void send_error(struct connection *connection, const struct error *error)
{
    char quoted[ERROR_TEXT_BYTES];
    log_info("request_refused", "pid=%d kind=%s message=%s", (int)connection->peer.pid,
             error_kind_name(error->kind), log_quote(error->text, quoted, sizeof quoted));
    send_reply(connection, reply_error(error), NULL, 0);
}

/* ---- Sessions --------------------------------------------------------------------------- */

static void end_session(struct connection *connection, const char *why)
{
    if (connection->session == NULL) {
        return;
    }
    server_unwatch(connection->server, &connection->releases);
    connection->releases.fd = -1; /* the ring's */
    struct pipeline_session_stats stats =
        pipeline_session_stats(connection->server->pipeline, connection->session);
    log_info("session_ended",
             "session=%llu pid=%d batches=%llu samples=%llu bad=%llu reason=\"%s\"",
             (unsigned long long)session_id(connection->session), (int)connection->peer.pid,
             (unsigned long long)stats.session.batch_count,
             (unsigned long long)stats.session.sample_count,
             (unsigned long long)stats.session.bad_count, why);
    pipeline_remove(connection->server->pipeline, connection->session);
    connection->session = NULL;
}

static void releases_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    struct connection *connection = watch->owner;
    if (connection->session != NULL) {
        pipeline_collect(connection->server->pipeline, connection->session);
    }
}

static void process_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    connection_close(watch->owner, "the trainer's process ended");
}

/* The socket may be held open by a forked child: the process itself tells its end. Across pid
 * namespaces the pid is 0; then only the socket does. */
static void watch_process(struct connection *connection)
{
    if (connection->process.fd >= 0 || connection->peer.pid <= 0) {
        return;
    }
    int fd = (int)syscall(SYS_pidfd_open, connection->peer.pid, 0);
    if (fd >= 0) {
        connection->process.fd = fd;
        if (server_watch(connection->server, &connection->process, EPOLLIN) != 0) {
            close(fd);
            connection->process.fd = -1;
        }
    }
}

static void begin_session(struct connection *connection, struct task *task)
{
    struct server *server = connection->server;
    struct session *session = task->session;
    const struct session_spec *spec = session_spec(session);
    if (pipeline_add(server->pipeline, session, &task->error) != 0) {
        return; /* task_destroy() destroys it */
    }
    task->session = NULL;
    connection->session = session;
    connection->releases.fd = ring_release_fd(session_ring(session));
    if (server_watch(server, &connection->releases, EPOLLIN) != 0) {
        error_set(&task->error, ERROR_INTERNAL, "epoll refuses a session's eventfd: %s.",
                  strerror(errno));
        end_session(connection, "epoll");
        return;
    }
    watch_process(connection);
    char job[2 * SESSION_JOB_BYTES];
    log_info("session_opened",
             "session=%llu pid=%d job=%s rank=%u world=%u batch=%llu epoch=%llu position=%llu "
             "slots=%u ring_bytes=%zu",
             (unsigned long long)session_id(session), (int)connection->peer.pid,
             log_quote(spec->job, job, sizeof job), spec->rank, spec->world,
             (unsigned long long)spec->batch, (unsigned long long)spec->epoch,
             (unsigned long long)spec->position, spec->slots,
             ring_region_bytes(session_ring(session)));
}

/* ---- Tasks ------------------------------------------------------------------------------ */

static void forget_data(struct connection *connection)
{
    index_unref(connection->index);
    catalog_unref(connection->catalog);
    connection->index = NULL;
    connection->catalog = NULL;
    for (size_t i = 0; i < connection->url_count; i++) {
        free(connection->urls[i]);
    }
    free(connection->urls);
    connection->urls = NULL;
    connection->url_count = 0;
}

static bool has_data_of(const struct connection *connection, const struct request *request)
{
    if ((connection->index == NULL && connection->catalog == NULL) ||
        connection->url_count != request->url_count ||
        strcmp(connection->profile, request->spec.profile) != 0) {
        return false;
    }
    for (size_t i = 0; i < request->url_count; i++) {
        if (strcmp(connection->urls[i], request->urls[i]) != 0) {
            return false;
        }
    }
    return true;
}

static void start_task(struct connection *connection, struct request *request,
                       struct message *message)
{
    struct server *server = connection->server;
    if (server->is_stopping) { /* as if it had left already: the client looks for another one */
        request_clear(request);
        connection_close(connection, "the daemon stops");
        return;
    }
    struct error error = {.kind = ERROR_NONE};
    if (request->op == REQUEST_ATTACH && connection->session != NULL) {
        error_set(&error, ERROR_PROTOCOL, "this connection has a session already: use another.");
    }
    struct task plan = {
        .request = *request,
        .subset_fd = -1,
        .remote = server->remote,
        .store = server->store,
        .catalogs = server->catalogs,
        .cache_folder = server->cache.path[0] != '\0' ? server->cache.path : NULL,
        .index_threads = INDEX_THREADS,
        .session_id = ++server->next_session_id,
        .bad_samples = server->bad_samples,
        .level_max = server->config->level_max,
        .bell_fd = server->bell.fd,
        .owner = connection,
    };
    if (has_data_of(connection, request)) {
        bool looks_anew = request->op == REQUEST_DATASET;
        struct index **index = looks_anew ? &plan.index_before : &plan.index;
        struct catalog **catalog = looks_anew ? &plan.catalog_before : &plan.catalog;
        *index = connection->index != NULL ? index_ref(connection->index) : NULL;
        *catalog = connection->catalog != NULL ? catalog_ref(connection->catalog) : NULL;
    }
    if (request->has_subset && message->fd_count > 0) {
        plan.subset_fd = message->fds[0];
        message->fds[0] = -1;
    }
    if (error.kind == ERROR_NONE) {
        connection->task = task_start(&plan);
        connection->progress_ns = clock_now_ns();
        connection->progress_shown = 0;
        if (connection->task != NULL) {
            return;
        }
        error_set(&error, ERROR_MEMORY, "no memory or thread for a request.");
    }
    if (plan.subset_fd >= 0) {
        close(plan.subset_fd);
    }
    index_unref(plan.index);
    index_unref(plan.index_before);
    catalog_unref(plan.catalog);
    catalog_unref(plan.catalog_before);
    request_clear(request);
    send_error(connection, &error);
}

static void finish_task(struct connection *connection)
{
    struct task *task = connection->task;
    connection->task = NULL;
    if (!connection->is_dead) {
        if (task->error.kind == ERROR_NONE && task->session != NULL) {
            begin_session(connection, task);
        }
        if (task->error.kind != ERROR_NONE) {
            send_error(connection, &task->error);
        } else {
            uint32_t fd_count = task->fds[0] < 0 ? 0 : task->fds[1] < 0 ? 1 : 2;
            send_reply(connection, task->reply, task->fds, fd_count);
            task->reply = NULL;
            if (task->request.op == REQUEST_CACHE) { /* names no source */
                task_destroy(task);
                return;
            }
            forget_data(connection);
            connection->index = task->index != NULL ? index_ref(task->index) : NULL;
            connection->catalog = task->catalog != NULL ? catalog_ref(task->catalog) : NULL;
            memcpy(connection->profile, task->request.spec.profile, sizeof connection->profile);
            connection->urls = task->request.urls;
            connection->url_count = task->request.url_count;
            task->request.urls = NULL;
            task->request.url_count = 0;
        }
    }
    task_destroy(task);
}

void connection_tend(struct connection *connection)
{
    struct task *task = connection->task;
    if (task == NULL) {
        return;
    }
    if (atomic_load(&task->is_done)) {
        finish_task(connection);
        return;
    }
    uint64_t done = atomic_load_explicit(&task->progress.done_count, memory_order_relaxed);
    uint64_t total = atomic_load_explicit(&task->progress.total_count, memory_order_relaxed);
    uint64_t now_ns = clock_now_ns();
    if (!connection->is_dead && done != connection->progress_shown &&
        now_ns - connection->progress_ns >= PROGRESS_INTERVAL_NS) {
        connection->progress_shown = done;
        connection->progress_ns = now_ns;
        send_reply(connection,
                   json_pack("{s:{s:s, s:I, s:I}}", "progress", "what",
                             total == 0 ? "listing" : "scanning", "done", (json_int_t)done, "total",
                             (json_int_t)total),
                   NULL, 0);
    }
}

/* ---- Receiving -------------------------------------------------------------------------- */

static void handle_message(struct connection *connection, struct message *message)
{
    struct request request;
    struct error error = {.kind = ERROR_NONE};
    if (request_parse(message->bytes, message->length_bytes, &request, &error) != 0) {
        send_error(connection, &error);
        return;
    }
    switch (request.op) {
    case REQUEST_DATASET:
    case REQUEST_PLAN:
    case REQUEST_ATTACH:
    case REQUEST_SAMPLE:
    case REQUEST_CACHE:
    case REQUEST_PRELOAD: start_task(connection, &request, message); return;
    case REQUEST_HELLO:
    case REQUEST_SEEK:
    case REQUEST_STATS:
    case REQUEST_STATUS:
    case REQUEST_ERRORS:
    case REQUEST_LOGS:
    case REQUEST_DOCTOR:
    case REQUEST_STOP: break;
    }
    json_t *reply = answer_request(connection, &request, &error);
    request_clear(&request);
    if (error.kind != ERROR_NONE) {
        json_decref(reply);
        send_error(connection, &error);
    } else {
        send_reply(connection, reply, NULL, 0);
    }
}

static void socket_ready(struct watch *watch, uint32_t events)
{
    struct connection *connection = watch->owner;
    if (events & EPOLLOUT) {
        flush(connection);
    }
    while (!connection->is_dead && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        struct message message;
        int status = message_receive(connection->reader, connection->socket.fd, &message);
        if (status == 0) {
            return;
        }
        if (status < 0) {
            connection_close(connection,
                             status == -ECONNRESET ? "the client hung up" : strerror(-status));
            return;
        }
        if (connection->task != NULL) {
            message_clear(&message);
            connection_close(connection, "a request came before the answer to the last one");
            return;
        }
        handle_message(connection, &message);
        message_clear(&message);
    }
}

/* ---- Life ------------------------------------------------------------------------------- */

static bool is_allowed(const struct server *server, const struct ucred *peer)
{
    if (peer->uid == geteuid() || peer->uid == 0) {
        return true;
    }
    for (size_t i = 0; i < server->config->allow_uid_count; i++) {
        if (server->config->allow_uids[i] == peer->uid) {
            return true;
        }
    }
    return false;
}

void connection_open(struct server *server, int fd)
{
    struct ucred peer = {0};
    socklen_t length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 ||
        !is_allowed(server, &peer) || server->connection_count >= SERVER_CONNECTIONS_MAX) {
        log_warn("client_refused", "uid=%u pid=%d connections=%u", (unsigned)peer.uid,
                 (int)peer.pid, server->connection_count);
        close(fd);
        return;
    }
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL) {
        close(fd);
        return;
    }
    connection->server = server;
    connection->peer = peer;
    connection->socket = (struct watch){fd, socket_ready, connection};
    connection->process = (struct watch){-1, process_ready, connection};
    connection->releases = (struct watch){-1, releases_ready, connection};
    connection->reader = message_reader_create();
    connection->writer = message_writer_create();
    connection->next = server->connections;
    server->connections = connection;
    server->connection_count++;
    if (connection->reader == NULL || connection->writer == NULL ||
        server_watch(server, &connection->socket, EPOLLIN) != 0) {
        connection_close(connection, "no memory for a client");
    }
}

void connection_close(struct connection *connection, const char *why)
{
    if (connection->is_dead) {
        return;
    }
    struct server *server = connection->server;
    connection->is_dead = true;
    end_session(connection, why);
    server_unwatch(server, &connection->socket);
    close(connection->socket.fd);
    if (connection->process.fd >= 0) {
        server_unwatch(server, &connection->process);
        close(connection->process.fd);
    }
    if (connection->task != NULL) {
        atomic_store(&connection->task->progress.is_cancelled, true);
    }
    if (--server->connection_count == 0) {
        server->idle_since_ns = clock_now_ns();
    }
    log_debug("client_gone", "pid=%d reason=\"%s\"", (int)connection->peer.pid, why);
}

void connection_sweep(struct server *server)
{
    struct connection **link = &server->connections;
    while (*link != NULL) {
        struct connection *connection = *link;
        if (!connection->is_dead || connection->task != NULL) {
            link = &connection->next;
            continue;
        }
        *link = connection->next;
        forget_data(connection);
        message_reader_destroy(connection->reader);
        message_writer_destroy(connection->writer);
        free(connection);
    }
}
