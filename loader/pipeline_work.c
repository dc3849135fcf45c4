#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "loader/clock.h"
#include "loader/pipeline_private.h"

/* ---- Lists of work ---------------------------------------------------------------------- */

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

void pipeline_free_work(struct pipeline *pipeline, struct work *work)
{
    read_request_trim(&work->request, KEPT_BUFFER_BYTES);
    work->session = NULL;
    work->next = pipeline->free_work;
    pipeline->free_work = work;
}

void pipeline_drop_waiting(struct pipeline *pipeline, struct session *session)
{
    struct session_queue *queue = session_queue(session);
    while (queue->ready_count > 0) {
        pipeline_free_work(pipeline, pop_ready(queue));
    }
    struct work **link = &pipeline->retry_work;
    while (*link != NULL) {
        struct work *work = *link;
        if (work->session == session) {
            *link = work->next;
            queue->reading_count--;
            pipeline_free_work(pipeline, work);
        } else {
            link = &work->next;
        }
    }
}

/* ---- Fairness --------------------------------------------------------------------------- */

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
    if (pipeline->is_draining) {
        return NULL;
    }
    for (struct session *s = pipeline->sessions; s != NULL; s = session_queue(s)->next) {
        struct session_queue *queue = session_queue(s);
        if (queue->reading_count + queue->ready_count < read_ahead_of(pipeline, s) &&
            session_has_next(s) && (best == NULL || goes_before(s, best))) {
            best = s;
        }
    }
    return best;
}

/* ---- Reading ---------------------------------------------------------------------------- */

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
    while (!pipeline->is_draining && count < READ_BATCH_MAX &&
           pipeline->reads_in_flight < PIPELINE_READ_AHEAD_MAX) {
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

/* Work whose place is finished, or that nobody wants any more. */
static void retire_work(struct pipeline *pipeline, struct work *work)
{
    struct session *session = work->session;
    pipeline_free_work(pipeline, work);
    pipeline_release_session(pipeline, session);
}

static void requeue_work(struct pipeline *pipeline, struct work *work)
{
    session_queue(work->session)->reading_count++;
    work->next = pipeline->retry_work;
    pipeline->retry_work = work;
}

void pipeline_accept_read(struct pipeline *pipeline, struct read_request *request)
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
    reader_submit(pipeline->reader, requests, started);
    size_t finished = reader_reap(pipeline->reader, done, READ_BATCH_MAX, wait_ms);
    uint64_t end_ns = wait_ms > 0 ? clock_now_ns() : 0;
    pthread_mutex_lock(&pipeline->lock);
    pipeline->is_reading = false;
    pipeline->is_read_waiting = false;
    pipeline->stats.read_wait_ns += end_ns - begin_ns;
    for (size_t i = 0; i < finished; i++) {
        pipeline_accept_read(pipeline, done[i]);
    }
    return started > 0 || finished > 0;
}

/* ---- Decoding --------------------------------------------------------------------------- */

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

/* ---- One turn ---- */
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

void pipeline_run_once(struct pipeline *pipeline, struct pipeline_thread *thread)
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
