#include "loader/remote/answer.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { RETRY_AFTER_MAX_S = 3600 };

struct text {
    const char *start;
    size_t length;
};

static struct text trimmed(const char *start, const char *end)
{
    while (start < end && isspace((unsigned char)*start)) {
        start++;
    }
    while (end > start && isspace((unsigned char)end[-1])) {
        end--;
    }
    return (struct text){start, (size_t)(end - start)};
}

static bool is_visible(struct text text)
{
    for (size_t i = 0; i < text.length; i++) {
        if (text.start[i] < 0x20 || text.start[i] > 0x7e) {
            return false;
        }
    }
    return true;
}

static void copy(char *place, size_t place_bytes, struct text text)
{
    if (text.length < place_bytes && is_visible(text)) {
        memcpy(place, text.start, text.length);
        place[text.length] = '\0';
    }
}

/* Decimal digits from *text on, which moves behind them. False: none, or too many. */
static bool take_number(struct text *text, uint64_t *number)
{
    size_t i = 0;
    *number = 0;
    for (; i < text->length && isdigit((unsigned char)text->start[i]); i++) {
        if (i >= 18) {
            return false;
        }
        *number = *number * 10 + (uint64_t)(text->start[i] - '0');
    }
    text->start += i;
    text->length -= i;
    return i > 0;
}

static bool take_char(struct text *text, char wanted)
{
    if (text->length == 0 || *text->start != wanted) {
        return false;
    }
    text->start++;
    text->length--;
    return true;
}

/* "bytes 0-99/1000" or "bytes 0-99/ *" (without the blank). */
static bool parse_range(struct text text, struct answer *answer)
{
    uint64_t total;
    if (text.length < 6 || strncasecmp(text.start, "bytes ", 6) != 0) {
        return false;
    }
    text = trimmed(text.start + 6, text.start + text.length);
    if (!take_number(&text, &answer->range_first) || !take_char(&text, '-') ||
        !take_number(&text, &answer->range_last) || !take_char(&text, '/')) {
        return false;
    }
    if (take_char(&text, '*')) {
        answer->range_total_bytes = -1;
        return text.length == 0;
    }
    if (!take_number(&text, &total) || text.length != 0) {
        return false;
    }
    answer->range_total_bytes = (int64_t)total;
    return answer->range_first <= answer->range_last && answer->range_last < total;
}

static void take_range(struct text text, struct answer *answer)
{
    struct answer before = *answer;
    if (!parse_range(text, answer)) {
        answer->is_range_bad = true;
    } else if (before.has_range && (before.range_first != answer->range_first ||
                                    before.range_last != answer->range_last ||
                                    before.range_total_bytes != answer->range_total_bytes)) {
        answer->is_range_bad = true;
    }
    answer->has_range = true;
}

static void take_checksum(struct text name, struct text value, struct answer *answer)
{
    if (name.length == 4 && strncasecmp(name.start, "type", 4) == 0) {
        answer->is_checksum_partial |=
            value.length != 11 || strncasecmp(value.start, "FULL_OBJECT", 11) != 0;
        return;
    }
    enum checksum_kind kind = checksum_kind_find(name.start, name.length);
    struct checksum checksum;
    if (kind > answer->checksum.kind &&
        checksum_parse(kind, value.start, value.length, &checksum)) {
        answer->checksum = checksum;
    }
}

static void take_status(const char *line, size_t length, struct answer *answer)
{
    *answer = (struct answer){.content_length_bytes = -1, .range_total_bytes = -1};
    const char *blank = memchr(line, ' ', length);
    if (blank == NULL) {
        return;
    }
    struct text rest = trimmed(blank, line + length);
    uint64_t status;
    if (take_number(&rest, &status) && status < 1000) {
        answer->status = (int)status;
    }
}

void answer_take_line(struct answer *answer, const char *line, size_t length)
{
    static const char checksum_prefix[] = "x-amz-checksum-";
    enum { PREFIX = sizeof checksum_prefix - 1 };
    if (length >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        take_status(line, length, answer);
        return;
    }
    const char *colon = memchr(line, ':', length);
    if (colon == NULL) {
        return;
    }
    struct text name = trimmed(line, colon), value = trimmed(colon + 1, line + length);
    uint64_t number;
    if (name.length > PREFIX && strncasecmp(name.start, checksum_prefix, PREFIX) == 0) {
        take_checksum((struct text){name.start + PREFIX, name.length - PREFIX}, value, answer);
        return;
    }
#define IS(text) (name.length == sizeof text - 1 && strncasecmp(name.start, text, name.length) == 0)
    if (IS("content-length")) {
        if (take_number(&value, &number) && value.length == 0) {
            answer->content_length_bytes = (int64_t)number;
        }
    } else if (IS("content-range")) {
        take_range(value, answer);
    } else if (IS("etag")) {
        answer_tag_copy(answer->tag, value.start, value.length);
    } else if (IS("last-modified")) {
        copy(answer->last_modified, sizeof answer->last_modified, value);
    } else if (IS("date")) {
        copy(answer->date, sizeof answer->date, value);
    } else if (IS("x-amz-bucket-region")) {
        copy(answer->region, sizeof answer->region, value);
    } else if (IS("x-amz-request-id")) {
        copy(answer->request_id, sizeof answer->request_id, value);
    } else if (IS("retry-after") && take_number(&value, &number) && value.length == 0) {
        answer->retry_after_s = number < RETRY_AFTER_MAX_S ? (uint32_t)number : RETRY_AFTER_MAX_S;
    }
#undef IS
}

bool answer_tag_is_usable(const char *tag)
{
    size_t length = strnlen(tag, REMOTE_TAG_BYTES);
    if (length == REMOTE_TAG_BYTES || length < 2 || !is_visible((struct text){tag, length})) {
        return false;
    }
    return tag[0] == '@' ||
           (tag[0] == '"' && tag[length - 1] == '"' && memchr(tag + 1, '"', length - 2) == NULL);
}

void answer_tag_copy(char tag[REMOTE_TAG_BYTES], const char *text, size_t length)
{
    bool is_quoted = length >= 2 && text[0] == '"' && text[length - 1] == '"';
    tag[0] = '\0';
    if (length == 0 || length + 2 >= REMOTE_TAG_BYTES ||
        (length >= 2 && (memcmp(text, "W/", 2) == 0 || memcmp(text, "w/", 2) == 0))) {
        return;
    }
    snprintf(tag, REMOTE_TAG_BYTES, is_quoted ? "%.*s" : "\"%.*s\"", (int)length, text);
    if (!answer_tag_is_usable(tag)) {
        tag[0] = '\0';
    }
}

bool answer_version(const struct answer *answer, struct remote_version *version)
{
    int64_t size_bytes = answer->has_range       ? answer->range_total_bytes
                         : answer->status == 200 ? answer->content_length_bytes
                                                 : -1;
    *version = (struct remote_version){.size_bytes = size_bytes < 0 ? 0 : (uint64_t)size_bytes};
    if (answer->tag[0] != '\0') {
        memcpy(version->tag, answer->tag, sizeof version->tag);
    } else if (answer->last_modified[0] != '\0') {
        snprintf(version->tag, sizeof version->tag, "@%s", answer->last_modified);
    }
    return size_bytes >= 0;
}

static enum answer_verdict check_version(const struct answer *answer,
                                         const struct remote_version *wanted,
                                         char why[ANSWER_WHY_BYTES])
{
    struct remote_version seen;
    bool is_size_known = answer_version(answer, &seen);
    if (wanted->tag[0] == '\0') {
        return ANSWER_GOOD;
    }
    /* A server may keep ETag back in some answers; then the date must speak for it, and if both
     * are kept back nothing does. */
    if (seen.tag[0] == '\0' || seen.tag[0] != wanted->tag[0]) {
        snprintf(why, ANSWER_WHY_BYTES, "the answer does not name its version (ETag)");
        return ANSWER_BAD;
    }
    if (strcmp(seen.tag, wanted->tag) != 0) {
        snprintf(why, ANSWER_WHY_BYTES, "it is now version %.80s", seen.tag);
        return ANSWER_CHANGED;
    }
    if (is_size_known && seen.size_bytes != wanted->size_bytes) {
        if (wanted->tag[0] == '"') { /* the same strong tag names the same bytes */
            snprintf(why, ANSWER_WHY_BYTES, "the answer gives a wrong size of the object");
            return ANSWER_BAD;
        }
        snprintf(why, ANSWER_WHY_BYTES, "it is now %" PRIu64 " bytes", seen.size_bytes);
        return ANSWER_CHANGED;
    }
    return ANSWER_GOOD;
}

enum answer_verdict answer_check(const struct answer *answer, const struct remote_version *wanted,
                                 uint64_t offset_bytes, uint64_t length_bytes,
                                 char why[ANSWER_WHY_BYTES])
{
    enum answer_verdict verdict = check_version(answer, wanted, why);
    if (verdict != ANSWER_GOOD) {
        return verdict;
    }
    if (answer->status == 200) {
        if (offset_bytes == 0 && !answer->has_range && answer->content_length_bytes >= 0 &&
            (uint64_t)answer->content_length_bytes == length_bytes) {
            return ANSWER_GOOD;
        }
        snprintf(why, ANSWER_WHY_BYTES, "the whole object came instead of the range (status 200)");
        return ANSWER_BAD;
    }
    if (answer->content_length_bytes >= 0 &&
        (uint64_t)answer->content_length_bytes != length_bytes) {
        snprintf(why, ANSWER_WHY_BYTES, "the answer has %" PRId64 " bytes instead of %" PRIu64,
                 answer->content_length_bytes, length_bytes);
        return ANSWER_BAD;
    }
    if (answer->status != 206 || !answer->has_range || answer->is_range_bad ||
        answer->range_first != offset_bytes ||
        answer->range_last != offset_bytes + length_bytes - 1) {
        snprintf(why, ANSWER_WHY_BYTES, "the answer is another range than the one asked for");
        return ANSWER_BAD;
    }
    return ANSWER_GOOD;
}
