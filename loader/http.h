/*
 * http.h - what the daemon shows over HTTP: /metrics (Prometheus text), /healthz, /readyz, and a
 * status page at /.
 *
 * Read-only and without secrets; off unless --http is given; meant for loopback or a private
 * network. Runs in the control thread (libmicrohttpd's epoll descriptor is one of its watches).
 */
#ifndef PENSTOCK_LOADER_HTTP_H
#define PENSTOCK_LOADER_HTTP_H

#include "loader/error.h"
#include "loader/server.h"

struct http;

/* Listen on "HOST:PORT" (HOST an address or a name; "[::1]:9470" for IPv6). 0, or -1 and *error.
 */
int http_open(struct server *server, const char *address, struct http **http, struct error *error);
/* Go on with what is under way and end connections that idle. To be called every second or so;
 * NULL is accepted. */
void http_tend(struct http *http);
void http_close(struct server *server, struct http **http);

#endif /* PENSTOCK_LOADER_HTTP_H */
