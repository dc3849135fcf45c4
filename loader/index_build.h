/*
 * index_build.h - lists a folder or scans tar shards into a draft. What index_open() calls when no
 * stored index fits; everything here blocks, uses thread_count threads and can be cancelled.
 */
#ifndef PENSTOCK_LOADER_INDEX_BUILD_H
#define PENSTOCK_LOADER_INDEX_BUILD_H

#include <stdint.h>
#include <time.h>

#include "loader/dataset.h"
#include "loader/error.h"
#include "loader/index.h"
#include "loader/index_draft.h"

/* Nanoseconds; times that 64 bits cannot hold wrap, which is enough to tell two apart. */
int64_t index_build_time_ns(const struct timespec *time);

/* The modification time to store for something whose reading starts now (CLOCK_REALTIME), or
 * INDEX_MTIME_RACY. */
int64_t index_build_mtime_ns(const struct timespec *mtime, const struct timespec *now);

/* An initialised draft is filled; on -1 the caller clears it. progress may be NULL. */
int index_build_folder(const struct dataset *dataset, uint32_t thread_count,
                       struct index_progress *progress, struct index_draft *draft,
                       struct error *error);

/* *warning (may be NULL) tells of shards without an end of archive. */
int index_build_tar(const struct dataset *dataset, uint32_t thread_count,
                    struct index_progress *progress, struct index_draft *draft, char *warning,
                    struct error *error);

/* A remote prefix, whose listing is all that is needed: at once. */
int index_build_prefix(const struct dataset *dataset, struct index_draft *draft,
                       struct error *error);

/* Helpers of all. */
bool index_build_is_cancelled(const struct index_progress *progress);
void index_build_advance(struct index_progress *progress, uint64_t count);
int index_build_cancelled(struct error *error);
int index_build_no_memory(struct error *error);

/* Run work(argument) on thread_count threads, this one among them, until all have returned. Fewer
 * threads run if the system gives no more. */
void index_build_run(uint32_t thread_count, void *(*work)(void *), void *argument);

#endif /* PENSTOCK_LOADER_INDEX_BUILD_H */
