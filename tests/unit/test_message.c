#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/message.h"

struct link {
    int ends[2]; /* the tests write to ends[0] and receive at ends[1] */
    struct message_reader *reader;
    struct message_writer *writer;
    int fds_before;
};

static int open_fd_count(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

static int link_open(void **state)
{
    struct link *link = calloc(1, sizeof *link);
    link->fds_before = open_fd_count();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, link->ends) < 0) {
        return -1;
    }
    link->reader = message_reader_create();
    link->writer = message_writer_create();
    *state = link;
    return 0;
}

/* No test leaves a descriptor behind, whatever became of its messages. */
static int link_close(void **state)
{
    struct link *link = *state;
    message_reader_destroy(link->reader);
    message_writer_destroy(link->writer);
    close(link->ends[0]);
    close(link->ends[1]);
    int leaked = open_fd_count() - link->fds_before;
    free(link);
    return leaked;
}

static void send_raw(const struct link *link, const void *bytes, size_t size_bytes)
{
    assert_int_equal(send(link->ends[0], bytes, size_bytes, 0), size_bytes);
}

static void send_with_fds(const struct link *link, const void *bytes, size_t size_bytes,
                          size_t fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct iovec piece = {(void *)bytes, size_bytes};
    struct msghdr header = {.msg_iov = &piece,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = CMSG_SPACE(fd_count * sizeof(int))};
    struct cmsghdr *part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    for (size_t i = 0; i < fd_count; i++) {
        memcpy(CMSG_DATA(part) + i * sizeof(int), &link->ends[0], sizeof(int));
    }
    assert_int_equal(sendmsg(link->ends[0], &header, 0), size_bytes);
}

static int receive(struct link *link, struct message *message)
{
    return message_receive(link->reader, link->ends[1], message);
}

static void test_messages_arrive_whole_and_in_order(void **state)
{
    struct link *link = *state;
    struct message message;
    assert_int_equal(receive(link, &message), 0);
    assert_int_equal(message_queue(link->writer, "{\"a\":1}", 7, NULL, 0), 0);
    assert_int_equal(message_queue(link->writer, "", 0, NULL, 0), 0);
    assert_int_equal(message_queue(link->writer, "xyz", 3, NULL, 0), 0);
    assert_int_equal(message_flush(link->writer, link->ends[0]), 1);
    assert_int_equal(receive(link, &message), 1);
    assert_int_equal(message.length_bytes, 7);
    assert_string_equal(message.bytes, "{\"a\":1}");
    message_clear(&message);
    assert_int_equal(receive(link, &message), 1);
    assert_string_equal(message.bytes, "");
    message_clear(&message);
    assert_int_equal(receive(link, &message), 1);
    assert_string_equal(message.bytes, "xyz");
    message_clear(&message);
    assert_int_equal(receive(link, &message), 0);
}

static void test_one_byte_at_a_time(void **state)
{
    struct link *link = *state;
    struct message message;
    const char frame[] = "\x05\0\0\0hello";
    for (size_t i = 0; i < 9; i++) {
        assert_int_equal(receive(link, &message), 0);
        send_raw(link, frame + i, 1);
    }
    assert_int_equal(receive(link, &message), 1);
    assert_string_equal(message.bytes, "hello");
    message_clear(&message);
}

static void test_the_largest_message_passes(void **state)
{
    struct link *link = *state;
    struct message message;
    char *bytes = malloc(MESSAGE_BYTES_MAX + 1);
    for (size_t i = 0; i <= MESSAGE_BYTES_MAX; i++) {
        bytes[i] = (char)(i * 31 >> 3);
    }
    assert_int_equal(message_queue(link->writer, bytes, MESSAGE_BYTES_MAX + 1, NULL, 0), -EMSGSIZE);
    assert_int_equal(message_queue(link->writer, bytes, MESSAGE_BYTES_MAX, NULL, 0), 0);
    assert_int_equal(message_queue(link->writer, "x", 1, NULL, 0), -ENOBUFS);
    int received = 0, flushed = 0;
    while (received == 0) {
        flushed = message_flush(link->writer, link->ends[0]);
        assert_true(flushed >= 0);
        received = receive(link, &message);
    }
    assert_int_equal(received, 1);
    assert_int_equal(message_flush(link->writer, link->ends[0]), 1);
    assert_int_equal(message.length_bytes, MESSAGE_BYTES_MAX);
    assert_memory_equal(message.bytes, bytes, MESSAGE_BYTES_MAX);
    message_clear(&message);
    assert_int_equal(message_queue(link->writer, "x", 1, NULL, 0), 0);
    free(bytes);
}

static void test_lengths_over_the_limit_break_the_connection(void **state)
{
    struct link *link = *state;
    struct message message;
    send_with_fds(link, "\x01\0\0\x01", 4, 1);
    assert_int_equal(receive(link, &message), -EMSGSIZE);
    send_raw(link, "\x01\0\0\0x", 5);
    assert_int_equal(receive(link, &message), -EMSGSIZE); /* for good */
}

static void test_a_large_length_alone_takes_no_memory(void **state)
{
    struct link *link = *state;
    struct message message;
    send_raw(link, "\0\0\0\x01xyz", 7); /* 16 MiB announced */
    assert_int_equal(receive(link, &message), 0);
    send_raw(link, "abc", 3);
    assert_int_equal(receive(link, &message), 0);
}

static void test_end_of_file(void **state)
{
    struct link *link = *state;
    struct message message;
    send_with_fds(link, "\x05\0\0\0he", 6, 2);
    shutdown(link->ends[0], SHUT_WR);
    assert_int_equal(receive(link, &message), -ECONNRESET);
    assert_null(message.bytes);
}

static void test_descriptors_ride_along(void **state)
{
    struct link *link = *state;
    struct message message;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(message_queue(link->writer, "one", 3, NULL, 0), 0);
    assert_int_equal(message_queue(link->writer, "two", 3, fds, 2), 0);
    assert_int_equal(message_queue(link->writer, "three", 5, fds, 1), 0);
    close(fds[0]);
    assert_int_equal(message_flush(link->writer, link->ends[0]), 1);
    assert_int_equal(receive(link, &message), 1);
    assert_int_equal(message.fd_count, 0);
    message_clear(&message);
    assert_int_equal(receive(link, &message), 1);
    assert_int_equal(message.fd_count, 2);
    assert_int_equal(fcntl(message.fds[0], F_GETFD), FD_CLOEXEC);
    struct stat sent, came;
    fstat(fds[1], &sent);
    fstat(message.fds[1], &came);
    assert_int_equal(sent.st_ino, came.st_ino);
    int taken = message.fds[0];
    message.fds[0] = -1;
    message_clear(&message);
    assert_true(fcntl(taken, F_GETFD) >= 0);
    close(taken);
    close(fds[1]);
    assert_int_equal(receive(link, &message), 1);
    assert_int_equal(message.fd_count, 1);
    message_clear(&message);
}

static void test_too_many_descriptors(void **state)
{
    struct link *link = *state;
    struct message message;
    int fds[MESSAGE_FDS_MAX + 1] = {0};
    assert_int_equal(message_queue(link->writer, "x", 1, fds, MESSAGE_FDS_MAX + 1), -EINVAL);
    fds[1] = -1;
    assert_int_equal(message_queue(link->writer, "x", 1, fds, 2), -EBADF);
    send_with_fds(link, "\x02\0\0\0xy", 6, 9);
    assert_int_equal(receive(link, &message), -EPROTO);
}

static void test_too_many_descriptors_in_pieces(void **state)
{
    struct link *link = *state;
    struct message message;
    send_with_fds(link, "\x0a\0\0\0", 4, 3);
    send_with_fds(link, "a", 1, 3);
    assert_int_equal(receive(link, &message), -EPROTO);
}

static void test_descriptors_nobody_reads(void **state)
{
    struct link *link = *state;
    send_with_fds(link, "\x0a\0\0\0", 4, 3);
    struct message message;
    assert_int_equal(receive(link, &message), 0);
    assert_int_equal(message_queue(link->writer, "x", 1, link->ends, 2), 0);
}

static void test_a_gone_peer(void **state)
{
    struct link *link = *state;
    shutdown(link->ends[1], SHUT_RDWR);
    assert_int_equal(message_queue(link->writer, "x", 1, NULL, 0), 0);
    assert_int_equal(message_flush(link->writer, link->ends[0]), -EPIPE); /* and no SIGPIPE */
}

int main(void)
{
#define LINK_TEST(name) cmocka_unit_test_setup_teardown(name, link_open, link_close)
    const struct CMUnitTest tests[] = {
        LINK_TEST(test_messages_arrive_whole_and_in_order),
        LINK_TEST(test_one_byte_at_a_time),
        LINK_TEST(test_the_largest_message_passes),
        LINK_TEST(test_lengths_over_the_limit_break_the_connection),
        LINK_TEST(test_a_large_length_alone_takes_no_memory),
        LINK_TEST(test_end_of_file),
        LINK_TEST(test_descriptors_ride_along),
        LINK_TEST(test_too_many_descriptors),
        LINK_TEST(test_too_many_descriptors_in_pieces),
        LINK_TEST(test_descriptors_nobody_reads),
        LINK_TEST(test_a_gone_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
