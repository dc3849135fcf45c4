#include "loader/shard_scan.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader/index_build.h"
#include "loader/tar.h"

enum {
    /* Read at once: a header, a "cls" member and the next header; where members are small, many. */
    WINDOW_BYTES = 16 * 1024,
    WINDOW_SMALL_BYTES = 4096,
    EXTENSIONS_MAX = 1024,
    LABEL_BYTES_MAX = 20,
};

/* Keys seen in this shard: open addressing, sample number + 1; at most half full. */
struct key_set {
    uint32_t *slots;
    size_t size; /* a power of two */
    size_t count;
};

struct scanner {
    const char *path;
    const struct shard_bytes *source;
    struct shard_scan *scan;
    struct index_progress *progress;
    struct error *error;
    struct key_set keys;
    struct growing key_offsets; /* uint64_t: where each sample starts, for messages */
    struct tar tar;
    struct tar_member member;
    uint8_t *window; /* WINDOW_BYTES, file bytes [window_at, window_at + window_bytes) */
    uint64_t window_at;
    size_t window_bytes;
    uint8_t *extended; /* TAR_EXTENDED_BYTES_MAX, made when first wanted */
};

static const char help_repack[] = "Copy the shard again, or pack it anew";
static const char help_names[] =
    "Write the members of each sample one after the other, each with its own extension (GNU tar "
    "--sort=name does), or rename them";

static int fail_at(const struct scanner *scanner, uint64_t offset_bytes, const char *what,
                   const char *help)
{
    return error_set(scanner->error, ERROR_DATASET, "%s: at offset %" PRIu64 ": %s. %s.",
                     scanner->path, offset_bytes, what, help);
}

static int read_bytes(const struct scanner *scanner, uint8_t *bytes, size_t size_bytes,
                      uint64_t offset_bytes)
{
    return scanner->source->read(scanner->source->context, offset_bytes, bytes, size_bytes,
                                 scanner->error);
}

/* File bytes [offset, offset + size), all inside the file; NULL and the error when unreadable. */
static const uint8_t *fetch(struct scanner *scanner, uint64_t offset_bytes, size_t size_bytes)
{
    if (size_bytes > WINDOW_BYTES) {
        if (scanner->extended == NULL) {
            scanner->extended = malloc(TAR_EXTENDED_BYTES_MAX);
        }
        if (scanner->extended == NULL) {
            index_build_no_memory(scanner->error);
            return NULL;
        }
        int result = read_bytes(scanner, scanner->extended, size_bytes, offset_bytes);
        return result == 0 ? scanner->extended : NULL;
    }
    if (offset_bytes < scanner->window_at ||
        offset_bytes + size_bytes > scanner->window_at + scanner->window_bytes) {
        uint64_t rest = scanner->scan->size_bytes - offset_bytes;
        size_t wanted =
            scanner->member.size_bytes < WINDOW_BYTES ? WINDOW_BYTES : WINDOW_SMALL_BYTES;
        wanted = wanted > size_bytes ? wanted : size_bytes;
        wanted = rest < wanted ? (size_t)rest : wanted;
        scanner->window_bytes = 0;
        if (read_bytes(scanner, scanner->window, wanted, offset_bytes) < 0) {
            return NULL;
        }
        scanner->window_at = offset_bytes;
        scanner->window_bytes = wanted;
    }
    return scanner->window + (offset_bytes - scanner->window_at);
}

static const char *scan_string(const struct shard_scan *scan, uint64_t offset)
{
    return (const char *)scan->strings.bytes + offset;
}

static struct index_sample *scan_sample(const struct shard_scan *scan, size_t number)
{
    return (struct index_sample *)scan->samples.bytes + number;
}

static bool add_string(struct shard_scan *scan, const char *text, size_t length, uint64_t *offset)
{
    *offset = scan->strings.size_bytes;
    char *room = growing_add(&scan->strings, length + 1);
    if (room == NULL) {
        return false;
    }
    memcpy(room, text, length);
    room[length] = '\0';
    return true;
}

/* Where `key` is or would go. */
static uint32_t *key_set_slot(const struct key_set *keys, const struct shard_scan *scan,
                              const char *key)
{
    size_t at = (size_t)index_hash64(key, strlen(key)) & (keys->size - 1);
    while (keys->slots[at] != 0 &&
           strcmp(scan_string(scan, scan_sample(scan, keys->slots[at] - 1)->name), key) != 0) {
        at = (at + 1) & (keys->size - 1);
    }
    return &keys->slots[at];
}

static bool key_set_grow(struct key_set *keys, const struct shard_scan *scan)
{
    struct key_set grown = {.size = keys->size == 0 ? 1024 : keys->size * 2, .count = keys->count};
    grown.slots = calloc(grown.size, sizeof *grown.slots);
    if (grown.slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < keys->size; i++) {
        if (keys->slots[i] != 0) {
            const struct index_sample *sample = scan_sample(scan, keys->slots[i] - 1);
            *key_set_slot(&grown, scan, scan_string(scan, sample->name)) = keys->slots[i];
        }
    }
    free(keys->slots);
    *keys = grown;
    return true;
}

/* Split at the first dot of the last component; false: not a member of a sample. */
static bool split_name(const char *name, size_t *key_length, const char **extension)
{
    const char *slash = strrchr(name, '/');
    const char *base = slash != NULL ? slash + 1 : name;
    const char *dot = strchr(base, '.');
    if (dot == NULL || dot == base || dot[1] == '\0') {
        return false;
    }
    *key_length = (size_t)(dot - name);
    *extension = dot + 1;
    return true;
}

/* The number of an extension in lower case, added if new; -1 and the error. */
static int64_t extension_number(struct scanner *scanner, const char *extension)
{
    struct shard_scan *scan = scanner->scan;
    char lower[TAR_NAME_BYTES];
    size_t length = 0;
    for (; extension[length] != '\0'; length++) {
        lower[length] = (char)tolower((unsigned char)extension[length]);
    }
    lower[length] = '\0';
    const uint64_t *known = (const uint64_t *)scan->extensions.bytes;
    size_t count = scan->extensions.size_bytes / sizeof *known;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(scan_string(scan, known[i]), lower) == 0) {
            return (int64_t)i;
        }
    }
    if (count == EXTENSIONS_MAX) {
        return fail_at(scanner, scanner->member.header_offset_bytes,
                       "more than 1024 different extensions; an extension starts at the first dot "
                       "of a file name",
                       "Rename the members so that only extensions follow a dot");
    }
    uint64_t offset;
    uint64_t *room = growing_add(&scan->extensions, sizeof *room);
    if (room == NULL || !add_string(scan, lower, length, &offset)) {
        return index_build_no_memory(scanner->error);
    }
    *room = offset;
    return (int64_t)count;
}

static int repeated_key(const struct scanner *scanner, const char *key, uint32_t number)
{
    uint64_t first;
    memcpy(&first, scanner->key_offsets.bytes + (size_t)number * sizeof first, sizeof first);
    char what[ERROR_TEXT_BYTES / 2];
    snprintf(what, sizeof what,
             "the sample \"%.400s\" comes again; its other members are at offset %" PRIu64, key,
             first);
    return fail_at(scanner, scanner->member.header_offset_bytes, what, help_names);
}

static int start_sample(struct scanner *scanner, size_t key_length)
{
    struct shard_scan *scan = scanner->scan;
    struct key_set *keys = &scanner->keys;
    if (keys->count * 2 >= keys->size && !key_set_grow(keys, scan)) {
        return index_build_no_memory(scanner->error);
    }
    scanner->member.name[key_length] = '\0';
    uint32_t *slot = key_set_slot(keys, scan, scanner->member.name);
    if (*slot != 0) {
        return repeated_key(scanner, scanner->member.name, *slot - 1);
    }
    if (keys->count == UINT32_MAX - 1) {
        return fail_at(scanner, scanner->member.header_offset_bytes,
                       "the shard has more than 4,294,967,294 samples", "Split it");
    }
    struct index_sample sample = {
        .member_first = scan->members.size_bytes / sizeof(struct index_member),
        .label = INDEX_NO_LABEL,
    };
    struct index_sample *room = growing_add(&scan->samples, sizeof sample);
    uint64_t *offset = growing_add(&scanner->key_offsets, sizeof *offset);
    if (room == NULL || offset == NULL ||
        !add_string(scan, scanner->member.name, key_length, &sample.name)) {
        return index_build_no_memory(scanner->error);
    }
    *room = sample;
    *offset = scanner->member.header_offset_bytes;
    *slot = (uint32_t)++keys->count;
    return 0;
}

/* An integer in decimal, spaces around it allowed. */
static bool parse_label(const uint8_t *bytes, size_t size_bytes, int64_t *label)
{
    char text[LABEL_BYTES_MAX + 1];
    memcpy(text, bytes, size_bytes);
    text[size_bytes] = '\0';
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || errno != 0) {
        return false;
    }
    while (isspace((unsigned char)*end)) {
        end++;
    }
    *label = value;
    return end == text + size_bytes;
}

static int read_label(struct scanner *scanner, struct index_sample *sample)
{
    const struct tar_member *member = &scanner->member;
    if (member->size_bytes == 0 || member->size_bytes > LABEL_BYTES_MAX) {
        return 0;
    }
    const uint8_t *bytes = fetch(scanner, member->data_offset_bytes, (size_t)member->size_bytes);
    if (bytes == NULL) {
        return -1;
    }
    int64_t label;
    if (parse_label(bytes, (size_t)member->size_bytes, &label)) {
        sample->label = label;
    }
    return 0;
}

static int add_member(struct scanner *scanner, int64_t extension)
{
    struct shard_scan *scan = scanner->scan;
    struct index_sample *sample = scan_sample(scan, scanner->keys.count - 1);
    const struct index_member *members = (const struct index_member *)scan->members.bytes;
    for (uint32_t i = 0; i < sample->member_count; i++) {
        if (members[sample->member_first + i].extension == extension) {
            char what[ERROR_TEXT_BYTES / 2];
            snprintf(what, sizeof what,
                     "the sample \"%.400s\" has a second member \"%.100s\"; the first has its data "
                     "at offset %" PRIu64,
                     scan_string(scan, sample->name),
                     scan_string(scan, ((const uint64_t *)scan->extensions.bytes)[extension]),
                     members[sample->member_first + i].offset_bytes);
            return fail_at(scanner, scanner->member.header_offset_bytes, what, help_names);
        }
    }
    struct index_member *room = growing_add(&scan->members, sizeof *room);
    if (room == NULL) {
        return index_build_no_memory(scanner->error);
    }
    *room = (struct index_member){
        .offset_bytes = scanner->member.data_offset_bytes,
        .size_bytes = scanner->member.size_bytes,
        .extension = (uint32_t)extension,
    };
    sample->member_count++;
    scan->data_bytes += scanner->member.size_bytes;
    bool is_label =
        strcmp(scan_string(scan, ((uint64_t *)scan->extensions.bytes)[extension]), "cls") == 0;
    return is_label ? read_label(scanner, sample) : 0;
}

static int take_member(struct scanner *scanner)
{
    size_t key_length;
    const char *extension;
    if (!scanner->member.is_file || !split_name(scanner->member.name, &key_length, &extension)) {
        return 0;
    }
    int64_t number = extension_number(scanner, extension);
    if (number < 0) {
        return -1;
    }
    bool is_same = false;
    if (scanner->keys.count > 0) {
        const struct index_sample *last = scan_sample(scanner->scan, scanner->keys.count - 1);
        const char *key = scan_string(scanner->scan, last->name);
        is_same = strlen(key) == key_length && memcmp(key, scanner->member.name, key_length) == 0;
    }
    if (!is_same && start_sample(scanner, key_length) < 0) {
        return -1;
    }
    return add_member(scanner, number);
}

/* Files that are often taken for tars. */
static int check_magic(struct scanner *scanner)
{
    static const struct {
        const char *magic, *what;
        size_t length;
    } known[] = {
        {"\x1f\x8b", "it is compressed with gzip", 2},
        {"\x28\xb5\x2f\xfd", "it is compressed with zstd", 4},
        {"\xfd"
         "7zXZ",
         "it is compressed with xz", 5},
        {"BZh", "it is compressed with bzip2", 3},
        {"PK\x03\x04", "it is a zip archive, not a tar", 4},
    };
    if (scanner->scan->size_bytes < 6) {
        return 0;
    }
    const uint8_t *bytes = fetch(scanner, 0, 6);
    if (bytes == NULL) {
        return -1;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (memcmp(bytes, known[i].magic, known[i].length) == 0) {
            return fail_at(scanner, 0, known[i].what,
                           "Samples are read at random, so unpack it to a plain .tar first");
        }
    }
    return 0;
}

static int scan_members(struct scanner *scanner)
{
    uint64_t at, reported = 0;
    size_t length;
    while (tar_want(&scanner->tar, &at, &length)) {
        if (index_build_is_cancelled(scanner->progress)) {
            return index_build_cancelled(scanner->error);
        }
        index_build_advance(scanner->progress, at - reported);
        reported = at;
        const uint8_t *bytes = fetch(scanner, at, length);
        if (bytes == NULL) {
            return -1;
        }
        struct tar_problem problem;
        switch (tar_feed(&scanner->tar, bytes, &scanner->member, &problem)) {
        case TAR_MORE: break;
        case TAR_BAD: return fail_at(scanner, problem.offset_bytes, problem.text, help_repack);
        case TAR_MEMBER:
            if (take_member(scanner) < 0) {
                return -1;
            }
        }
    }
    index_build_advance(scanner->progress, scanner->scan->size_bytes - reported);
    scanner->scan->is_end_missing = scanner->tar.is_end_missing;
    if (scanner->keys.count == 0) {
        return error_set(scanner->error, ERROR_DATASET,
                         "%s: no sample is inside. Samples are files named KEY.EXTENSION, such as "
                         "000001.jpg and 000001.cls; take this file out of the list.",
                         scanner->path);
    }
    return 0;
}

static int scan_source(struct scanner *scanner)
{
    if (scanner->scan->size_bytes == 0) {
        return error_set(scanner->error, ERROR_DATASET,
                         "%s: the file is empty (0 bytes). Copy it again, or take it out of the "
                         "list.",
                         scanner->path);
    }
    tar_init(&scanner->tar, scanner->scan->size_bytes);
    return check_magic(scanner) < 0 ? -1 : scan_members(scanner);
}

int shard_scan_bytes(const char *path, const struct shard_bytes *source,
                     struct index_progress *progress, struct shard_scan *scan, struct error *error)
{
    *scan = (struct shard_scan){.size_bytes = source->size_bytes};
    struct scanner *scanner = calloc(1, sizeof *scanner);
    uint8_t *window = malloc(WINDOW_BYTES);
    int result = -1;
    if (scanner == NULL || window == NULL) {
        index_build_no_memory(error);
    } else {
        *scanner = (struct scanner){.path = path,
                                    .source = source,
                                    .scan = scan,
                                    .progress = progress,
                                    .error = error,
                                    .window = window};
        result = scan_source(scanner);
        free(scanner->keys.slots);
        growing_clear(&scanner->key_offsets);
        free(scanner->extended);
    }
    free(window);
    free(scanner);
    if (result < 0) {
        shard_scan_clear(scan);
    }
    return result;
}

void shard_scan_clear(struct shard_scan *scan)
{
    growing_clear(&scan->samples);
    growing_clear(&scan->members);
    growing_clear(&scan->extensions);
    growing_clear(&scan->strings);
    *scan = (struct shard_scan){0};
}
