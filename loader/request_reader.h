/*
 * request_reader.h - read typed, bounded members of a JSON object; the first fault is kept.
 *
 * Every get_ function takes the member out of the object's list of unread ones, returns its value
 * or the default, and does nothing after a fault. reader_end() refuses members nobody asked for.
 */
#ifndef PENSTOCK_LOADER_REQUEST_READER_H
#define PENSTOCK_LOADER_REQUEST_READER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "loader/error.h"

struct reader {
    json_t *object;      /* borrowed; a shallow copy whose members are removed as they are read */
    const char *context; /* for messages: "attach", "transforms[1] (Resize)" */
    struct error *error;
    bool has_failed;
};

/* `value` must be a JSON object. */
struct reader reader_begin(json_t *value, const char *context, struct error *error);
/* Free the reader; -1 if anything was wrong or unread. */
int reader_end(struct reader *reader);

/* Tell a fault of the member `name`. */
void reader_fail(struct reader *reader, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The member itself, borrowed from the original value; NULL when it is absent or null. */
json_t *reader_get(struct reader *reader, const char *name);
bool reader_has(struct reader *reader, const char *name);

uint64_t reader_u64(struct reader *reader, const char *name, uint64_t minimum, uint64_t maximum,
                    uint64_t otherwise);
double reader_number(struct reader *reader, const char *name, double minimum, double maximum,
                     double otherwise);
bool reader_bool(struct reader *reader, const char *name, bool otherwise);
/* Copies at most text_bytes - 1 bytes; longer is a fault. Absent: `otherwise`. */
void reader_text(struct reader *reader, const char *name, char *text, size_t text_bytes,
                 const char *otherwise);
/* One of `names` (NULL-terminated); its place, or `otherwise` when absent. */
int reader_choice(struct reader *reader, const char *name, const char *const *names, int otherwise);
/* An array of count_min..count_max numbers in [minimum, maximum]; how many, 0 when absent. */
size_t reader_numbers(struct reader *reader, const char *name, double *values, size_t count_min,
                      size_t count_max, double minimum, double maximum);

#endif /* PENSTOCK_LOADER_REQUEST_READER_H */
