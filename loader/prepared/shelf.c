/* One shelf: its table of samples, its packs, its journal. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/cache/crc32c.h"
#include "loader/log.h"
#include "loader/prepared/prepared_private.h"
#include "loader/prepared/shelf_journal.h"

#define PACK_BYTES ((uint64_t)1 << 30)

enum {
    RECORD_ALIGNMENT_BYTES = 64,
    PACKS_MAX = UINT16_MAX,
    RECORD_MAGIC = 0x52435350, /* "PSCR" */
};

/* In front of each record in a pack. */
struct record_header {
    uint32_t magic;
    uint32_t record_bytes;
    uint8_t key[SHELF_KEY_BYTES];
    uint64_t canonical;
    uint64_t source_bytes;
    int64_t source_mtime_ns;
    uint32_t crc32c; /* of what is before it */
    uint32_t reserved[3];
};
static_assert(sizeof(struct record_header) == SHELF_RECORD_HEADER_BYTES, "record header");

static uint64_t record_extent(uint64_t record_bytes)
{
    uint64_t bytes = SHELF_RECORD_HEADER_BYTES + record_bytes;
    return (bytes + RECORD_ALIGNMENT_BYTES - 1) / RECORD_ALIGNMENT_BYTES * RECORD_ALIGNMENT_BYTES;
}

/* ---- Packs ------------------------------------------------------------------------------ */

/* The place of a pack in the list, added if it is new; -1 without memory. */
static int pack_place(struct shelf *shelf, uint64_t number)
{
    for (uint32_t i = shelf->pack_count; i-- > 0;) {
        if (shelf->packs[i].number == number) {
            return (int)i;
        }
    }
    if (shelf->pack_count == PACKS_MAX) {
        return -1;
    }
    struct shelf_pack *packs =
        realloc(shelf->packs, (shelf->pack_count + 1) * sizeof *shelf->packs);
    if (packs == NULL) {
        return -1;
    }
    shelf->packs = packs;
    struct shelf_pack *pack = &packs[shelf->pack_count];
    *pack = (struct shelf_pack){.number = number, .fd = -1};
    if (asprintf(&pack->path, "%s/pack-%016llx", shelf->folder, (unsigned long long)number) < 0) {
        pack->path = NULL;
        return -1;
    }
    return (int)shelf->pack_count++;
}

/* Begin a new pack and make it the last one. 0 or -errno. */
static int pack_begin(struct shelf *shelf)
{
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != sizeof number) {
        return -EIO;
    }
    int place = pack_place(shelf, number);
    if (place < 0) {
        return -ENOMEM;
    }
    struct shelf_pack *pack = &shelf->packs[place];
    pack->fd = open(pack->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (pack->fd < 0) {
        return -errno;
    }
    if (ftruncate(pack->fd, (off_t)PACK_BYTES) != 0) {
        return -errno;
    }
    shelf->pack_end_bytes = 0;
    return 0;
}

/* ---- Loading ---------------------------------------------------------------------------- */

static void forget(struct shelf *shelf, struct shelf_slot *slot)
{
    if (slot->state == SHELF_PRESENT) {
        shelf->stats.record_count--;
        shelf->stats.record_bytes -= SHELF_RECORD_HEADER_BYTES + slot->record_bytes;
        shelf->stats.source_bytes -= slot->source_bytes;
    } else if (slot->state == SHELF_UNSUITABLE) {
        shelf->stats.unsuitable_count--;
    }
    slot->state = SHELF_ABSENT;
}

static void note_record(struct shelf *shelf, struct shelf_slot *slot)
{
    slot->state = SHELF_PRESENT;
    shelf->stats.record_count++;
    shelf->stats.record_bytes += SHELF_RECORD_HEADER_BYTES + slot->record_bytes;
    shelf->stats.source_bytes += slot->source_bytes;
}

/* An entry of the journal, in order. */
static void take_entry(void *context, const struct journal_entry *entry)
{
    struct shelf *shelf = context;
    if (entry->canonical >= shelf->about.sample_count) {
        return;
    }
    struct shelf_slot *slot = &shelf->slots[entry->canonical];
    forget(shelf, slot);
    slot->source_bytes = entry->source_bytes;
    slot->source_mtime_ns = entry->source_mtime_ns;
    if (entry->kind == JOURNAL_UNSUITABLE) {
        slot->state = SHELF_UNSUITABLE;
        shelf->stats.unsuitable_count++;
        return;
    }
    if (entry->kind != JOURNAL_RECORD || entry->record_bytes > SHELF_RECORD_BYTES_MAX ||
        entry->offset_bytes > PACK_BYTES - SHELF_RECORD_HEADER_BYTES - entry->record_bytes) {
        return;
    }
    int place = pack_place(shelf, entry->pack);
    if (place < 0) {
        return;
    }
    slot->pack = (uint16_t)place;
    slot->offset_bytes = entry->offset_bytes;
    slot->record_bytes = entry->record_bytes;
    note_record(shelf, slot);
}

/* Open the journal for this daemon alone, made if there is none. 0 or -errno. */
static int open_journal(struct shelf *shelf)
{
    const int flags = O_RDWR | O_APPEND | O_CLOEXEC;
    int fd = openat(shelf->folder_fd, "journal", flags);
    struct shelf_about found;
    int status = fd < 0 ? -errno : journal_read_header(fd, &found);
    bool is_ours = status == 0 && found.form == shelf->about.form &&
                   found.sample_count == shelf->about.sample_count &&
                   memcmp(found.key, shelf->about.key, sizeof found.key) == 0;
    if (status == -ENOENT || status == -EBADMSG || (status == 0 && !is_ours)) {
        if (fd >= 0) {
            close(fd);
        }
        status = journal_create(shelf->folder_fd, &shelf->about);
        fd = status == 0 ? openat(shelf->folder_fd, "journal", flags) : -1;
        status = status != 0 ? status : fd < 0 ? -errno : 0;
    }
    if (status == 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        status = -errno;
    }
    if (status != 0 && fd >= 0) {
        close(fd);
        fd = -1;
    }
    shelf->journal_fd = fd;
    return status;
}

static int read_journal(struct shelf *shelf)
{
    int64_t end = journal_read(shelf->journal_fd, take_entry, shelf);
    if (end < 0) {
        return (int)end;
    }
    /* A torn entry would hide all that is appended behind it. */
    return ftruncate(shelf->journal_fd, end) != 0 ? -errno : 0;
}

static int load(struct shelf *shelf)
{
    if (mkdir(shelf->folder, 0700) != 0 && errno != EEXIST) {
        return -errno;
    }
    shelf->folder_fd = open(shelf->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (shelf->folder_fd < 0) {
        return -errno;
    }
    shelf->slots = calloc(shelf->about.sample_count, sizeof *shelf->slots);
    if (shelf->slots == NULL) {
        return -ENOMEM;
    }
    int status = open_journal(shelf);
    return status != 0 ? status : read_journal(shelf);
}

struct shelf *shelf_load(struct prepared *prepared, const struct shelf_about *about)
{
    struct shelf *shelf = calloc(1, sizeof *shelf);
    if (shelf == NULL) {
        return NULL;
    }
    shelf->prepared = prepared;
    shelf->about = *about;
    shelf->folder_fd = shelf->journal_fd = -1;
    shelf->stats.sample_count = about->sample_count;
    pthread_mutex_init(&shelf->lock, NULL);
    char name[SHELF_FOLDER_NAME_BYTES];
    for (size_t i = 0; i < SHELF_KEY_BYTES; i++) {
        snprintf(name + 2 * i, 3, "%02x", about->key[i]);
    }
    snprintf(shelf->folder, sizeof shelf->folder, "%s/%s", prepared->folder, name);
    int status = load(shelf);
    if (status != 0) {
        char quoted[1400];
        log_warn("shelf_refused", "folder=%s reason=%s",
                 log_quote(shelf->folder, quoted, sizeof quoted),
                 status == -EWOULDBLOCK ? "\"another daemon has it\"" : strerrorname_np(-status));
        shelf_unload(shelf);
        return NULL;
    }
    futimens(shelf->journal_fd, NULL); /* when it was last used */
    return shelf;
}

void shelf_unload(struct shelf *shelf)
{
    for (uint32_t i = 0; i < shelf->pack_count; i++) {
        if (shelf->packs[i].fd >= 0) {
            close(shelf->packs[i].fd);
        }
        free(shelf->packs[i].path);
    }
    if (shelf->journal_fd >= 0) {
        close(shelf->journal_fd);
    }
    if (shelf->folder_fd >= 0) {
        close(shelf->folder_fd);
    }
    pthread_mutex_destroy(&shelf->lock);
    free(shelf->packs);
    free(shelf->slots);
    free(shelf);
}

/* ---- Finding ---------------------------------------------------------------------------- */

enum shelf_state shelf_find(struct shelf *shelf, uint64_t canonical, struct shelf_place *place)
{
    if (canonical >= shelf->about.sample_count) {
        return SHELF_ABSENT;
    }
    pthread_mutex_lock(&shelf->lock);
    const struct shelf_slot *slot = &shelf->slots[canonical];
    enum shelf_state state = (enum shelf_state)slot->state;
    place->source = (struct shelf_source){slot->source_bytes, slot->source_mtime_ns};
    if (state == SHELF_PRESENT) {
        place->path = shelf->packs[slot->pack].path;
        place->offset_bytes = slot->offset_bytes;
        place->length_bytes = SHELF_RECORD_HEADER_BYTES + (uint64_t)slot->record_bytes;
    }
    pthread_mutex_unlock(&shelf->lock);
    return state;
}

bool shelf_record(const struct shelf *shelf, uint64_t canonical, const struct shelf_place *place,
                  const uint8_t *bytes, size_t size_bytes, const uint8_t **record,
                  size_t *record_bytes)
{
    struct record_header header;
    if (size_bytes != place->length_bytes || size_bytes < sizeof header) {
        return false;
    }
    memcpy(&header, bytes, sizeof header);
    if (header.magic != RECORD_MAGIC || header.canonical != canonical ||
        header.record_bytes != size_bytes - sizeof header ||
        header.source_bytes != place->source.size_bytes ||
        header.source_mtime_ns != place->source.mtime_ns ||
        memcmp(header.key, shelf->about.key, sizeof header.key) != 0 ||
        header.crc32c != crc32c(&header, offsetof(struct record_header, crc32c))) {
        return false;
    }
    *record = bytes + sizeof header;
    *record_bytes = header.record_bytes;
    return true;
}

/* ---- Adding ----------------------------------------------------------------------------- */

static struct record_header make_header(const struct shelf *shelf, uint64_t canonical,
                                        const struct shelf_source *source, size_t record_bytes)
{
    struct record_header header = {
        .magic = RECORD_MAGIC,
        .record_bytes = (uint32_t)record_bytes,
        .canonical = canonical,
        .source_bytes = source->size_bytes,
        .source_mtime_ns = source->mtime_ns,
    };
    memcpy(header.key, shelf->about.key, sizeof header.key);
    header.crc32c = crc32c(&header, offsetof(struct record_header, crc32c));
    return header;
}

/* Take room for a record in the last pack. 0 or -errno; the lock is held. */
static int take_room(struct shelf *shelf, uint64_t extent_bytes, uint16_t *pack, int *fd,
                     uint64_t *offset_bytes)
{
    bool has_pack = shelf->pack_count > 0 && shelf->packs[shelf->pack_count - 1].fd >= 0;
    if (!has_pack || shelf->pack_end_bytes + extent_bytes > PACK_BYTES) {
        int status = pack_begin(shelf);
        if (status != 0) {
            return status;
        }
    }
    *pack = (uint16_t)(shelf->pack_count - 1);
    *fd = shelf->packs[*pack].fd;
    *offset_bytes = shelf->pack_end_bytes;
    shelf->pack_end_bytes += extent_bytes;
    return 0;
}

static int write_record(int fd, uint64_t offset_bytes, const struct record_header *header,
                        const uint8_t *record, size_t record_bytes)
{
    struct piece {
        const void *bytes;
        size_t size_bytes;
    } pieces[2] = {{header, sizeof *header}, {record, record_bytes}};
    for (size_t i = 0; i < 2; i++) {
        const uint8_t *from = pieces[i].bytes;
        size_t left_bytes = pieces[i].size_bytes;
        while (left_bytes > 0) {
            ssize_t written = pwrite(fd, from, left_bytes, (off_t)offset_bytes);
            if (written < 0 && errno != EINTR) {
                return -errno;
            }
            if (written > 0) {
                from += written;
                left_bytes -= (size_t)written;
                offset_bytes += (uint64_t)written;
            }
        }
    }
    return 0;
}

/* Mark the sample as being added and take room for it. 0 or -errno. */
static int begin_add(struct shelf *shelf, uint64_t canonical, uint64_t extent_bytes,
                     struct journal_entry *entry, int *fd, uint16_t *pack)
{
    pthread_mutex_lock(&shelf->lock);
    struct shelf_slot *slot = &shelf->slots[canonical];
    int status = 0;
    if (slot->state == SHELF_PRESENT || slot->is_being_added) {
        status = -EEXIST;
    } else {
        status = take_room(shelf, extent_bytes, pack, fd, &entry->offset_bytes);
        slot->is_being_added = status == 0;
        entry->pack = status == 0 ? shelf->packs[*pack].number : 0;
    }
    pthread_mutex_unlock(&shelf->lock);
    return status;
}

static int end_add(struct shelf *shelf, uint64_t canonical, struct journal_entry *entry,
                   uint16_t pack, int status)
{
    pthread_mutex_lock(&shelf->lock);
    struct shelf_slot *slot = &shelf->slots[canonical];
    slot->is_being_added = false;
    if (status == 0) {
        status = journal_append(shelf->journal_fd, entry);
    }
    if (status == 0) {
        forget(shelf, slot);
        slot->pack = pack;
        slot->offset_bytes = entry->offset_bytes;
        slot->record_bytes = entry->record_bytes;
        slot->source_bytes = entry->source_bytes;
        slot->source_mtime_ns = entry->source_mtime_ns;
        note_record(shelf, slot);
    } else {
        shelf->is_full = true; /* the disk fails or is full: no more of this */
    }
    pthread_mutex_unlock(&shelf->lock);
    return status;
}

int shelf_add(struct shelf *shelf, uint64_t canonical, const struct shelf_source *source,
              const uint8_t *record, size_t record_bytes)
{
    if (canonical >= shelf->about.sample_count || record_bytes > SHELF_RECORD_BYTES_MAX) {
        return -EINVAL;
    }
    uint64_t extent_bytes = record_extent(record_bytes);
    uint64_t counted_bytes = extent_bytes + sizeof(struct journal_entry);
    if (!prepared_reserve(shelf->prepared, counted_bytes)) {
        pthread_mutex_lock(&shelf->lock);
        shelf->is_full = true;
        pthread_mutex_unlock(&shelf->lock);
        return -ENOSPC;
    }
    struct journal_entry entry = {
        .canonical = canonical,
        .kind = JOURNAL_RECORD,
        .record_bytes = (uint32_t)record_bytes,
        .source_bytes = source->size_bytes,
        .source_mtime_ns = source->mtime_ns,
    };
    int fd = -1;
    uint16_t pack = 0;
    int status = begin_add(shelf, canonical, extent_bytes, &entry, &fd, &pack);
    if (status == 0) {
        struct record_header header = make_header(shelf, canonical, source, record_bytes);
        status = write_record(fd, entry.offset_bytes, &header, record, record_bytes);
        status = end_add(shelf, canonical, &entry, pack, status);
    }
    if (status == 0) {
        pthread_mutex_lock(&shelf->prepared->lock);
        shelf->prepared->added_count++;
        shelf->prepared->added_bytes += record_bytes;
        pthread_mutex_unlock(&shelf->prepared->lock);
    } else {
        prepared_give_back(shelf->prepared, counted_bytes);
    }
    return status;
}

/* Append an event about one sample; the lock is held. Lost when the disk fails: then the sample is
 * looked at once more after a restart. */
static void note_event(struct shelf *shelf, uint64_t canonical, enum journal_kind kind,
                       const struct shelf_source *source)
{
    struct journal_entry entry = {
        .canonical = canonical,
        .kind = (uint16_t)kind,
        .source_bytes = source->size_bytes,
        .source_mtime_ns = source->mtime_ns,
    };
    journal_append(shelf->journal_fd, &entry);
}

void shelf_mark_unsuitable(struct shelf *shelf, uint64_t canonical,
                           const struct shelf_source *source)
{
    if (canonical >= shelf->about.sample_count) {
        return;
    }
    pthread_mutex_lock(&shelf->lock);
    struct shelf_slot *slot = &shelf->slots[canonical];
    if (slot->state == SHELF_ABSENT && !slot->is_being_added) {
        slot->state = SHELF_UNSUITABLE;
        slot->source_bytes = source->size_bytes;
        slot->source_mtime_ns = source->mtime_ns;
        shelf->stats.unsuitable_count++;
        note_event(shelf, canonical, JOURNAL_UNSUITABLE, source);
    }
    pthread_mutex_unlock(&shelf->lock);
}

void shelf_drop(struct shelf *shelf, uint64_t canonical, enum shelf_fault fault)
{
    if (canonical >= shelf->about.sample_count) {
        return;
    }
    pthread_mutex_lock(&shelf->lock);
    struct shelf_slot *slot = &shelf->slots[canonical];
    bool is_known = slot->state != SHELF_ABSENT;
    if (is_known) {
        struct shelf_source none = {0};
        forget(shelf, slot);
        note_event(shelf, canonical, JOURNAL_DROPPED, &none);
        shelf->stats.corrupt_count += fault == SHELF_CORRUPT;
        shelf->stats.outdated_count += fault == SHELF_OUTDATED;
    }
    pthread_mutex_unlock(&shelf->lock);
    if (is_known) {
        pthread_mutex_lock(&shelf->prepared->lock);
        shelf->prepared->corrupt_count += fault == SHELF_CORRUPT;
        shelf->prepared->outdated_count += fault == SHELF_OUTDATED;
        pthread_mutex_unlock(&shelf->prepared->lock);
    }
}

bool shelf_is_full(struct shelf *shelf)
{
    pthread_mutex_lock(&shelf->lock);
    bool is_full = shelf->is_full;
    pthread_mutex_unlock(&shelf->lock);
    return is_full;
}

struct shelf_stats shelf_stats(struct shelf *shelf)
{
    pthread_mutex_lock(&shelf->lock);
    struct shelf_stats stats = shelf->stats;
    stats.is_full = shelf->is_full;
    pthread_mutex_unlock(&shelf->lock);
    return stats;
}
