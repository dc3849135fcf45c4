/*
 * penstockd - the Penstock daemon: reads its configuration, takes its socket, goes into the
 * background when it is private, serves, and tears down in reverse.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "loader/config.h"
#include "loader/log.h"
#include "loader/server.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* Tell systemd (Type=notify) a state such as "READY=1"; without systemd nothing. The protocol is
 * one datagram to $NOTIFY_SOCKET, see sd_notify(3). */
static void notify_systemd(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || strlen(path) >= sizeof address.sun_path || path[0] == '\0') {
        return;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (address.sun_path[0] == '@') {
        address.sun_path[0] = '\0'; /* the abstract name space */
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address, length);
        close(fd);
    }
}

static int fail(const struct error *error)
{
    fprintf(stderr, "penstockd: %s\n", error->text);
    return error->kind == ERROR_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

/* The child's word to the parent that waits in the foreground: "" when ready, else why not. */
static void tell_parent(int pipe_fd, const char *text)
{
    if (pipe_fd >= 0) {
        ssize_t written = write(pipe_fd, text, strlen(text) + 1);
        (void)written; /* a parent that was killed needs no answer */
        close(pipe_fd);
    }
}

/* In the parent: wait for the child's word and make it the exit status. */
static int await_child(int pipe_fd)
{
    char text[ERROR_TEXT_BYTES] = "";
    size_t used = 0;
    ssize_t got;
    while (used < sizeof text - 1 &&
           (got = read(pipe_fd, text + used, sizeof text - 1 - used)) > 0) {
        used += (size_t)got;
    }
    if (used == 0) {
        fprintf(stderr, "penstockd: it ended while it was starting; see its log.\n");
        return EXIT_FAILED;
    }
    if (text[0] != '\0') {
        fprintf(stderr, "penstockd: %s\n", text);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

/* Leave the terminal and the starter's session. In the child *pipe_fd is where to say that it is
 * ready; the parent never returns. */
static int go_into_background(int *pipe_fd, struct error *error)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return error_set(error, ERROR_INTERNAL, "pipe: %s.", strerror(errno));
    }
    pid_t pid = fork();
    if (pid < 0) {
        return error_set(error, ERROR_MEMORY, "fork: %s.", strerror(errno));
    }
    if (pid > 0) {
        close(ends[1]);
        _exit(await_child(ends[0]));
    }
    close(ends[0]);
    setsid();
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= 2 && null_fd >= 0; fd++) {
        dup2(null_fd, fd);
    }
    if (null_fd > 2) {
        close(null_fd);
    }
    if (chdir("/") != 0) {
        log_warn("chdir", "error=\"%s\"", strerror(errno));
    }
    *pipe_fd = ends[1];
    return 0;
}

/* As many open files as are allowed: every session takes three, every shard one. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void log_start(const struct server *server)
{
    struct pipeline_stats stats = pipeline_stats(server->pipeline);
    char socket_path[256];
    char cache[1200];
    char reason[600];
    log_info("started",
             "version=%s pid=%d socket=%s private=%d io=%s io_reason=%s kernels=%s cache=%s "
             "cache_limit_bytes=%llu cache_reason=\"%s\"",
             PENSTOCK_VERSION, (int)getpid(),
             log_quote(server->config->socket, socket_path, sizeof socket_path),
             server->config->is_private, stats.engine == SOURCE_URING ? "io_uring" : "pread",
             log_quote(stats.engine_reason, reason, sizeof reason), kernel_level_name(stats.level),
             log_quote(server->cache.path, cache, sizeof cache),
             (unsigned long long)server->cache.limit_bytes, server->cache.reason);
}

/* Everything after the socket is ours. */
static int serve(const struct config *config, int listen_fd, int pipe_fd)
{
    static struct server server; /* the daemon's root */
    struct error error = {.kind = ERROR_NONE};
    int status = server_init(&server, config, listen_fd, &error);
    if (status != 0) {
        tell_parent(pipe_fd, error.text);
        server_unlink_socket(&server);
        return fail(&error);
    }
    log_start(&server);
    notify_systemd("READY=1");
    tell_parent(pipe_fd, "");
    server_run(&server);
    notify_systemd("STOPPING=1");
    server_unlink_socket(&server);
    if (!server_drain(&server)) {
        log_warn("stopped", "pid=%d reason=\"reads are left under way\"", (int)getpid());
        _exit(EXIT_DONE); /* a read that hangs would hold up an orderly end */
    }
    server_deinit(&server);
    log_info("stopped", "pid=%d", (int)getpid());
    return EXIT_DONE;
}

int main(int argc, char **argv)
{
    static struct config config;
    struct error error = {.kind = ERROR_NONE};
    switch (config_load(argc, argv, &config, &error)) {
    case CONFIG_DONE: return EXIT_DONE;
    case CONFIG_BAD: return fail(&error);
    case CONFIG_RUN: break;
    }
    raise_file_limit();
    int status = log_open(config.log_file[0] != '\0' ? config.log_file : NULL, config.log_level);
    if (status != 0) {
        error_set(&error, ERROR_USAGE, "cannot write the log file %s: %s.", config.log_file,
                  strerror(-status));
        return fail(&error);
    }
    int listen_fd = server_listen(&config, &error);
    if (listen_fd < 0) {
        return fail(&error);
    }
    int pipe_fd = -1;
    if (config.is_private && !config.foreground && go_into_background(&pipe_fd, &error) != 0) {
        unlink(config.socket);
        return fail(&error);
    }
    return serve(&config, listen_fd, pipe_fd);
}
