/*
 * exposition.h - the daemon's figures as text: Prometheus' format and a page for people.
 *
 * Names carry the prefix penstock_ and base units; jobs and ranks are labels, sample and session
 * ids never.
 */
#ifndef PENSTOCK_LOADER_EXPOSITION_H
#define PENSTOCK_LOADER_EXPOSITION_H

#include "loader/server.h"

/* New NUL-terminated texts to be freed, or NULL without memory. Control thread. */
char *exposition_metrics(const struct server *server);
char *exposition_page(const struct server *server);

#endif /* PENSTOCK_LOADER_EXPOSITION_H */
