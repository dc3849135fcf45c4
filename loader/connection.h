/*
 * connection.h - one client: its socket, at most one request at a time, at most one session.
 *
 * Belongs to the control thread. A connection ends when its socket does or when the process that
 * attached does (pidfd), whichever comes first; its session goes with it.
 */
#ifndef PENSTOCK_LOADER_CONNECTION_H
#define PENSTOCK_LOADER_CONNECTION_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "ipc/message.h"
#include "loader/server.h"
#include "loader/task.h"

struct connection {
    struct server *server;
    struct watch socket, process, releases; /* fd -1: not there */
    struct ucred peer;
    struct message_reader *reader;
    struct message_writer *writer;
    struct task *task; /* the request that is under way, or NULL */
    uint64_t progress_shown;
    uint64_t progress_ns;
    struct session *session;
    struct index *index;     /* of the latest request that named a source; NULL: none, or ... */
    struct catalog *catalog; /* ... not all of its shards are known; ... */
    char **urls;             /* ... its urls ... */
    char profile[SESSION_PROFILE_BYTES]; /* ... and profile */
    size_t url_count;
    bool is_dead; /* closed; freed when its task is done */
    struct connection *next;
};

/* Take over an accepted socket; closes it if the client may not attach. */
void connection_open(struct server *server, int fd);
/* Close now; the struct lives until connection_sweep(). */
void connection_close(struct connection *connection, const char *why);
/* Look after tasks that are done or have progress to show. */
void connection_tend(struct connection *connection);
/* Free what is dead. Called between rounds of events. */
void connection_sweep(struct server *server);

#endif /* PENSTOCK_LOADER_CONNECTION_H */
