/*
 * answers.h - requests that are answered at once from what the daemon knows.
 */
#ifndef PENSTOCK_LOADER_ANSWERS_H
#define PENSTOCK_LOADER_ANSWERS_H

#include <jansson.h>

#include "loader/connection.h"
#include "loader/request.h"

/* hello, seek, stats, status, errors, logs, doctor, stop. A new reference; NULL and *error. */
json_t *answer_request(struct connection *connection, const struct request *request,
                       struct error *error);

#endif /* PENSTOCK_LOADER_ANSWERS_H */
