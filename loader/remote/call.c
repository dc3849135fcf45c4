#include "loader/remote/call.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loader/remote/exchange.h"
#include "loader/remote/remote_private.h"

enum { LOOK_EVERY_MS = 100, FIRST_ROOM_BYTES = 64 * 1024 };

struct call_exchange {
    struct exchange exchange; /* first */
    const struct call *call;
    struct call_answer answer;
    size_t room_bytes;
    int64_t announced_bytes; /* Content-Length; -1: none */
    struct checksum checksum;
    atomic_bool is_cancelled;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool has_ended;
};

static struct call_exchange *own(const struct exchange *exchange)
{
    return (struct call_exchange *)exchange;
}

static void ask(struct exchange *exchange, struct attempt *attempt, struct exchange_ask *ask)
{
    struct call_exchange *own_exchange = own(exchange);
    const struct call *call = own_exchange->call;
    attempt->start_bytes = 0;
    own_exchange->answer.content_bytes = 0;
    own_exchange->checksum = (struct checksum){0};
    ask->method = call->method;
    ask->body = call->body;
    ask->body_bytes = call->body_bytes;
    if (strcmp(call->method, "HEAD") == 0 && exchange->is_head_vague) {
        ask->method = "GET";
        snprintf(ask->range, sizeof ask->range, "0-0");
    } else if (strcmp(call->method, "GET") == 0 && call->query == NULL &&
               s3_address_is_s3(call->url)) {
        exchange_ask_header(ask, "x-amz-checksum-mode: ENABLED");
    }
}

static enum refusal refuse_size(struct exchange *exchange)
{
    char shown[300];
    error_set(&exchange->error, ERROR_IO, "%s is larger than the %" PRIu64 " bytes expected.",
              s3_address_public(exchange->url, shown, sizeof shown),
              own(exchange)->call->limit_bytes);
    return REFUSAL_FINAL;
}

static enum refusal begin(struct exchange *exchange, struct attempt *attempt,
                          const struct answer *answer)
{
    struct call_exchange *own_exchange = own(exchange);
    bool is_probe = strcmp(own_exchange->call->method, "HEAD") == 0;
    if (!answer_version(answer, &own_exchange->answer.version) && is_probe) {
        char shown[300];
        error_set(&exchange->error, ERROR_IO,
                  "%s: the server does not say how large it is (no Content-Length).",
                  s3_address_public(exchange->url, shown, sizeof shown));
        return REFUSAL_FINAL;
    }
    own_exchange->announced_bytes = answer->content_length_bytes;
    if (is_probe) {
        own_exchange->announced_bytes = -1;
        return REFUSAL_NONE;
    }
    if (answer->status == 206) {
        snprintf(attempt->why, sizeof attempt->why, "a range came instead of the whole object");
        return REFUSAL_BAD;
    }
    if (!answer->is_checksum_partial) {
        own_exchange->checksum = answer->checksum;
    }
    bool is_too_large = answer->content_length_bytes > 0 &&
                        (uint64_t)answer->content_length_bytes > own_exchange->call->limit_bytes;
    return is_too_large ? refuse_size(exchange) : REFUSAL_NONE;
}

static bool make_room(struct call_exchange *own_exchange, size_t wanted_bytes)
{
    size_t room = own_exchange->room_bytes > 0 ? own_exchange->room_bytes : FIRST_ROOM_BYTES;
    while (room <= wanted_bytes) { /* one more for the 0 at the end */
        room *= 2;
    }
    if (room != own_exchange->room_bytes) {
        char *larger = realloc(own_exchange->answer.content, room);
        if (larger == NULL) {
            return false;
        }
        own_exchange->answer.content = larger;
        own_exchange->room_bytes = room;
    }
    return true;
}

static enum refusal take(struct exchange *exchange, struct attempt *attempt, const uint8_t *data,
                         size_t size_bytes)
{
    struct call_exchange *own_exchange = own(exchange);
    struct call_answer *answer = &own_exchange->answer;
    attempt->received_bytes += size_bytes;
    if (exchange->is_head_vague) {
        return REFUSAL_NONE; /* the one byte of a probe with GET, or a server's whole object */
    }
    if (size_bytes > own_exchange->call->limit_bytes - answer->content_bytes) {
        return refuse_size(exchange);
    }
    if (!make_room(own_exchange, answer->content_bytes + size_bytes)) {
        error_set(&exchange->error, ERROR_MEMORY, "Out of memory for an answer.");
        return REFUSAL_FINAL;
    }
    memcpy(answer->content + answer->content_bytes, data, size_bytes);
    answer->content_bytes += size_bytes;
    exchange_note_bytes(exchange);
    return REFUSAL_NONE;
}

static enum refusal complete(struct exchange *exchange, struct attempt *attempt)
{
    struct call_exchange *own_exchange = own(exchange);
    struct call_answer *answer = &own_exchange->answer;
    if (own_exchange->announced_bytes >= 0 &&
        (uint64_t)own_exchange->announced_bytes != answer->content_bytes) {
        snprintf(attempt->why, sizeof attempt->why, "the answer ended after %zu bytes",
                 answer->content_bytes);
        return REFUSAL_BAD;
    }
    bool is_read = strcmp(own_exchange->call->method, "GET") == 0;
    if (is_read && !checksum_holds(&own_exchange->checksum, (uint8_t *)answer->content,
                                   answer->content_bytes)) {
        snprintf(attempt->why, sizeof attempt->why,
                 "the bytes do not have the checksum that the server gives for them");
        return REFUSAL_BAD;
    }
    if (is_read) { /* a chunked answer says only now how large the object is */
        answer->version.size_bytes = answer->content_bytes;
    }
    return REFUSAL_NONE;
}

static uint64_t left_bytes(const struct exchange *exchange)
{
    (void)exchange;
    return 0;
}

static void changed(struct exchange *exchange, const char *tag)
{
    char shown[300];
    error_set(&exchange->error, ERROR_CHANGED, "%s was replaced; it is now %s. Try again.",
              s3_address_public(exchange->url, shown, sizeof shown), tag);
}

static void end(struct exchange *exchange)
{
    struct call_exchange *own_exchange = own(exchange);
    pthread_mutex_lock(&own_exchange->lock);
    own_exchange->has_ended = true;
    pthread_cond_signal(&own_exchange->ended); /* under the lock: the waiter frees it next */
    pthread_mutex_unlock(&own_exchange->lock);
}

static const struct exchange_kind call_kind = {
    .ask = ask,
    .begin = begin,
    .take = take,
    .complete = complete,
    .left_bytes = left_bytes,
    .changed = changed,
    .end = end,
};

static void wait_for_end(struct remote *remote, struct call_exchange *own_exchange,
                         const atomic_bool *cancel)
{
    pthread_mutex_lock(&own_exchange->lock);
    while (!own_exchange->has_ended) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += LOOK_EVERY_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&own_exchange->ended, &own_exchange->lock, &until);
        if (cancel != NULL && atomic_load(cancel) && !own_exchange->has_ended &&
            !atomic_exchange(&own_exchange->is_cancelled, true)) {
            atomic_store(&remote->is_cancel_due, true);
            transfer_loop_wake(remote->loop);
        }
    }
    pthread_mutex_unlock(&own_exchange->lock);
}

int call_make(struct remote *remote, const struct call *call, const struct remote_call *how,
              struct call_answer *answer, struct error *error)
{
    struct call_exchange *own_exchange = calloc(1, sizeof *own_exchange);
    *answer = (struct call_answer){0};
    if (own_exchange == NULL) {
        return error_set(error, ERROR_MEMORY, "Out of memory.");
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&own_exchange->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&own_exchange->lock, NULL);
    own_exchange->call = call;
    own_exchange->exchange = (struct exchange){
        .kind = &call_kind,
        .url = call->url,
        .query = call->query,
        .profile = how != NULL ? how->profile : NULL,
        .is_write = strcmp(call->method, "PUT") == 0,
        .is_single = true,
        .is_cancelled = &own_exchange->is_cancelled,
    };
    exchange_submit(remote, &own_exchange->exchange);
    wait_for_end(remote, own_exchange, how != NULL ? how->cancel : NULL);
    bool is_good = own_exchange->exchange.error.kind == ERROR_NONE;
    if (is_good) {
        *answer = own_exchange->answer;
        if (answer->content != NULL) {
            answer->content[answer->content_bytes] = '\0';
        }
    } else {
        free(own_exchange->answer.content);
        if (error != NULL) {
            *error = own_exchange->exchange.error;
        }
    }
    pthread_cond_destroy(&own_exchange->ended);
    pthread_mutex_destroy(&own_exchange->lock);
    free(own_exchange);
    return is_good ? 0 : -1;
}
