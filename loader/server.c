#include "loader/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "loader/clock.h"
#include "loader/connection.h"
#include "loader/http.h"
#include "loader/log.h"

enum { EVENTS_MAX = 64, TICK_MS = 1000, TASK_TICK_MS = 100, DRAIN_TICK_MS = 10, BACKLOG = 512 };

/* ---- The epoll set ---------------------------------------------------------------------- */

int server_watch(struct server *server, struct watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event);
}

void server_watch_change(struct server *server, struct watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    epoll_ctl(server->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event);
}

void server_unwatch(struct server *server, struct watch *watch)
{
    epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
}

static void listener_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    for (;;) {
        int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) {
                log_warn("accept_failed", "error=\"%s\"", strerror(errno));
                usleep(10000);
            }
            return;
        }
        connection_open(watch->owner, fd);
    }
}

static void bell_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    uint64_t count;
    ssize_t got = read(watch->fd, &count, sizeof count);
    (void)got; /* what the bell is about is looked for in every round */
}

static void signals_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    struct server *server = watch->owner;
    struct signalfd_siginfo info;
    while (read(watch->fd, &info, sizeof info) == sizeof info) {
        log_info("signal", "number=%u from_pid=%u", info.ssi_signo, info.ssi_pid);
        server->is_in_haste = server->is_stopping; /* asked twice */
        server->is_stopping = true;
    }
}

/* ---- Life ------------------------------------------------------------------------------- */

static int open_events(struct server *server, int listen_fd)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL); /* before any thread is made */
    signal(SIGPIPE, SIG_IGN);
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    server->listener = (struct watch){listen_fd, listener_ready, server};
    server->bell = (struct watch){eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), bell_ready, server};
    server->signals =
        (struct watch){signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK), signals_ready, server};
    /* Listen again, as a private daemon has forked meanwhile: what clients see as the socket's peer
     * (SO_PEERCRED) is the process that did so last, and has to be one that lives. */
    if (server->epoll_fd < 0 || listen(listen_fd, BACKLOG) != 0 ||
        server_watch(server, &server->listener, EPOLLIN) != 0 ||
        server_watch(server, &server->bell, EPOLLIN) != 0 ||
        server_watch(server, &server->signals, EPOLLIN) != 0) {
        return -1;
    }
    return 0;
}

static const char *text_or_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

/* What remote data sets need. A daemon that cannot have it still serves local ones. */
static void open_store(struct server *server)
{
    const struct config *config = server->config;
    struct error error = {.kind = ERROR_NONE};
    struct remote_options remote = {
        .connections_max = config->connections,
        .endpoint = text_or_null(config->s3_endpoint),
        .region = text_or_null(config->s3_region),
        .addressing = text_or_null(config->s3_addressing),
        .ca_file = text_or_null(config->ca_file),
        .anonymous = config->s3_anonymous,
        .requester_pays = config->s3_requester_pays,
    };
    server->remote = remote_create(&remote, &error);
    if (server->remote != NULL) {
        struct store_options options = {
            .folder = server->cache.path,
            .disk_limit_bytes = config->cache_limit_bytes,
            .free_floor_bytes = config->cache_free_bytes,
            .memory_limit_bytes = config->cache_memory_bytes,
            .remote = server->remote,
        };
        server->store = store_create(&options, &error);
    }
    if (server->store == NULL) {
        char text[ERROR_TEXT_BYTES];
        log_warn("remote_unavailable", "error=%s", log_quote(error.text, text, sizeof text));
        remote_destroy(server->remote);
        server->remote = NULL;
    }
}

static void on_catalog_change(void *context)
{
    pipeline_wake(context);
}

int server_init(struct server *server, const struct config *config, int listen_fd,
                struct error *error)
{
    memset(server, 0, sizeof *server);
    server->config = config;
    server->started_ns = clock_now_ns();
    server->idle_since_ns = server->started_ns;
    struct stat status;
    server->socket_inode = lstat(config->socket, &status) == 0 ? status.st_ino : 0;
    cache_folder_choose(config->cache, &server->cache);
    if (open_events(server, listen_fd) != 0) {
        return error_set(error, ERROR_INTERNAL, "epoll, eventfd or signalfd: %s.", strerror(errno));
    }
    open_store(server);
    struct pipeline_options options = {.threads = config->threads,
                                       .engine = config->engine,
                                       .level_max = config->level_max,
                                       .store = server->store};
    server->bad_samples = bad_samples_create();
    server->pipeline = pipeline_create(&options, error);
    if (server->bad_samples == NULL || server->pipeline == NULL) {
        return error_set(error, ERROR_MEMORY, "no memory for the daemon.");
    }
    if (server->store != NULL) {
        struct catalogs_options catalogs = {
            .store = server->store,
            .cache_folder = server->cache.path[0] != '\0' ? server->cache.path : NULL,
            .on_change = on_catalog_change,
            .context = server->pipeline,
        };
        server->catalogs = catalogs_create(&catalogs);
        if (server->catalogs == NULL) {
            return error_set(error, ERROR_MEMORY, "no memory for the daemon.");
        }
    }
    if (config->http[0] != '\0') {
        return http_open(server, config->http, &server->http, error);
    }
    return 0;
}

/* A private daemon that nobody uses leaves, unless a client holds the lock: then one is coming. */
static bool may_leave(struct server *server)
{
    const struct config *config = server->config;
    if (!config->is_private || server->connections != NULL ||
        clock_now_ns() - server->idle_since_ns < (uint64_t)config->linger_seconds * 1000000000u) {
        return false;
    }
    char path[sizeof config->socket + 8];
    snprintf(path, sizeof path, "%s", config->socket);
    char *suffix = strrchr(path, '.');
    if (suffix == NULL || strcmp(suffix, ".sock") != 0) {
        return true;
    }
    memcpy(suffix, ".lock", sizeof ".lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return false;
    }
    listener_ready(&server->listener, EPOLLIN); /* one who came before we had the lock */
    bool is_alone = server->connections == NULL;
    if (is_alone) {
        server_unlink_socket(server);
        log_info("leaving", "reason=\"no client for %u s\"", config->linger_seconds);
    }
    if (fd >= 0) {
        close(fd); /* gives the lock back */
    }
    return is_alone;
}

static void note_busy(struct server *server, uint64_t now_ns)
{
    struct pipeline_stats stats = pipeline_stats(server->pipeline);
    double span = (double)(now_ns - server->busy_at_ns) * stats.thread_count;
    server->busy_ratio = span > 0 ? (double)(stats.busy_ns - server->busy_ns) / span : 0;
    server->busy_at_ns = now_ns;
    server->busy_ns = stats.busy_ns;
}

/* What is to be done every second, whatever happens. */
static void tend_by_time(struct server *server)
{
    uint64_t now_ns = clock_now_ns();
    if (now_ns - server->busy_at_ns >= 1000000000u) {
        note_busy(server, now_ns);
        pipeline_note_time(server->pipeline);
        http_tend(server->http);
    }
}

/* Wait at most `tick_ms` for events, and look after everything once. */
static void serve_round(struct server *server, int tick_ms)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(server->epoll_fd, events, EVENTS_MAX, tick_ms);
    for (int i = 0; i < count; i++) {
        struct watch *watch = events[i].data.ptr;
        if (watch->fd >= 0) {
            watch->ready(watch, events[i].events);
        }
    }
    for (struct connection *c = server->connections; c != NULL; c = c->next) {
        connection_tend(c);
    }
    connection_sweep(server);
    tend_by_time(server);
}

static bool has_tasks(const struct server *server)
{
    bool any = false;
    for (const struct connection *c = server->connections; c != NULL; c = c->next) {
        any = any || c->task != NULL;
    }
    return any;
}

void server_run(struct server *server)
{
    while (!server->is_stopping) {
        serve_round(server, has_tasks(server) ? TASK_TICK_MS : TICK_MS);
        if (may_leave(server)) {
            return;
        }
    }
}

static bool is_drained(const struct server *server)
{
    return pipeline_is_drained(server->pipeline) && !has_tasks(server);
}

bool server_drain(struct server *server)
{
    server->is_stopping = true;
    server_unwatch(server, &server->listener);
    close(server->listener.fd);
    server->listener.fd = -1;
    pipeline_drain(server->pipeline);
    for (struct connection *c = server->connections; c != NULL; c = c->next) {
        if (c->task != NULL) {
            connection_close(c, "the daemon stops"); /* the task sees that it is cancelled */
        }
    }
    uint64_t deadline_ns = clock_now_ns() + (uint64_t)SERVER_DRAIN_SECONDS_MAX * 1000000000u;
    while (!is_drained(server) && !server->is_in_haste && clock_now_ns() < deadline_ns) {
        serve_round(server, DRAIN_TICK_MS);
    }
    return is_drained(server);
}

void server_deinit(struct server *server)
{
    for (struct connection *c = server->connections; c != NULL; c = c->next) {
        connection_close(c, "the daemon stops");
        if (c->task != NULL) {
            task_destroy(c->task);
            c->task = NULL;
        }
    }
    connection_sweep(server);
    http_close(server, &server->http);
    catalogs_stop(server->catalogs);
    pipeline_destroy(server->pipeline);
    catalogs_destroy(server->catalogs);
    store_destroy(server->store);
    remote_destroy(server->remote);
    bad_samples_destroy(server->bad_samples);
    close(server->bell.fd);
    close(server->signals.fd);
    close(server->epoll_fd);
}

/* ---- The socket ------------------------------------------------------------------------- */

/* Make the socket's folder if it is missing; it must be ours and closed to others. */
static int open_folder(const struct config *config, struct error *error)
{
    char folder[sizeof config->socket];
    snprintf(folder, sizeof folder, "%s", config->socket);
    char *slash = strrchr(folder, '/');
    if (slash == NULL || slash == folder) {
        return error_set(error, ERROR_USAGE, "--socket: \"%s\" must be a path with a folder.",
                         config->socket);
    }
    *slash = '\0';
    if (mkdir(folder, config->allow_uid_count > 0 ? 0755 : 0700) != 0 && errno != EEXIST) {
        return error_set(error, ERROR_USAGE, "cannot make the folder %s of the socket: %s.", folder,
                         strerror(errno));
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return error_set(error, ERROR_USAGE, "cannot open the folder %s of the socket: %s.", folder,
                         strerror(errno));
    }
    return fd;
}

static bool is_answered(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_live = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return is_live;
}

static int bind_socket(const struct config *config, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, config->socket, sizeof address.sun_path);
    if (is_answered(&address)) {
        return error_set(error, ERROR_STATE,
                         "a daemon already serves %s. Use it, stop it (`penstock stop --address "
                         "%s`), or give another --socket.",
                         config->socket, config->socket);
    }
    unlink(config->socket); /* what a crash left */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(config->allow_uid_count > 0 ? 0 : 0177);
    int status = fd < 0 ? -1 : bind(fd, (const struct sockaddr *)&address, sizeof address);
    umask(mask);
    if (status != 0 || listen(fd, BACKLOG) != 0) {
        error_set(error, ERROR_IO, "cannot listen on %s: %s.", config->socket, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

int server_listen(const struct config *config, struct error *error)
{
    int folder_fd = open_folder(config, error);
    if (folder_fd < 0) {
        return -1;
    }
    flock(folder_fd, LOCK_EX); /* two daemons that start at once take turns */
    int fd = bind_socket(config, error);
    close(folder_fd);
    return fd;
}

void server_unlink_socket(const struct server *server)
{
    struct stat status;
    if (lstat(server->config->socket, &status) == 0 && status.st_ino == server->socket_inode) {
        unlink(server->config->socket);
    }
}
