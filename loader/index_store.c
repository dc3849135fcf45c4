#include "loader/index_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    TEMPORARY_BYTES = 2 * sizeof(struct index_key),
    /* A temporary file younger than this may not be locked yet by its writer. */
    LEFTOVER_AGE_S = 60,
};
static const char temporary_suffix[] = ".tmp";

/* Ends the hash. */
static void write_name(struct index_hash *hash, struct index_key *key)
{
    uint8_t value[INDEX_HASH_BYTES];
    index_hash_value128(hash, value);
    index_hash_destroy(hash);
    for (size_t i = 0; i < INDEX_HASH_BYTES; i++) {
        snprintf(key->name + 2 * i, 3, "%02x", value[i]);
    }
    strcpy(key->name + 2 * INDEX_HASH_BYTES, ".psi");
}

bool index_key_of_dataset(const struct dataset *dataset, struct index_key *key)
{
    struct index_hash *hash = index_hash_create();
    if (hash == NULL) {
        return false;
    }
    index_hash_add_u64(hash, dataset->kind);
    for (size_t i = 0; i < dataset->paths.count; i++) {
        index_hash_add_text(hash, dataset->paths.texts[i]);
    }
    write_name(hash, key);
    return true;
}

bool index_key_of_shard(const char *url, const struct dataset_object *object, struct index_key *key)
{
    struct index_hash *hash = index_hash_create();
    if (hash == NULL) {
        return false;
    }
    index_hash_add_text(hash, "shard");
    index_hash_add_text(hash, url);
    index_hash_add_text(hash, object->tag);
    index_hash_add_u64(hash, object->size_bytes);
    write_name(hash, key);
    return true;
}

static int folder_path(const char *cache_folder, char path[PATH_MAX])
{
    if (snprintf(path, PATH_MAX, "%s/index", cache_folder) < PATH_MAX) {
        return 0;
    }
    errno = ENAMETOOLONG;
    return -1;
}

/* The index folder, open; with `make`, it and what is above it are made. -1 with errno. */
static int open_folder(const char *cache_folder, bool make)
{
    char path[PATH_MAX];
    if (folder_path(cache_folder, path) < 0) {
        return -1;
    }
    for (char *slash = strchr(path + 1, '/'); make && slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST) {
            return -1;
        }
        *slash = '/';
    }
    if (make && mkdir(path, 0700) != 0 && errno != EEXIST) {
        return -1;
    }
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int index_store_open(const char *cache_folder, const struct index_key *key)
{
    int folder = open_folder(cache_folder, false);
    if (folder < 0) {
        return -1;
    }
    int fd = openat(folder, key->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    close(folder);
    struct stat status;
    if (fd >= 0 &&
        (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_uid != geteuid())) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Temporary files whose writer is gone: old, and nobody holds their lock. */
static void remove_leftovers(int folder)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = copy >= 0 ? fdopendir(copy) : NULL;
    if (entries == NULL) {
        if (copy >= 0) {
            close(copy);
        }
        return;
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        size_t length = strlen(entry->d_name);
        size_t suffix = strlen(temporary_suffix);
        if (length <= suffix || strcmp(entry->d_name + length - suffix, temporary_suffix) != 0) {
            continue;
        }
        int fd = openat(folder, entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        struct stat status;
        if (fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
            time(NULL) - status.st_mtim.tv_sec > LEFTOVER_AGE_S &&
            flock(fd, LOCK_EX | LOCK_NB) == 0) {
            unlinkat(folder, entry->d_name, 0);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    closedir(entries);
}

/* A new locked file; its name goes to `temporary`. */
static int create_temporary(int folder, const char *name, char temporary[TEMPORARY_BYTES])
{
    for (int tries = 0; tries < 16; tries++) {
        uint64_t random = 0;
        if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) {
            random = (uint64_t)getpid() << 16 | (uint64_t)tries;
        }
        snprintf(temporary, TEMPORARY_BYTES, "%s.%016" PRIx64 "%s", name, random, temporary_suffix);
        int fd =
            openat(folder, temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            flock(fd, LOCK_EX | LOCK_NB);
        }
        if (fd >= 0 || errno != EEXIST) {
            return fd;
        }
    }
    return -1;
}

/* Written, renamed and opened again for reading; -1 with errno and nothing left behind. The data
 * is not synced: after a crash of the machine the checksum tells, and it is built again. */
static int save_file(const char *cache_folder, const struct index_key *key,
                     const struct index_draft *draft)
{
    char temporary[TEMPORARY_BYTES];
    int folder = open_folder(cache_folder, true);
    if (folder < 0) {
        return -1;
    }
    remove_leftovers(folder);
    int fd = create_temporary(folder, key->name, temporary);
    int reader = -1;
    if (fd >= 0 && index_draft_write(draft, fd) == 0) {
        reader = openat(folder, temporary, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    }
    if (reader >= 0 && renameat(folder, temporary, folder, key->name) != 0) {
        int reason = errno;
        close(reader);
        reader = -1;
        errno = reason;
    }
    int reason = errno;
    if (fd >= 0) {
        if (reader < 0) {
            unlinkat(folder, temporary, 0);
        }
        close(fd);
    }
    close(folder);
    errno = reason;
    return reader;
}

static int save_memory(const struct index_draft *draft, struct error *error)
{
    int fd = memfd_create("penstock-index", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && index_draft_write(draft, fd) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0) {
        return fd;
    }
    int reason = errno;
    if (fd >= 0) {
        close(fd);
    }
    return error_set(error, ERROR_MEMORY,
                     "The index of the data set cannot be kept in memory: %s. Free some memory, or "
                     "give the cache folder more room.",
                     strerror(reason));
}

int index_store_save(const char *cache_folder, const struct index_key *key,
                     const struct index_draft *draft, char *warning, struct error *error)
{
    if (cache_folder == NULL) {
        return save_memory(draft, error);
    }
    int fd = save_file(cache_folder, key, draft);
    if (fd >= 0) {
        return fd;
    }
    int reason = errno;
    fd = save_memory(draft, error);
    if (fd >= 0 && warning != NULL) {
        snprintf(
            warning, ERROR_TEXT_BYTES,
            "The index cannot be stored in %.1000s/index: %s. It is kept in memory and will be "
            "built again at the next start; make room, or choose another cache folder.",
            cache_folder, strerror(reason));
    }
    return fd;
}
