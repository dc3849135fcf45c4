/* All shelves together: which are open, how much they take, which goes when room is needed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "loader/log.h"
#include "loader/prepared/prepared_private.h"
#include "loader/prepared/shelf_journal.h"

/* The file system is asked for its free space whenever so much more was written. */
#define FLOOR_STEP_BYTES ((uint64_t)32 << 20)

/* ---- Folders of shelves ----------------------------------------------------------------- */

static bool is_shelf_name(const char *name)
{
    return strlen(name) == 2 * SHELF_KEY_BYTES && strspn(name, "0123456789abcdef") == strlen(name);
}

static void name_of_key(const uint8_t *key, char *name)
{
    for (size_t i = 0; i < SHELF_KEY_BYTES; i++) {
        snprintf(name + 2 * i, 3, "%02x", key[i]);
    }
}

static int open_shelf_folder(const struct prepared *prepared, const char *name)
{
    return openat(prepared->folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* What a shelf's files take on the disk. */
static uint64_t folder_bytes(const struct prepared *prepared, const char *name)
{
    int fd = open_shelf_folder(prepared, name);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (folder == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return 0;
    }
    uint64_t bytes = 0;
    struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) {
        struct stat status;
        if (fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(status.st_mode)) {
            bytes += (uint64_t)status.st_blocks * 512;
        }
    }
    closedir(folder);
    return bytes;
}

static void remove_folder(const struct prepared *prepared, const char *name)
{
    int fd = open_shelf_folder(prepared, name);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (folder != NULL) {
        struct dirent *entry;
        while ((entry = readdir(folder)) != NULL) {
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
                unlinkat(fd, entry->d_name, 0);
            }
        }
        closedir(folder);
    } else if (fd >= 0) {
        close(fd);
    }
    unlinkat(prepared->folder_fd, name, AT_REMOVEDIR);
}

/* A new stream over the names in the folder; NULL without memory or descriptors. */
static DIR *open_names(const struct prepared *prepared)
{
    int fd = openat(prepared->folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *names = fd < 0 ? NULL : fdopendir(fd);
    if (names == NULL && fd >= 0) {
        close(fd);
    }
    return names;
}

/* ---- Life ------------------------------------------------------------------------------- */

struct prepared *prepared_create(const struct prepared_options *options, struct error *error)
{
    struct prepared *prepared = calloc(1, sizeof *prepared);
    if (prepared == NULL) {
        error_set(error, ERROR_MEMORY, "no memory for the list of prepared data.");
        return NULL;
    }
    prepared->limit_bytes = options->limit_bytes;
    prepared->free_floor_bytes = options->free_floor_bytes;
    pthread_mutex_init(&prepared->lock, NULL);
    snprintf(prepared->folder, sizeof prepared->folder, "%s/prepared", options->folder);
    prepared->folder_fd = -1;
    if (mkdir(prepared->folder, 0700) == 0 || errno == EEXIST) {
        prepared->folder_fd = open(prepared->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    DIR *names = prepared->folder_fd < 0 ? NULL : open_names(prepared);
    if (names == NULL) {
        error_set(error, ERROR_IO, "cannot use %s for prepared images: %s.", prepared->folder,
                  strerror(errno));
        prepared_destroy(prepared);
        return NULL;
    }
    struct dirent *entry;
    while ((entry = readdir(names)) != NULL) {
        if (is_shelf_name(entry->d_name)) {
            prepared->used_bytes += folder_bytes(prepared, entry->d_name);
        }
    }
    closedir(names);
    return prepared;
}

void prepared_destroy(struct prepared *prepared)
{
    if (prepared == NULL) {
        return;
    }
    while (prepared->shelves != NULL) {
        struct shelf *shelf = prepared->shelves;
        prepared->shelves = shelf->next;
        shelf_unload(shelf);
    }
    if (prepared->folder_fd >= 0) {
        close(prepared->folder_fd);
    }
    pthread_mutex_destroy(&prepared->lock);
    free(prepared);
}

struct shelf *shelf_open(struct prepared *prepared, const struct shelf_about *about)
{
    pthread_mutex_lock(&prepared->lock);
    struct shelf *shelf = prepared->shelves;
    while (shelf != NULL && memcmp(shelf->about.key, about->key, sizeof about->key) != 0) {
        shelf = shelf->next;
    }
    if (shelf == NULL) {
        shelf = shelf_load(prepared, about);
        if (shelf != NULL) {
            shelf->next = prepared->shelves;
            prepared->shelves = shelf;
        }
    }
    if (shelf != NULL) {
        shelf->user_count++;
    }
    pthread_mutex_unlock(&prepared->lock);
    return shelf;
}

void shelf_close(struct shelf *shelf)
{
    if (shelf == NULL) {
        return;
    }
    struct prepared *prepared = shelf->prepared;
    pthread_mutex_lock(&prepared->lock);
    if (--shelf->user_count == 0) {
        struct shelf **link = &prepared->shelves;
        while (*link != shelf) {
            link = &(*link)->next;
        }
        *link = shelf->next;
        shelf_unload(shelf);
    }
    pthread_mutex_unlock(&prepared->lock);
}

/* ---- Room ------------------------------------------------------------------------------- */

static bool is_open(const struct prepared *prepared, const char *name)
{
    char other[SHELF_FOLDER_NAME_BYTES];
    for (const struct shelf *shelf = prepared->shelves; shelf != NULL; shelf = shelf->next) {
        name_of_key(shelf->about.key, other);
        if (strcmp(other, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Does another daemon have the shelf? */
static bool is_locked(const struct prepared *prepared, const char *name)
{
    char path[SHELF_FOLDER_NAME_BYTES + 16];
    snprintf(path, sizeof path, "%s/journal", name);
    int fd = openat(prepared->folder_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool is_free = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return !is_free;
}

/* Remove the shelf that was not used for longest and that nobody has open; false: none. */
static bool remove_oldest(struct prepared *prepared)
{
    char oldest[SHELF_FOLDER_NAME_BYTES] = "";
    struct timespec oldest_time = {0};
    DIR *names = open_names(prepared);
    struct dirent *entry;
    while (names != NULL && (entry = readdir(names)) != NULL) {
        char path[SHELF_FOLDER_NAME_BYTES + 300];
        struct stat status;
        snprintf(path, sizeof path, "%s/journal", entry->d_name);
        if (!is_shelf_name(entry->d_name) || is_open(prepared, entry->d_name) ||
            fstatat(prepared->folder_fd, path, &status, AT_SYMLINK_NOFOLLOW) != 0 ||
            is_locked(prepared, entry->d_name)) {
            continue;
        }
        if (oldest[0] == '\0' || status.st_mtim.tv_sec < oldest_time.tv_sec) {
            memcpy(oldest, entry->d_name, sizeof oldest); /* is_shelf_name() knows its length */
            oldest_time = status.st_mtim;
        }
    }
    if (names != NULL) {
        closedir(names);
    }
    if (oldest[0] == '\0') {
        return false;
    }
    uint64_t bytes = folder_bytes(prepared, oldest);
    log_info("shelf_removed", "folder=%s/%s bytes=%llu reason=\"room for another\"",
             prepared->folder, oldest, (unsigned long long)bytes);
    remove_folder(prepared, oldest);
    prepared->used_bytes -= bytes < prepared->used_bytes ? bytes : prepared->used_bytes;
    return true;
}

static bool is_at_floor(struct prepared *prepared)
{
    if (prepared->used_bytes >= prepared->floor_checked_bytes + FLOOR_STEP_BYTES ||
        prepared->floor_checked_bytes == 0) {
        struct statvfs status;
        prepared->floor_checked_bytes = prepared->used_bytes + 1;
        prepared->is_at_floor = fstatvfs(prepared->folder_fd, &status) == 0 &&
                                (uint64_t)status.f_bavail * status.f_frsize <
                                    prepared->free_floor_bytes + FLOOR_STEP_BYTES;
    }
    return prepared->is_at_floor;
}

bool prepared_reserve(struct prepared *prepared, uint64_t bytes)
{
    pthread_mutex_lock(&prepared->lock);
    bool has_room = true;
    while (has_room &&
           (prepared->used_bytes + bytes > prepared->limit_bytes || is_at_floor(prepared))) {
        has_room = remove_oldest(prepared);
        prepared->floor_checked_bytes = 0;
    }
    if (has_room) {
        prepared->used_bytes += bytes;
    }
    pthread_mutex_unlock(&prepared->lock);
    return has_room;
}

void prepared_give_back(struct prepared *prepared, uint64_t bytes)
{
    pthread_mutex_lock(&prepared->lock);
    prepared->used_bytes -= bytes;
    pthread_mutex_unlock(&prepared->lock);
}

/* ---- Looking ---------------------------------------------------------------------------- */

struct prepared_stats prepared_stats(struct prepared *prepared)
{
    pthread_mutex_lock(&prepared->lock);
    struct prepared_stats stats = {
        .limit_bytes = prepared->limit_bytes,
        .used_bytes = prepared->used_bytes,
        .added_count = prepared->added_count,
        .added_bytes = prepared->added_bytes,
        .corrupt_count = prepared->corrupt_count,
        .outdated_count = prepared->outdated_count,
    };
    for (const struct shelf *shelf = prepared->shelves; shelf != NULL; shelf = shelf->next) {
        stats.shelf_count++;
    }
    pthread_mutex_unlock(&prepared->lock);
    return stats;
}

static void count_entry(void *context, const struct journal_entry *entry)
{
    struct shelf_stats *stats = context;
    stats->record_count += entry->kind == JOURNAL_RECORD;
    stats->unsuitable_count += entry->kind == JOURNAL_UNSUITABLE;
    if (entry->kind == JOURNAL_RECORD) {
        stats->record_bytes += SHELF_RECORD_HEADER_BYTES + (uint64_t)entry->record_bytes;
        stats->source_bytes += entry->source_bytes;
    }
}

/* Fill in what a shelf on the disk is; false if it is none. */
static bool look_at(struct prepared *prepared, const char *name, struct shelf_entry *found)
{
    memset(found, 0, sizeof *found);
    char path[SHELF_FOLDER_NAME_BYTES + 300];
    snprintf(path, sizeof path, "%s/journal", name);
    int fd = openat(prepared->folder_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool is_shelf = journal_read_header(fd, &found->about) == 0 &&
                    journal_read(fd, count_entry, &found->stats) >= 0;
    close(fd);
    found->stats.sample_count = found->about.sample_count;
    for (struct shelf *shelf = prepared->shelves; is_shelf && shelf != NULL; shelf = shelf->next) {
        if (memcmp(shelf->about.key, found->about.key, SHELF_KEY_BYTES) == 0) {
            found->stats = shelf_stats(shelf);
            found->is_open = true;
        }
    }
    found->stats.disk_bytes = folder_bytes(prepared, name);
    return is_shelf;
}

void prepared_list(struct prepared *prepared, shelf_visitor visit, void *context)
{
    DIR *names = open_names(prepared);
    bool goes_on = names != NULL;
    while (goes_on) {
        struct dirent *entry = readdir(names);
        if (entry == NULL) {
            break;
        }
        struct shelf_entry found;
        if (!is_shelf_name(entry->d_name)) {
            continue;
        }
        pthread_mutex_lock(&prepared->lock);
        bool is_shelf = look_at(prepared, entry->d_name, &found);
        pthread_mutex_unlock(&prepared->lock);
        goes_on = !is_shelf || visit(context, &found);
    }
    if (names != NULL) {
        closedir(names);
    }
}

int prepared_remove(struct prepared *prepared, const uint8_t key[SHELF_KEY_BYTES])
{
    char name[SHELF_FOLDER_NAME_BYTES];
    name_of_key(key, name);
    pthread_mutex_lock(&prepared->lock);
    int status = 0;
    if (is_open(prepared, name) || is_locked(prepared, name)) {
        status = -EBUSY;
    } else if (faccessat(prepared->folder_fd, name, F_OK, 0) != 0) {
        status = -ENOENT;
    } else {
        uint64_t bytes = folder_bytes(prepared, name);
        remove_folder(prepared, name);
        prepared->used_bytes -= bytes < prepared->used_bytes ? bytes : prepared->used_bytes;
    }
    pthread_mutex_unlock(&prepared->lock);
    return status;
}
