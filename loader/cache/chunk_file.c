#include "loader/cache/chunk_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/cache/crc32c.h"

/* As it lies in the file, little-endian like every machine that this runs on. */
struct chunk_header {
    char magic[8];
    uint32_t version;
    uint32_t header_bytes;
    uint8_t key[CHUNK_KEY_BYTES];
    uint32_t kind;
    uint32_t number;
    uint64_t object_bytes;
    uint32_t chunk_bytes;
    uint32_t data_bytes;
    int64_t fetched_s;
    uint32_t block_count;
    uint16_t url_bytes, tag_bytes; /* with their NULs */
    uint32_t reserved;
    uint32_t crc; /* of the whole header, this field being 0 */
};
static_assert(sizeof(struct chunk_header) == 80, "the file's layout");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file's layout");

static const char chunk_magic[8] = "PSCHUNK";
enum { CHUNK_VERSION = 1 };

static uint32_t round_up(uint32_t value, uint32_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static uint32_t block_count_of(uint32_t data_bytes)
{
    return (data_bytes + CHUNK_BLOCK_BYTES - 1) / CHUNK_BLOCK_BYTES;
}

/* 0 when the texts are too long. */
static uint32_t header_bytes_of(const struct chunk_identity *identity)
{
    size_t texts = strlen(identity->url) + strlen(identity->tag) + 2;
    size_t bytes = sizeof(struct chunk_header) +
                   sizeof(uint32_t) * (size_t)block_count_of(identity->data_bytes) + texts;
    return bytes > CHUNK_HEADER_BYTES_MAX ? 0 : round_up((uint32_t)bytes, CHUNK_ALIGNMENT_BYTES);
}

uint32_t chunk_file_bytes(const struct chunk_identity *identity)
{
    uint32_t header_bytes = header_bytes_of(identity);
    return header_bytes == 0 ? 0
                             : header_bytes + round_up(identity->data_bytes, CHUNK_ALIGNMENT_BYTES);
}

/* ---- Names ------------------------------------------------------------------------------ */

void chunk_name_format(const struct chunk_name *name, char text[CHUNK_NAME_BYTES])
{
    char key[2 * CHUNK_KEY_BYTES + 1];
    for (size_t i = 0; i < CHUNK_KEY_BYTES; i++) {
        snprintf(key + 2 * i, 3, "%02x", name->key[i]);
    }
    snprintf(text, CHUNK_NAME_BYTES, "%.2s/%s-%08x-%x-%08x", key, key, name->number,
             (unsigned)name->kind & 0xf, name->file_bytes);
}

static int hex_value(char digit)
{
    return digit >= '0' && digit <= '9'   ? digit - '0'
           : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                                          : -1;
}

/* Read `count` hex digits; false when there are fewer. */
static bool take_hex(const char **text, size_t count, uint64_t *value)
{
    *value = 0;
    for (; count > 0; count--, (*text)++) {
        int digit = hex_value(**text);
        if (digit < 0) {
            return false;
        }
        *value = *value << 4 | (uint64_t)digit;
    }
    return true;
}

bool chunk_name_parse(const char *text, struct chunk_name *name)
{
    uint64_t number, kind, file_bytes;
    for (size_t i = 0; i < CHUNK_KEY_BYTES; i++) {
        uint64_t byte;
        if (!take_hex(&text, 2, &byte)) {
            return false;
        }
        name->key[i] = (uint8_t)byte;
    }
    if (*text++ != '-' || !take_hex(&text, 8, &number) || *text++ != '-' ||
        !take_hex(&text, 1, &kind) || *text++ != '-' || !take_hex(&text, 8, &file_bytes) ||
        *text != '\0' || kind == 0 || kind >= CHUNK_KINDS) {
        return false;
    }
    name->number = (uint32_t)number;
    name->kind = (enum chunk_kind)kind;
    name->file_bytes = (uint32_t)file_bytes;
    return true;
}

/* ---- Writing ---------------------------------------------------------------------------- */

static void fill_header(uint8_t *page, uint32_t header_bytes, const struct chunk_identity *identity,
                        int64_t fetched_s, const uint8_t *data)
{
    struct chunk_header header = {
        .version = CHUNK_VERSION,
        .header_bytes = header_bytes,
        .kind = identity->kind,
        .number = identity->number,
        .object_bytes = identity->object_bytes,
        .chunk_bytes = identity->chunk_bytes,
        .data_bytes = identity->data_bytes,
        .fetched_s = fetched_s,
        .block_count = block_count_of(identity->data_bytes),
        .url_bytes = (uint16_t)(strlen(identity->url) + 1),
        .tag_bytes = (uint16_t)(strlen(identity->tag) + 1),
    };
    memcpy(header.magic, chunk_magic, sizeof header.magic);
    memcpy(header.key, identity->key, sizeof header.key);
    memset(page, 0, header_bytes);
    uint8_t *at = page + sizeof header;
    for (uint32_t i = 0; i < header.block_count; i++) {
        uint32_t begin = i * CHUNK_BLOCK_BYTES;
        uint32_t left = identity->data_bytes - begin;
        uint32_t crc = crc32c(data + begin, left < CHUNK_BLOCK_BYTES ? left : CHUNK_BLOCK_BYTES);
        memcpy(at, &crc, sizeof crc);
        at += sizeof crc;
    }
    memcpy(at, identity->url, header.url_bytes);
    memcpy(at + header.url_bytes, identity->tag, header.tag_bytes);
    memcpy(page, &header, sizeof header);
    header.crc = crc32c(page, header_bytes);
    memcpy(page, &header, sizeof header);
}

static int write_all(int fd, const uint8_t *bytes, size_t size_bytes, off_t offset)
{
    while (size_bytes > 0) {
        ssize_t wrote = pwrite(fd, bytes, size_bytes, offset);
        if (wrote < 0 && errno == EINVAL && (fcntl(fd, F_GETFL) & O_DIRECT) != 0 &&
            fcntl(fd, F_SETFL, 0) == 0) {
            continue; /* it took the flag, but not the write */
        }
        if (wrote < 0 && errno != EINTR) {
            return errno;
        }
        if (wrote == 0) {
            return EIO;
        }
        if (wrote > 0) {
            bytes += wrote;
            size_bytes -= (size_t)wrote;
            offset += wrote;
        }
    }
    return 0;
}

/* A file without a name, or (*temporary not "") with one that the next start removes. */
static int open_unnamed(int folder_fd, const char *name, char temporary[CHUNK_NAME_BYTES], int *fd)
{
    char folder[3] = {name[0], name[1], '\0'};
    int flags = O_TMPFILE | O_WRONLY | O_CLOEXEC;
    temporary[0] = '\0';
    if (mkdirat(folder_fd, folder, 0700) != 0 && errno != EEXIST) {
        return errno;
    }
    *fd = openat(folder_fd, folder, flags | O_DIRECT, 0600);
    if (*fd < 0 && errno == EINVAL) {
        *fd = openat(folder_fd, folder, flags, 0600);
    }
    if (*fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)) {
        return *fd >= 0 ? 0 : errno;
    }
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != sizeof number) {
        return EIO;
    }
    snprintf(temporary, CHUNK_NAME_BYTES, "temporary-%016llx", (unsigned long long)number);
    flags = O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC;
    *fd = openat(folder_fd, temporary, flags | O_DIRECT, 0600);
    if (*fd < 0 && errno == EINVAL) {
        unlinkat(folder_fd, temporary, 0);
        *fd = openat(folder_fd, temporary, flags, 0600);
    }
    return *fd >= 0 ? 0 : errno;
}

static int give_name(int folder_fd, int fd, const char *temporary, const char *name)
{
    if (temporary[0] != '\0') {
        return renameat(folder_fd, temporary, folder_fd, name) == 0 ? 0 : errno;
    }
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    for (int attempt = 0;; attempt++) {
        if (linkat(AT_FDCWD, path, folder_fd, name, AT_SYMLINK_FOLLOW) == 0) {
            return 0;
        }
        if (errno != EEXIST || attempt == 2) {
            return errno;
        }
        unlinkat(folder_fd, name, 0);
    }
}

int chunk_file_write(int folder_fd, const char *name, const struct chunk_identity *identity,
                     int64_t fetched_s, uint8_t *data)
{
    uint32_t header_bytes = header_bytes_of(identity);
    uint32_t padded_bytes = round_up(identity->data_bytes, CHUNK_ALIGNMENT_BYTES);
    assert(header_bytes > 0);
    void *header = NULL;
    if (posix_memalign(&header, CHUNK_ALIGNMENT_BYTES, header_bytes) != 0) {
        return ENOMEM;
    }
    memset(data + identity->data_bytes, 0, padded_bytes - identity->data_bytes);
    fill_header(header, header_bytes, identity, fetched_s, data);
    char temporary[CHUNK_NAME_BYTES];
    int fd = -1;
    int error = open_unnamed(folder_fd, name, temporary, &fd);
    if (error == 0) {
        /* One stretch on the disk, and a full disk is noticed at once. */
        if (fallocate(fd, 0, 0, (off_t)header_bytes + padded_bytes) != 0 &&
            (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
            error = errno;
        }
        error = error != 0 ? error : write_all(fd, header, header_bytes, 0);
        error = error != 0 ? error : write_all(fd, data, padded_bytes, header_bytes);
        error = error != 0 ? error : give_name(folder_fd, fd, temporary, name);
        if (error != 0 && temporary[0] != '\0') {
            unlinkat(folder_fd, temporary, 0);
        }
        close(fd);
    }
    free(header);
    return error;
}

/* ---- Reading ---------------------------------------------------------------------------- */

/* Read the header pages of an open file into room and check them for themselves. */
static int read_header(const struct read_file *file, struct chunk_header_room *room,
                       struct chunk_header *header)
{
    size_t room_bytes = sizeof room->bytes;
    size_t wanted = file->size_bytes < room_bytes ? (size_t)file->size_bytes : room_bytes;
    size_t have = 0;
    size_t need = CHUNK_ALIGNMENT_BYTES; /* one page nearly always is the whole header */
    while (have < need) {
        ssize_t got = pread(file->fd, room->bytes + have, need - have, (off_t)have);
        if (got < 0 && errno != EINTR) {
            return errno;
        }
        if (got == 0) {
            return EBADMSG;
        }
        have += got > 0 ? (size_t)got : 0;
        if (have < need || need > CHUNK_ALIGNMENT_BYTES) {
            continue;
        }
        memcpy(header, room->bytes, sizeof *header);
        if (memcmp(header->magic, chunk_magic, sizeof chunk_magic) != 0 ||
            header->version != CHUNK_VERSION || header->header_bytes > wanted ||
            header->header_bytes < CHUNK_ALIGNMENT_BYTES ||
            header->header_bytes % CHUNK_ALIGNMENT_BYTES != 0) {
            return EBADMSG;
        }
        need = header->header_bytes;
    }
    struct chunk_header unsummed = *header;
    unsummed.crc = 0;
    memcpy(room->bytes, &unsummed, sizeof unsummed);
    if (crc32c(room->bytes, header->header_bytes) != header->crc ||
        header->data_bytes > CHUNK_DATA_BYTES_MAX ||
        header->block_count != block_count_of(header->data_bytes)) {
        return EBADMSG;
    }
    size_t used = sizeof *header + sizeof(uint32_t) * (size_t)header->block_count +
                  header->url_bytes + header->tag_bytes;
    uint64_t end = header->header_bytes + round_up(header->data_bytes, CHUNK_ALIGNMENT_BYTES);
    return used <= header->header_bytes && file->size_bytes == end && header->url_bytes > 0 &&
                   header->tag_bytes > 0 && header->kind > 0 && header->kind < CHUNK_KINDS
               ? 0
               : EBADMSG;
}

static const char *header_url(const struct chunk_header *header, const uint8_t *page)
{
    return (const char *)page + sizeof *header + sizeof(uint32_t) * (size_t)header->block_count;
}

/* Do the texts end where they should? */
static bool has_whole_texts(const struct chunk_header *header, const uint8_t *page)
{
    const char *url = header_url(header, page);
    const char *tag = url + header->url_bytes;
    return memchr(url, '\0', header->url_bytes) == url + header->url_bytes - 1 &&
           memchr(tag, '\0', header->tag_bytes) == tag + header->tag_bytes - 1;
}

static bool is_of(const struct chunk_header *header, const uint8_t *page,
                  const struct chunk_identity *identity)
{
    const char *url = header_url(header, page);
    return memcmp(header->key, identity->key, sizeof header->key) == 0 &&
           header->kind == (uint32_t)identity->kind && header->number == identity->number &&
           header->object_bytes == identity->object_bytes &&
           header->chunk_bytes == identity->chunk_bytes &&
           header->data_bytes == identity->data_bytes && strcmp(url, identity->url) == 0 &&
           strcmp(url + header->url_bytes, identity->tag) == 0;
}

/* Open, inspect and read the header: the descriptor stays open only when all of it is well. */
static int open_checked(int folder_fd, const char *name, struct read_file *file,
                        struct chunk_header_room *room, struct chunk_header *header)
{
    int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    int fd = openat(folder_fd, name, flags | O_DIRECT);
    bool is_direct = fd >= 0;
    if (fd < 0 && errno == EINVAL) {
        fd = openat(folder_fd, name, flags);
    }
    if (fd < 0) {
        return errno;
    }
    int error = read_file_inspect(file, fd, is_direct);
    if (error == 0 && file->align_bytes > CHUNK_ALIGNMENT_BYTES) {
        file->align_bytes = 0; /* an odd disk: buffered */
        error = fcntl(fd, F_SETFL, 0) == 0 ? 0 : errno;
    }
    error = error != 0 ? error : read_header(file, room, header);
    if (error == EINVAL && is_direct && fcntl(fd, F_SETFL, 0) == 0) {
        file->align_bytes = 0;
        error = read_header(file, room, header);
    }
    if (error == 0 && !has_whole_texts(header, room->bytes)) {
        error = EBADMSG;
    }
    if (error != 0) {
        close(fd);
    }
    return error;
}

int chunk_file_open(int folder_fd, const char *name, const struct chunk_identity *identity,
                    struct chunk_file **result)
{
    struct chunk_header_room room;
    struct chunk_header header;
    struct read_file file;
    int error = open_checked(folder_fd, name, &file, &room, &header);
    if (error != 0) {
        return error;
    }
    size_t crcs_bytes = sizeof(uint32_t) * (size_t)header.block_count;
    struct chunk_file *opened = malloc(sizeof *opened + crcs_bytes);
    if (opened == NULL || !is_of(&header, room.bytes, identity)) {
        error = opened == NULL ? ENOMEM : EBADMSG;
        free(opened);
        close(file.fd);
        return error;
    }
    *opened = (struct chunk_file){
        .file = file,
        .header_bytes = header.header_bytes,
        .data_bytes = header.data_bytes,
        .fetched_s = header.fetched_s,
    };
    memcpy(opened->block_crcs, room.bytes + sizeof header, crcs_bytes);
    *result = opened;
    return 0;
}

void chunk_file_close(struct chunk_file *file)
{
    if (file != NULL) {
        close(file->file.fd);
        free(file);
    }
}

bool chunk_file_check(const struct chunk_file *file, uint32_t first_block, const uint8_t *bytes,
                      uint32_t size_bytes)
{
    uint32_t begin = first_block * CHUNK_BLOCK_BYTES;
    assert(begin + size_bytes <= file->data_bytes);
    assert(size_bytes % CHUNK_BLOCK_BYTES == 0 || begin + size_bytes == file->data_bytes);
    for (uint32_t block = first_block; size_bytes > 0; block++) {
        uint32_t length = size_bytes < CHUNK_BLOCK_BYTES ? size_bytes : CHUNK_BLOCK_BYTES;
        if (crc32c(bytes, length) != file->block_crcs[block]) {
            return false;
        }
        bytes += length;
        size_bytes -= length;
    }
    return true;
}

int chunk_file_identify(int folder_fd, const char *name, struct chunk_identity *identity,
                        int64_t *fetched_s, struct chunk_header_room *room)
{
    struct chunk_header header;
    struct read_file file;
    int error = open_checked(folder_fd, name, &file, room, &header);
    if (error != 0) {
        return error;
    }
    close(file.fd);
    const char *url = header_url(&header, room->bytes);
    *identity = (struct chunk_identity){
        .kind = (enum chunk_kind)header.kind,
        .number = header.number,
        .object_bytes = header.object_bytes,
        .chunk_bytes = header.chunk_bytes,
        .data_bytes = header.data_bytes,
        .url = url,
        .tag = url + header.url_bytes,
    };
    memcpy(identity->key, header.key, sizeof identity->key);
    *fetched_s = header.fetched_s;
    return 0;
}
