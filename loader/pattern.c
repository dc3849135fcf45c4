#include "loader/pattern.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool text_list_add(struct text_list *list, const char *text, size_t length)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity * 2 + 16;
        char **texts = realloc(list->texts, capacity * sizeof *texts);
        if (texts == NULL) {
            return false;
        }
        list->texts = texts;
        list->capacity = capacity;
    }
    char *copy = malloc(length + 1);
    if (copy == NULL) {
        return false;
    }
    memcpy(copy, text, length);
    copy[length] = '\0';
    list->texts[list->count++] = copy;
    return true;
}

void text_list_clear(struct text_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->texts[i]);
    }
    free(list->texts);
    *list = (struct text_list){0};
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void text_list_sort(struct text_list *list, size_t first)
{
    if (list->count > first + 1) {
        qsort(list->texts + first, list->count - first, sizeof *list->texts, compare_texts);
    }
}

/* What has been decided so far: prefix, one choice, and the rest that is still a pattern. */
enum { DEPTH_MAX = 64, PATTERN_BYTES_MAX = 16384 };

static int expand(const char *pattern, int depth, struct text_list *list);

static int expand_choice(const char *pattern, size_t prefix_length, const char *choice,
                         size_t choice_length, const char *rest, int depth, struct text_list *list)
{
    size_t rest_length = strlen(rest);
    char *next = malloc(prefix_length + choice_length + rest_length + 1);
    if (next == NULL) {
        return -ENOMEM;
    }
    memcpy(next, pattern, prefix_length);
    memcpy(next + prefix_length, choice, choice_length);
    memcpy(next + prefix_length + choice_length, rest, rest_length + 1);
    int result = expand(next, depth + 1, list);
    free(next);
    return result;
}

/* The brace that closes the one at `open`, or NULL; *has_comma: one at its own level. */
static const char *find_close(const char *open, bool *has_comma)
{
    size_t level = 0;
    *has_comma = false;
    for (const char *at = open; *at != '\0'; at++) {
        if (*at == '{') {
            level++;
        } else if (*at == '}' && --level == 0) {
            return at;
        } else if (*at == ',' && level == 1) {
            *has_comma = true;
        }
    }
    return NULL;
}

struct range {
    int64_t first, last, step;
    int width; /* of zero-padded numbers; 0: no padding */
    bool is_letters;
};

static bool parse_number(const char **at, int64_t *value, int *width)
{
    const char *start = *at;
    const char *digits = start + (*start == '-');
    size_t count = strspn(digits, "0123456789");
    if (count == 0 || count > 18) {
        return false;
    }
    *value = strtoll(start, NULL, 10);
    *at = digits + count;
    if (digits[0] == '0' && count > 1) {
        *width = -(int)(*at - start); /* padded; the sign marks it until both ends are known */
    } else {
        *width = (int)(*at - start);
    }
    return true;
}

static bool parse_ends(const char **at, struct range *range)
{
    const char *text = *at;
    if (strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == 1 &&
        strncmp(text + 1, "..", 2) == 0 &&
        strspn(text + 3, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == 1) {
        *range = (struct range){.first = text[0], .last = text[3], .is_letters = true};
        *at = text + 4;
        return true;
    }
    int first_width, last_width;
    if (!parse_number(at, &range->first, &first_width) || strncmp(*at, "..", 2) != 0) {
        return false;
    }
    *at += 2;
    if (!parse_number(at, &range->last, &last_width)) {
        return false;
    }
    bool is_padded = first_width < 0 || last_width < 0;
    first_width = abs(first_width);
    last_width = abs(last_width);
    range->width = is_padded ? (first_width > last_width ? first_width : last_width) : 0;
    return true;
}

/* "000..146}" or "1..9..2}" */
static bool parse_range(const char *text, const char *close, struct range *range)
{
    *range = (struct range){0};
    if (!parse_ends(&text, range)) {
        return false;
    }
    range->step = 1;
    if (strncmp(text, "..", 2) == 0) {
        int width;
        text += 2;
        if (!parse_number(&text, &range->step, &width)) {
            return false;
        }
        range->step = range->step < 0 ? -range->step : range->step;
        range->step = range->step == 0 ? 1 : range->step;
    }
    return text == close;
}

static int expand_range(const char *pattern, const char *open, const char *close,
                        const struct range *range, int depth, struct text_list *list)
{
    bool is_down = range->last < range->first;
    uint64_t span =
        is_down ? (uint64_t)(range->first - range->last) : (uint64_t)(range->last - range->first);
    uint64_t steps = span / (uint64_t)range->step;
    if (steps >= PATTERN_TEXTS_MAX) {
        return -E2BIG;
    }
    int result = 0;
    for (uint64_t i = 0; i <= steps && result == 0; i++) {
        int64_t offset = (int64_t)i * range->step;
        int64_t value = is_down ? range->first - offset : range->first + offset;
        char choice[32];
        int length = range->is_letters ? snprintf(choice, sizeof choice, "%c", (char)value)
                                       : snprintf(choice, sizeof choice, "%0*lld", range->width,
                                                  (long long)value);
        result = expand_choice(pattern, (size_t)(open - pattern), choice, (size_t)length, close + 1,
                               depth, list);
    }
    return result;
}

static int expand_commas(const char *pattern, const char *open, const char *close, int depth,
                         struct text_list *list)
{
    size_t level = 0;
    const char *start = open + 1;
    for (const char *at = open + 1; at <= close; at++) {
        if (*at == '{') {
            level++;
        } else if (*at == '}' && at < close) {
            level--;
        }
        if (at == close || (*at == ',' && level == 0)) {
            int result = expand_choice(pattern, (size_t)(open - pattern), start,
                                       (size_t)(at - start), close + 1, depth, list);
            if (result < 0) {
                return result;
            }
            start = at + 1;
        }
    }
    return 0;
}

static int expand(const char *pattern, int depth, struct text_list *list)
{
    if (depth > DEPTH_MAX || list->count >= PATTERN_TEXTS_MAX) {
        return -E2BIG;
    }
    for (const char *open = strchr(pattern, '{'); open != NULL; open = strchr(open + 1, '{')) {
        bool has_comma;
        const char *close = find_close(open, &has_comma);
        struct range range;
        if (close != NULL && has_comma) {
            return expand_commas(pattern, open, close, depth, list);
        }
        if (close != NULL && parse_range(open + 1, close, &range)) {
            return expand_range(pattern, open, close, &range, depth, list);
        }
    }
    return text_list_add(list, pattern, strlen(pattern)) ? 0 : -ENOMEM;
}

int pattern_expand(const char *pattern, struct text_list *list)
{
    if (strlen(pattern) > PATTERN_BYTES_MAX) {
        return -E2BIG;
    }
    return expand(pattern, 0, list);
}
