#include "loader/error.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

int error_set(struct error *error, enum error_kind kind, const char *format, ...)
{
    if (error != NULL) {
        error->kind = kind;
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
    }
    return -1;
}

const char *error_kind_name(enum error_kind kind)
{
    switch (kind) {
    case ERROR_NONE: return "none";
    case ERROR_USAGE: return "usage";
    case ERROR_DATASET: return "dataset";
    case ERROR_SAMPLE: return "sample";
    case ERROR_IO: return "io";
    case ERROR_MEMORY: return "memory";
    case ERROR_STATE: return "state";
    case ERROR_PROTOCOL: return "protocol";
    case ERROR_INTERNAL: return "internal";
    case ERROR_CHANGED: return "changed";
    case ERROR_ACCESS: return "access";
    case ERROR_MISSING: return "missing";
    case ERROR_CANCELLED: return "cancelled";
    }
    return "internal";
}
