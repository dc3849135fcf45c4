/* Parts: ranges of objects, straight into the caller's buffer. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader/remote/exchange.h"
#include "loader/remote/remote_private.h"

struct part_exchange {
    struct exchange exchange; /* first */
    struct remote_part *part;
    struct checksum checksum; /* of all the bytes, when the part is the whole object */
    bool is_unversioned;      /* nothing says which version the bytes are of: never joined */
};

static struct part_exchange *own(const struct exchange *exchange)
{
    return (struct part_exchange *)exchange;
}

static const struct remote_version *wanted_version(const struct remote_part *part)
{
    return part->version.tag[0] != '\0' ? &part->version : &part->seen;
}

static void ask(struct exchange *exchange, struct attempt *attempt, struct exchange_ask *ask)
{
    struct part_exchange *own_exchange = own(exchange);
    struct remote_part *part = own_exchange->part;
    const struct remote_version *wanted = wanted_version(part);
    if (own_exchange->is_unversioned) {
        part->received_bytes = 0;
    }
    attempt->start_bytes = part->received_bytes;
    snprintf(ask->range, sizeof ask->range, "%" PRIu64 "-%" PRIu64,
             part->offset_bytes + attempt->start_bytes,
             part->offset_bytes + part->length_bytes - 1);
    if (wanted->tag[0] == '"') {
        exchange_ask_header(ask, "If-Match: %s", wanted->tag);
    } else if (wanted->tag[0] == '@') {
        exchange_ask_header(ask, "If-Unmodified-Since: %s", wanted->tag + 1);
    }
    bool may_be_whole = part->offset_bytes == 0 && attempt->start_bytes == 0 &&
                        (wanted->tag[0] == '\0' || wanted->size_bytes == part->length_bytes);
    if (may_be_whole && s3_address_is_s3(part->url)) {
        exchange_ask_header(ask, "x-amz-checksum-mode: ENABLED");
    }
}

/* The first good answer teaches which version all others must be of. */
static bool learn(struct part_exchange *own_exchange, const struct answer *answer)
{
    struct remote_part *part = own_exchange->part;
    if (part->seen.tag[0] == '\0' && !answer_version(answer, &part->seen) &&
        part->version.tag[0] == '\0') {
        return false;
    }
    if (part->version.tag[0] != '\0') {
        part->seen = part->version;
    }
    own_exchange->is_unversioned = part->seen.tag[0] == '\0';
    own_exchange->exchange.is_single |= own_exchange->is_unversioned;
    return true;
}

static enum refusal begin(struct exchange *exchange, struct attempt *attempt,
                          const struct answer *answer)
{
    struct part_exchange *own_exchange = own(exchange);
    struct remote_part *part = own_exchange->part;
    switch (answer_check(answer, wanted_version(part), part->offset_bytes + attempt->start_bytes,
                         part->length_bytes - attempt->start_bytes, attempt->why)) {
    case ANSWER_GOOD: break;
    case ANSWER_BAD: return REFUSAL_BAD;
    case ANSWER_CHANGED: return REFUSAL_CHANGED;
    }
    if (!learn(own_exchange, answer)) {
        snprintf(attempt->why, sizeof attempt->why,
                 "the answer does not say how large the object is");
        return REFUSAL_BAD;
    }
    bool is_whole = part->offset_bytes == 0 && attempt->start_bytes == 0 &&
                    part->length_bytes == part->seen.size_bytes;
    if (is_whole && answer->checksum.kind != CHECKSUM_NONE && !answer->is_checksum_partial) {
        own_exchange->checksum = answer->checksum;
    }
    return REFUSAL_NONE;
}

static enum refusal take(struct exchange *exchange, struct attempt *attempt, const uint8_t *data,
                         size_t size_bytes)
{
    struct remote_part *part = own(exchange)->part;
    uint64_t position = attempt->start_bytes + attempt->received_bytes;
    if (size_bytes > part->length_bytes - position) {
        snprintf(attempt->why, sizeof attempt->why, "more bytes came than the answer announced");
        return REFUSAL_BAD;
    }
    attempt->received_bytes += size_bytes;
    uint64_t end = position + size_bytes;
    /* What the other attempt has brought is final: its bytes may be in use. */
    uint64_t known_bytes = part->received_bytes > position ? part->received_bytes - position : 0;
    if (known_bytes >= size_bytes) {
        exchange->remote->counts.wasted_bytes += size_bytes;
        return REFUSAL_NONE;
    }
    exchange->remote->counts.wasted_bytes += known_bytes;
    memcpy(part->buffer + position + known_bytes, data + known_bytes, size_bytes - known_bytes);
    part->received_bytes = end;
    exchange_note_bytes(exchange);
    return REFUSAL_NONE;
}

static enum refusal complete(struct exchange *exchange, struct attempt *attempt)
{
    struct part_exchange *own_exchange = own(exchange);
    struct remote_part *part = own_exchange->part;
    if (part->received_bytes != part->length_bytes) {
        snprintf(attempt->why, sizeof attempt->why, "the answer ended after %" PRIu64 " bytes",
                 attempt->received_bytes);
        return REFUSAL_BAD;
    }
    if (!checksum_holds(&own_exchange->checksum, part->buffer, part->length_bytes)) {
        snprintf(attempt->why, sizeof attempt->why,
                 "the bytes do not have the checksum that the server gives for them");
        part->received_bytes = 0;
        return REFUSAL_BAD;
    }
    return REFUSAL_NONE;
}

static void progress(struct exchange *exchange)
{
    const struct part_exchange *own_exchange = own(exchange);
    struct remote_part *part = own_exchange->part;
    bool is_final = !own_exchange->is_unversioned && own_exchange->checksum.kind == CHECKSUM_NONE;
    if (is_final && part->on_progress != NULL && part->received_bytes < part->length_bytes) {
        part->on_progress(part, part->received_bytes);
    }
}

static uint64_t left_bytes(const struct exchange *exchange)
{
    const struct remote_part *part = own(exchange)->part;
    return part->length_bytes - part->received_bytes;
}

static void changed(struct exchange *exchange, const char *tag)
{
    const struct remote_part *part = own(exchange)->part;
    char shown[300], now[REMOTE_TAG_BYTES + 20] = "another one";
    if (tag[0] != '\0') {
        snprintf(now, sizeof now, "%s", tag);
    }
    error_set(&exchange->error, ERROR_CHANGED,
              "%s was replaced while it was in use: version %s was being read, it is now %s. "
              "Start the epoch again to read the new version; do not write to objects that are "
              "being trained on.",
              s3_address_public(part->url, shown, sizeof shown), wanted_version(part)->tag, now);
}

static void end(struct exchange *exchange)
{
    struct part_exchange *own_exchange = own(exchange);
    struct remote_part *part = own_exchange->part;
    bool are_bytes_final =
        exchange->error.kind == ERROR_NONE ||
        (!own_exchange->is_unversioned && own_exchange->checksum.kind == CHECKSUM_NONE);
    part->received_bytes = are_bytes_final ? part->received_bytes : 0;
    part->error = exchange->error;
    part->exchange = NULL;
    free(own_exchange);
    part->on_done(part);
}

static const struct exchange_kind part_kind = {
    .ask = ask,
    .begin = begin,
    .take = take,
    .complete = complete,
    .progress = progress,
    .left_bytes = left_bytes,
    .changed = changed,
    .end = end,
};

void part_enter(struct remote *remote, struct remote_part *part)
{
    bool is_good = part->length_bytes > 0 &&
                   (part->version.tag[0] == '\0' || answer_tag_is_usable(part->version.tag));
    struct part_exchange *own_exchange = is_good ? calloc(1, sizeof *own_exchange) : NULL;
    if (own_exchange == NULL) {
        error_set(&part->error, is_good ? ERROR_MEMORY : ERROR_INTERNAL, "%s.",
                  is_good ? "Out of memory" : "A part without bytes, or with an impossible tag");
        part->on_done(part);
        return;
    }
    own_exchange->part = part;
    own_exchange->exchange.kind = &part_kind;
    own_exchange->exchange.url = part->url;
    own_exchange->exchange.profile = part->profile;
    own_exchange->exchange.is_cancelled = &part->is_cancelled;
    part->exchange = &own_exchange->exchange;
    exchange_enter(remote, &own_exchange->exchange);
}

void remote_part_start(struct remote *remote, struct remote_part *part)
{
    part->error = (struct error){0};
    part->received_bytes = 0;
    part->seen = (struct remote_version){0};
    part->next = NULL;
    part->exchange = NULL;
    atomic_store(&part->is_cancelled, false);
    pthread_mutex_lock(&remote->lock);
    bool is_first = remote->parts_first == NULL;
    if (is_first) {
        remote->parts_first = part;
    } else {
        remote->parts_last->next = part;
    }
    remote->parts_last = part;
    pthread_mutex_unlock(&remote->lock);
    if (is_first) {
        transfer_loop_wake(remote->loop);
    }
}

void remote_part_cancel(struct remote *remote, struct remote_part *part)
{
    atomic_store(&part->is_cancelled, true);
    atomic_store(&remote->is_cancel_due, true);
    transfer_loop_wake(remote->loop);
}
