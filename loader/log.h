/*
 * log.h - one line per event, in logfmt: ts=... level=info event=session_opened session=3 ...
 *
 * Levels: error (a person must act), warn (we recovered, but look), info (life of the daemon and
 * its sessions), debug. Never per sample. The last lines are kept in memory for `penstock logs`.
 * Equal events of level warn are limited to LOG_EVENTS_PER_SECOND; what was left out is counted.
 *
 * Threads: any. The log is the one thing besides the daemon's root that is global.
 */
#ifndef PENSTOCK_LOADER_LOG_H
#define PENSTOCK_LOADER_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_DEBUG = 0, LOG_INFO, LOG_WARN, LOG_ERROR };

enum { LOG_LINES_KEPT = 1000, LOG_LINE_BYTES = 2048, LOG_EVENTS_PER_SECOND = 10 };

/* Lines of `level` and above go to the file at `path` (appended to, mode 0600; NULL: stderr).
 * 0 or -errno. May be called again (after the daemon went into the background). */
int log_open(const char *path, enum log_level level);

/* `event` is a constant word; the rest a printf format of key=value pairs, values with spaces in
 * double quotes (log_quote). */
void log_write(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

/* Copy `text` into `buffer` in double quotes, escaped, cut to fit; returns buffer. */
const char *log_quote(const char *text, char *buffer, size_t buffer_bytes);

/* The newest lines, at most `count`, oldest first, each given to `take`. */
void log_recent(size_t count, void (*take)(void *context, const char *line), void *context);

/* "debug", "info", "warn", "error"; false for anything else. */
bool log_level_parse(const char *name, enum log_level *level);

#endif /* PENSTOCK_LOADER_LOG_H */
