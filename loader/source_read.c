/* The steps of one read, the same for both engines. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/source_engine.h"

enum {
    BUFFER_BYTES_MIN = 64 * 1024,
    SPAN_BYTES_MAX = 1 << 30, /* one system call's worth; a multiple of every alignment */
};

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static void finish(struct read_request *request, int error)
{
    if (!request->keep_open && request->fd >= 0) {
        close(request->fd);
    }
    request->fd = -1;
    request->error = error;
    request->state = READ_DONE;
    if (error != 0) {
        request->bytes = NULL;
        request->size_bytes = 0;
        return;
    }
    /* Bytes after the last would depend on the engine and on what the buffer held before. */
    memset(request->bytes + request->size_bytes, 0, READ_TAIL_BYTES);
}

void read_begin(struct read_request *request)
{
    request->state = READ_OPEN;
    request->error = 0;
    request->bytes = NULL;
    request->size_bytes = 0;
    request->fd = -1;
    request->done_bytes = 0;
    request->wanted_bytes = 0;
    request->align_bytes = request->direct ? READ_ALIGNMENT_BYTES : 0;
    request->next = NULL;
}

int read_open_flags(const struct read_request *request)
{
    /* O_NONBLOCK: opening a FIFO must not wait for its writer. */
    int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    return request->align_bytes != 0 ? flags | O_DIRECT : flags;
}

/* The alignment that O_DIRECT needs on this file; 0 when it cannot be used. */
static uint32_t direct_alignment(int fd)
{
#ifdef STATX_DIOALIGN
    struct statx status;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
        (status.stx_mask & STATX_DIOALIGN) != 0) {
        uint32_t align = status.stx_dio_offset_align, memory = status.stx_dio_mem_align;
        bool usable = align != 0 && (align & (align - 1)) == 0 && align <= (1u << 20) &&
                      memory <= READ_ALIGNMENT_BYTES;
        return usable ? align : 0;
    }
#endif
    return READ_ALIGNMENT_BYTES;
}

int read_file_inspect(struct read_file *file, int fd, bool direct)
{
    struct stat status;
    if (fstat(fd, &status) < 0) {
        return errno;
    }
    if (S_ISDIR(status.st_mode)) {
        return EISDIR;
    }
    if (!S_ISREG(status.st_mode)) {
        return EINVAL;
    }
    *file = (struct read_file){
        .fd = fd,
        .size_bytes = (uint64_t)status.st_size,
        .mtime_ns = (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec,
        .align_bytes = direct ? direct_alignment(fd) : 0,
    };
    /* O_NONBLOCK has done its duty; on a regular file it would make io_uring give EAGAIN. */
    return fcntl(fd, F_SETFL, file->align_bytes != 0 ? O_DIRECT : 0) < 0 ? errno : 0;
}

bool read_reserve(struct read_request *request, uint64_t need_bytes)
{
    if (need_bytes <= request->buffer_bytes) {
        return true;
    }
    if (need_bytes > SIZE_MAX / 2) {
        return false;
    }
    size_t bytes = BUFFER_BYTES_MIN;
    while (bytes < need_bytes) {
        bytes += bytes / 2;
    }
    bytes = round_up(bytes, READ_ALIGNMENT_BYTES);
    void *buffer;
    if (posix_memalign(&buffer, READ_ALIGNMENT_BYTES, bytes) != 0) {
        return false;
    }
    free(request->buffer);
    request->buffer = buffer;
    request->buffer_bytes = bytes;
    return true;
}

void read_use_file(struct read_request *request, const struct read_file *file,
                   uint64_t file_bytes_max)
{
    bool whole = request->length_bytes == 0 && !request->keep_open;
    uint64_t offset = whole ? 0 : request->offset_bytes;
    uint64_t length = whole ? file->size_bytes : request->length_bytes;
    request->fd = file->fd;
    if (length > file_bytes_max) {
        finish(request, EFBIG);
        return;
    }
    if (offset > file->size_bytes || length > file->size_bytes - offset) {
        finish(request, ENODATA);
        return;
    }
    uint64_t unit = file->align_bytes != 0 ? file->align_bytes : 1;
    uint64_t lead = offset % unit;
    request->align_bytes = file->align_bytes;
    request->wanted_bytes = round_up(lead + length, unit);
    /* The tail of an O_DIRECT read may be longer than what is wanted; 64 bytes come after. */
    if (!read_reserve(request, request->wanted_bytes + READ_TAIL_BYTES)) {
        finish(request, ENOMEM);
        return;
    }
    request->bytes = request->buffer + lead;
    request->size_bytes = length;
    request->done_bytes = 0;
    request->state = READ_BYTES;
    if (length == 0) {
        finish(request, 0);
    }
}

void read_opened(struct read_request *request, int result, uint64_t file_bytes_max)
{
    if (result == -EINVAL && request->align_bytes != 0) {
        request->align_bytes = 0; /* a file system without O_DIRECT; the state stays READ_OPEN */
        return;
    }
    if (result < 0) {
        finish(request, -result);
        return;
    }
    request->fd = result;
    struct read_file file;
    int error = read_file_inspect(&file, result, request->align_bytes != 0);
    if (error != 0) {
        finish(request, error);
    } else {
        read_use_file(request, &file, file_bytes_max);
    }
}

struct read_span read_next(const struct read_request *request)
{
    assert(request->state == READ_BYTES && request->done_bytes < request->wanted_bytes);
    uint64_t lead = (uint64_t)(request->bytes - request->buffer);
    uint64_t left = request->wanted_bytes - request->done_bytes;
    uint64_t begin = request->length_bytes == 0 ? 0 : request->offset_bytes - lead;
    return (struct read_span){
        .to = request->buffer + request->done_bytes,
        .size_bytes = (uint32_t)(left < SPAN_BYTES_MAX ? left : SPAN_BYTES_MAX),
        .offset_bytes = begin + request->done_bytes,
    };
}

void read_advance(struct read_request *request, ssize_t result)
{
    assert(request->state == READ_BYTES);
    uint64_t needed = (uint64_t)(request->bytes - request->buffer) + request->size_bytes;
    if (result == -EINVAL && request->align_bytes != 0) {
        /* The file system took the flag and refuses the read. A shard's other readers share this
         * description; their aligned reads are good buffered ones, too. */
        request->align_bytes = 0;
        if (fcntl(request->fd, F_SETFL, 0) < 0) {
            finish(request, errno);
        }
        return;
    }
    if (result < 0) {
        finish(request, (int)-result);
        return;
    }
    request->done_bytes += (uint64_t)result;
    if (request->done_bytes >= needed) {
        finish(request, 0);
    } else if (result == 0 ||
               (request->align_bytes != 0 && request->done_bytes % request->align_bytes != 0)) {
        finish(request, ENODATA); /* the file became shorter than it was when opened */
    }
}

void read_run(struct read_request *request, uint64_t file_bytes_max)
{
    while (request->state == READ_OPEN) {
        int fd = open(request->path, read_open_flags(request));
        if (fd >= 0 || errno != EINTR) {
            read_opened(request, fd >= 0 ? fd : -errno, file_bytes_max);
        }
    }
    while (request->state == READ_BYTES) {
        struct read_span span = read_next(request);
        ssize_t got = pread(request->fd, span.to, span.size_bytes, (off_t)span.offset_bytes);
        if (got >= 0 || errno != EINTR) {
            read_advance(request, got >= 0 ? got : -errno);
        }
    }
}

void read_request_trim(struct read_request *request, size_t keep_bytes_max)
{
    if (request->buffer_bytes > keep_bytes_max) {
        read_request_clear(request);
    }
}

void read_request_clear(struct read_request *request)
{
    free(request->buffer);
    request->buffer = NULL;
    request->buffer_bytes = 0;
    request->bytes = NULL;
    request->size_bytes = 0;
}

void read_list_append(struct read_list *list, struct read_request *request)
{
    request->next = NULL;
    if (list->first == NULL) {
        list->first = request;
    } else {
        list->last->next = request;
    }
    list->last = request;
}

struct read_request *read_list_take(struct read_list *list)
{
    struct read_request *request = list->first;
    if (request != NULL) {
        list->first = request->next;
    }
    return request;
}
