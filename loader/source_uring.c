/* The io_uring engine: one ring, a request has at most one operation in it. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "loader/source_engine.h"

/* Completions looked at before what follows from them is submitted: enough to share the cost of
 * a system call, few enough that reads of cached pages do not pile up in one. */
enum { COMPLETIONS_PER_ROUND = 16 };

struct uring {
    struct io_uring ring;
    uint64_t file_bytes_max;
    int interrupt_fd;
    bool interrupted;
    struct read_list done;
    size_t done_count;
};

static struct io_uring_sqe *next_sqe(struct uring *uring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (sqe == NULL) { /* full of operations that were not submitted yet */
        io_uring_submit(&uring->ring);
        sqe = io_uring_get_sqe(&uring->ring);
    }
    return sqe;
}

/* A poll on the eventfd of interrupt(); the operation without a request. */
static void arm_interrupt(struct uring *uring)
{
    struct io_uring_sqe *sqe = next_sqe(uring);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_poll_add(sqe, uring->interrupt_fd, POLLIN);
    io_uring_sqe_set_data(sqe, NULL);
}

/* Queue the next operation of a request, or note that it is done. */
static void queue_next(struct uring *uring, struct read_request *request)
{
    struct io_uring_sqe *sqe = request->state == READ_DONE ? NULL : next_sqe(uring);
    if (sqe == NULL) {
        read_run(request, uring->file_bytes_max); /* nothing to do when done */
        read_list_append(&uring->done, request);
        uring->done_count++;
        return;
    }
    if (request->state == READ_OPEN) {
        io_uring_prep_openat(sqe, AT_FDCWD, request->path, read_open_flags(request), 0);
    } else {
        struct read_span span = read_next(request);
        io_uring_prep_read(sqe, request->fd, span.to, span.size_bytes, span.offset_bytes);
    }
    io_uring_sqe_set_data(sqe, request);
}

static void complete(struct uring *uring, struct read_request *request, int result)
{
    if (request == NULL) {
        eventfd_t count;
        eventfd_read(uring->interrupt_fd, &count);
        uring->interrupted = true;
        arm_interrupt(uring);
        return;
    }
    /* These say something of the ring or of the thread that submitted, not of the file. */
    if (result == -EAGAIN || result == -EINTR || result == -ECANCELED) {
        read_run(request, uring->file_bytes_max);
    } else if (request->state == READ_OPEN) {
        read_opened(request, result, uring->file_bytes_max);
    } else {
        read_advance(request, result);
    }
    queue_next(uring, request);
}

/* Handle what has come, and what comes at once from that, until `max` requests are done. */
static void handle_completions(struct uring *uring, size_t max)
{
    bool more = true;
    while (more && uring->done_count < max) {
        struct io_uring_cqe *cqe;
        int handled = 0;
        while (handled < COMPLETIONS_PER_ROUND && io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
            struct read_request *request = io_uring_cqe_get_data(cqe);
            int result = cqe->res;
            io_uring_cqe_seen(&uring->ring, cqe);
            complete(uring, request, result);
            handled++;
        }
        /* A refusal (-EBUSY, -EAGAIN) leaves the operations queued for the next call. */
        if (io_uring_sq_ready(&uring->ring) > 0) {
            io_uring_submit(&uring->ring);
        }
        more = handled > 0;
    }
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void uring_submit(void *engine, struct read_request *const *requests, size_t count)
{
    struct uring *uring = engine;
    for (size_t i = 0; i < count; i++) {
        queue_next(uring, requests[i]);
    }
    io_uring_submit(&uring->ring);
}

static size_t uring_reap(void *engine, struct read_request **done, size_t max, int timeout_ms)
{
    struct uring *uring = engine;
    int64_t deadline_ns = timeout_ms > 0 ? now_ns() + (int64_t)timeout_ms * 1000000 : 0;
    for (;;) {
        handle_completions(uring, max);
        if (uring->done_count > 0 || uring->interrupted || timeout_ms <= 0) {
            break;
        }
        int64_t left_ns = deadline_ns - now_ns();
        if (left_ns <= 0) {
            break;
        }
        struct __kernel_timespec left = {left_ns / 1000000000, left_ns % 1000000000};
        struct io_uring_cqe *cqe;
        io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1, &left, NULL);
    }
    uring->interrupted = false;
    size_t count = 0;
    while (count < max && (done[count] = read_list_take(&uring->done)) != NULL) {
        count++;
    }
    uring->done_count -= count;
    return count;
}

static void uring_interrupt(void *engine)
{
    struct uring *uring = engine;
    eventfd_write(uring->interrupt_fd, 1);
}

static void uring_destroy(void *engine)
{
    struct uring *uring = engine;
    io_uring_queue_exit(&uring->ring);
    close(uring->interrupt_fd);
    free(uring);
}

static const char *likely_cause(int error)
{
    switch (error) {
    case EPERM:
    case EACCES: return "; a container's seccomp filter or kernel.io_uring_disabled forbids it";
    case ENOSYS: return "; the kernel or a seccomp filter has no io_uring";
    case ENOMEM: return "; the limit of locked memory (ulimit -l) is too low";
    default: return "";
    }
}

/* What this engine needs that the oldest kernels with io_uring lack; NULL when all is there. */
static const char *missing_feature(struct io_uring *ring)
{
    if ((ring->features & IORING_FEAT_NODROP) == 0 || (ring->features & IORING_FEAT_EXT_ARG) == 0) {
        return "io_uring: this kernel lacks waiting with a timeout (Linux 5.11 has it)";
    }
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool complete = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_OPENAT) &&
                    io_uring_opcode_supported(probe, IORING_OP_READ) &&
                    io_uring_opcode_supported(probe, IORING_OP_POLL_ADD);
    io_uring_free_probe(probe);
    return complete ? NULL : "io_uring: open or read is not allowed or not known here";
}

static int open_ring(struct uring *uring, uint32_t depth, char *reason, size_t reason_bytes)
{
    /* One operation for each request and the poll of interrupt(). */
    struct io_uring_params params = {.flags = IORING_SETUP_CLAMP};
    int error = -io_uring_queue_init_params(depth + 1, &uring->ring, &params);
    if (error != 0) {
        snprintf(reason, reason_bytes, "io_uring_setup: %s (%s)%s", strerror(error),
                 strerrorname_np(error), likely_cause(error));
        return error;
    }
    const char *missing = missing_feature(&uring->ring);
    if (missing != NULL) {
        snprintf(reason, reason_bytes, "%s", missing);
        io_uring_queue_exit(&uring->ring);
        return ENOSYS;
    }
    return 0;
}

static void *uring_create(uint32_t depth, uint64_t file_bytes_max, char *reason,
                          size_t reason_bytes)
{
    struct uring *uring = calloc(1, sizeof *uring);
    if (uring == NULL) {
        snprintf(reason, reason_bytes, "out of memory");
        return NULL;
    }
    uring->file_bytes_max = file_bytes_max;
    uring->interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (uring->interrupt_fd < 0) {
        snprintf(reason, reason_bytes, "eventfd: %s", strerror(errno));
    }
    if (uring->interrupt_fd < 0 || open_ring(uring, depth, reason, reason_bytes) != 0) {
        if (uring->interrupt_fd >= 0) {
            close(uring->interrupt_fd);
        }
        free(uring);
        return NULL;
    }
    arm_interrupt(uring);
    return uring;
}

const struct source_ops *source_uring_ops(void)
{
    static const struct source_ops ops = {
        .kind = SOURCE_URING,
        .create = uring_create,
        .destroy = uring_destroy,
        .submit = uring_submit,
        .reap = uring_reap,
        .interrupt = uring_interrupt,
    };
    return &ops;
}
