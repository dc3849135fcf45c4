/*
 * task_cache.h - requests about the cache of remote objects, on a task's thread.
 */
#ifndef PENSTOCK_LOADER_TASK_CACHE_H
#define PENSTOCK_LOADER_TASK_CACHE_H

#include "loader/task.h"

/* Its figures. Sets the task's reply or error. */
void task_run_cache(struct task *task);
/* Fetch a remote data set, whose index or catalog the task has, into the cache. */
void task_run_preload(struct task *task);

#endif /* PENSTOCK_LOADER_TASK_CACHE_H */
