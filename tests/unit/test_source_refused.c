/* Which engine a source gets: io_uring, or pread threads with the reason where it is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loader/source.h"

enum { FILE_BYTES = 70000 };

static struct source *open_source(enum source_engine engine)
{
    return source_create(
        &(struct source_options){.engine = engine, .depth = 4, .file_bytes_max = 1 << 20});
}

static char path[64];

static uint8_t byte_at(size_t offset)
{
    return (uint8_t)(offset * 31 >> 3);
}

static int make_file(void **state)
{
    (void)state;
    strcpy(path, "/tmp/penstock-test-XXXXXX");
    int fd = mkstemp(path);
    uint8_t bytes[FILE_BYTES];
    for (size_t i = 0; i < FILE_BYTES; i++) {
        bytes[i] = byte_at(i);
    }
    bool written = fd >= 0 && write(fd, bytes, FILE_BYTES) == FILE_BYTES;
    close(fd);
    return written ? 0 : -1;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

/* From now on io_uring_setup() fails with `error` in this process, as containers have it. */
static bool forbid_uring(int error)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

enum { CHILD_GOOD = 0, CHILD_BAD = 1, CHILD_CANNOT = 2 };

static int read_where_uring_is_forbidden(int error, const char *reason)
{
    if (!forbid_uring(error)) {
        return CHILD_CANNOT;
    }
    for (enum source_engine engine = SOURCE_AUTO; engine <= SOURCE_URING; engine++) {
        struct source *source = open_source(engine);
        struct read_request request = {.path = path}, *pointer = &request, *done;
        source_submit(source, &pointer, 1);
        while (source_reap(source, &done, 1, 1000) == 0) {
            continue;
        }
        bool good = source_engine(source) == SOURCE_PREAD && request.error == 0 &&
                    request.size_bytes == FILE_BYTES &&
                    request.bytes[FILE_BYTES - 1] == byte_at(FILE_BYTES - 1) &&
                    strncmp(source_engine_reason(source), reason, strlen(reason)) == 0;
        source_destroy(source);
        read_request_clear(&request);
        if (!good) {
            return CHILD_BAD;
        }
    }
    return CHILD_GOOD;
}

static void test_refused_uring_falls_back(void **state)
{
    (void)state;
    static const struct {
        int error;
        const char *reason;
    } refusals[] = {
        {EPERM, "io_uring_setup: Operation not permitted (EPERM)"},
        {ENOSYS, "io_uring_setup: Function not implemented (ENOSYS)"},
        {EACCES, "io_uring_setup: Permission denied (EACCES)"},
        {EINVAL, "io_uring_setup: Invalid argument (EINVAL)"},
        {ENOMEM, "io_uring_setup: Cannot allocate memory (ENOMEM)"},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        pid_t child = fork();
        if (child == 0) {
            _exit(read_where_uring_is_forbidden(refusals[i].error, refusals[i].reason));
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == CHILD_CANNOT) {
            skip(); /* no seccomp here */
        }
        assert_int_equal(WEXITSTATUS(status), CHILD_GOOD);
    }
}

static void test_the_engine_is_told(void **state)
{
    (void)state;
    struct source *source = open_source(SOURCE_PREAD);
    assert_int_equal(source_engine(source), SOURCE_PREAD);
    source_destroy(source);
    source = open_source(SOURCE_AUTO);
    bool uring = source_engine(source) == SOURCE_URING;
    assert_true(uring == (source_engine_reason(source)[0] == '\0'));
    source_destroy(source);
    assert_null(source_create(&(struct source_options){.depth = 0}));
    assert_null(source_create(&(struct source_options){.depth = 1025}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refused_uring_falls_back, make_file, remove_file),
        cmocka_unit_test(test_the_engine_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
