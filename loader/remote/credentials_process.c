/* credential_process: a program of the user's that prints credentials as JSON. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loader/clock.h"
#include "loader/remote/credentials_private.h"

enum { OUTPUT_BYTES_MAX = 64 * 1024, PROCESS_TIMEOUT_S = 60 };

extern char **environ;

static int spawn_shell(const char *command, int output, pid_t *pid)
{
    char shell[] = "/bin/sh", option[] = "-c";
    char *copy = strdup(command);
    char *const arguments[] = {shell, option, copy, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t manners;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    posix_spawnattr_init(&manners);
    posix_spawnattr_setsigmask(&manners, &none); /* the daemon's threads block what it handles */
    posix_spawnattr_setsigdefault(&manners, &all);
    posix_spawnattr_setpgroup(&manners, 0);
    posix_spawnattr_setflags(&manners, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                           POSIX_SPAWN_SETPGROUP);
    int status =
        copy == NULL ? ENOMEM : posix_spawn(pid, shell, &files, &manners, arguments, environ);
    posix_spawnattr_destroy(&manners);
    posix_spawn_file_actions_destroy(&files);
    free(copy);
    return status;
}

/* Until the program closes its output, for PROCESS_TIMEOUT_S. The bytes read, or -1. */
static ssize_t read_output(int input, char *text)
{
    uint64_t until_ns = clock_now_ns() + PROCESS_TIMEOUT_S * (uint64_t)1000000000;
    size_t filled = 0;
    while (filled < OUTPUT_BYTES_MAX) {
        uint64_t now_ns = clock_now_ns();
        struct pollfd wait = {.fd = input, .events = POLLIN};
        if (now_ns >= until_ns || poll(&wait, 1, (int)((until_ns - now_ns) / 1000000) + 1) == 0) {
            return -1;
        }
        ssize_t bytes = read(input, text + filled, OUTPUT_BYTES_MAX - filled);
        if (bytes == 0) {
            break;
        }
        if (bytes > 0) {
            filled += (size_t)bytes;
        } else if (errno != EINTR) {
            return -1;
        }
    }
    return (ssize_t)filled;
}

enum finding search_process(struct search *search, const char *command)
{
    int ends[2];
    pid_t pid;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return search_fail(search, true, "No pipe for credential_process: %s.", strerror(errno));
    }
    int status = spawn_shell(command, ends[1], &pid);
    close(ends[1]);
    char *text = calloc(1, OUTPUT_BYTES_MAX + 1);
    ssize_t bytes = -1;
    if (status == 0) {
        bytes = text != NULL ? read_output(ends[0], text) : -1;
        if (bytes < 0) {
            kill(-pid, SIGKILL);
        }
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
    }
    close(ends[0]);
    enum finding finding = FINDING_FAILED;
    if (bytes < 0 || status != 0) {
        search_fail(search, true,
                    "credential_process of profile \"%.100s\" fails (%s). Run it by hand to see "
                    "why.",
                    search->profile, bytes < 0 ? "it gives no answer" : "its exit status is not 0");
    } else {
        finding = search_take_json(search, text, (size_t)bytes, "SessionToken",
                                   "the profile's credential_process");
    }
    if (text != NULL) {
        explicit_bzero(text, OUTPUT_BYTES_MAX);
        free(text);
    }
    return finding;
}
