#include "loader/tar.h"

#include <assert.h>
#include <string.h>

/* Fields of a header block, as POSIX.1 lays them out. */
enum {
    NAME_AT = 0,
    NAME_BYTES = 100,
    SIZE_AT = 124,
    SIZE_BYTES = 12,
    CHECKSUM_AT = 148,
    CHECKSUM_BYTES = 8,
    TYPE_AT = 156,
    MAGIC_AT = 257,
    PREFIX_AT = 345,
    PREFIX_BYTES = 155,
};

static const char text_cut[] = "the file ends in the middle of this member";
static const char text_long_name[] = "its name is longer than 4095 bytes";

static enum tar_result bad(struct tar *tar, struct tar_problem *problem, const char *text)
{
    *problem = (struct tar_problem){tar->record_offset_bytes, text};
    tar->state = TAR_ENDED;
    return TAR_BAD;
}

/* Want a header at at_bytes, or end if the file does. */
static void want_header(struct tar *tar, uint64_t at_bytes)
{
    tar->state = TAR_HEADER;
    tar->at_bytes = at_bytes;
    tar->length_bytes = TAR_BLOCK_BYTES;
    if (at_bytes >= tar->archive_bytes) {
        tar->state = TAR_ENDED;
        tar->is_end_missing = true;
    } else if (tar->archive_bytes - at_bytes < TAR_BLOCK_BYTES) {
        tar->length_bytes = tar->archive_bytes - at_bytes; /* tar_feed() will complain */
    }
}

void tar_init(struct tar *tar, uint64_t archive_bytes)
{
    *tar = (struct tar){.archive_bytes = archive_bytes};
    want_header(tar, 0);
}

bool tar_want(const struct tar *tar, uint64_t *offset_bytes, size_t *length_bytes)
{
    *offset_bytes = tar->at_bytes;
    *length_bytes = (size_t)tar->length_bytes;
    return tar->state != TAR_ENDED;
}

static bool is_zero(const uint8_t *bytes, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Octal digits between optional spaces, ended by a space, a NUL or the field. */
static bool parse_octal(const uint8_t *field, size_t size_bytes, uint64_t *value)
{
    size_t at = 0;
    while (at < size_bytes && field[at] == ' ') {
        at++;
    }
    *value = 0;
    for (; at < size_bytes && field[at] != ' ' && field[at] != '\0'; at++) {
        if (field[at] < '0' || field[at] > '7' || *value >> 61 != 0) {
            return false;
        }
        *value = *value << 3 | (uint64_t)(field[at] - '0');
    }
    return true;
}

/* A size: octal, or GNU's base 256, whose top bit is set and whose next bit is the sign. */
static const char *parse_size(const uint8_t *field, uint64_t *value)
{
    if ((field[0] & 0x80) == 0) {
        return parse_octal(field, SIZE_BYTES, value) ? NULL : "its size is not a number";
    }
    if ((field[0] & 0x40) != 0) {
        return "its size is negative";
    }
    *value = field[0] & 0x3f;
    for (size_t i = 1; i < SIZE_BYTES; i++) {
        if (*value >> 55 != 0) {
            return "its size is absurd";
        }
        *value = *value << 8 | field[i];
    }
    return NULL;
}

/* The sum of all bytes with the checksum itself read as spaces. Some old writers summed signed
 * bytes; both are taken. */
static bool is_checksum_right(const uint8_t *block)
{
    uint64_t stored;
    if (!parse_octal(block + CHECKSUM_AT, CHECKSUM_BYTES, &stored)) {
        return false;
    }
    int64_t sum = CHECKSUM_BYTES * ' ', signed_sum = CHECKSUM_BYTES * ' ';
    for (size_t i = 0; i < TAR_BLOCK_BYTES; i++) {
        if (i >= CHECKSUM_AT && i < CHECKSUM_AT + CHECKSUM_BYTES) {
            continue;
        }
        sum += block[i];
        signed_sum += (int8_t)block[i];
    }
    return (int64_t)stored == sum || (int64_t)stored == signed_sum;
}

/* Only POSIX headers have a prefix; GNU's keep other things there. */
static void read_short_name(const uint8_t *block, char *name)
{
    size_t length = 0;
    if (memcmp(block + MAGIC_AT, "ustar", 6) == 0 && block[PREFIX_AT] != '\0') {
        length = strnlen((const char *)block + PREFIX_AT, PREFIX_BYTES);
        memcpy(name, block + PREFIX_AT, length);
        name[length++] = '/';
    }
    size_t rest = strnlen((const char *)block + NAME_AT, NAME_BYTES);
    memcpy(name + length, block + NAME_AT, rest);
    name[length + rest] = '\0';
}

static bool has_parent_component(const char *name)
{
    for (const char *at = name; at != NULL; at = strchr(at, '/')) {
        at += *at == '/';
        if (at[0] == '.' && at[1] == '.' && (at[2] == '/' || at[2] == '\0')) {
            return true;
        }
    }
    return false;
}

static const char *check_name(const char *name)
{
    if (name[0] == '\0') {
        return "it has no name";
    }
    if (name[0] == '/') {
        return "its name is absolute";
    }
    if (has_parent_component(name)) {
        return "its name leads out of the archive with \"..\"";
    }
    return NULL;
}

static uint64_t padding_of(uint64_t size_bytes)
{
    return -size_bytes % TAR_BLOCK_BYTES;
}

/* Whether this much data after the header at hand, and its padding, is in the file. */
static bool is_whole(const struct tar *tar, uint64_t size_bytes)
{
    uint64_t rest = tar->archive_bytes - tar->at_bytes - TAR_BLOCK_BYTES;
    return size_bytes <= rest && padding_of(size_bytes) <= rest - size_bytes;
}

/* A member that is data to be used, skipped, or only a header. */
static enum tar_result take_member(struct tar *tar, const uint8_t *block, uint64_t size_bytes,
                                   struct tar_member *member, struct tar_problem *problem)
{
    char type = (char)block[TYPE_AT];
    read_short_name(block, member->name);
    const struct tar_overrides *from = tar->local.has_name ? &tar->local : &tar->global;
    if (from->has_name) {
        memcpy(member->name, from->name, strlen(from->name) + 1);
    }
    from = tar->local.has_size ? &tar->local : &tar->global;
    if (from->has_size) {
        size_bytes = from->size_bytes;
    }
    tar->local.has_name = tar->local.has_size = false;

    size_t length = strlen(member->name);
    if (type == '\0') { /* V7 marks directories by their name alone */
        type = length > 0 && member->name[length - 1] == '/' ? '5' : '0';
    }
    member->is_file = type == '0' || type == '7';
    if (type >= '1' && type <= '6') {
        size_bytes = 0; /* links, directories, devices: the size, if any, is of no data here */
    }
    const char *text = member->is_file ? check_name(member->name) : NULL;
    if (text != NULL) {
        return bad(tar, problem, text);
    }

    uint64_t data_at = tar->at_bytes + TAR_BLOCK_BYTES;
    if (!is_whole(tar, size_bytes)) {
        return bad(tar, problem, text_cut);
    }
    member->header_offset_bytes = tar->record_offset_bytes;
    member->data_offset_bytes = data_at;
    member->size_bytes = size_bytes;
    tar->record_offset_bytes = data_at + size_bytes + padding_of(size_bytes);
    want_header(tar, tar->record_offset_bytes);
    return TAR_MEMBER;
}

/* Want the payload of a header that describes the next member. */
static enum tar_result take_extended(struct tar *tar, enum tar_state state, uint64_t size_bytes,
                                     struct tar_problem *problem)
{
    uint64_t data_at = tar->at_bytes + TAR_BLOCK_BYTES;
    if (!is_whole(tar, size_bytes)) {
        return bad(tar, problem, text_cut);
    }
    if (size_bytes > TAR_EXTENDED_BYTES_MAX) {
        return bad(tar, problem, "its extended header is larger than 1 MiB");
    }
    if (size_bytes == 0) {
        want_header(tar, data_at);
        return TAR_MORE;
    }
    tar->state = state;
    tar->at_bytes = data_at;
    tar->length_bytes = size_bytes;
    return TAR_MORE;
}

/* GNU's long link name: its payload is of no interest. */
static enum tar_result skip_long_link(struct tar *tar, uint64_t size_bytes,
                                      struct tar_problem *problem)
{
    uint64_t data_at = tar->at_bytes + TAR_BLOCK_BYTES;
    if (!is_whole(tar, size_bytes)) {
        return bad(tar, problem, text_cut);
    }
    want_header(tar, data_at + size_bytes + padding_of(size_bytes));
    return TAR_MORE;
}

/* After the first zero block at most 1 MiB may follow, all zeros: writers fill their last record.
 * Anything else is a joined archive or a hole in the file, whose samples would silently be lost. */
static enum tar_result take_end(struct tar *tar, struct tar_problem *problem)
{
    uint64_t tail_at = tar->at_bytes + TAR_BLOCK_BYTES;
    uint64_t tail_bytes = tar->archive_bytes - tail_at;
    if (tail_bytes > TAR_EXTENDED_BYTES_MAX) {
        return bad(tar, problem, "the archive ends here, but more than 1 MiB follows");
    }
    tar->state = tail_bytes == 0 ? TAR_ENDED : TAR_TAIL;
    tar->at_bytes = tail_at;
    tar->length_bytes = tail_bytes;
    return TAR_MORE;
}

static enum tar_result feed_header(struct tar *tar, const uint8_t *block, struct tar_member *member,
                                   struct tar_problem *problem)
{
    if (tar->length_bytes < TAR_BLOCK_BYTES) {
        return bad(tar, problem, "the file ends in the middle of a header");
    }
    if (is_zero(block, TAR_BLOCK_BYTES)) {
        return take_end(tar, problem);
    }
    if (!is_checksum_right(block)) {
        return bad(tar, problem, "there is no tar header here (its checksum is wrong)");
    }
    uint64_t size_bytes;
    const char *text = parse_size(block + SIZE_AT, &size_bytes);
    if (text != NULL) {
        return bad(tar, problem, text);
    }
    switch (block[TYPE_AT]) {
    case 'x':
    case 'X': return take_extended(tar, TAR_PAX, size_bytes, problem);
    case 'g': return take_extended(tar, TAR_PAX_GLOBAL, size_bytes, problem);
    case 'L': return take_extended(tar, TAR_LONG_NAME, size_bytes, problem);
    case 'K': return skip_long_link(tar, size_bytes, problem);
    case 'S': return bad(tar, problem, "it is a sparse file (written with tar --sparse)");
    default: return take_member(tar, block, size_bytes, member, problem);
    }
}

static const char *set_name(struct tar_overrides *overrides, const uint8_t *name, size_t length)
{
    if (length >= TAR_NAME_BYTES) {
        return text_long_name;
    }
    if (memchr(name, '\0', length) != NULL) {
        return "its name contains a zero byte";
    }
    memcpy(overrides->name, name, length);
    overrides->name[length] = '\0';
    overrides->has_name = length > 0; /* an empty pax value takes the override back */
    return NULL;
}

static const char *set_size(struct tar_overrides *overrides, const uint8_t *digits, size_t length)
{
    uint64_t value = 0;
    for (size_t i = 0; i < length; i++) {
        if (i == 0 && digits[0] == '-') {
            return "its size is negative";
        }
        if (digits[i] < '0' || digits[i] > '9') {
            return "its size is not a number";
        }
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(digits[i] - '0'), &value)) {
            return "its size is absurd";
        }
    }
    overrides->size_bytes = value;
    overrides->has_size = length > 0;
    return NULL;
}

static bool is_keyword(const uint8_t *bytes, size_t length, const char *keyword)
{
    return length == strlen(keyword) && memcmp(bytes, keyword, length) == 0;
}

/* "keyword=value": only names and sizes matter here. */
static const char *take_pax_pair(struct tar_overrides *overrides, const uint8_t *pair,
                                 size_t length)
{
    const uint8_t *equals = memchr(pair, '=', length);
    if (equals == NULL) {
        return "its pax header is damaged";
    }
    size_t keyword_length = (size_t)(equals - pair);
    size_t value_length = length - keyword_length - 1;
    if (is_keyword(pair, keyword_length, "path")) {
        return set_name(overrides, equals + 1, value_length);
    }
    if (is_keyword(pair, keyword_length, "size")) {
        return set_size(overrides, equals + 1, value_length);
    }
    if (keyword_length > 11 && memcmp(pair, "GNU.sparse.", 11) == 0) {
        return "it is a sparse file (written with tar --sparse)";
    }
    return NULL;
}

/* Records "LENGTH keyword=value\n", LENGTH counting the whole record in decimal. */
static const char *parse_pax(struct tar_overrides *overrides, const uint8_t *bytes,
                             size_t size_bytes)
{
    static const char damaged[] = "its pax header is damaged";
    size_t at = 0;
    while (at < size_bytes && bytes[at] != '\0') {
        size_t length = 0, digits = 0;
        while (at + digits < size_bytes && bytes[at + digits] >= '0' && bytes[at + digits] <= '9') {
            length = length * 10 + (size_t)(bytes[at + digits] - '0');
            if (++digits > 7) {
                return damaged;
            }
        }
        if (digits == 0 || length > size_bytes - at || length < digits + 3 ||
            bytes[at + digits] != ' ' || bytes[at + length - 1] != '\n') {
            return damaged;
        }
        const char *text = take_pax_pair(overrides, bytes + at + digits + 1, length - digits - 2);
        if (text != NULL) {
            return text;
        }
        at += length;
    }
    return NULL;
}

static enum tar_result feed_extended(struct tar *tar, const uint8_t *bytes,
                                     struct tar_problem *problem)
{
    size_t size_bytes = (size_t)tar->length_bytes;
    const char *text;
    if (tar->state == TAR_LONG_NAME) {
        text = set_name(&tar->local, bytes, strnlen((const char *)bytes, size_bytes));
    } else {
        text = parse_pax(tar->state == TAR_PAX ? &tar->local : &tar->global, bytes, size_bytes);
    }
    if (text != NULL) {
        return bad(tar, problem, text);
    }
    want_header(tar, tar->at_bytes + size_bytes + padding_of(size_bytes));
    if (tar->state == TAR_ENDED) {
        return bad(tar, problem, "the file ends before the member that this header describes");
    }
    return TAR_MORE;
}

enum tar_result tar_feed(struct tar *tar, const uint8_t *bytes, struct tar_member *member,
                         struct tar_problem *problem)
{
    switch (tar->state) {
    case TAR_HEADER: return feed_header(tar, bytes, member, problem);
    case TAR_PAX:
    case TAR_PAX_GLOBAL:
    case TAR_LONG_NAME: return feed_extended(tar, bytes, problem);
    case TAR_TAIL:
        if (!is_zero(bytes, (size_t)tar->length_bytes)) {
            return bad(tar, problem, "the archive ends here, but more data follows");
        }
        tar->state = TAR_ENDED;
        return TAR_MORE;
    case TAR_ENDED: break;
    }
    assert(!"tar_feed() after the end");
    return TAR_BAD;
}
