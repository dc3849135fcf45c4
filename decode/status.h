/*
 * status.h - why bytes could not become pixels.
 *
 * A code exists only where somebody acts differently on it; the story is text.
 */
#ifndef PENSTOCK_DECODE_STATUS_H
#define PENSTOCK_DECODE_STATUS_H

#include <stdint.h>

enum decode_status {
    DECODE_OK = 0,
    DECODE_CORRUPT,     /* the bytes contradict their own format */
    DECODE_TRUNCATED,   /* the bytes end before the image does */
    DECODE_UNSUPPORTED, /* a format or variant that Penstock does not read */
    DECODE_TOO_LARGE,   /* more pixels or scans than the limits allow */
    DECODE_INVALID,     /* a transform cannot be applied to this image or is out of range */
    DECODE_NO_MEMORY,
};

enum { DECODE_REASON_BYTES = 200 };

/* Filled when a call returns anything but DECODE_OK. */
struct decode_error {
    enum decode_status status;
    uint64_t offset_bytes;            /* where in the compressed bytes, as near as is known */
    char reason[DECODE_REASON_BYTES]; /* one lower-case clause, no file name, never empty */
};

/* Fill *error (may be NULL) with a printf-style reason and hand `status` back. */
enum decode_status decode_fail(struct decode_error *error, enum decode_status status,
                               uint64_t offset_bytes, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Short constant name for logs and metrics, e.g. "corrupt". Never NULL. */
const char *decode_status_name(enum decode_status status);

#endif /* PENSTOCK_DECODE_STATUS_H */
