/*
 * exchange.h - one thing that is wanted of a server, through all the attempts that it takes.
 *
 * An exchange waits for its turn, for credentials, for a delay to pass; it has one attempt in
 * progress or, when that is slow, two; it ends once. What it asks for and what it does with the
 * answers is its kind's: part.c (ranges of objects) and call.c (small answers, into memory).
 *
 * Threads: exchange_submit() any, all else the network thread.
 *
 * Whatever may end an exchange may free it: exchange_end(), attempt_start(), attempt_stalled().
 */
#ifndef PENSTOCK_LOADER_REMOTE_EXCHANGE_H
#define PENSTOCK_LOADER_REMOTE_EXCHANGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "loader/error.h"
#include "loader/remote/failure.h"
#include "loader/remote/remote.h"
#include "loader/remote/transfer.h"

struct exchange;

/* Why an answer that came was not taken. */
enum refusal { REFUSAL_NONE, REFUSAL_BAD, REFUSAL_CHANGED, REFUSAL_FINAL };

struct attempt {
    struct exchange *exchange;
    struct transfer *transfer; /* NULL: not in progress */
    struct identity *identity;
    struct s3_target target;
    uint64_t start_bytes;    /* where in the wanted bytes it starts */
    uint64_t received_bytes; /* taken from there on */
    uint64_t started_ns;
    uint64_t watch_ns; /* when the stall watch began, and what it had then */
    uint64_t watch_bytes;
    bool is_hedge;
    bool is_head;       /* its answer has no body */
    bool is_body_error; /* the body goes to failure_body */
    enum refusal refusal;
    char why[ANSWER_WHY_BYTES];
    char *failure_body;
    size_t failure_bytes;
};

enum exchange_state {
    EXCHANGE_NEW,
    EXCHANGE_QUEUED,  /* for its turn */
    EXCHANGE_WAITING, /* until due_ns, or for credentials */
    EXCHANGE_ACTIVE,
    EXCHANGE_ENDED,
};

enum { EXCHANGE_RANGE_BYTES = 48, EXCHANGE_HEADERS = 8, EXCHANGE_HEADER_BYTES = 256 };

/* What a kind adds to a request. */
struct exchange_ask {
    const char *method;
    char range[EXCHANGE_RANGE_BYTES]; /* "" : none */
    char headers[EXCHANGE_HEADERS][EXCHANGE_HEADER_BYTES];
    size_t header_count;
    const void *body;
    size_t body_bytes;
};

/* Add "format..." to the headers of `ask`; what has no room is a fault of ours. */
void exchange_ask_header(struct exchange_ask *ask, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

struct exchange_kind {
    /* Fill in the request of an attempt, and attempt->start_bytes. */
    void (*ask)(struct exchange *exchange, struct attempt *attempt, struct exchange_ask *ask);
    /* An answer of status 2xx begins. REFUSAL_NONE: go on; else attempt->why says why not, or for
     * REFUSAL_FINAL exchange->error. */
    enum refusal (*begin)(struct exchange *exchange, struct attempt *attempt,
                          const struct answer *answer);
    enum refusal (*take)(struct exchange *exchange, struct attempt *attempt, const uint8_t *data,
                         size_t size_bytes);
    /* The answer is over: is everything there? REFUSAL_BAD, with why, when it is not. */
    enum refusal (*complete)(struct exchange *exchange, struct attempt *attempt);
    /* New bytes came since the last turn; may be NULL. */
    void (*progress)(struct exchange *exchange);
    /* Bytes still to come: 0 before they are known. For judging what is slow. */
    uint64_t (*left_bytes)(const struct exchange *exchange);
    /* The object is another version now, `tag` ("": unknown): fill in exchange->error. */
    void (*changed)(struct exchange *exchange, const char *tag);
    /* All is over; exchange->error says how. The exchange is the kind's to free. */
    void (*end)(struct exchange *exchange);
};

struct exchange {
    const struct exchange_kind *kind;
    struct remote *remote;
    const char *url;
    const char *profile;
    const char *query; /* NULL: none */
    bool is_write;
    bool is_single; /* a second attempt beside the first could not be joined with it */
    const atomic_bool *is_cancelled;

    enum exchange_state state;
    TAILQ_ENTRY(exchange) link;
    TAILQ_ENTRY(exchange) progress_link;
    bool has_progress;
    bool is_head_vague; /* ask with GET in the place of HEAD */
    bool is_tag_asked;  /* it has changed: ask what it is now, then end */
    struct attempt attempts[2];
    uint64_t news_ns; /* when the first attempt was ready to start, or the last new byte came */
    uint64_t due_ns;  /* WAITING; UINT64_MAX: for credentials */
    uint32_t tries;
    uint32_t failures;    /* in a row, without a new byte */
    uint32_t bad_answers; /* in a row that broke a check */
    uint32_t moves;
    bool is_connection_new; /* the last one served badly */
    char last_failure[512];
    struct error error;
};

TAILQ_HEAD(exchange_list, exchange);

/* The kind's part is filled in, the rest zero. */
void exchange_submit(struct remote *remote, struct exchange *exchange);

/* The same on the network thread. */
void exchange_enter(struct remote *remote, struct exchange *exchange);

/* New bytes for the exchange: it is alive, and `progress` is due. */
void exchange_note_bytes(struct exchange *exchange);

/* Back in line: at once, or at due_ns (UINT64_MAX: when credentials have come). */
void exchange_retry(struct exchange *exchange, uint64_t due_ns);

/* Take it out of all lists, stop its attempts and end it with its error. */
void exchange_end(struct exchange *exchange);

/* Start an attempt: the first, or beside one that is slow. False: it could not be; the exchange
 * was put off or ended. */
bool attempt_start(struct exchange *exchange, bool is_hedge);

/* Stop an attempt that is in progress, and forget what it was. */
void attempt_stop(struct attempt *attempt);

/* An attempt brought nothing new for stall_timeout_ms: stop it, and try again. False: the exchange
 * is no longer active, or gone. */
bool attempt_stalled(struct attempt *attempt);

/* The network thread's turn (transfer.h). */
uint64_t exchange_turn(void *remote, uint64_t now_ns);

/* A part that was started: make its exchange (part.c). */
void part_enter(struct remote *remote, struct remote_part *part);

#endif /* PENSTOCK_LOADER_REMOTE_EXCHANGE_H */
