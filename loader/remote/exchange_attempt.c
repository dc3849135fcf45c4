/* Attempts: how they are sent, what their answers mean, what follows when they fail. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader/clock.h"
#include "loader/log.h"
#include "loader/remote/exchange.h"
#include "loader/remote/remote_private.h"

enum {
    BAD_ANSWERS_MAX = 8, /* in a row: then the server itself is broken */
    MOVES_MAX = 3,
    /* Give up sooner on a place that has never answered: its name is wrong more likely than not. */
    NEVER_ANSWERED_MS = 10000,
};

/* ---- The end of one ------------------------------------------------------------------------- */

static void forget(struct attempt *attempt)
{
    identity_release(attempt->identity);
    free(attempt->target.url);
    free(attempt->failure_body);
    *attempt = (struct attempt){0};
}

void attempt_stop(struct attempt *attempt)
{
    if (attempt->transfer != NULL) {
        transfer_stop(attempt->transfer);
        attempt->exchange->remote->active_count--;
    }
    forget(attempt);
}

static bool has_attempt(const struct exchange *exchange)
{
    return exchange->attempts[0].transfer != NULL || exchange->attempts[1].transfer != NULL;
}

static uint64_t patience_ns(const struct exchange *exchange)
{
    uint64_t give_up_ms = exchange->remote->options.give_up_ms;
    const struct place *place = places_find(&exchange->remote->places, exchange->url);
    bool is_known = place != NULL && place->has_answered;
    return (is_known || give_up_ms < NEVER_ANSWERED_MS ? give_up_ms : NEVER_ANSWERED_MS) * 1000000;
}

static void give_up(struct exchange *exchange, const char *advice)
{
    char shown[300];
    double quiet_s = (double)(clock_now_ns() - exchange->news_ns) / 1e9;
    error_set(&exchange->error, ERROR_IO,
              "%s: given up after %u attempts and %.1f s without a new byte; the last failure: "
              "%s. %s",
              s3_address_public(exchange->url, shown, sizeof shown), exchange->tries, quiet_s,
              exchange->last_failure, advice);
    exchange_end(exchange);
}

/* Try again, unless it has been going on for too long. retry_after_s: the server's wish. */
static void put_off(struct exchange *exchange, const char *failure, uint32_t retry_after_s)
{
    struct remote *remote = exchange->remote;
    uint64_t now_ns = clock_now_ns();
    snprintf(exchange->last_failure, sizeof exchange->last_failure, "%s", failure);
    exchange->failures++;
    remote->counts.retries++;
    uint64_t delay_ns =
        pace_delay_ns(&remote->pace, exchange->failures, remote->options.retry_delay_max_ms);
    if (delay_ns < retry_after_s * (uint64_t)1000000000) {
        delay_ns = retry_after_s * (uint64_t)1000000000 + delay_ns / 4;
    }
    if (exchange->bad_answers > BAD_ANSWERS_MAX) {
        give_up(exchange, "The server does not serve ranges of objects as it should.");
    } else if (now_ns + delay_ns - exchange->news_ns > patience_ns(exchange)) {
        give_up(exchange, "Check the endpoint and the network, then start again.");
    } else {
        exchange_retry(exchange, now_ns + delay_ns);
    }
}

/* The attempt failed; when the exchange has another one in progress, that one goes on alone. False:
 * it has none, and is put off or gone. */
static bool fail_attempt(struct exchange *exchange, const char *failure, uint32_t retry_after_s)
{
    char shown[300], reason[300];
    log_debug("request_failed", "url=%s try=%u reason=%s",
              s3_address_public(exchange->url, shown, sizeof shown), exchange->tries,
              log_quote(failure, reason, sizeof reason));
    if (has_attempt(exchange)) {
        return true;
    }
    put_off(exchange, failure, retry_after_s);
    return false;
}

bool attempt_stalled(struct attempt *attempt)
{
    struct exchange *exchange = attempt->exchange;
    struct remote *remote = exchange->remote;
    char failure[200];
    snprintf(failure, sizeof failure, "only %llu bytes came in %u ms",
             (unsigned long long)(attempt->received_bytes - attempt->watch_bytes),
             remote->options.stall_timeout_ms);
    remote->counts.failed_stall++;
    exchange->is_connection_new = true;
    attempt_stop(attempt);
    return fail_attempt(exchange, failure, 0);
}

static void end_with(struct exchange *exchange, const struct error *error)
{
    exchange->error = *error;
    exchange_end(exchange);
}

static void note_changed(struct exchange *exchange, const char *tag)
{
    if (tag[0] == '\0' && !exchange->is_tag_asked && !exchange->is_write) {
        for (int i = 0; i < 2; i++) {
            attempt_stop(&exchange->attempts[i]);
        }
        exchange->is_tag_asked = true;
        exchange_retry(exchange, 0);
        return;
    }
    exchange->kind->changed(exchange, tag);
    exchange_end(exchange);
}

/* ---- Verdicts ------------------------------------------------------------------------------- */

static struct failure_scene scene_of(const struct attempt *attempt)
{
    const struct exchange *exchange = attempt->exchange;
    return (struct failure_scene){
        .url = exchange->url,
        .target = &attempt->target,
        .identity = attempt->identity,
        .profile = exchange->profile,
        .is_write = exchange->is_write,
    };
}

static void renew_identity(struct attempt *attempt, struct exchange *exchange,
                           const struct failure *failure)
{
    bool is_hopeful =
        identities_refused(exchange->remote->identities, exchange->profile, attempt->identity);
    attempt_stop(attempt);
    if (!is_hopeful) {
        end_with(exchange, &failure->error);
    } else if (!has_attempt(exchange)) {
        exchange_retry(exchange, 0);
    }
}

static void act_on(struct attempt *attempt, const struct failure *failure, uint32_t retry_after_s,
                   const char *tag)
{
    struct exchange *exchange = attempt->exchange;
    struct remote *remote = exchange->remote;
    struct place *place = places_find(&remote->places, exchange->url);
    switch (failure->action) {
    case FAILURE_AGAIN:
        attempt_stop(attempt);
        fail_attempt(exchange, failure->error.text, retry_after_s);
        break;
    case FAILURE_RENEW: renew_identity(attempt, exchange, failure); break;
    case FAILURE_MOVED:
        attempt_stop(attempt);
        if (place == NULL || ++exchange->moves > MOVES_MAX) {
            end_with(exchange, &failure->error);
        } else {
            memcpy(place->region, failure->region, sizeof place->region);
            exchange_retry(exchange, 0);
        }
        break;
    case FAILURE_CHANGED:
        attempt_stop(attempt);
        note_changed(exchange, tag);
        break;
    case FAILURE_VAGUE:
        attempt_stop(attempt);
        exchange->is_head_vague = true;
        exchange_retry(exchange, 0);
        break;
    case FAILURE_FINAL:
        remote->counts.failed_refused++;
        end_with(exchange, &failure->error);
        break;
    }
}

static void judge_refusal(struct attempt *attempt, const char *tag)
{
    struct exchange *exchange = attempt->exchange;
    struct remote *remote = exchange->remote;
    char failure[ANSWER_WHY_BYTES];
    memcpy(failure, attempt->why, sizeof failure);
    remote->counts.failed_check++;
    remote->counts.wasted_bytes += attempt->received_bytes;
    switch (attempt->refusal) {
    case REFUSAL_NONE:
    case REFUSAL_BAD:
        exchange->bad_answers++;
        exchange->is_connection_new = true;
        attempt_stop(attempt);
        fail_attempt(exchange, failure, 0);
        break;
    case REFUSAL_CHANGED: note_changed(exchange, tag); break;
    case REFUSAL_FINAL: exchange_end(exchange); break;
    }
}

static void judge_transfer(struct attempt *attempt, const struct transfer_result *result)
{
    struct exchange *exchange = attempt->exchange;
    struct remote_stats *counts = &exchange->remote->counts;
    struct failure_scene scene = scene_of(attempt);
    struct failure failure;
    failure_judge_transfer(&scene, result, &failure);
    bool is_connecting = result->end == TRANSFER_NO_NAME || result->end == TRANSFER_NO_CONNECT ||
                         result->end == TRANSFER_NO_PROXY || result->end == TRANSFER_NO_TRUST;
    counts->failed_connect += is_connecting;
    counts->failed_broken += !is_connecting;
    act_on(attempt, &failure, 0, "");
}

static void judge_answer(struct attempt *attempt, const struct answer *answer)
{
    struct exchange *exchange = attempt->exchange;
    struct failure_scene scene = scene_of(attempt);
    struct failure failure;
    scene.is_head = attempt->is_head;
    if (exchange->is_tag_asked) { /* a courtesy only; the object has changed in any case */
        exchange->kind->changed(exchange, answer->status == 200 ? answer->tag : "");
        exchange_end(exchange);
        return;
    }
    failure_judge_answer(&scene, answer, attempt->failure_body, attempt->failure_bytes, &failure);
    exchange->remote->counts.failed_busy += failure.action == FAILURE_AGAIN;
    act_on(attempt, &failure, answer->retry_after_s, answer->tag);
}

static void judge_complete(struct attempt *attempt, const struct answer *answer,
                           const struct transfer_result *result)
{
    struct exchange *exchange = attempt->exchange;
    struct remote *remote = exchange->remote;
    attempt->refusal = exchange->kind->complete(exchange, attempt);
    if (attempt->refusal != REFUSAL_NONE) {
        judge_refusal(attempt, answer->tag);
        return;
    }
    remote->counts.hedges_won += attempt->is_hedge;
    remote->pace.hedges_won += attempt->is_hedge;
    uint64_t body_ns =
        result->total_ns > result->first_byte_ns ? result->total_ns - result->first_byte_ns : 1;
    pace_note(&remote->pace, result->first_byte_ns, attempt->received_bytes, body_ns);
    exchange->error.kind = ERROR_NONE;
    exchange_end(exchange);
}

/* ---- Callbacks of the transfer -------------------------------------------------------------- */

static bool on_head(void *context, const struct answer *answer)
{
    struct attempt *attempt = context;
    struct exchange *exchange = attempt->exchange;
    struct place *place = places_find(&exchange->remote->places, exchange->url);
    if (place != NULL) {
        place->has_answered = true;
    }
    attempt->is_body_error =
        answer->status < 200 || answer->status >= 300 || exchange->is_tag_asked;
    if (attempt->is_body_error) {
        return true;
    }
    attempt->refusal = exchange->kind->begin(exchange, attempt, answer);
    return attempt->refusal == REFUSAL_NONE;
}

static bool keep_failure_body(struct attempt *attempt, const uint8_t *data, size_t size_bytes)
{
    if (attempt->failure_body == NULL) {
        attempt->failure_body = malloc(FAILURE_BODY_BYTES);
    }
    if (attempt->failure_body != NULL) {
        size_t room = FAILURE_BODY_BYTES - attempt->failure_bytes;
        size_t bytes = size_bytes < room ? size_bytes : room;
        memcpy(attempt->failure_body + attempt->failure_bytes, data, bytes);
        attempt->failure_bytes += bytes;
    }
    return true;
}

static bool on_body(void *context, const uint8_t *data, size_t size_bytes)
{
    struct attempt *attempt = context;
    struct exchange *exchange = attempt->exchange;
    exchange->remote->counts.received_bytes += size_bytes;
    if (attempt->is_body_error) {
        return keep_failure_body(attempt, data, size_bytes);
    }
    attempt->refusal = exchange->kind->take(exchange, attempt, data, size_bytes);
    return attempt->refusal == REFUSAL_NONE;
}

static void on_done(void *context, const struct answer *answer,
                    const struct transfer_result *result)
{
    struct attempt *attempt = context;
    struct exchange *exchange = attempt->exchange;
    attempt->transfer = NULL; /* it is gone when this returns */
    exchange->remote->active_count--;
    exchange->remote->counts.connections += result->connections;
    if (result->end == TRANSFER_REFUSED) {
        judge_refusal(attempt, answer->tag);
    } else if (attempt->is_body_error &&
               (result->end == TRANSFER_COMPLETE || answer->status >= 400)) {
        judge_answer(attempt, answer); /* the status says enough, even if its body broke off */
    } else if (result->end == TRANSFER_COMPLETE) {
        judge_complete(attempt, answer, result);
    } else {
        judge_transfer(attempt, result);
    }
}

/* ---- Starting one --------------------------------------------------------------------------- */

static const struct transfer_callbacks callbacks = {
    .on_head = on_head, .on_body = on_body, .on_done = on_done};

/* False: there is no identity yet, or none to be had. */
static bool find_identity(struct exchange *exchange, struct attempt *attempt)
{
    struct error error;
    if (!s3_address_is_s3(exchange->url)) {
        return true;
    }
    switch (identities_get(exchange->remote->identities, exchange->profile, &attempt->identity,
                           &error)) {
    case IDENTITY_READY: return true;
    case IDENTITY_PENDING: exchange_retry(exchange, UINT64_MAX); return false;
    case IDENTITY_FAILED: break;
    }
    end_with(exchange, &error);
    return false;
}

static bool find_target(struct exchange *exchange, struct attempt *attempt)
{
    static const struct s3_settings none;
    const struct place *place = places_find(&exchange->remote->places, exchange->url);
    const struct s3_settings *settings =
        attempt->identity != NULL ? &attempt->identity->settings : &none;
    if (s3_address_build(settings, exchange->url, exchange->query,
                         place != NULL ? place->region : NULL, &attempt->target,
                         &exchange->error) == 0) {
        return true;
    }
    forget(attempt);
    exchange_end(exchange);
    return false;
}

static void ask_for(struct exchange *exchange, struct attempt *attempt, struct exchange_ask *ask)
{
    const struct identity *identity = attempt->identity;
    if (exchange->is_tag_asked) {
        ask->method = "HEAD";
    } else {
        exchange->kind->ask(exchange, attempt, ask);
    }
    attempt->is_head = strcmp(ask->method, "HEAD") == 0;
    if (identity == NULL) {
        return;
    }
    if (identity->settings.requester_pays) {
        exchange_ask_header(ask, "x-amz-request-payer: requester");
    }
    if (identity->access_key != NULL) {
        exchange_ask_header(ask, "x-amz-content-sha256: UNSIGNED-PAYLOAD");
    }
}

static bool send_request(struct exchange *exchange, struct attempt *attempt,
                         const struct exchange_ask *ask)
{
    const struct identity *identity = attempt->identity;
    bool is_signed = identity != NULL && identity->access_key != NULL;
    const char *headers[EXCHANGE_HEADERS + 1];
    char signing[S3_REGION_BYTES + 16];
    char *token = NULL;
    size_t count = 0;
    for (; count < ask->header_count; count++) {
        headers[count] = ask->headers[count];
    }
    if (is_signed && identity->session_token != NULL &&
        asprintf(&token, "x-amz-security-token: %s", identity->session_token) >= 0) {
        headers[count++] = token;
    }
    snprintf(signing, sizeof signing, "aws:amz:%s:s3", attempt->target.region);
    struct transfer_request request = {
        .method = ask->method,
        .url = attempt->target.url,
        .headers = headers,
        .header_count = count,
        .range = ask->range[0] != '\0' ? ask->range : NULL,
        .signing = is_signed ? signing : NULL,
        .access_key = is_signed ? identity->access_key : NULL,
        .secret_key = is_signed ? identity->secret_key : NULL,
        .body = ask->body,
        .body_bytes = ask->body_bytes,
        .is_connection_new = attempt->is_hedge || exchange->is_connection_new,
        .is_followed = identity == NULL,
    };
    attempt->transfer = transfer_start(exchange->remote->loop, &request, &callbacks, attempt);
    if (token != NULL) {
        explicit_bzero(token, strlen(token));
        free(token);
    }
    return attempt->transfer != NULL;
}

bool attempt_start(struct exchange *exchange, bool is_hedge)
{
    struct remote *remote = exchange->remote;
    struct attempt *attempt = &exchange->attempts[exchange->attempts[0].transfer != NULL];
    assert(attempt->transfer == NULL);
    *attempt = (struct attempt){.exchange = exchange, .is_hedge = is_hedge};
    uint64_t now_ns = clock_now_ns();
    if (is_hedge && s3_address_is_s3(exchange->url)) { /* no time to look for another identity */
        const struct attempt *other = &exchange->attempts[attempt == exchange->attempts];
        attempt->identity = identity_acquire(other->identity);
    } else if (!find_identity(exchange, attempt)) {
        return false;
    }
    if (!find_target(exchange, attempt)) {
        return false;
    }
    struct exchange_ask ask = {.method = "GET"};
    ask_for(exchange, attempt, &ask);
    if (exchange->tries++ == 0) {
        exchange->news_ns = now_ns;
    }
    attempt->started_ns = attempt->watch_ns = now_ns;
    if (!send_request(exchange, attempt, &ask)) {
        forget(attempt);
        error_set(&exchange->error, ERROR_MEMORY, "Out of memory for a request.");
        exchange_end(exchange);
        return false;
    }
    exchange->is_connection_new = false;
    remote->active_count++;
    remote->counts.requests++;
    remote->pace.requests++;
    remote->pace.hedges += is_hedge;
    remote->counts.hedges += is_hedge;
    return true;
}
