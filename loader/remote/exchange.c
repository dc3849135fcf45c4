#include "loader/remote/exchange.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader/clock.h"
#include "loader/remote/remote_private.h"

enum {
    WATCH_EVERY_MS = 50,
    /* An attempt that brings less than this in a second is as good as stalled. */
    TRICKLE_BYTES_PER_SECOND = 1024,
};

void exchange_ask_header(struct exchange_ask *ask, const char *format, ...)
{
    assert(ask->header_count < EXCHANGE_HEADERS);
    va_list arguments;
    va_start(arguments, format);
    int length =
        vsnprintf(ask->headers[ask->header_count++], EXCHANGE_HEADER_BYTES, format, arguments);
    va_end(arguments);
    assert(length >= 0 && length < EXCHANGE_HEADER_BYTES);
}

/* ---- Lists ---------------------------------------------------------------------------------- */

static void leave_list(struct exchange *exchange)
{
    struct remote *remote = exchange->remote;
    switch (exchange->state) {
    case EXCHANGE_QUEUED:
        TAILQ_REMOVE(&remote->queued, exchange, link);
        remote->queued_count--;
        break;
    case EXCHANGE_WAITING:
        TAILQ_REMOVE(&remote->waiting, exchange, link);
        remote->waiting_count--;
        break;
    case EXCHANGE_ACTIVE: TAILQ_REMOVE(&remote->active, exchange, link); break;
    case EXCHANGE_NEW:
    case EXCHANGE_ENDED: break;
    }
}

static void enter_queue(struct exchange *exchange, bool is_front)
{
    struct remote *remote = exchange->remote;
    leave_list(exchange);
    exchange->state = EXCHANGE_QUEUED;
    remote->queued_count++;
    if (is_front) {
        TAILQ_INSERT_HEAD(&remote->queued, exchange, link);
    } else {
        TAILQ_INSERT_TAIL(&remote->queued, exchange, link);
    }
}

static void enter_active(struct exchange *exchange)
{
    leave_list(exchange);
    exchange->state = EXCHANGE_ACTIVE;
    TAILQ_INSERT_TAIL(&exchange->remote->active, exchange, link);
}

void exchange_retry(struct exchange *exchange, uint64_t due_ns)
{
    if (due_ns == 0) {
        enter_queue(exchange, true);
        return;
    }
    leave_list(exchange);
    exchange->state = EXCHANGE_WAITING;
    exchange->due_ns = due_ns;
    exchange->remote->waiting_count++;
    TAILQ_INSERT_TAIL(&exchange->remote->waiting, exchange, link);
}

void exchange_end(struct exchange *exchange)
{
    for (int i = 0; i < 2; i++) {
        attempt_stop(&exchange->attempts[i]);
    }
    leave_list(exchange);
    exchange->state = EXCHANGE_ENDED;
    if (exchange->has_progress) {
        TAILQ_REMOVE(&exchange->remote->progressed, exchange, progress_link);
        exchange->has_progress = false;
    }
    exchange->kind->end(exchange);
}

void exchange_enter(struct remote *remote, struct exchange *exchange)
{
    exchange->remote = remote;
    exchange->state = EXCHANGE_NEW;
    enter_queue(exchange, false);
}

void exchange_submit(struct remote *remote, struct exchange *exchange)
{
    pthread_mutex_lock(&remote->lock);
    bool is_first = TAILQ_EMPTY(&remote->incoming);
    TAILQ_INSERT_TAIL(&remote->incoming, exchange, link);
    pthread_mutex_unlock(&remote->lock);
    if (is_first) {
        transfer_loop_wake(remote->loop);
    }
}

void exchange_note_bytes(struct exchange *exchange)
{
    exchange->news_ns = clock_now_ns();
    exchange->failures = 0;
    exchange->bad_answers = 0;
    if (!exchange->has_progress && exchange->kind->progress != NULL) {
        exchange->has_progress = true;
        TAILQ_INSERT_TAIL(&exchange->remote->progressed, exchange, progress_link);
    }
}

/* ---- A turn --------------------------------------------------------------------------------- */

static bool is_cancelled(const struct exchange *exchange)
{
    return exchange->is_cancelled != NULL && atomic_load(exchange->is_cancelled);
}

static void cancel(struct exchange *exchange)
{
    error_set(&exchange->error, ERROR_CANCELLED, "Cancelled.");
    exchange_end(exchange);
}

static void cancel_in(struct exchange_list *list, bool is_all)
{
    for (struct exchange *exchange = TAILQ_FIRST(list), *next; exchange != NULL; exchange = next) {
        next = TAILQ_NEXT(exchange, link);
        if (is_all || is_cancelled(exchange)) {
            cancel(exchange);
        }
    }
}

static void take_incoming(struct remote *remote)
{
    struct exchange_list taken = TAILQ_HEAD_INITIALIZER(taken);
    pthread_mutex_lock(&remote->lock);
    TAILQ_CONCAT(&taken, &remote->incoming, link);
    struct remote_part *part = remote->parts_first;
    remote->parts_first = remote->parts_last = NULL;
    bool are_identities_new = remote->are_identities_new;
    remote->are_identities_new = false;
    pthread_mutex_unlock(&remote->lock);
    struct exchange *exchange;
    while ((exchange = TAILQ_FIRST(&taken)) != NULL) {
        TAILQ_REMOVE(&taken, exchange, link);
        exchange_enter(remote, exchange);
    }
    while (part != NULL) {
        struct remote_part *next = part->next;
        part_enter(remote, part);
        part = next;
    }
    if (are_identities_new) {
        TAILQ_FOREACH(exchange, &remote->waiting, link)
        {
            exchange->due_ns = exchange->due_ns == UINT64_MAX ? 0 : exchange->due_ns;
        }
    }
}

static bool is_idle(const struct remote *remote)
{
    return TAILQ_EMPTY(&remote->active) && TAILQ_EMPTY(&remote->waiting) &&
           TAILQ_EMPTY(&remote->queued);
}

/* Also what the ends of others start anew. */
static void cancel_all(struct remote *remote)
{
    while (take_incoming(remote), !is_idle(remote)) {
        cancel_in(&remote->active, true);
        cancel_in(&remote->waiting, true);
        cancel_in(&remote->queued, true);
    }
}

/* Those whose delay has passed go to the front of the queue, oldest first. */
static uint64_t requeue_due(struct remote *remote, uint64_t now_ns)
{
    uint64_t next_ns = UINT64_MAX;
    for (struct exchange *exchange = TAILQ_LAST(&remote->waiting, exchange_list), *before;
         exchange != NULL; exchange = before) {
        before = TAILQ_PREV(exchange, exchange_list, link);
        if (exchange->due_ns <= now_ns) {
            enter_queue(exchange, true);
        } else if (exchange->due_ns < next_ns) {
            next_ns = exchange->due_ns;
        }
    }
    return next_ns;
}

/* False: the exchange is no longer active, or gone. */
static bool watch_attempt(struct attempt *attempt, uint64_t now_ns)
{
    if (attempt->transfer == NULL) {
        return true;
    }
    uint64_t window_ms = attempt->exchange->remote->options.stall_timeout_ms;
    uint64_t least_bytes = window_ms * TRICKLE_BYTES_PER_SECOND / 1000;
    if (now_ns < attempt->watch_ns + window_ms * 1000000) {
        return true;
    }
    if (attempt->received_bytes - attempt->watch_bytes < least_bytes) {
        return attempt_stalled(attempt);
    }
    attempt->watch_ns = now_ns;
    attempt->watch_bytes = attempt->received_bytes;
    return true;
}

static bool is_worth_hedging(const struct exchange *exchange, uint64_t now_ns)
{
    const struct remote *remote = exchange->remote;
    const struct attempt *first = &exchange->attempts[0], *second = &exchange->attempts[1];
    const struct attempt *only = first->transfer != NULL ? first : second;
    uint64_t left_bytes = exchange->kind->left_bytes(exchange);
    return !exchange->is_write && !exchange->is_single && !exchange->is_tag_asked &&
           (first->transfer == NULL) != (second->transfer == NULL) &&
           remote->active_count < remote->options.connections_max + 8 &&
           pace_is_slow(&remote->pace, only->received_bytes, left_bytes,
                        now_ns > only->started_ns ? now_ns - only->started_ns : 0) &&
           pace_may_hedge(&remote->pace, remote->options.hedge_percent);
}

/* Stalls, and attempts that are much slower than others. */
static void watch_active(struct remote *remote, uint64_t now_ns)
{
    for (struct exchange *exchange = TAILQ_FIRST(&remote->active), *next; exchange != NULL;
         exchange = next) {
        next = TAILQ_NEXT(exchange, link);
        if (watch_attempt(&exchange->attempts[0], now_ns) &&
            watch_attempt(&exchange->attempts[1], now_ns) && is_worth_hedging(exchange, now_ns)) {
            attempt_start(exchange, true);
        }
    }
}

static void start_queued(struct remote *remote)
{
    struct exchange *exchange;
    while (remote->active_count < remote->options.connections_max &&
           (exchange = TAILQ_FIRST(&remote->queued)) != NULL) {
        if (is_cancelled(exchange)) {
            cancel(exchange);
        } else if (attempt_start(exchange, false)) {
            enter_active(exchange);
        }
    }
}

static void publish_stats(struct remote *remote)
{
    struct remote_stats *counts = &remote->counts;
    counts->active_now = remote->active_count;
    counts->waiting_now = remote->waiting_count + remote->queued_count;
    counts->latency_ns = remote->pace.median_first_byte_ns;
    counts->bytes_per_second = remote->pace.median_bytes_per_second;
    pthread_mutex_lock(&remote->lock);
    remote->stats = *counts;
    pthread_mutex_unlock(&remote->lock);
}

static void tell_progress(struct remote *remote)
{
    struct exchange *exchange;
    while ((exchange = TAILQ_FIRST(&remote->progressed)) != NULL) {
        TAILQ_REMOVE(&remote->progressed, exchange, progress_link);
        exchange->has_progress = false;
        exchange->kind->progress(exchange);
    }
}

uint64_t exchange_turn(void *context, uint64_t now_ns)
{
    struct remote *remote = context;
    tell_progress(remote);
    if (atomic_load(&remote->is_closing)) {
        cancel_all(remote);
        return UINT64_MAX;
    }
    take_incoming(remote);
    if (atomic_exchange(&remote->is_cancel_due, false)) {
        cancel_in(&remote->active, false);
        cancel_in(&remote->waiting, false);
        cancel_in(&remote->queued, false);
    }
    uint64_t next_ns = requeue_due(remote, now_ns);
    if (now_ns - remote->watched_ns >= WATCH_EVERY_MS * (uint64_t)1000000) {
        remote->watched_ns = now_ns;
        watch_active(remote, now_ns);
        next_ns = requeue_due(remote, now_ns);
    }
    start_queued(remote);
    publish_stats(remote);
    uint64_t watch_ns = remote->watched_ns + WATCH_EVERY_MS * (uint64_t)1000000;
    return remote->active_count > 0 && watch_ns < next_ns ? watch_ns : next_ns;
}
