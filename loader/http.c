#include "loader/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loader/exposition.h"
#include "loader/log.h"

enum { HTTP_CONNECTIONS_MAX = 64, HTTP_TIMEOUT_SECONDS = 5, HTTP_ROUNDS_MAX = 64 };

struct http {
    struct server *server;
    struct MHD_Daemon *daemon;
    struct watch watch;
};

/* ---- Answers ---------------------------------------------------------------------------- */

/* `text` is freed by libmicrohttpd; NULL: out of memory. */
static enum MHD_Result send_text(struct MHD_Connection *connection, unsigned status,
                                 const char *type, char *text)
{
    if (text == NULL) {
        return MHD_NO;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, "Content-Security-Policy",
                            "default-src 'none'; style-src 'unsafe-inline'");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_bytes, void **request)
{
    (void)version, (void)upload, (void)upload_bytes, (void)request;
    static const char plain[] = "text/plain; charset=utf-8";
    const struct http *http = context;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        return send_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, plain, strdup("GET only\n"));
    }
    if (strcmp(url, "/metrics") == 0) {
        return send_text(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8",
                         exposition_metrics(http->server));
    }
    if (strcmp(url, "/") == 0) {
        return send_text(connection, MHD_HTTP_OK, "text/html; charset=utf-8",
                         exposition_page(http->server));
    }
    if (strcmp(url, "/healthz") == 0) {
        return send_text(connection, MHD_HTTP_OK, plain, strdup("ok\n"));
    }
    if (strcmp(url, "/readyz") == 0) {
        bool is_ready = !http->server->is_stopping;
        return send_text(connection, is_ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, plain,
                         strdup(is_ready ? "ready\n" : "stopping\n"));
    }
    return send_text(connection, MHD_HTTP_NOT_FOUND, plain,
                     strdup("not found; there are /, /metrics, /healthz and /readyz\n"));
}

/* libmicrohttpd looks at its sockets edge-triggered: what it has left over for another round comes
 * with no event, it has to be asked for. The rounds are bounded so that nobody who sends without
 * end holds up the control thread; the next tick goes on. */
void http_tend(struct http *http)
{
    if (http == NULL) {
        return;
    }
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;
    int rounds = 0;
    do {
        MHD_run(http->daemon);
    } while (++rounds < HTTP_ROUNDS_MAX && MHD_get_timeout(http->daemon, &wait_ms) == MHD_YES &&
             wait_ms == 0);
}

static void http_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    http_tend(watch->owner);
}

/* ---- Life ------------------------------------------------------------------------------- */

/* "HOST:PORT" taken apart; brackets around an IPv6 host go. */
static int split_address(const char *address, char *host, size_t host_bytes, const char **port,
                         struct error *error)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon == address || colon[1] == '\0' ||
        (size_t)(colon - address) >= host_bytes) {
        return error_set(error, ERROR_USAGE,
                         "--http: \"%s\" is not HOST:PORT, for instance 127.0.0.1:9470.", address);
    }
    size_t length = (size_t)(colon - address);
    if (address[0] == '[' && address[length - 1] == ']') {
        address++;
        length -= 2;
    }
    memcpy(host, address, length);
    host[length] = '\0';
    *port = colon + 1;
    return 0;
}

static int listen_on(const char *address, struct error *error)
{
    char host[128];
    const char *port = NULL;
    if (split_address(address, host, sizeof host, &port, error) != 0) {
        return -1;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    int status = getaddrinfo(host, port, &hints, &found);
    if (status != 0) {
        return error_set(error, ERROR_USAGE, "--http: \"%s\": %s.", address, gai_strerror(status));
    }
    int one = 1;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 64) != 0) {
        error_set(error, ERROR_USAGE, "--http: cannot listen on %s: %s. Give another port.",
                  address, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

int http_open(struct server *server, const char *address, struct http **result, struct error *error)
{
    int fd = listen_on(address, error);
    if (fd < 0) {
        return -1;
    }
    struct http *http = calloc(1, sizeof *http);
    if (http != NULL) {
        http->server = server;
        http->daemon =
            MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, answer, http, MHD_OPTION_LISTEN_SOCKET,
                             fd, MHD_OPTION_CONNECTION_LIMIT, HTTP_CONNECTIONS_MAX,
                             MHD_OPTION_CONNECTION_TIMEOUT, HTTP_TIMEOUT_SECONDS, MHD_OPTION_END);
    }
    if (http == NULL || http->daemon == NULL) {
        free(http);
        close(fd);
        return error_set(error, ERROR_INTERNAL, "--http: the HTTP server cannot be started.");
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    http->watch = (struct watch){info->epoll_fd, http_ready, http};
    if (server_watch(server, &http->watch, EPOLLIN) != 0) {
        MHD_stop_daemon(http->daemon);
        free(http);
        return error_set(error, ERROR_INTERNAL, "--http: epoll: %s.", strerror(errno));
    }
    log_info("http_open", "address=%s", address);
    *result = http;
    return 0;
}

void http_close(struct server *server, struct http **http)
{
    if (*http != NULL) {
        server_unwatch(server, &(*http)->watch);
        MHD_stop_daemon((*http)->daemon);
        free(*http);
        *http = NULL;
    }
}
