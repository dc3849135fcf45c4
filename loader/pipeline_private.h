/*
 * pipeline_private.h - the inside of the pipeline, for pipeline.c (threads, sessions, life) and
 * pipeline_work.c (what a thread does) only. Everything here wants the pipeline's lock.
 */
#ifndef PENSTOCK_LOADER_PIPELINE_PRIVATE_H
#define PENSTOCK_LOADER_PIPELINE_PRIVATE_H

#include <pthread.h>

#include "decode/decoder.h"
#include "loader/pipeline.h"

enum {
    WORK_COUNT = 2 * PIPELINE_READ_AHEAD_MAX + PIPELINE_THREADS_MAX,
    READ_BATCH_MAX = 16, /* reads started or collected at a time */
    READ_AHEAD_MIN = 8,
    KEPT_BUFFER_BYTES = 1 << 20, /* larger read buffers are given back at once */
    READ_WAIT_MS = 1000,
    SLICE_NS = 30000000,
};

/* A job's share of the pool: its sessions are its ranks. */
struct share {
    char job[SESSION_JOB_BYTES];
    double weight;
    double used; /* samples made, divided by weight */
    uint32_t session_count;
    struct share *next;
};

struct pipeline_thread {
    struct pipeline *pipeline;
    pthread_t id;
    uint32_t index;
    bool is_running;
    struct decoder *decoder;
};

struct pipeline {
    struct pipeline_options options;
    struct reader *reader; /* owned by the thread that set is_reading */

    pthread_mutex_t lock; /* guards everything below and the inside of every session */
    pthread_cond_t work_ready;
    struct session *sessions;
    struct share *shares;
    struct work *free_work;  /* linked */
    struct work *retry_work; /* linked: reads to be started (again) */
    uint32_t waiting_count;  /* threads in pthread_cond_wait */
    uint32_t reads_in_flight;
    uint32_t read_ahead; /* samples planned and not yet being decoded, wished for */
    uint32_t read_ahead_max;
    bool is_reading;      /* a thread has the reader */
    bool is_read_waiting; /* ... and sleeps in it */
    bool is_draining;     /* no more reads are started */
    bool is_stopping;
    uint32_t thread_target;
    cpu_set_t cpus;
    struct pipeline_thread threads[PIPELINE_THREADS_MAX];
    struct work *works; /* the pool itself */
    struct pipeline_stats stats;
};

/* ---- pipeline_work.c */

/* Look for something to do and do it, or sleep until there may be something. */
void pipeline_run_once(struct pipeline *pipeline, struct pipeline_thread *thread);
/* A read that came back from the reader. */
void pipeline_accept_read(struct pipeline *pipeline, struct read_request *request);
/* Work that belongs to no session any more goes back to the pool. */
void pipeline_free_work(struct pipeline *pipeline, struct work *work);
/* Drop the work of a closing session that waits for its turn. */
void pipeline_drop_waiting(struct pipeline *pipeline, struct session *session);

/* ---- pipeline.c */

/* If the session is closing and nothing of it is on its way, let it go. */
void pipeline_release_session(struct pipeline *pipeline, struct session *session);

#endif /* PENSTOCK_LOADER_PIPELINE_PRIVATE_H */
