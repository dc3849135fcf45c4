/*
 * task.h - requests that may take long, each on a thread of its own: dataset, plan, attach and
 * sample open an index, which can mean listing a million files.
 *
 * The control thread starts a task, shows its progress, and takes the outcome when the task has
 * rung the bell (a byte on an eventfd). A task touches nothing of the daemon but its own request.
 */
#ifndef PENSTOCK_LOADER_TASK_H
#define PENSTOCK_LOADER_TASK_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "loader/bad_samples.h"
#include "loader/index.h"
#include "loader/request.h"
#include "loader/session.h"

enum { TASK_FDS_MAX = 2 };

struct catalog;
struct catalogs;

struct task {
    /* Set by the control thread; owned by the task until it is done. */
    struct request request;
    int subset_fd;           /* or -1 */
    struct index *index;     /* of an earlier request for the same urls on this connection, or NULL;
                                afterwards the index that was used */
    struct catalog *catalog; /* the same, of remote tars whose index was not known; the index is
                                then NULL or was completed since */
    struct index *index_before; /* dataset: what an earlier request for the same urls found, so that
                                   the answer can name what has changed since; or NULL */
    struct catalog *catalog_before;
    struct remote *remote; /* borrowed, like the next three; NULL: no remote data */
    struct store *store;
    struct catalogs *catalogs;
    const char *cache_folder; /* NULL: none */
    uint32_t index_threads;
    uint64_t session_id;
    struct bad_samples *bad_samples;
    enum kernel_level level_max;
    int bell_fd;
    void *owner;

    /* Shown while it runs. */
    struct index_progress progress;

    /* The outcome; valid when is_done. */
    _Atomic bool is_done;
    struct error error; /* kind ERROR_NONE: it went well */
    json_t *reply;
    int fds[TASK_FDS_MAX];   /* to be sent with the reply and then closed; -1: none */
    struct session *session; /* attach: not yet in the pipeline */

    struct task *next;
};

/* Takes over *request. NULL when memory or threads are short. */
struct task *task_start(const struct task *template_task);
/* After is_done, or to abandon a task that still runs (waits until it notices). */
void task_destroy(struct task *task);

#endif /* PENSTOCK_LOADER_TASK_H */
