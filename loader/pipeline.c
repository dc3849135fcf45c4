#include "loader/pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "decode/decoder.h"
#include "loader/clock.h"
#include "loader/log.h"

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
    struct source *source; /* owned by the thread that set is_reading */

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
    bool is_reading;      /* a thread has the source */
    bool is_read_waiting; /* ... and sleeps in it */
    bool is_stopping;
    uint32_t thread_target;
    cpu_set_t cpus;
    struct pipeline_thread threads[PIPELINE_THREADS_MAX];
    struct work *works; /* the pool itself */
    struct pipeline_stats stats;
};

/* ---- Lists of work -----------------------------------------------------------------------------
 */

static void push_ready(struct session_queue *queue, struct work *work)
{
    work->next = NULL;
    if (queue->ready_tail != NULL) {
        queue->ready_tail->next = work;
    } else {
        queue->ready_head = work;
    }
    queue->ready_tail = work;
    queue->ready_count++;
}

static struct work *pop_ready(struct session_queue *queue)
{
    struct work *work = queue->ready_head;
    queue->ready_head = work->next;
    if (queue->ready_head == NULL) {
        queue->ready_tail = NULL;
    }
    queue->ready_count--;
    return work;
}

static void free_work(struct pipeline *pipeline, struct work *work)
{
    read_request_trim(&work->request, KEPT_BUFFER_BYTES);
    work->session = NULL;
    work->next = pipeline->free_work;
    pipeline->free_work = work;
}

/* ---- Fairness ----------------------------------------------------------------------------------
 */

/* Is session a to be served before session b? */
static bool goes_before(struct session *a, struct session *b)
{
    const struct share *share_a = session_queue(a)->share;
    const struct share *share_b = session_queue(b)->share;
    if (share_a != share_b && share_a->used != share_b->used) {
        return share_a->used < share_b->used;
    }
    return session_lead(a) < session_lead(b);
}

static bool may_decode(struct session *session)
{
    const struct session_queue *queue = session_queue(session);
    uint32_t cap = session_spec(session)->workers;
    return queue->ready_count > 0 && (cap == 0 || queue->decoding_count < cap);
}

/* The session whose sample is decoded next, or NULL. */
static struct session *choose_decode(struct pipeline *pipeline)
{
    struct session *best = NULL;
    for (struct session *s = pipeline->sessions; s != NULL; s = session_queue(s)->next) {
        if (may_decode(s) && (best == NULL || goes_before(s, best))) {
            best = s;
        }
    }
    return best;
}

/* How many samples of one session may be on their way from plan to decode. */
static uint32_t read_ahead_of(const struct pipeline *pipeline, const struct session *session)
{
    uint64_t mean_bytes = session_mean_bytes(session);
    uint64_t by_bytes =
        mean_bytes == 0 ? PIPELINE_READ_AHEAD_MAX : PIPELINE_READ_AHEAD_BYTES_MAX / mean_bytes;
    uint32_t minimum = pipeline->thread_target + 1;
    uint32_t ahead = pipeline->read_ahead < by_bytes ? pipeline->read_ahead : (uint32_t)by_bytes;
    return ahead > minimum ? ahead : minimum;
}

/* The session for which a read is started next, or NULL. */
static struct session *choose_read(struct pipeline *pipeline)
{
    struct session *best = NULL;
    for (struct session *s = pipeline->sessions; s != NULL; s = session_queue(s)->next) {
        struct session_queue *queue = session_queue(s);
        if (queue->reading_count + queue->ready_count < read_ahead_of(pipeline, s) &&
            session_has_next(s) && (best == NULL || goes_before(s, best))) {
            best = s;
        }
    }
    return best;
}

/* ---- Reading -----------------------------------------------------------------------------------
 */

static struct work *take_retry(struct pipeline *pipeline, uint64_t now_ns)
{
    for (struct work **link = &pipeline->retry_work; *link != NULL; link = &(*link)->next) {
        if ((*link)->not_before_ns <= now_ns) {
            struct work *work = *link;
            *link = work->next;
            return work;
        }
    }
    return NULL;
}

/* Plan up to READ_BATCH_MAX reads. */
static uint32_t plan_reads(struct pipeline *pipeline, struct read_request **requests)
{
    uint32_t count = 0;
    uint64_t now_ns = clock_now_ns();
    while (count < READ_BATCH_MAX && pipeline->reads_in_flight < PIPELINE_READ_AHEAD_MAX) {
        struct work *work = take_retry(pipeline, now_ns);
        if (work == NULL) {
            struct session *session = choose_read(pipeline);
            if (session == NULL || pipeline->free_work == NULL) {
                break;
            }
            work = pipeline->free_work;
            if (!session_next(session, work)) {
                continue; /* it published padding, or its last slot went: choose again */
            }
            pipeline->free_work = work->next;
            if (work->has_no_bytes) {
                push_ready(session_queue(session), work);
                continue;
            }
            session_queue(session)->reading_count++;
        }
        work->submitted_ns = now_ns;
        requests[count++] = &work->request;
        pipeline->reads_in_flight++;
    }
    return count;
}

static void release_session(struct pipeline *pipeline, struct session *session);

/* Work whose place is finished, or that nobody wants any more. */
static void retire_work(struct pipeline *pipeline, struct work *work)
{
    struct session *session = work->session;
    free_work(pipeline, work);
    release_session(pipeline, session);
}

static void requeue_work(struct pipeline *pipeline, struct work *work)
{
    session_queue(work->session)->reading_count++;
    work->next = pipeline->retry_work;
    pipeline->retry_work = work;
}

static void accept_read(struct pipeline *pipeline, struct read_request *request)
{
    struct work *work = request->owner;
    struct session_queue *queue = session_queue(work->session);
    pipeline->reads_in_flight--;
    queue->reading_count--;
    if (request->error == 0) {
        queue->read_bytes += request->size_bytes;
        queue->read_ns += clock_now_ns() - work->submitted_ns;
        pipeline->stats.read_bytes += request->size_bytes;
        push_ready(queue, work);
    } else if (session_read_failed(work->session, work) == WORK_RETRY) {
        requeue_work(pipeline, work);
    } else {
        retire_work(pipeline, work);
    }
}

/* Be the thread that looks after the reads: start some, collect some. With `wait` sleep until one
 * is finished. Called with the lock held, returns with it held. True if anything happened. */
static bool tend_reads(struct pipeline *pipeline, bool wait)
{
    struct read_request *requests[READ_BATCH_MAX];
    struct read_request *done[READ_BATCH_MAX];
    uint32_t started = plan_reads(pipeline, requests);
    int wait_ms = wait && started == 0 ? READ_WAIT_MS : 0;
    if (pipeline->retry_work != NULL && wait_ms > 50) {
        wait_ms = 50;
    }
    if (started == 0 && pipeline->reads_in_flight == 0) {
        return false;
    }
    pipeline->is_reading = true;
    pipeline->is_read_waiting = wait_ms > 0;
    pthread_mutex_unlock(&pipeline->lock);
    uint64_t begin_ns = wait_ms > 0 ? clock_now_ns() : 0;
    source_submit(pipeline->source, requests, started);
    size_t finished = source_reap(pipeline->source, done, READ_BATCH_MAX, wait_ms);
    uint64_t end_ns = wait_ms > 0 ? clock_now_ns() : 0;
    pthread_mutex_lock(&pipeline->lock);
    pipeline->is_reading = false;
    pipeline->is_read_waiting = false;
    pipeline->stats.read_wait_ns += end_ns - begin_ns;
    for (size_t i = 0; i < finished; i++) {
        accept_read(pipeline, done[i]);
    }
    return started > 0 || finished > 0;
}

/* ---- Decoding ----------------------------------------------------------------------------------
 */

static void finish_decode(struct pipeline *pipeline, struct work *work, enum decode_status status,
                          const struct decode_error *error, uint64_t spent_ns)
{
    struct session_queue *queue = session_queue(work->session);
    queue->decoding_count--;
    queue->decode_ns += spent_ns;
    queue->share->used += 1.0 / queue->share->weight;
    pipeline->stats.busy_ns += spent_ns;
    pipeline->stats.sample_count++;
    pipeline->stats.bad_count += status != DECODE_OK;
    if (session_finish(work->session, work, status, error) == WORK_RETRY) {
        requeue_work(pipeline, work);
    } else {
        retire_work(pipeline, work);
    }
}

static void decode_one(struct pipeline *pipeline, struct pipeline_thread *thread,
                       struct session *session)
{
    struct session_queue *queue = session_queue(session);
    struct work *work = pop_ready(queue);
    queue->decoding_count++;
    bool is_wanted = session_wants(session, work);
    pthread_mutex_unlock(&pipeline->lock);
    uint64_t begin_ns = clock_now_ns();
    struct decode_error error = {.status = DECODE_OK};
    enum decode_status status = DECODE_OK;
    if (is_wanted) {
        status = session_make(session, work, thread->decoder, &error);
    }
    uint64_t spent_ns = clock_now_ns() - begin_ns;
    pthread_mutex_lock(&pipeline->lock);
    finish_decode(pipeline, work, status, &error, spent_ns);
}

/* ---- Threads -----------------------------------------------------------------------------------
 */

/* Let another thread go on while this one decodes, if there is something for it. */
static void wake_another(struct pipeline *pipeline)
{
    if (pipeline->waiting_count > 0 &&
        (choose_decode(pipeline) != NULL || pipeline->reads_in_flight > 0)) {
        pthread_cond_signal(&pipeline->work_ready);
    }
}

/* Reads are topped up before they run out, several at a time. */
static bool wants_reads(struct pipeline *pipeline)
{
    uint32_t under_way = 0;
    for (struct session *s = pipeline->sessions; s != NULL; s = session_queue(s)->next) {
        under_way += session_queue(s)->reading_count + session_queue(s)->ready_count;
    }
    return under_way <= pipeline->read_ahead / 2;
}

/* Threads found nothing to decode while reads were under way: look further ahead. */
static void note_starvation(struct pipeline *pipeline)
{
    if (pipeline->read_ahead < PIPELINE_READ_AHEAD_MAX) {
        pipeline->read_ahead++;
    }
}

static void run_once(struct pipeline *pipeline, struct pipeline_thread *thread)
{
    if (!pipeline->is_reading && (wants_reads(pipeline) || pipeline->retry_work != NULL)) {
        tend_reads(pipeline, false);
    }
    struct session *session = choose_decode(pipeline);
    if (session != NULL) {
        wake_another(pipeline);
        decode_one(pipeline, thread, session);
        return;
    }
    if (!pipeline->is_reading && (pipeline->reads_in_flight > 0 || choose_read(pipeline) != NULL)) {
        note_starvation(pipeline);
        if (tend_reads(pipeline, true)) {
            wake_another(pipeline);
            return;
        }
        if (pipeline->reads_in_flight > 0) {
            return; /* it was interrupted: look again */
        }
    }
    pipeline->waiting_count++;
    if (pipeline->retry_work != NULL) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 20000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&pipeline->work_ready, &pipeline->lock, &until);
    } else {
        pthread_cond_wait(&pipeline->work_ready, &pipeline->lock);
    }
    pipeline->waiting_count--;
}

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
        run_once(pipeline, thread);
    }
    pthread_cond_broadcast(&pipeline->work_ready); /* somebody else may have to take over */
    pthread_mutex_unlock(&pipeline->lock);
    return NULL;
}

/* Make whoever can use it look for work. */
static void wake_pool(struct pipeline *pipeline)
{
    if (pipeline->is_read_waiting) {
        source_interrupt(pipeline->source);
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

/* Fit number and affinity of the threads to the sessions. */
static int fit_threads(struct pipeline *pipeline, struct error *error)
{
    unite_cpus(pipeline);
    uint32_t wanted = pipeline->options.threads;
    if (wanted == 0) {
        wanted = (uint32_t)CPU_COUNT(&pipeline->cpus);
    }
    wanted = wanted < 1 ? 1 : wanted;
    wanted = wanted > PIPELINE_THREADS_MAX ? PIPELINE_THREADS_MAX : wanted;
    uint32_t before = pipeline->thread_target;
    pipeline->thread_target = wanted;
    pthread_cond_broadcast(&pipeline->work_ready);
    if (wanted < before && pipeline->is_read_waiting) {
        source_interrupt(pipeline->source);
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

/* ---- Sessions ----------------------------------------------------------------------------------
 */

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

/* If the session is closing and nothing of it is on its way, let it go. */
static void release_session(struct pipeline *pipeline, struct session *session)
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

/* Work that waits for its turn is dropped; what is being read or decoded ends by itself. */
void pipeline_remove(struct pipeline *pipeline, struct session *session)
{
    pthread_mutex_lock(&pipeline->lock);
    struct session_queue *queue = session_queue(session);
    pipeline->stats.batch_count += session_stats(session).batch_count;
    queue->is_closing = true;
    while (queue->ready_count > 0) {
        free_work(pipeline, pop_ready(queue));
    }
    struct work **link = &pipeline->retry_work;
    while (*link != NULL) {
        struct work *work = *link;
        if (work->session == session) {
            *link = work->next;
            queue->reading_count--;
            free_work(pipeline, work);
        } else {
            link = &work->next;
        }
    }
    release_session(pipeline, session);
    wake_pool(pipeline);
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

int pipeline_seek(struct pipeline *pipeline, struct session *session, uint64_t epoch,
                  uint64_t position, uint32_t taken_count, struct error *error)
{
    pthread_mutex_lock(&pipeline->lock);
    session_collect(session);
    int status = session_seek(session, epoch, position, taken_count, error);
    wake_pool(pipeline);
    pthread_mutex_unlock(&pipeline->lock);
    return status;
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
    stats.thread_count = pipeline->thread_target;
    for (struct session *s = pipeline->sessions; s != NULL; s = session_queue(s)->next) {
        if (!session_queue(s)->is_closing) {
            stats.batch_count += session_stats(s).batch_count;
        }
    }
    stats.engine = source_engine(pipeline->source);
    stats.engine_reason = source_engine_reason(pipeline->source);
    stats.level = kernels_detect(pipeline->options.level_max);
    pthread_mutex_unlock(&pipeline->lock);
    return stats;
}

/* ---- Life --------------------------------------------------------------------------------------
 */

struct pipeline *pipeline_create(const struct pipeline_options *options, struct error *error)
{
    struct pipeline *pipeline = calloc(1, sizeof *pipeline);
    struct work *works = calloc(WORK_COUNT, sizeof *works);
    struct source_options source_options = {
        .engine = options->engine,
        .depth = PIPELINE_READ_AHEAD_MAX,
        .file_bytes_max = PIPELINE_FILE_BYTES_MAX,
    };
    struct source *source = source_create(&source_options);
    if (pipeline == NULL || works == NULL || source == NULL) {
        free(pipeline);
        free(works);
        source_destroy(source);
        error_set(error, ERROR_MEMORY, "no memory for the pipeline.");
        return NULL;
    }
    pipeline->options = *options;
    pipeline->source = source;
    pipeline->works = works;
    pipeline->read_ahead = READ_AHEAD_MIN;
    pthread_mutex_init(&pipeline->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pipeline->work_ready, &attributes);
    pthread_condattr_destroy(&attributes);
    for (size_t i = 0; i < WORK_COUNT; i++) {
        free_work(pipeline, &works[i]);
    }
    return pipeline;
}

/* With no thread left: take back what the source still has. */
static void finish_reads(struct pipeline *pipeline)
{
    struct read_request *done[READ_BATCH_MAX];
    while (pipeline->reads_in_flight > 0) {
        size_t finished = source_reap(pipeline->source, done, READ_BATCH_MAX, READ_WAIT_MS);
        for (size_t i = 0; i < finished; i++) {
            accept_read(pipeline, done[i]);
        }
    }
}

void pipeline_destroy(struct pipeline *pipeline)
{
    if (pipeline == NULL) {
        return;
    }
    pthread_mutex_lock(&pipeline->lock);
    pipeline->is_stopping = true;
    source_interrupt(pipeline->source);
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
    source_destroy(pipeline->source);
    for (size_t i = 0; i < WORK_COUNT; i++) {
        read_request_clear(&pipeline->works[i].request);
    }
    free(pipeline->works);
    pthread_cond_destroy(&pipeline->work_ready);
    pthread_mutex_destroy(&pipeline->lock);
    free(pipeline);
}
