/*
 * server.h - the daemon's root: the control socket, its clients, and the loop that serves them.
 *
 * One thread (control) runs the loop and owns everything here; decoding happens in the pipeline's
 * threads, slow requests in tasks. Events come from one epoll set, each through a watch.
 */
#ifndef PENSTOCK_LOADER_SERVER_H
#define PENSTOCK_LOADER_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "loader/bad_samples.h"
#include "loader/cache/store.h"
#include "loader/cache_folder.h"
#include "loader/catalog.h"
#include "loader/config.h"
#include "loader/error.h"
#include "loader/pipeline.h"

/* Something that epoll looks at; `ready` is called with the events. */
struct watch {
    int fd;
    void (*ready)(struct watch *watch, uint32_t events);
    void *owner;
};

struct connection;

struct server {
    const struct config *config;
    struct pipeline *pipeline;
    struct remote *remote;     /* NULL: it could not be made; the log says why */
    struct store *store;       /* of remote objects; NULL without remote */
    struct catalogs *catalogs; /* of remote tars; NULL without remote */
    struct bad_samples *bad_samples;
    struct cache_folder cache;
    int epoll_fd;
    struct watch listener, bell, signals;
    struct http *http; /* NULL: not served */
    struct connection *connections;
    uint32_t connection_count;
    ino_t socket_inode;
    uint64_t next_session_id;
    uint64_t started_ns;
    uint64_t idle_since_ns; /* no clients since then */
    bool is_stopping;
    bool is_in_haste; /* ... and waits for nothing */
    /* Share of the pool's time spent decoding, over the last seconds. */
    uint64_t busy_at_ns, busy_ns;
    double busy_ratio;
};

enum { SERVER_CONNECTIONS_MAX = 4096, SERVER_DRAIN_SECONDS_MAX = 10 };

/* Take the listening socket and make the parts. 0, or -1 and *error. */
int server_init(struct server *server, const struct config *config, int listen_fd,
                struct error *error);
/* Serve until a signal, a stop request, or (private) until nobody is left. */
void server_run(struct server *server);
/* Take no more clients, start no more reads, and answer those that are there until what is under
 * way has ended: at most SERVER_DRAIN_SECONDS_MAX, or until it is hurried on (a second signal, or
 * a stop request without `drain`). False when reads or requests are still under way: then the
 * process has to end without server_deinit(), which would wait for them. */
bool server_drain(struct server *server);
/* End sessions and free everything; the listening socket is closed. Waits for what is under way. */
void server_deinit(struct server *server);

/* For connection.c: watch->fd is put into, or taken out of, the epoll set. */
int server_watch(struct server *server, struct watch *watch, uint32_t events);
void server_watch_change(struct server *server, struct watch *watch, uint32_t events);
void server_unwatch(struct server *server, struct watch *watch); /* does not close */

/* Bind and listen on config->socket: makes its folder (0700), refuses if another daemon answers
 * there, replaces what a crash left. The descriptor, or -1 and *error. */
int server_listen(const struct config *config, struct error *error);
/* Remove the socket's file if it is still the one that was there at server_init(). */
void server_unlink_socket(const struct server *server);

#endif /* PENSTOCK_LOADER_SERVER_H */
