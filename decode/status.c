#include "decode/status.h"

#include <stdarg.h>
#include <stdio.h>

enum decode_status decode_fail(struct decode_error *error, enum decode_status status,
                               uint64_t offset_bytes, const char *format, ...)
{
    if (error != NULL) {
        error->status = status;
        error->offset_bytes = offset_bytes;
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->reason, sizeof error->reason, format, arguments);
        va_end(arguments);
    }
    return status;
}

const char *decode_status_name(enum decode_status status)
{
    switch (status) {
    case DECODE_OK: return "ok";
    case DECODE_CORRUPT: return "corrupt";
    case DECODE_TRUNCATED: return "truncated";
    case DECODE_UNSUPPORTED: return "unsupported";
    case DECODE_TOO_LARGE: return "too_large";
    case DECODE_INVALID: return "invalid";
    case DECODE_NO_MEMORY: return "no_memory";
    }
    return "unknown";
}
