#include "loader/remote/transfer.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "loader/clock.h"

enum {
    EVENTS_AT_ONCE = 64,
    /* One recv() of this size at most; larger ones fall out of the second-level cache between the
     * kernel's copy and ours. */
    RECEIVE_BYTES = 256 * 1024,
    REDIRECTS_MAX = 5,
};

struct transfer_loop {
    CURLM *multi;
    int epoll;
    int wake;
    pthread_t thread;
    bool has_thread;
    atomic_bool is_ending;
    uint64_t curl_due_ns; /* when libcurl wants to be called; UINT64_MAX: not at all */
    uint64_t turn_due_ns;
    uint32_t connect_timeout_ms;
    char *ca_file;
    uint64_t (*on_turn)(void *context, uint64_t now_ns);
    void *context;
};

struct transfer {
    struct transfer_loop *loop;
    CURL *easy;
    struct curl_slist *headers;
    struct transfer_callbacks callbacks;
    void *context;
    struct answer answer;
    bool is_head_told;
    bool is_refused;
    const uint8_t *body;
    size_t body_left_bytes;
    char reason[CURL_ERROR_SIZE];
};

/* ---- libcurl's wishes ----------------------------------------------------------------------- */

static int on_timer(CURLM *multi, long timeout_ms, void *context)
{
    (void)multi;
    struct transfer_loop *loop = context;
    loop->curl_due_ns =
        timeout_ms < 0 ? UINT64_MAX : clock_now_ns() + (uint64_t)timeout_ms * 1000000u;
    return 0;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *known)
{
    (void)easy;
    struct transfer_loop *loop = context;
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(loop->epoll, EPOLL_CTL_DEL, fd, NULL); /* gone already when it was closed */
        return 0;
    }
    struct epoll_event event = {.data.fd = fd};
    event.events |= what & CURL_POLL_IN ? EPOLLIN : 0;
    event.events |= what & CURL_POLL_OUT ? EPOLLOUT : 0;
    int operation = known != NULL ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(loop->epoll, operation, fd, &event) != 0 && errno == EEXIST) {
        epoll_ctl(loop->epoll, EPOLL_CTL_MOD, fd, &event);
    } else if (known == NULL) {
        curl_multi_assign(loop->multi, fd, loop); /* any pointer: "known" */
    }
    return 0;
}

/* ---- An answer streams in ------------------------------------------------------------------- */

static bool tell_head(struct transfer *transfer)
{
    if (!transfer->is_head_told && transfer->answer.status != 0) {
        transfer->is_head_told = true;
        transfer->is_refused = !transfer->callbacks.on_head(transfer->context, &transfer->answer);
    }
    return !transfer->is_refused;
}

static size_t on_header(char *line, size_t size, size_t count, void *context)
{
    struct transfer *transfer = context;
    answer_take_line(&transfer->answer, line, size * count);
    return size * count;
}

static size_t on_write(char *data, size_t size, size_t count, void *context)
{
    struct transfer *transfer = context;
    size_t bytes = size * count;
    if (!tell_head(transfer)) {
        return CURL_WRITEFUNC_ERROR;
    }
    if (!transfer->callbacks.on_body(transfer->context, (const uint8_t *)data, bytes)) {
        transfer->is_refused = true;
        return CURL_WRITEFUNC_ERROR;
    }
    return bytes;
}

static size_t on_read(char *buffer, size_t size, size_t count, void *context)
{
    struct transfer *transfer = context;
    size_t bytes = size * count;
    bytes = bytes < transfer->body_left_bytes ? bytes : transfer->body_left_bytes;
    memcpy(buffer, transfer->body, bytes);
    transfer->body += bytes;
    transfer->body_left_bytes -= bytes;
    return bytes;
}

static enum transfer_end end_of(CURLcode code)
{
    switch ((int)code) {
    case CURLE_OK: return TRANSFER_COMPLETE;
    case CURLE_COULDNT_RESOLVE_HOST: return TRANSFER_NO_NAME;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_PROXY: return TRANSFER_NO_PROXY;
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT: return TRANSFER_NO_CONNECT; /* the only timeout we set */
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS: return TRANSFER_NO_TRUST;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_FUNCTION_ARGUMENT:
    case CURLE_TOO_MANY_REDIRECTS: return TRANSFER_UNFIT;
    default: return TRANSFER_BROKEN;
    }
}

/* libcurl does not tell whether it went through one. */
static bool is_proxy_set(void)
{
    static const char *const names[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                                        "ALL_PROXY"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != '\0') {
            return true;
        }
    }
    return false;
}

static void fill_result(struct transfer *transfer, CURLcode code, struct transfer_result *result)
{
    *result = (struct transfer_result){.end = end_of(code)};
    curl_off_t first_us = 0, total_us = 0;
    long connections = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_STARTTRANSFER_TIME_T, &first_us);
    curl_easy_getinfo(transfer->easy, CURLINFO_TOTAL_TIME_T, &total_us);
    curl_easy_getinfo(transfer->easy, CURLINFO_NUM_CONNECTS, &connections);
    result->first_byte_ns = transfer->answer.status != 0 ? (uint64_t)first_us * 1000 : 0;
    result->total_ns = (uint64_t)total_us * 1000;
    result->connections = (uint32_t)connections;
    if (transfer->is_refused) {
        result->end = TRANSFER_REFUSED;
    } else if (code != CURLE_OK) {
        bool is_proxied = result->end == TRANSFER_NO_CONNECT && is_proxy_set();
        snprintf(result->reason, sizeof result->reason, "%.200s%s",
                 transfer->reason[0] != '\0' ? transfer->reason : curl_easy_strerror(code),
                 is_proxied ? "; a proxy is set in the environment" : "");
    }
}

static void finish(struct transfer *transfer, CURLcode code)
{
    if (transfer->answer.status != 0 && code == CURLE_OK) {
        tell_head(transfer); /* an answer without a body */
    }
    struct transfer_result result;
    fill_result(transfer, code, &result);
    transfer->callbacks.on_done(transfer->context, &transfer->answer, &result);
    transfer_stop(transfer);
}

/* ---- The loop ------------------------------------------------------------------------------- */

static void reap(struct transfer_loop *loop)
{
    int left;
    CURLMsg *message;
    while ((message = curl_multi_info_read(loop->multi, &left)) != NULL) {
        if (message->msg == CURLMSG_DONE) {
            struct transfer *transfer = NULL;
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
            finish(transfer, message->data.result);
        }
    }
}

static int wait_ms(const struct transfer_loop *loop, uint64_t now_ns)
{
    uint64_t due_ns = loop->curl_due_ns < loop->turn_due_ns ? loop->curl_due_ns : loop->turn_due_ns;
    if (due_ns <= now_ns) {
        return 0;
    }
    uint64_t left_ms = (due_ns - now_ns + 999999) / 1000000;
    return left_ms < 1000 ? (int)left_ms : 1000;
}

static void *run(void *context)
{
    struct transfer_loop *loop = context;
    pthread_setname_np(pthread_self(), "penstock-net");
    struct epoll_event events[EVENTS_AT_ONCE];
    while (!atomic_load(&loop->is_ending)) {
        int count = epoll_wait(loop->epoll, events, EVENTS_AT_ONCE, wait_ms(loop, clock_now_ns()));
        int running;
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == loop->wake) {
                uint64_t ignored;
                (void)!read(loop->wake, &ignored, sizeof ignored);
                continue;
            }
            int mask = events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0;
            mask |= events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0;
            mask |= events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0;
            curl_multi_socket_action(loop->multi, events[i].data.fd, mask, &running);
        }
        if (loop->curl_due_ns <= clock_now_ns()) {
            loop->curl_due_ns = UINT64_MAX;
            curl_multi_socket_action(loop->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        }
        reap(loop);
        loop->turn_due_ns = loop->on_turn(loop->context, clock_now_ns());
    }
    loop->on_turn(loop->context, clock_now_ns());
    return NULL;
}

static bool set_up_multi(struct transfer_loop *loop, uint32_t connections_max)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return false;
    }
    loop->multi = curl_multi_init();
    if (loop->multi == NULL) {
        return false;
    }
    curl_multi_setopt(loop->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(loop->multi, CURLMOPT_SOCKETDATA, loop);
    curl_multi_setopt(loop->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(loop->multi, CURLMOPT_TIMERDATA, loop);
    curl_multi_setopt(loop->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
    curl_multi_setopt(loop->multi, CURLMOPT_MAXCONNECTS, (long)connections_max + 8);
    return true;
}

static bool start_thread(struct transfer_loop *loop)
{
    int status = pthread_create(&loop->thread, NULL, run, loop);
    errno = status;
    loop->has_thread = status == 0;
    return loop->has_thread;
}

struct transfer_loop *transfer_loop_create(const struct transfer_loop_options *options,
                                           struct error *error)
{
    struct transfer_loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL) {
        error_set(error, ERROR_MEMORY, "Out of memory.");
        return NULL;
    }
    loop->curl_due_ns = UINT64_MAX;
    loop->connect_timeout_ms = options->connect_timeout_ms;
    loop->on_turn = options->on_turn;
    loop->context = options->context;
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->ca_file = options->ca_file != NULL ? strdup(options->ca_file) : NULL;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = loop->wake};
    if (loop->epoll < 0 || loop->wake < 0 ||
        epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake, &event) != 0 ||
        !set_up_multi(loop, options->connections_max) || !start_thread(loop)) {
        error_set(error, ERROR_INTERNAL, "The network thread cannot be started: %s.",
                  strerror(errno));
        transfer_loop_destroy(loop);
        return NULL;
    }
    return loop;
}

void transfer_loop_wake(struct transfer_loop *loop)
{
    uint64_t one = 1;
    (void)!write(loop->wake, &one, sizeof one); /* full: it is awake */
}

void transfer_loop_stop(struct transfer_loop *loop)
{
    if (loop->has_thread) {
        atomic_store(&loop->is_ending, true);
        transfer_loop_wake(loop);
        pthread_join(loop->thread, NULL);
        loop->has_thread = false;
    }
}

void transfer_loop_destroy(struct transfer_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    if (loop->multi != NULL) {
        curl_multi_cleanup(loop->multi);
    }
    close(loop->epoll);
    close(loop->wake);
    free(loop->ca_file);
    free(loop);
}

/* ---- Starting one --------------------------------------------------------------------------- */

static bool set_headers(struct transfer *transfer, const struct transfer_request *request)
{
    for (size_t i = 0; i < request->header_count; i++) {
        struct curl_slist *longer = curl_slist_append(transfer->headers, request->headers[i]);
        if (longer == NULL) {
            return false;
        }
        transfer->headers = longer;
    }
    return curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers) == CURLE_OK;
}

static void set_manners(struct transfer *transfer, const struct transfer_request *request)
{
    const struct transfer_loop *loop = transfer->loop;
    CURL *easy = transfer->easy;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR,
                     strncasecmp(request->url, "https:", 6) == 0 ? "https" : "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, request->is_followed ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)loop->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BYTES);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, request->is_connection_new ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "penstock/" PENSTOCK_VERSION);
    if (loop->ca_file != NULL) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, loop->ca_file);
    }
}

static void set_method(struct transfer *transfer, const struct transfer_request *request)
{
    CURL *easy = transfer->easy;
    if (strcmp(request->method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (strcmp(request->method, "PUT") == 0) {
        transfer->body = request->body;
        transfer->body_left_bytes = request->body_bytes;
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_bytes);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(easy, CURLOPT_READDATA, transfer);
    }
    if (request->range != NULL) {
        curl_easy_setopt(easy, CURLOPT_RANGE, request->range);
    }
    if (request->signing != NULL) {
        curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, request->signing);
        curl_easy_setopt(easy, CURLOPT_USERNAME, request->access_key);
        curl_easy_setopt(easy, CURLOPT_PASSWORD, request->secret_key);
    }
}

struct transfer *transfer_start(struct transfer_loop *loop, const struct transfer_request *request,
                                const struct transfer_callbacks *callbacks, void *context)
{
    struct transfer *transfer = calloc(1, sizeof *transfer);
    if (transfer == NULL) {
        return NULL;
    }
    transfer->loop = loop;
    transfer->callbacks = *callbacks;
    transfer->context = context;
    transfer->easy = curl_easy_init();
    if (transfer->easy == NULL || !set_headers(transfer, request)) {
        transfer_stop(transfer);
        return NULL;
    }
    CURL *easy = transfer->easy;
    set_manners(transfer, request);
    set_method(transfer, request);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->reason);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    if (curl_easy_setopt(easy, CURLOPT_URL, request->url) != CURLE_OK ||
        curl_multi_add_handle(loop->multi, easy) != CURLM_OK) {
        transfer_stop(transfer);
        return NULL;
    }
    return transfer;
}

void transfer_stop(struct transfer *transfer)
{
    if (transfer->easy != NULL) {
        curl_multi_remove_handle(transfer->loop->multi, transfer->easy);
        curl_easy_cleanup(transfer->easy);
    }
    curl_slist_free_all(transfer->headers);
    free(transfer);
}
