/*
 * Control messages: any bytes, sent in pieces of any size with descriptors on some of them. What
 * message_receive() gives must be what a plain parse of the same bytes gives, and no descriptor
 * may stay open. Good messages are sent on through a message_writer and must arrive the same.
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/message.h"
#include "tests/fuzz/fuzz.h"

enum { LENGTH_BYTES = 4, ECHO_BYTES_MAX = 4096 };

struct stream {
    const uint8_t *bytes;
    size_t size_bytes;
    size_t sent_bytes;
    uint32_t random;
    /* The frame that message_receive() is at, and what it must give. */
    size_t frame_begin;
    uint32_t frame_fds;
};

static uint32_t draw(struct stream *stream)
{
    stream->random = stream->random * 1664525u + 1013904223u;
    return stream->random >> 8;
}

/* Length of the frame at frame_begin; SIZE_MAX when its length is not whole. */
static size_t frame_length(const struct stream *stream)
{
    uint32_t length;
    if (stream->size_bytes - stream->frame_begin < LENGTH_BYTES) {
        return SIZE_MAX;
    }
    memcpy(&length, stream->bytes + stream->frame_begin, LENGTH_BYTES);
    return length;
}

/* Send one piece that begins in the current frame and does not leave it, so that it is known
 * whose its descriptors are. */
static void send_piece(struct stream *stream, int socket_fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE((MESSAGE_FDS_MAX + 1) * sizeof(int))];
    } control = {0};
    size_t size = stream->size_bytes - stream->sent_bytes;
    size_t piece_max = draw(stream) % 4 == 0 ? 1 + draw(stream) % 8 : 30000;
    size_t length = frame_length(stream);
    size_t frame_end = length < stream->size_bytes ? stream->frame_begin + LENGTH_BYTES + length
                                                   : stream->size_bytes;
    size = size < piece_max ? size : piece_max;
    if (stream->sent_bytes + size > frame_end) {
        size = frame_end - stream->sent_bytes;
    }
    struct iovec piece = {(void *)(stream->bytes + stream->sent_bytes), size};
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1};
    uint32_t fd_count = draw(stream) % 16 < 12 ? 0 : draw(stream) % (MESSAGE_FDS_MAX + 2);
    if (fd_count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *part = CMSG_FIRSTHDR(&header);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        for (uint32_t i = 0; i < fd_count; i++) {
            memcpy(CMSG_DATA(part) + i * sizeof(int), &socket_fd, sizeof(int));
        }
    }
    ssize_t sent = sendmsg(socket_fd, &header, MSG_NOSIGNAL);
    assert(sent == (ssize_t)size);
    stream->sent_bytes += size;
    stream->frame_fds += fd_count;
}

static void check_echo(const struct message *message)
{
    int ends[2];
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    struct message_writer *writer = message_writer_create();
    struct message_reader *reader = message_reader_create();
    struct message echo;
    assert(message_queue(writer, message->bytes, message->length_bytes, message->fds,
                         message->fd_count) == 0);
    assert(message_flush(writer, ends[0]) == 1);
    assert(message_receive(reader, ends[1], &echo) == 1);
    assert(echo.length_bytes == message->length_bytes && echo.fd_count == message->fd_count);
    assert(memcmp(echo.bytes, message->bytes, echo.length_bytes) == 0);
    message_clear(&echo);
    message_writer_destroy(writer);
    message_reader_destroy(reader);
    close(ends[0]);
    close(ends[1]);
}

/* Compare with the plain parse and go on to the next frame. */
static void check_message(struct stream *stream, struct message *message)
{
    const uint8_t *content = stream->bytes + stream->frame_begin + LENGTH_BYTES;
    assert(message->length_bytes == frame_length(stream));
    assert(stream->sent_bytes == stream->frame_begin + LENGTH_BYTES + message->length_bytes);
    assert(memcmp(message->bytes, content, message->length_bytes) == 0);
    assert(message->bytes[message->length_bytes] == '\0');
    assert(message->fd_count == stream->frame_fds);
    if (message->length_bytes <= ECHO_BYTES_MAX) {
        check_echo(message);
    }
    message_clear(message);
    stream->frame_begin = stream->sent_bytes;
    stream->frame_fds = 0;
}

static void check_stream(struct stream *stream, const int *ends, struct message_reader *reader)
{
    struct message message;
    int result = 0;
    while (result >= 0 && stream->sent_bytes < stream->size_bytes) {
        send_piece(stream, ends[0]);
        while ((result = message_receive(reader, ends[1], &message)) == 1) {
            check_message(stream, &message);
        }
    }
    if (result < 0) {
        size_t length = frame_length(stream);
        bool too_long = length != SIZE_MAX && length > MESSAGE_BYTES_MAX;
        assert(result == -EMSGSIZE ? too_long : result == -EPROTO);
        assert(result != -EPROTO || stream->frame_fds > MESSAGE_FDS_MAX);
    } else {
        shutdown(ends[0], SHUT_WR);
        result = message_receive(reader, ends[1], &message);
        assert(result == -ECONNRESET);
    }
    assert(message_receive(reader, ends[1], &message) == result);
}

static int lowest_free_fd(void)
{
    int fd = dup(STDIN_FILENO);
    if (fd >= 0) {
        close(fd);
    }
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes)
{
    if (size_bytes < 4) {
        return 0;
    }
    int free_before = lowest_free_fd();
    struct stream stream = {.bytes = bytes + 4, .size_bytes = size_bytes - 4};
    memcpy(&stream.random, bytes, 4);
    int ends[2];
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    struct message_reader *reader = message_reader_create();
    check_stream(&stream, ends, reader);
    message_reader_destroy(reader);
    close(ends[0]);
    close(ends[1]);
    assert(lowest_free_fd() == free_before);
    return 0;
}

size_t fuzz_seed(size_t index, uint8_t *buffer, size_t size_max_bytes)
{
    static const struct {
        const char *bytes;
        size_t size_bytes;
    } seeds[] = {
        {"seed\x0d\0\0\0{\"op\":\"ping\"}", 21},
        {"abcd\0\0\0\0\x02\0\0\0{}\x02\0\0\0{}", 20},
        {"AAAA\x0e\0\0\0{\"op\":\"hello\"}\x0e\0\0\0{\"op\":\"stats\"}\x0e\0\0\0{\"op\"", 48},
        {"wxyz\x01\0\0\x01{", 9},
        {"1234\0\0\0\x01{\"op\":1}", 16},
    };
    if (index >= sizeof seeds / sizeof *seeds) {
        return 0;
    }
    size_t size =
        seeds[index].size_bytes < size_max_bytes ? seeds[index].size_bytes : size_max_bytes;
    memcpy(buffer, seeds[index].bytes, size);
    return size;
}
