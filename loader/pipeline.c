#include "loader/pipeline_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- Threads ---- */

/* Decoding is throughput work: it must give way at once when a trainer wakes up to take a batch or
 * to launch a kernel. SCHED_BATCH with a long time slice says just that: it costs no share of the
 * CPU, and tasks with ordinary slices may preempt it (Linux 6.12 and later; older kernels ignore
 * the slice). */
static void be_polite(void)
{
    /* struct sched_attr, version 0, as sched_setattr(2) draws it: C libraries before glibc 2.41
     * lack it, and the kernel's header clashes with <sched.h>. */
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } attributes = {.size = sizeof attributes, .policy = SCHED_BATCH, .runtime_ns = SLICE_NS};
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static void *run_thread(void *argument)
{
    struct pipeline_thread *thread = argument;
    struct pipeline *pipeline = thread->pipeline;
    be_polite();
    pthread_mutex_lock(&pipeline->lock);
    while (!pipeline->is_stopping && thread->index < pipeline->thread_target) {
        pipeline_run_once(pipeline, thread);
    }
    pthread_cond_broadcast(&pipeline->work_ready); /* somebody else may have to take over */
    pthread_mutex_unlock(&pipeline->lock);
    return NULL;
}

/* Make whoever can use it look for work. */
static void wake_pool(struct pipeline *pipeline)
{
    if (pipeline->is_read_waiting) {
        reader_interrupt(pipeline->reader);
    }
    if (pipeline->waiting_count > 0) {
        pthread_cond_signal(&pipeline->work_ready);
    }
}

/* Wait for a thread that is to end, without the lock. */
static void join_thread(struct pipeline *pipeline, struct pipeline_thread *thread)
{
    pthread_mutex_unlock(&pipeline->lock);
    pthread_join(thread->id, NULL);
    pthread_mutex_lock(&pipeline->lock);
    thread->is_running = false;
    decoder_destroy(thread->decoder);
    thread->decoder = NULL;
}

static int start_thread(struct pipeline *pipeline, uint32_t index, struct error *error)
{
    struct pipeline_thread *thread = &pipeline->threads[index];
    struct decoder_options options = {
        .limits = {.pixels_max = IMAGE_PIXELS_MAX_DEFAULT,
                   .scans_max = IMAGE_SCANS_MAX_DEFAULT,
                   .plain_huffman = pipeline->options.level_max == KERNEL_SCALAR},
        .level_max = pipeline->options.level_max,
    };
    thread->pipeline = pipeline;
    thread->index = index;
    thread->decoder = decoder_create(&options);
    if (thread->decoder == NULL) {
        return error_set(error, ERROR_MEMORY, "no memory for decode thread %u.", index);
    }
    int status = pthread_create(&thread->id, NULL, run_thread, thread);
    if (status != 0) {
        decoder_destroy(thread->decoder);
        thread->decoder = NULL;
        return error_set(error, ERROR_MEMORY, "cannot start decode thread %u: %s.", index,
                         strerror(status));
    }
    thread->is_running = true;
    return 0;
}

/* The CPUs that the pool may use: the union of the sessions' affinities. */
static void unite_cpus(struct pipeline *pipeline)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    for (struct session *s = pipeline->sessions; s != NULL; s = session_queue(s)->next) {
        if (session_spec(s)->has_cpus) {
            CPU_OR(&cpus, &cpus, &session_spec(s)->cpus);
        }
    }
    cpu_set_t own;
    if (CPU_COUNT(&cpus) == 0 && sched_getaffinity(0, sizeof own, &own) == 0) {
        cpus = own;
    }
    pipeline->cpus = cpus;
}

static uint32_t wanted_threads(const struct pipeline *pipeline)
{
    uint32_t wanted = pipeline->options.threads;
    if (wanted == 0) {
        wanted = (uint32_t)CPU_COUNT(&pipeline->cpus);
    }
    wanted = wanted < 1 ? 1 : wanted;
    return wanted > PIPELINE_THREADS_MAX ? PIPELINE_THREADS_MAX : wanted;
}

/* Fit number and affinity of the threads to the sessions. */
static int fit_threads(struct pipeline *pipeline, struct error *error)
{
    unite_cpus(pipeline);
    uint32_t wanted = wanted_threads(pipeline);
    uint32_t before = pipeline->thread_target;
    pipeline->thread_target = wanted;
    pthread_cond_broadcast(&pipeline->work_ready);
    if (wanted < before && pipeline->is_read_waiting) {
        reader_interrupt(pipeline->reader);
    }
    for (uint32_t i = wanted; i < before; i++) {
        if (pipeline->threads[i].is_running) {
            join_thread(pipeline, &pipeline->threads[i]);
        }
    }
    for (uint32_t i = 0; i < wanted; i++) {
        if (!pipeline->threads[i].is_running && start_thread(pipeline, i, error) != 0) {
            pipeline->thread_target = i;
            return i > 0 ? 0 : -1; /* fewer threads than wished will do */
        }
        pthread_setaffinity_np(pipeline->threads[i].id, sizeof pipeline->cpus, &pipeline->cpus);
    }
    return 0;
}

/* ---- Sessions --------------------------------------------------------------------------- */

static struct share *find_share(struct pipeline *pipeline, const struct session_spec *spec)
{
    double least_used = -1;
    for (struct share *share = pipeline->shares; share != NULL; share = share->next) {
        if (strcmp(share->job, spec->job) == 0) {
            return share;
        }
        if (least_used < 0 || share->used < least_used) {
            least_used = share->used;
        }
    }
    struct share *share = calloc(1, sizeof *share);
    if (share != NULL) {
        memcpy(share->job, spec->job, sizeof share->job);
        share->used = least_used < 0 ? 0 : least_used; /* a new job gets no back pay */
        share->next = pipeline->shares;
        pipeline->shares = share;
    }
    return share;
}

static void leave_share(struct pipeline *pipeline, struct share *share)
{
    if (--share->session_count > 0) {
        return;
    }
    struct share **link = &pipeline->shares;
    while (*link != share) {
        link = &(*link)->next;
    }
    *link = share->next;
    free(share);
}

static void unlink_session(struct pipeline *pipeline, struct session *session)
{
    for (struct session **link = &pipeline->sessions; *link != NULL;
         link = &session_queue(*link)->next) {
        if (*link == session) {
            *link = session_queue(session)->next;
            return;
        }
    }
}

void pipeline_release_session(struct pipeline *pipeline, struct session *session)
{
    struct session_queue *queue = session_queue(session);
    if (!queue->is_closing ||
        queue->reading_count + queue->ready_count + queue->decoding_count > 0) {
        return;
    }
    unlink_session(pipeline, session);
    leave_share(pipeline, queue->share);
    pipeline->stats.session_count--;
    session_destroy(session);
}

int pipeline_add(struct pipeline *pipeline, struct session *session, struct error *error)
{
    pthread_mutex_lock(&pipeline->lock);
    struct session_queue *queue = session_queue(session);
    const struct session_spec *spec = session_spec(session);
    int status = -1;
    queue->share = find_share(pipeline, spec);
    if (queue->share == NULL) {
        error_set(error, ERROR_MEMORY, "no memory for a job.");
    } else {
        queue->share->session_count++;
        queue->share->weight = spec->weight;
        queue->next = pipeline->sessions;
        pipeline->sessions = session;
        pipeline->stats.session_count++;
        status = fit_threads(pipeline, error);
        if (status != 0) {
            unlink_session(pipeline, session);
            leave_share(pipeline, queue->share);
            pipeline->stats.session_count--;
        }
        wake_pool(pipeline);
    }
    pthread_mutex_unlock(&pipeline->lock);
    return status;
}

/* Nobody waits any more for what the session asked of the network. */
static void cancel_reads(struct pipeline *pipeline, const struct session *session)
{
    for (size_t i = 0; i < WORK_COUNT; i++) {
        if (pipeline->works[i].session == session) {
            reader_cancel(pipeline->reader, &pipeline->works[i].request);
        }
    }
}

/* Work that waits for its turn is dropped; what is being read or decoded ends by itself. */
void pipeline_remove(struct pipeline *pipeline, struct session *session)
{
    pthread_mutex_lock(&pipeline->lock);
    struct session_queue *queue = session_queue(session);
    pipeline->stats.batch_count += session_stats(session).batch_count;
    queue->is_closing = true;
    pipeline_drop_waiting(pipeline, session);
    cancel_reads(pipeline, session);
    pipeline_release_session(pipeline, session);
    wake_pool(pipeline);
    pthread_mutex_unlock(&pipeline->lock);
}

void pipeline_note_time(struct pipeline *pipeline)
{
    pthread_mutex_lock(&pipeline->lock);
    for (struct session *s = pipeline->sessions; s != NULL; s = session_queue(s)->next) {
        session_note_time(s);
    }
    pthread_mutex_unlock(&pipeline->lock);
}

void pipeline_collect(struct pipeline *pipeline, struct session *session)
{
    pthread_mutex_lock(&pipeline->lock);
    if (session_collect(session)) {
        wake_pool(pipeline);
    }
    pthread_mutex_unlock(&pipeline->lock);
}

int pipeline_seek(struct pipeline *pipeline, struct session *session,
                  const struct session_place *place, uint32_t taken_count, uint64_t *batches_left,
                  struct error *error)
{
    pthread_mutex_lock(&pipeline->lock);
    session_collect(session);
    int status = session_seek(session, place, taken_count, error);
    *batches_left = status == 0 ? session_batches_from(session, place->position) : 0;
    cancel_reads(pipeline, session);
    wake_pool(pipeline);
    pthread_mutex_unlock(&pipeline->lock);
    return status;
}

void pipeline_wake(struct pipeline *pipeline)
{
    pthread_mutex_lock(&pipeline->lock);
    wake_pool(pipeline);
    pthread_mutex_unlock(&pipeline->lock);
}

struct pipeline_session_stats pipeline_session_stats(struct pipeline *pipeline,
                                                     struct session *session)
{
    pthread_mutex_lock(&pipeline->lock);
    const struct session_queue *queue = session_queue(session);
    struct pipeline_session_stats stats = {
        .session = session_stats(session),
        .read_bytes = queue->read_bytes,
        .read_ns = queue->read_ns,
        .decode_ns = queue->decode_ns,
        .reading_count = queue->reading_count,
        .ready_count = queue->ready_count,
        .decoding_count = queue->decoding_count,
    };
    pthread_mutex_unlock(&pipeline->lock);
    return stats;
}

struct pipeline_stats pipeline_stats(struct pipeline *pipeline)
{
    pthread_mutex_lock(&pipeline->lock);
    struct pipeline_stats stats = pipeline->stats;
    stats.thread_count =
        pipeline->thread_target > 0 ? pipeline->thread_target : wanted_threads(pipeline);
    for (struct session *s = pipeline->sessions; s != NULL; s = session_queue(s)->next) {
        if (!session_queue(s)->is_closing) {
            stats.batch_count += session_stats(s).batch_count;
        }
    }
    stats.engine = reader_engine(pipeline->reader);
    stats.engine_reason = reader_engine_reason(pipeline->reader);
    stats.level = kernels_detect(pipeline->options.level_max);
    pthread_mutex_unlock(&pipeline->lock);
    return stats;
}

/* ---- Life ------------------------------------------------------------------------------- */

struct pipeline *pipeline_create(const struct pipeline_options *options, struct error *error)
{
    struct pipeline *pipeline = calloc(1, sizeof *pipeline);
    struct work *works = calloc(WORK_COUNT, sizeof *works);
    struct reader_options reader_options = {
        .source = {.engine = options->engine,
                   .depth = PIPELINE_READ_AHEAD_MAX,
                   .file_bytes_max = PIPELINE_FILE_BYTES_MAX},
        .store = options->store,
    };
    struct reader *reader = reader_create(&reader_options);
    if (pipeline == NULL || works == NULL || reader == NULL) {
        free(pipeline);
        free(works);
        reader_destroy(reader);
        error_set(error, ERROR_MEMORY, "no memory for the pipeline.");
        return NULL;
    }
    pipeline->options = *options;
    pipeline->reader = reader;
    pipeline->works = works;
    pipeline->read_ahead = READ_AHEAD_MIN;
    pthread_mutex_init(&pipeline->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pipeline->work_ready, &attributes);
    pthread_condattr_destroy(&attributes);
    unite_cpus(pipeline);
    for (size_t i = 0; i < WORK_COUNT; i++) {
        pipeline_free_work(pipeline, &works[i]);
    }
    return pipeline;
}

/* With no thread left: take back what the reader still has. */
static void finish_reads(struct pipeline *pipeline)
{
    struct read_request *done[READ_BATCH_MAX];
    for (size_t i = 0; i < WORK_COUNT; i++) {
        reader_cancel(pipeline->reader, &pipeline->works[i].request);
    }
    while (pipeline->reads_in_flight > 0) {
        size_t finished = reader_reap(pipeline->reader, done, READ_BATCH_MAX, READ_WAIT_MS);
        for (size_t i = 0; i < finished; i++) {
            pipeline_accept_read(pipeline, done[i]);
        }
    }
}

void pipeline_drain(struct pipeline *pipeline)
{
    pthread_mutex_lock(&pipeline->lock);
    pipeline->is_draining = true;
    pthread_mutex_unlock(&pipeline->lock);
}

bool pipeline_is_drained(struct pipeline *pipeline)
{
    pthread_mutex_lock(&pipeline->lock);
    uint32_t under_way = pipeline->reads_in_flight;
    for (struct session *s = pipeline->sessions; s != NULL; s = session_queue(s)->next) {
        under_way += session_queue(s)->ready_count + session_queue(s)->decoding_count;
    }
    pthread_mutex_unlock(&pipeline->lock);
    return under_way == 0;
}

void pipeline_destroy(struct pipeline *pipeline)
{
    if (pipeline == NULL) {
        return;
    }
    pthread_mutex_lock(&pipeline->lock);
    pipeline->is_stopping = true;
    reader_interrupt(pipeline->reader);
    pthread_cond_broadcast(&pipeline->work_ready);
    for (uint32_t i = 0; i < PIPELINE_THREADS_MAX; i++) {
        if (pipeline->threads[i].is_running) {
            join_thread(pipeline, &pipeline->threads[i]);
        }
    }
    finish_reads(pipeline);
    pthread_mutex_unlock(&pipeline->lock);
    while (pipeline->sessions != NULL) {
        pipeline_remove(pipeline, pipeline->sessions);
    }
    reader_destroy(pipeline->reader);
    for (size_t i = 0; i < WORK_COUNT; i++) {
        read_request_clear(&pipeline->works[i].request);
    }
    free(pipeline->works);
    pthread_cond_destroy(&pipeline->work_ready);
    pthread_mutex_destroy(&pipeline->lock);
    free(pipeline);
}
