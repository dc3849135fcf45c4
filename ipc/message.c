#include "ipc/message.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LENGTH_BYTES = 4, FIRST_CAPACITY_BYTES = 4096 };

static void close_all(int *fds, uint32_t *fd_count)
{
    for (uint32_t i = 0; i < *fd_count; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
        fds[i] = -1;
    }
    *fd_count = 0;
}

void message_clear(struct message *message)
{
    free(message->bytes);
    close_all(message->fds, &message->fd_count);
    *message = (struct message){0};
}

/* ------------------------------------------------------------------------------- receiving */

struct message_reader {
    struct message message; /* what came of the frame so far */
    uint8_t length[LENGTH_BYTES];
    size_t length_got_bytes;
    size_t wanted_bytes; /* known when the length is whole */
    size_t got_bytes;
    size_t capacity_bytes;
    int error; /* the connection is broken for good */
};

struct message_reader *message_reader_create(void)
{
    return calloc(1, sizeof(struct message_reader));
}

void message_reader_destroy(struct message_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    message_clear(&reader->message);
    free(reader);
}

/* Keep the descriptors of one received piece. False: more than a message may carry. */
static bool keep_fds(struct message *message, struct msghdr *header)
{
    bool fits = (header->msg_flags & MSG_CTRUNC) == 0;
    struct cmsghdr *part = CMSG_FIRSTHDR(header);
    for (; part != NULL; part = CMSG_NXTHDR(header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            if (message->fd_count < MESSAGE_FDS_MAX) {
                message->fds[message->fd_count++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    return fits;
}

/* Receive at most size_bytes; never more than the frame has left, so that descriptors that come
 * along can only be this frame's. Bytes received (> 0), 0 to poll again, or a negative errno. */
static ssize_t receive_piece(struct message *message, int socket_fd, void *to, size_t size_bytes)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
    } control;
    struct iovec piece = {to, size_bytes};
    struct msghdr header = {.msg_iov = &piece,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes};
    ssize_t got;
    do {
        got = recvmsg(socket_fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    }
    if (!keep_fds(message, &header)) {
        return -EPROTO;
    }
    return got == 0 ? -ECONNRESET : got;
}

/* Room for some of the bytes still missing, and a NUL. A length alone reserves little: memory
 * grows with what really came. */
static int reserve(struct message_reader *reader)
{
    if (reader->message.bytes != NULL && reader->got_bytes < reader->capacity_bytes) {
        return 0;
    }
    size_t capacity = 2 * reader->capacity_bytes;
    if (capacity < FIRST_CAPACITY_BYTES) {
        capacity = FIRST_CAPACITY_BYTES;
    }
    if (capacity > reader->wanted_bytes) {
        capacity = reader->wanted_bytes;
    }
    char *bytes = realloc(reader->message.bytes, capacity + 1);
    if (bytes == NULL) {
        return -ENOMEM;
    }
    reader->message.bytes = bytes;
    reader->capacity_bytes = capacity;
    return 0;
}

/* As receive_piece(), for whatever part of the frame comes next; 1 when something came. */
static int receive_some(struct message_reader *reader, int socket_fd)
{
    if (reader->length_got_bytes < LENGTH_BYTES) {
        ssize_t got =
            receive_piece(&reader->message, socket_fd, reader->length + reader->length_got_bytes,
                          LENGTH_BYTES - reader->length_got_bytes);
        if (got <= 0) {
            return (int)got;
        }
        reader->length_got_bytes += (size_t)got;
        if (reader->length_got_bytes < LENGTH_BYTES) {
            return 1;
        }
        uint32_t length;
        memcpy(&length, reader->length, sizeof length);
        reader->wanted_bytes = le32toh(length);
        return reader->wanted_bytes <= MESSAGE_BYTES_MAX ? 1 : -EMSGSIZE;
    }
    ssize_t got =
        receive_piece(&reader->message, socket_fd, reader->message.bytes + reader->got_bytes,
                      reader->capacity_bytes - reader->got_bytes);
    if (got <= 0) {
        return (int)got;
    }
    reader->got_bytes += (size_t)got;
    return 1;
}

int message_receive(struct message_reader *reader, int socket_fd, struct message *message)
{
    *message = (struct message){0};
    while (reader->error == 0) {
        bool length_known = reader->length_got_bytes == LENGTH_BYTES;
        int result = length_known ? reserve(reader) : 0;
        if (result == 0 && length_known && reader->got_bytes == reader->wanted_bytes) {
            break;
        }
        if (result == 0) {
            result = receive_some(reader, socket_fd);
        }
        if (result == 0) {
            return 0;
        }
        if (result < 0) {
            reader->error = result;
        }
    }
    if (reader->error != 0) {
        message_clear(&reader->message);
        return reader->error;
    }
    *message = reader->message;
    message->length_bytes = reader->got_bytes;
    message->bytes[reader->got_bytes] = '\0';
    *reader = (struct message_reader){0};
    return 1;
}

/* --------------------------------------------------------------------------------- sending */

struct frame {
    struct frame *next;
    size_t size_bytes; /* length prefix included */
    size_t sent_bytes;
    int fds[MESSAGE_FDS_MAX];
    uint32_t fd_count;
    uint8_t bytes[];
};

struct message_writer {
    struct frame *first;
    struct frame **end; /* the NULL pointer that the next frame goes to */
    size_t unsent_bytes;
};

struct message_writer *message_writer_create(void)
{
    struct message_writer *writer = calloc(1, sizeof *writer);
    if (writer != NULL) {
        writer->end = &writer->first;
    }
    return writer;
}

static void remove_first(struct message_writer *writer)
{
    struct frame *frame = writer->first;
    writer->first = frame->next;
    if (writer->first == NULL) {
        writer->end = &writer->first;
    }
    close_all(frame->fds, &frame->fd_count);
    free(frame);
}

void message_writer_destroy(struct message_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    while (writer->first != NULL) {
        remove_first(writer);
    }
    free(writer);
}

int message_queue(struct message_writer *writer, const char *bytes, size_t length_bytes,
                  const int *fds, uint32_t fd_count)
{
    if (fd_count > MESSAGE_FDS_MAX) {
        return -EINVAL;
    }
    if (length_bytes > MESSAGE_BYTES_MAX) {
        return -EMSGSIZE;
    }
    size_t size_bytes = LENGTH_BYTES + length_bytes;
    if (writer->unsent_bytes + size_bytes > LENGTH_BYTES + MESSAGE_BYTES_MAX) {
        return -ENOBUFS;
    }
    struct frame *frame = malloc(sizeof *frame + size_bytes);
    if (frame == NULL) {
        return -ENOMEM;
    }
    *frame = (struct frame){.size_bytes = size_bytes};
    for (uint32_t i = 0; i < fd_count; i++) {
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (fd < 0) {
            int error = -errno;
            close_all(frame->fds, &frame->fd_count);
            free(frame);
            return error;
        }
        frame->fds[frame->fd_count++] = fd;
    }
    uint32_t length = htole32((uint32_t)length_bytes);
    memcpy(frame->bytes, &length, LENGTH_BYTES);
    if (length_bytes > 0) {
        memcpy(frame->bytes + LENGTH_BYTES, bytes, length_bytes);
    }
    *writer->end = frame;
    writer->end = &frame->next;
    writer->unsent_bytes += size_bytes;
    return 0;
}

/* Send what the socket takes of a frame; the descriptors go with its first byte. */
static ssize_t send_piece(struct frame *frame, int socket_fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
    } control = {0};
    struct iovec piece = {frame->bytes + frame->sent_bytes, frame->size_bytes - frame->sent_bytes};
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1};
    if (frame->fd_count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(frame->fd_count * sizeof(int));
        struct cmsghdr *part = CMSG_FIRSTHDR(&header);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(frame->fd_count * sizeof(int));
        memcpy(CMSG_DATA(part), frame->fds, frame->fd_count * sizeof(int));
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket_fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

int message_flush(struct message_writer *writer, int socket_fd)
{
    while (writer->first != NULL) {
        struct frame *frame = writer->first;
        ssize_t sent = send_piece(frame, socket_fd);
        if (sent == -EAGAIN || sent == -EWOULDBLOCK || sent == 0) {
            return 0;
        }
        if (sent < 0) {
            return (int)sent;
        }
        close_all(frame->fds, &frame->fd_count); /* they are under way */
        frame->sent_bytes += (size_t)sent;
        writer->unsent_bytes -= (size_t)sent;
        if (frame->sent_bytes == frame->size_bytes) {
            remove_first(writer);
        }
    }
    return 1;
}
