#include "loader/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How often one event was written in the current second. */
struct event_rate {
    const char *event;
    time_t second;
    unsigned written_count;
    unsigned suppressed_count;
};

enum { EVENT_RATES = 32 };

static struct {
    pthread_mutex_t lock; /* guards everything below */
    int fd;
    enum log_level level;
    char *lines[LOG_LINES_KEPT];
    size_t line_next;
    struct event_rate rates[EVENT_RATES];
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = STDERR_FILENO, .level = LOG_INFO};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

int log_open(const char *path, enum log_level level)
{
    int fd = STDERR_FILENO;
    if (path != NULL) {
        fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) {
            return -errno;
        }
    }
    pthread_mutex_lock(&state.lock);
    if (state.fd != STDERR_FILENO) {
        close(state.fd);
    }
    state.fd = fd;
    state.level = level;
    pthread_mutex_unlock(&state.lock);
    return 0;
}

bool log_level_parse(const char *name, enum log_level *level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

const char *log_quote(const char *text, char *buffer, size_t buffer_bytes)
{
    size_t used = 0;
    buffer[used++] = '"';
    for (; *text != '\0' && used + 6 < buffer_bytes; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            buffer[used++] = '\\';
            buffer[used++] = (char)c;
        } else if (c < 0x20 || c == 0x7f) {
            used += (size_t)snprintf(buffer + used, 5, "\\x%02x", c);
        } else {
            buffer[used++] = (char)c;
        }
    }
    buffer[used++] = '"';
    buffer[used] = '\0';
    return buffer;
}

/* Whether this event may be written now; *suppressed_count is what was left out before it. */
static bool admit_event(const char *event, enum log_level level, time_t second,
                        unsigned *suppressed_count)
{
    *suppressed_count = 0;
    if (level != LOG_WARN) {
        return true;
    }
    struct event_rate *rate = &state.rates[0];
    for (size_t i = 0; i < EVENT_RATES; i++) {
        if (state.rates[i].event == event || state.rates[i].event == NULL) {
            rate = &state.rates[i];
            break;
        }
    }
    if (rate->event != event || rate->second != second) {
        *suppressed_count = rate->event == event ? rate->suppressed_count : 0;
        *rate = (struct event_rate){.event = event, .second = second, .written_count = 1};
        return true;
    }
    if (rate->written_count < LOG_EVENTS_PER_SECOND) {
        rate->written_count++;
        return true;
    }
    rate->suppressed_count++;
    return false;
}

static void keep_and_write(const char *line, size_t length)
{
    char *copy = strdup(line);
    if (copy != NULL) {
        free(state.lines[state.line_next % LOG_LINES_KEPT]);
        state.lines[state.line_next++ % LOG_LINES_KEPT] = copy;
    }
    char with_newline[LOG_LINE_BYTES + 1];
    memcpy(with_newline, line, length);
    with_newline[length] = '\n';
    ssize_t written = write(state.fd, with_newline, length + 1);
    (void)written; /* a log that cannot be written must not stop the daemon */
}

void log_write(enum log_level level, const char *event, const char *format, ...)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    gmtime_r(&now.tv_sec, &utc);
    char line[LOG_LINE_BYTES];
    size_t used = strftime(line, sizeof line, "ts=%Y-%m-%dT%H:%M:%S", &utc);
    used += (size_t)snprintf(line + used, sizeof line - used, ".%03ldZ level=%s event=%s ",
                             now.tv_nsec / 1000000, level_names[level], event);
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(line + used, sizeof line - used, format, arguments);
    va_end(arguments);
    used += wanted < 0 ? 0 : (size_t)wanted;
    if (used >= sizeof line) {
        used = sizeof line - 1;
    }

    pthread_mutex_lock(&state.lock);
    unsigned suppressed_count = 0;
    if (level >= state.level && admit_event(event, level, now.tv_sec, &suppressed_count)) {
        if (suppressed_count > 0) {
            int more =
                snprintf(line + used, sizeof line - used, " suppressed_count=%u", suppressed_count);
            used += used + (size_t)more < sizeof line ? (size_t)more : 0;
        }
        line[used] = '\0';
        keep_and_write(line, used);
    }
    pthread_mutex_unlock(&state.lock);
}

void log_recent(size_t count, void (*take)(void *context, const char *line), void *context)
{
    pthread_mutex_lock(&state.lock);
    size_t kept = state.line_next < LOG_LINES_KEPT ? state.line_next : LOG_LINES_KEPT;
    count = count < kept ? count : kept;
    for (size_t i = state.line_next - count; i < state.line_next; i++) {
        take(context, state.lines[i % LOG_LINES_KEPT]);
    }
    pthread_mutex_unlock(&state.lock);
}
