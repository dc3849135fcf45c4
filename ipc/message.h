/*
 * message.h - control messages over a unix stream socket: a 4-byte little-endian length, then
 * that many bytes (JSON, to this layer opaque); file descriptors ride on the first byte.
 *
 * Everything received is hostile: lengths and descriptor counts are limited, descriptors are
 * close-on-exec and closed if nobody takes them.
 */
#ifndef PENSTOCK_IPC_MESSAGE_H
#define PENSTOCK_IPC_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

enum { MESSAGE_BYTES_MAX = 16 * 1024 * 1024, MESSAGE_FDS_MAX = 4 };

struct message {
    char *bytes; /* NUL-terminated beyond length_bytes; malloc'd */
    size_t length_bytes;
    int fds[MESSAGE_FDS_MAX];
    uint32_t fd_count;
};

/* Frees the bytes and closes the descriptors that were not taken (set to -1). */
void message_clear(struct message *message);

/* An incremental reader of one non-blocking socket. */
struct message_reader;
struct message_reader *message_reader_create(void);
void message_reader_destroy(struct message_reader *reader);

/* 1: *message is complete and the caller's. 0: no whole message yet, poll again. Negative errno:
 * the connection is of no more use (-ECONNRESET at end of file, -EMSGSIZE, -EPROTO). */
int message_receive(struct message_reader *reader, int socket_fd, struct message *message);

/* An outgoing queue of one non-blocking socket, limited to MESSAGE_BYTES_MAX unsent bytes. */
struct message_writer;
struct message_writer *message_writer_create(void);
void message_writer_destroy(struct message_writer *writer);

/* Queue a message; fds are duplicated. 0, -ENOMEM, -ENOBUFS when the peer does not read, -EMSGSIZE
 * or -EINVAL over the limits above, or what duplicating gave (-EMFILE, -EBADF). */
int message_queue(struct message_writer *writer, const char *bytes, size_t length_bytes,
                  const int *fds, uint32_t fd_count);

/* Write what the socket takes. 1: all written; 0: poll for POLLOUT; negative errno: broken. */
int message_flush(struct message_writer *writer, int socket_fd);

#endif /* PENSTOCK_IPC_MESSAGE_H */
