/*
 * reply.h - answers as JSON. Every function returns a new reference, or NULL without memory.
 */
#ifndef PENSTOCK_LOADER_REPLY_H
#define PENSTOCK_LOADER_REPLY_H

#include <jansson.h>

#include "loader/error.h"
#include "loader/index.h"
#include "loader/pipeline.h"
#include "loader/session.h"

json_t *reply_error(const struct error *error);
struct catalog;
/* A number, or null for UINT64_MAX: unknown. */
json_t *reply_count(uint64_t count);
/* A data set of which some shards may be unknown. */
json_t *reply_catalog(const struct catalog *catalog);
json_t *reply_dataset(const struct index *index, bool was_built, const char *warning,
                      const char *index_path);
/* sample_count UINT64_MAX: unknown. */
json_t *reply_plan(uint64_t sample_count, const struct plan_cut *cut, uint32_t rank);
/* What the trainer must know of the ring; `session` is not in the pipeline yet. */
json_t *reply_attach(struct session *session);
json_t *reply_stats(const struct pipeline_session_stats *stats, const struct pipeline_stats *pool);
/* One of "trainer", "decode", "read": what the session's rate hangs on. */
const char *reply_limit(const struct pipeline_session_stats *stats,
                        const struct pipeline_stats *pool);
/* The same as a sentence for people. */
const char *reply_verdict(const struct pipeline_session_stats *stats,
                          const struct pipeline_stats *pool);
const char *reply_dtype_name(enum pack_dtype dtype);

#endif /* PENSTOCK_LOADER_REPLY_H */
