/*
 * store_port.h - the store as reader.c sees it: remote reads that do not block.
 *
 * A read handed in comes back through store_port_reap(). On the way the port may ask its owner for
 * local reads (of chunk files): store_port_take_local() gives one, the owner has it read and hands
 * it back to store_port_local_done().
 *
 * Threads: submit, take_local, local_done, reap and the waiting: one at a time; cancel: any. The
 * wake function is called under the store's lock, by any thread, only between wait_begin() and
 * wait_end(): it must not call back.
 */
#ifndef PENSTOCK_LOADER_CACHE_STORE_PORT_H
#define PENSTOCK_LOADER_CACHE_STORE_PORT_H

#include "loader/cache/store.h"
#include "loader/source.h"

struct store_port;

struct store_port *store_port_create(struct store *store, void (*wake)(void *context),
                                     void *context); /* NULL: no memory */
void store_port_destroy(struct store_port *port);    /* no read is in flight */

/* A request with a tag. It is the port's until it is reaped. */
void store_port_submit(struct store_port *port, struct read_request *request);

/* The next local read to be made, with `file` set, or NULL. May open a file. */
struct read_request *store_port_take_local(struct store_port *port);
void store_port_local_done(struct store_port *port, struct read_request *local);

/* Finished reads, at most max. */
size_t store_port_reap(struct store_port *port, struct read_request **done, size_t max);

/* Before its owner sleeps: false when there is something to take or reap. */
bool store_port_wait_begin(struct store_port *port);
void store_port_wait_end(struct store_port *port);

/* The request comes back soon, with ECANCELED unless it is served already. */
void store_port_cancel(struct store_port *port, struct read_request *request);

#endif /* PENSTOCK_LOADER_CACHE_STORE_PORT_H */
