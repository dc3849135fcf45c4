#include "loader/request_reader.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct reader reader_begin(json_t *value, const char *context, struct error *error)
{
    struct reader reader = {.context = context, .error = error};
    if (!json_is_object(value)) {
        error_set(error, ERROR_USAGE, "%s: must be an object.", context);
        reader.has_failed = true;
        return reader;
    }
    reader.object = json_copy(value);
    if (reader.object == NULL) {
        error_set(error, ERROR_MEMORY, "no memory for a request.");
        reader.has_failed = true;
    }
    return reader;
}

int reader_end(struct reader *reader)
{
    if (!reader->has_failed && json_object_size(reader->object) > 0) {
        void *first = json_object_iter(reader->object);
        reader_fail(reader, json_object_iter_key(first),
                    "is unknown to this daemon; client and daemon may be of different versions");
    }
    json_decref(reader->object);
    reader->object = NULL;
    return reader->has_failed ? -1 : 0;
}

void reader_fail(struct reader *reader, const char *name, const char *format, ...)
{
    if (reader->has_failed) {
        return;
    }
    char reason[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    error_set(reader->error, ERROR_USAGE, "%s: %.100s %s.", reader->context, name, reason);
    reader->has_failed = true;
}

bool reader_has(struct reader *reader, const char *name)
{
    return !reader->has_failed && json_object_get(reader->object, name) != NULL &&
           !json_is_null(json_object_get(reader->object, name));
}

json_t *reader_get(struct reader *reader, const char *name)
{
    if (reader->has_failed) {
        return NULL;
    }
    /* The original object still holds the value after it leaves the copy. */
    json_t *value = json_object_get(reader->object, name);
    json_object_del(reader->object, name);
    return json_is_null(value) ? NULL : value;
}

uint64_t reader_u64(struct reader *reader, const char *name, uint64_t minimum, uint64_t maximum,
                    uint64_t otherwise)
{
    json_t *value = reader_get(reader, name);
    if (value == NULL) {
        return otherwise;
    }
    /* JSON integers are signed here; values above 2^63 come as decimal strings. */
    uint64_t number = 0;
    int end = 0;
    bool is_number = false;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        number = (uint64_t)json_integer_value(value);
        is_number = true;
    } else if (json_is_string(value) && json_string_length(value) <= 20 &&
               strspn(json_string_value(value), "0123456789") == json_string_length(value)) {
        unsigned long long parsed = 0;
        is_number = sscanf(json_string_value(value), "%llu%n", &parsed, &end) == 1;
        number = parsed;
    }
    if (!is_number || number < minimum || number > maximum) {
        reader_fail(reader, name, "must be a whole number from %llu to %llu",
                    (unsigned long long)minimum, (unsigned long long)maximum);
        return otherwise;
    }
    return number;
}

static bool in_range(json_t *value, double minimum, double maximum)
{
    double number = json_number_value(value);
    return json_is_number(value) && isfinite(number) && number >= minimum && number <= maximum;
}

double reader_number(struct reader *reader, const char *name, double minimum, double maximum,
                     double otherwise)
{
    json_t *value = reader_get(reader, name);
    if (value == NULL) {
        return otherwise;
    }
    if (!in_range(value, minimum, maximum)) {
        reader_fail(reader, name, "must be a number from %g to %g", minimum, maximum);
        return otherwise;
    }
    return json_number_value(value);
}

bool reader_bool(struct reader *reader, const char *name, bool otherwise)
{
    json_t *value = reader_get(reader, name);
    if (value == NULL) {
        return otherwise;
    }
    if (!json_is_boolean(value)) {
        reader_fail(reader, name, "must be true or false");
        return otherwise;
    }
    return json_is_true(value);
}

void reader_text(struct reader *reader, const char *name, char *text, size_t text_bytes,
                 const char *otherwise)
{
    json_t *value = reader_get(reader, name);
    if (value != NULL && (!json_is_string(value) || json_string_length(value) >= text_bytes ||
                          strlen(json_string_value(value)) != json_string_length(value))) {
        reader_fail(reader, name, "must be a text of less than %zu bytes", text_bytes);
        value = NULL;
    }
    snprintf(text, text_bytes, "%s", value != NULL ? json_string_value(value) : otherwise);
}

int reader_choice(struct reader *reader, const char *name, const char *const *names, int otherwise)
{
    json_t *value = reader_get(reader, name);
    if (value == NULL) {
        return otherwise;
    }
    char allowed[256] = "";
    for (int i = 0; names[i] != NULL; i++) {
        if (json_is_string(value) && strcmp(json_string_value(value), names[i]) == 0) {
            return i;
        }
        size_t used = strlen(allowed);
        snprintf(allowed + used, sizeof allowed - used, "%s\"%s\"", i == 0 ? "" : ", ", names[i]);
    }
    reader_fail(reader, name, "is %.100s%.100s, not one of %s",
                json_is_string(value) ? "" : "no text",
                json_is_string(value) ? json_string_value(value) : "", allowed);
    return otherwise;
}

size_t reader_numbers(struct reader *reader, const char *name, double *values, size_t count_min,
                      size_t count_max, double minimum, double maximum)
{
    json_t *array = reader_get(reader, name);
    if (array == NULL) {
        return 0;
    }
    size_t count = json_array_size(array);
    if (!json_is_array(array) || count < count_min || count > count_max) {
        reader_fail(reader, name, "must be a list of %zu to %zu numbers", count_min, count_max);
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        if (!in_range(json_array_get(array, i), minimum, maximum)) {
            reader_fail(reader, name, "must hold numbers from %g to %g", minimum, maximum);
            return 0;
        }
        values[i] = json_number_value(json_array_get(array, i));
    }
    return count;
}
