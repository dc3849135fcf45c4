#include "loader/prepared/shelf_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loader/cache/crc32c.h"

enum { ENTRIES_AT_ONCE = 4096 };

static uint32_t header_crc(const struct journal_header *header)
{
    return crc32c(header, offsetof(struct journal_header, crc32c));
}

static uint32_t entry_crc(const struct journal_entry *entry)
{
    return crc32c(entry, offsetof(struct journal_entry, crc32c));
}

/* All of it, or -errno. */
static int write_all(int fd, const void *bytes, size_t size_bytes)
{
    const uint8_t *from = bytes;
    while (size_bytes > 0) {
        ssize_t written = write(fd, from, size_bytes);
        if (written < 0 && errno != EINTR) {
            return -errno;
        }
        if (written > 0) {
            from += written;
            size_bytes -= (size_t)written;
        }
    }
    return 0;
}

int journal_create(int folder_fd, const struct shelf_about *about)
{
    uint8_t page[JOURNAL_HEADER_BYTES] = {0};
    struct journal_header header;
    memset(&header, 0, sizeof header);
    memcpy(header.magic, JOURNAL_MAGIC, sizeof header.magic);
    header.version = JOURNAL_VERSION;
    header.form = about->form;
    memcpy(header.key, about->key, sizeof header.key);
    header.sample_count = about->sample_count;
    snprintf(header.name, sizeof header.name, "%s", about->name);
    header.crc32c = header_crc(&header);
    memcpy(page, &header, sizeof header);
    int fd = openat(folder_fd, "journal.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    int status = write_all(fd, page, sizeof page);
    close(fd);
    if (status == 0 && renameat(folder_fd, "journal.new", folder_fd, "journal") != 0) {
        status = -errno;
    }
    if (status != 0) {
        unlinkat(folder_fd, "journal.new", 0);
    }
    return status;
}

int journal_read_header(int fd, struct shelf_about *about)
{
    struct journal_header header;
    ssize_t size = pread(fd, &header, sizeof header, 0);
    if (size < 0) {
        return -errno;
    }
    if (size != sizeof header || memcmp(header.magic, JOURNAL_MAGIC, sizeof header.magic) != 0 ||
        header.version != JOURNAL_VERSION || header.crc32c != header_crc(&header) ||
        memchr(header.name, '\0', sizeof header.name) == NULL) {
        return -EBADMSG;
    }
    about->form = header.form;
    about->sample_count = header.sample_count;
    memcpy(about->key, header.key, sizeof about->key);
    memcpy(about->name, header.name, sizeof about->name);
    return 0;
}

static bool entry_is_good(const struct journal_entry *entry)
{
    return entry->crc32c == entry_crc(entry) && entry->kind >= JOURNAL_RECORD &&
           entry->kind <= JOURNAL_DROPPED;
}

int64_t journal_read(int fd, void (*take)(void *context, const struct journal_entry *entry),
                     void *context)
{
    struct journal_entry *entries = malloc(ENTRIES_AT_ONCE * sizeof *entries);
    if (entries == NULL) {
        return -ENOMEM;
    }
    int64_t end = JOURNAL_HEADER_BYTES;
    for (;;) {
        ssize_t size = pread(fd, entries, ENTRIES_AT_ONCE * sizeof *entries, end);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size < 0) {
            end = -errno;
            break;
        }
        size_t count = (size_t)size / sizeof *entries, good = 0;
        while (good < count && entry_is_good(&entries[good])) {
            take(context, &entries[good++]);
        }
        end += (int64_t)(good * sizeof *entries);
        if (good < ENTRIES_AT_ONCE) {
            break;
        }
    }
    free(entries);
    return end;
}

int journal_append(int fd, struct journal_entry *entry)
{
    entry->crc32c = entry_crc(entry);
    return write_all(fd, entry, sizeof *entry);
}
