#include "loader/index_draft.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *growing_add(struct growing *growing, size_t size_bytes)
{
    if (size_bytes > growing->capacity_bytes - growing->size_bytes) {
        size_t wanted;
        if (__builtin_add_overflow(growing->size_bytes, size_bytes, &wanted)) {
            return NULL;
        }
        size_t capacity = growing->capacity_bytes + growing->capacity_bytes / 2;
        if (capacity < wanted) {
            capacity = wanted;
        }
        if (capacity < 256) {
            capacity = 256;
        }
        uint8_t *bytes = realloc(growing->bytes, capacity);
        if (bytes == NULL) {
            return NULL;
        }
        growing->bytes = bytes;
        growing->capacity_bytes = capacity;
    }
    uint8_t *room = growing->bytes + growing->size_bytes;
    growing->size_bytes += size_bytes;
    return room;
}

void growing_clear(struct growing *growing)
{
    free(growing->bytes);
    *growing = (struct growing){0};
}

void index_draft_init(struct index_draft *draft, enum index_kind kind)
{
    *draft = (struct index_draft){.kind = kind};
    index_draft_string(draft, "", 0);
}

void index_draft_clear(struct index_draft *draft)
{
    for (size_t i = 0; i < INDEX_SECTIONS; i++) {
        growing_clear(&draft->section[i]);
    }
}

void index_draft_add(struct index_draft *draft, enum index_section section, const void *element,
                     size_t size_bytes)
{
    void *room = growing_add(&draft->section[section], size_bytes);
    if (room == NULL) {
        draft->is_out_of_memory = true;
    } else {
        memcpy(room, element, size_bytes);
    }
}

uint64_t index_draft_string(struct index_draft *draft, const char *text, size_t length)
{
    struct growing *strings = &draft->section[INDEX_STRINGS];
    uint64_t offset = strings->size_bytes;
    char *room = growing_add(strings, length + 1);
    if (room == NULL) {
        draft->is_out_of_memory = true;
        return 0;
    }
    memcpy(room, text, length);
    room[length] = '\0';
    return offset;
}

size_t index_draft_count(const struct index_draft *draft, enum index_section section,
                         size_t size_bytes)
{
    return draft->section[section].size_bytes / size_bytes;
}

static uint64_t align8(uint64_t bytes)
{
    return (bytes + 7) & ~UINT64_C(7);
}

/* Sections in order, each at the next multiple of 8: index_check() accepts no other layout. */
static void fill_header(const struct index_draft *draft, struct index_header *header)
{
    *header = (struct index_header){.version = INDEX_VERSION, .kind = draft->kind};
    memcpy(header->magic, INDEX_MAGIC, sizeof header->magic);
    uint64_t at = sizeof *header;
    for (size_t i = 0; i < INDEX_SECTIONS; i++) {
        header->section[i].offset_bytes = at;
        header->section[i].bytes = draft->section[i].size_bytes;
        at = align8(at + draft->section[i].size_bytes);
    }
    header->file_bytes = at;
    header->sample_count = index_draft_count(draft, INDEX_SAMPLES, sizeof(struct index_sample));
    header->data_bytes = draft->data_bytes;
    memcpy(header->fingerprint, draft->fingerprint, sizeof header->fingerprint);
}

static int write_all(int fd, const void *bytes, size_t size_bytes)
{
    const uint8_t *at = bytes;
    while (size_bytes > 0) {
        /* Linux writes at most 2 GiB at once; a GiB keeps the arithmetic away from that. */
        size_t piece = size_bytes < 1u << 30 ? size_bytes : 1u << 30;
        ssize_t written = write(fd, at, piece);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            errno = written == 0 ? ENOSPC : errno;
            return -1;
        }
        at += written;
        size_bytes -= (size_t)written;
    }
    return 0;
}

static int write_payload(const struct index_draft *draft, int fd, struct index_hash *hash)
{
    static const uint8_t zeros[8];
    for (size_t i = 0; i < INDEX_SECTIONS; i++) {
        size_t size = draft->section[i].size_bytes;
        size_t padding = align8(size) - size;
        index_hash_add(hash, size > 0 ? draft->section[i].bytes : zeros, size);
        index_hash_add(hash, zeros, padding);
        if (write_all(fd, draft->section[i].bytes, size) < 0 || write_all(fd, zeros, padding) < 0) {
            return -1;
        }
    }
    return 0;
}

int index_draft_write(const struct index_draft *draft, int fd)
{
    struct index_header header;
    fill_header(draft, &header);
    struct index_hash *hash = index_hash_create();
    if (hash == NULL) {
        errno = ENOMEM;
        return -1;
    }
    int result = write_all(fd, &header, sizeof header);
    if (result == 0) {
        result = write_payload(draft, fd, hash);
    }
    header.payload_xxh3 = index_hash_value64(hash);
    index_hash_destroy(hash);
    header.header_xxh3 = index_hash64(&header, offsetof(struct index_header, header_xxh3));
    if (result == 0 && pwrite(fd, &header, sizeof header, 0) != (ssize_t)sizeof header) {
        result = -1;
    }
    return result;
}
