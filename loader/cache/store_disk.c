/* Chunk files: writers, making room, the start from what an earlier daemon left. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "loader/cache/store_private.h"
#include "loader/clock.h"
#include "loader/log.h"

#define SECOND_NS       ((uint64_t)1000000000)
#define FLOOR_BYTES_MAX ((uint64_t)10 << 30)

enum {
    LOCK_RETRY_SECONDS = 2,
    PAUSE_SECONDS = 10, /* after a write that failed */
    SUBFOLDERS = 256,
    FLOOR_SHARE = 20, /* of the file system's blocks one in so many stays free */
    LIMIT_SHARE = 5,  /* of what is free the cache takes one in so many */
};

bool disk_is_usable(const struct store *store)
{
    return store->owns_folder && !store->is_scanning && store->write_pause_until_ns == 0;
}

uint64_t disk_limit(const struct store *store)
{
    uint64_t by_floor = store->disk_used_bytes + store->floor_room_bytes;
    return by_floor < store->disk_limit_bytes ? by_floor : store->disk_limit_bytes;
}

/* ---- The list of chunk files ------------------------------------------------------------- */

/* Note that a chunk has a file of so many bytes; false: no memory. */
static bool list_file(struct store *store, struct chunk *chunk, uint32_t file_bytes)
{
    if (store->disk_count == store->disk_capacity) {
        size_t capacity = store->disk_capacity == 0 ? 1024 : 2 * store->disk_capacity;
        struct chunk **list = realloc(store->disk_list, capacity * sizeof(*list));
        if (list == NULL || capacity > UINT32_MAX) {
            return false;
        }
        store->disk_list = list;
        store->disk_capacity = capacity;
    }
    chunk->disk_index = (uint32_t)store->disk_count;
    store->disk_list[store->disk_count++] = chunk;
    chunk->on_disk = true;
    chunk->file_bytes = file_bytes;
    return true;
}

static void name_of(const struct chunk *chunk, uint32_t file_bytes, char text[CHUNK_NAME_BYTES])
{
    struct chunk_name name = {
        .kind = CHUNK_OBJECT, .number = chunk->number, .file_bytes = file_bytes};
    memcpy(name.key, chunk->key, sizeof name.key);
    chunk_name_format(&name, text);
}

void disk_remove(struct store *store, struct chunk *chunk)
{
    assert(chunk->on_disk && chunk->user_count > 0);
    struct chunk *last = store->disk_list[--store->disk_count];
    store->disk_list[chunk->disk_index] = last;
    last->disk_index = chunk->disk_index;
    chunk->disk_index = UINT32_MAX;
    chunk->on_disk = false;
    chunk->is_leaving = true;
    files_drop(store, chunk);
    schedule_forget_victim(store, chunk);
    char name[CHUNK_NAME_BYTES];
    name_of(chunk, chunk->file_bytes, name);
    pthread_mutex_unlock(&store->lock);
    bool is_gone = unlinkat(store->folder_fd, name, 0) == 0 || errno == ENOENT;
    pthread_mutex_lock(&store->lock);
    chunk->is_leaving = false;
    if (is_gone) { /* else its room stays counted */
        store->disk_used_bytes -= chunk->file_bytes;
        store->floor_room_bytes += chunk->file_bytes;
    }
    chunk->file_bytes = 0;
    schedule_lost(chunk);
    pthread_cond_broadcast(&store->changed);
}

/* ---- Writing ------------------------------------------------------------------------------ */

static void enqueue(struct store *store, struct chunk *chunk)
{
    chunk->is_queued = true;
    chunk->queue_next = NULL;
    if (store->write_first == NULL) {
        store->write_first = chunk;
    } else {
        store->write_last->queue_next = chunk;
    }
    store->write_last = chunk;
    pthread_cond_signal(&store->work_came);
}

void disk_offer(struct store *store, struct chunk *chunk)
{
    if (disk_is_usable(store) && !chunk->is_queued && !chunk->on_disk && !chunk->is_writing) {
        enqueue(store, chunk);
    }
}

void disk_spill(struct store *store, struct chunk *chunk)
{
    chunk->is_spilled = true;
    if (!chunk->is_queued && !chunk->is_writing) {
        enqueue(store, chunk);
    }
}

/* Room for `bytes` of a chunk that is held. Spilled ones may take that of others. */
static bool make_room(struct store *store, struct chunk *chunk, uint64_t bytes)
{
    while (store->disk_used_bytes + bytes > disk_limit(store)) {
        struct chunk *victim =
            chunk->is_spilled ? schedule_victim(store, chunk_distance(store, chunk, NULL)) : NULL;
        if (victim == NULL || store->is_stopping) {
            return false;
        }
        victim->user_count++;
        store->stats.evicted_count++;
        disk_remove(store, victim);
        chunk_release(store, victim);
    }
    return true;
}

static void note_write_failure(struct store *store, int error)
{
    char folder[1200];
    store->stats.write_failed_count++;
    store->write_pause_until_ns = clock_now_ns() + PAUSE_SECONDS * SECOND_NS;
    log_warn("cache_write_failed", "folder=%s error=\"%s\" pause_seconds=%d",
             log_quote(store->folder, folder, sizeof folder), strerror(error), PAUSE_SECONDS);
}

/* Write a chunk that is held and for which room is reserved. */
static void write_file(struct store *store, struct chunk *chunk, uint32_t file_bytes)
{
    char name[CHUNK_NAME_BYTES];
    name_of(chunk, file_bytes, name);
    struct chunk_identity identity = chunk_identity(store, chunk);
    chunk->is_writing = true;
    pthread_mutex_unlock(&store->lock);
    int error =
        chunk_file_write(store->folder_fd, name, &identity, chunk->fetched_s, chunk->buffer);
    pthread_mutex_lock(&store->lock);
    chunk->is_writing = false;
    if (error == 0 && !list_file(store, chunk, file_bytes)) {
        unlinkat(store->folder_fd, name, 0);
        error = ENOMEM;
    }
    if (error == 0) {
        store->stats.written_bytes += file_bytes;
    } else {
        store->disk_used_bytes -= file_bytes;
        note_write_failure(store, error);
    }
}

/* What becomes of a chunk from the queue. */
static void handle_queued(struct store *store, struct chunk *chunk)
{
    chunk->is_queued = false;
    chunk->user_count++;
    bool is_complete = chunk->buffer != NULL && chunk->fetch == NULL && !chunk->is_void &&
                       chunk->ready_bytes == chunk->data_bytes;
    if (is_complete && !chunk->on_disk && !chunk->is_leaving && disk_is_usable(store)) {
        struct chunk_identity identity = chunk_identity(store, chunk);
        uint32_t file_bytes = chunk_file_bytes(&identity);
        if (file_bytes > 0 && make_room(store, chunk, file_bytes)) {
            store->disk_used_bytes += file_bytes;
            store->floor_room_bytes -=
                file_bytes < store->floor_room_bytes ? file_bytes : store->floor_room_bytes;
            write_file(store, chunk, file_bytes);
        }
    }
    /* Memory is wanted: on disk or not, its buffer goes. */
    bool must_leave = chunk->is_spilled && is_complete && chunk->user_count == 1;
    chunk->is_spilled = false;
    chunk->user_count--;
    if (must_leave) {
        memory_release(store, chunk);
        schedule_not_ahead(store, chunk);
        schedule_lost(chunk);
    }
    chunk_forget_if_unused(store, chunk);
    schedule_changed(store);
    schedule(store);
    pthread_cond_broadcast(&store->changed);
}

/* ---- The start ----------------------------------------------------------------------------- */

/* A file with a good name: count it, or remove it when the store has that chunk otherwise. */
static void take_in(struct store *store, const struct chunk_name *name, const char *path)
{
    struct chunk *chunk = chunk_find(store, name->key, name->number);
    if (chunk != NULL && chunk->on_disk && chunk->file_bytes == name->file_bytes) {
        return;
    }
    if (chunk == NULL) {
        chunk = chunk_add(store, name->key, name->number);
    }
    if (chunk == NULL || chunk->on_disk || chunk->is_leaving || chunk->is_writing ||
        !list_file(store, chunk, name->file_bytes)) {
        unlinkat(store->folder_fd, path, 0);
        if (chunk != NULL) {
            chunk_forget_if_unused(store, chunk);
        }
        return;
    }
    chunk->used_at = 0;
    store->disk_used_bytes += name->file_bytes;
}

bool disk_find(struct store *store, struct chunk *chunk)
{
    struct chunk_identity identity = chunk_identity(store, chunk);
    uint32_t file_bytes = chunk_file_bytes(&identity);
    char path[CHUNK_NAME_BYTES];
    name_of(chunk, file_bytes, path);
    if (file_bytes == 0 || faccessat(store->folder_fd, path, F_OK, 0) != 0 ||
        !list_file(store, chunk, file_bytes)) {
        return false;
    }
    store->disk_used_bytes += file_bytes;
    return true;
}

static bool is_temporary(const char *name)
{
    return strncmp(name, "temporary-", 10) == 0;
}

/* Look through one folder; `prefix` is its name with a slash, or "". */
static void scan_folder(struct store *store, const char *prefix)
{
    int fd = openat(store->folder_fd, prefix[0] != '\0' ? prefix : ".",
                    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (folder == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) {
        struct chunk_name name;
        char path[CHUNK_NAME_BYTES];
        if (prefix[0] == '\0') {
            if (is_temporary(entry->d_name)) {
                unlinkat(store->folder_fd, entry->d_name, 0);
            }
        } else if (chunk_name_parse(entry->d_name, &name)) {
            snprintf(path, sizeof path, "%.3s%.60s", prefix, entry->d_name);
            pthread_mutex_lock(&store->lock);
            bool is_stopping = store->is_stopping;
            if (!is_stopping) {
                take_in(store, &name, path);
            }
            pthread_mutex_unlock(&store->lock);
            if (is_stopping) {
                break;
            }
        }
    }
    closedir(folder);
}

/* Room that the file system has above the floor. No lock. */
static uint64_t measure_room(const struct store *store)
{
    struct statvfs info;
    if (fstatvfs(store->folder_fd, &info) != 0) {
        return 0;
    }
    uint64_t free_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    uint64_t floor_bytes = (uint64_t)info.f_blocks * info.f_frsize / FLOOR_SHARE;
    floor_bytes = floor_bytes < FLOOR_BYTES_MAX ? floor_bytes : FLOOR_BYTES_MAX;
    floor_bytes = store->free_floor_bytes > 0 ? store->free_floor_bytes : floor_bytes;
    return free_bytes > floor_bytes ? free_bytes - floor_bytes : 0;
}

static bool is_above_limit(const struct store *store)
{
    return store->disk_used_bytes > store->disk_limit_bytes && !store->is_stopping;
}

/* Down to the limit, if what was found is above it: the limit goes before pins. */
static void shrink(struct store *store)
{
    struct chunk *victim;
    while (is_above_limit(store) && (victim = schedule_victim(store, 0)) != NULL) {
        victim->user_count++;
        store->stats.evicted_count++;
        disk_remove(store, victim);
        chunk_release(store, victim);
    }
    size_t pinned = 0;
    for (size_t i = store->disk_count; i-- > 0 && is_above_limit(store);) {
        i = i < store->disk_count ? i : store->disk_count;
        pinned += i < store->disk_count && manage_drop(store, store->disk_list[i]);
    }
    if (pinned > 0) {
        store->stats.evicted_count += pinned;
        log_warn("cache_pins_exceed_limit", "removed_chunks=%zu limit_bytes=%llu", pinned,
                 (unsigned long long)store->disk_limit_bytes);
    }
}

/* The writer that found the folder free looks through it. Called and returns with the lock. */
static void scan(struct store *store)
{
    uint64_t begin_ns = clock_now_ns();
    pthread_mutex_unlock(&store->lock);
    scan_folder(store, "");
    for (int i = 0; i < SUBFOLDERS; i++) {
        char prefix[4];
        snprintf(prefix, sizeof prefix, "%02x/", i);
        scan_folder(store, prefix);
    }
    uint64_t room = measure_room(store);
    rules_load(store);
    if (rules_exist(store)) { /* which nobody else changes before the folder was looked through */
        manage_identify_all(store);
    }
    pthread_mutex_lock(&store->lock);
    store->floor_room_bytes = room;
    if (store->disk_limit_bytes == 0) {
        store->disk_limit_bytes = (store->disk_used_bytes + room) / LIMIT_SHARE;
    }
    store->is_scanning = false;
    shrink(store);
    log_info("cache_ready", "chunks=%zu bytes=%llu limit_bytes=%llu seconds=%.3f",
             store->disk_count, (unsigned long long)store->disk_used_bytes,
             (unsigned long long)store->disk_limit_bytes,
             (double)(clock_now_ns() - begin_ns) / 1e9);
    for (size_t i = 0; i < store->memory_count; i++) {
        if (store->memory_list[i]->fetch == NULL && !store->memory_list[i]->is_void) {
            disk_offer(store, store->memory_list[i]);
        }
    }
    schedule_changed(store);
    schedule(store);
}

/* One daemon at a time has the folder's files; the lock goes with the process. */
static bool try_lock(struct store *store)
{
    if (store->lock_fd < 0) {
        store->lock_fd =
            openat(store->folder_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    return store->lock_fd >= 0 && flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0;
}

void disk_open(struct store *store, const char *folder)
{
    char quoted[1200];
    store->folder_fd = store->lock_fd = -1;
    if (folder == NULL || folder[0] == '\0') {
        return;
    }
    int length = snprintf(store->folder, sizeof store->folder, "%s/chunks", folder);
    if (length < 0 || (size_t)length >= sizeof store->folder ||
        (mkdir(store->folder, 0700) != 0 && errno != EEXIST) ||
        (store->folder_fd = open(store->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)) <
            0) {
        log_warn("cache_unusable", "folder=%s error=\"%s\"",
                 log_quote(store->folder, quoted, sizeof quoted), strerror(errno));
        return;
    }
    store->floor_room_bytes = measure_room(store);
    store->owns_folder = store->is_scanning = try_lock(store);
    if (!store->owns_folder) {
        log_warn("cache_in_use",
                 "folder=%s note=\"another daemon has it: this one keeps data in memory until "
                 "that one ends\"",
                 log_quote(store->folder, quoted, sizeof quoted));
    }
}

void disk_close(struct store *store)
{
    if (store->lock_fd >= 0) {
        close(store->lock_fd);
    }
    if (store->folder_fd >= 0) {
        close(store->folder_fd);
    }
}

/* ---- The threads --------------------------------------------------------------------------- */

/* Those of a list that are past their time. Dropping one moves another one into its place. */
static void drop_expired(struct store *store, struct chunk *const *const *list, const size_t *count)
{
    int64_t now_s = time(NULL);
    for (size_t i = 0; i < *count;) {
        struct chunk *chunk = (*list)[i];
        bool is_due = !chunk->is_pinned && rules_expired(chunk, now_s);
        i += !is_due || !manage_drop(store, chunk);
    }
}

static void remove_expired(struct store *store)
{
    if (rules_may_expire(store)) {
        drop_expired(store, (struct chunk *const *const *)&store->disk_list, &store->disk_count);
        drop_expired(store, (struct chunk *const *const *)&store->memory_list,
                     &store->memory_count);
        schedule_changed(store);
        schedule(store);
    }
}

/* What is to be done every second or so, by the first writer. */
static void look_after(struct store *store)
{
    uint64_t now_ns = clock_now_ns();
    if (now_ns < store->look_again_ns) {
        return;
    }
    store->look_again_ns = now_ns + SECOND_NS;
    if (store->write_pause_until_ns != 0 && now_ns >= store->write_pause_until_ns) {
        store->write_pause_until_ns = 0;
        schedule_changed(store);
    }
    if (!store->owns_folder && now_ns >= store->next_lock_try_ns) {
        store->next_lock_try_ns = now_ns + LOCK_RETRY_SECONDS * SECOND_NS;
        if (try_lock(store)) {
            store->owns_folder = store->is_scanning = true;
            scan(store);
        }
    }
    if (store->owns_folder) {
        pthread_mutex_unlock(&store->lock);
        uint64_t room = measure_room(store);
        pthread_mutex_lock(&store->lock);
        store->floor_room_bytes = room;
        remove_expired(store);
    }
}

static void *run_writer(void *argument)
{
    struct store *store = argument;
    pthread_setname_np(pthread_self(), "penstock-cache");
    pthread_mutex_lock(&store->lock);
    bool is_first = !store->has_first_writer;
    store->has_first_writer = true;
    if (is_first && store->is_scanning) {
        scan(store);
    }
    while (!store->is_stopping) {
        if (is_first) {
            look_after(store);
        }
        struct chunk *chunk = store->is_scanning ? NULL : store->write_first;
        if (chunk != NULL) {
            store->write_first = chunk->queue_next;
            handle_queued(store, chunk);
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        pthread_cond_timedwait(&store->work_came, &store->lock, &until);
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

int disk_start(struct store *store, struct error *error)
{
    if (store->folder_fd < 0) {
        return 0;
    }
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int status = 0;
    while (status == 0 && store->writer_count < WRITERS) {
        status = pthread_create(&store->writers[store->writer_count], NULL, run_writer, store);
        store->writer_count += status == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return store->writer_count > 0
               ? 0
               : error_set(error, ERROR_MEMORY, "cannot start a thread of the cache: %s.",
                           strerror(status));
}

void disk_stop(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    store->is_stopping = true;
    pthread_cond_broadcast(&store->work_came);
    pthread_mutex_unlock(&store->lock);
    for (uint32_t i = 0; i < store->writer_count; i++) {
        pthread_join(store->writers[i], NULL);
    }
}
