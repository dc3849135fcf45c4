#include "loader/folder_list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "loader/index_build.h"

/* Large enough that a class of 1,300 files takes few system calls. */
enum { ENTRY_BUFFER_BYTES = 256 * 1024 };

/* Shared by the threads; the queue is a stack, so a deep tree stays small. */
struct walk {
    const char *root;
    struct folder_list *list; /* its array is guarded by lock */
    struct index_progress *progress;
    struct timespec start;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct folder_directory *queue;
    size_t open_count; /* queued or being listed */
    bool has_failed;
    struct error error;
};

/* What one thread reuses from directory to directory. */
struct listing {
    char *entries;         /* ENTRY_BUFFER_BYTES */
    struct growing names;  /* as found */
    struct growing starts; /* const char *, once names no longer moves */
    size_t name_count;
};

bool folder_list_is_image(const char *name)
{
    static const char *const extensions[] = {".jpg", ".jpeg", ".png",  ".ppm", ".bmp",
                                             ".pgm", ".tif",  ".tiff", ".webp"};
    const char *dot = strrchr(name, '.');
    if (dot == NULL) {
        return false;
    }
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) {
        if (strcasecmp(dot, extensions[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void walk_fail(struct walk *walk, const struct error *error)
{
    pthread_mutex_lock(&walk->lock);
    if (!walk->has_failed) {
        walk->error = *error;
    }
    walk->has_failed = true;
    pthread_cond_broadcast(&walk->changed);
    pthread_mutex_unlock(&walk->lock);
}

static struct folder_directory *directory_create(struct folder_directory *parent, const char *name)
{
    size_t parent_length = parent != NULL ? parent->path_length : 0;
    size_t name_length = strlen(name);
    struct folder_directory *directory =
        calloc(1, sizeof *directory + parent_length + name_length + 2);
    if (directory == NULL) {
        return NULL;
    }
    directory->parent = parent;
    if (parent_length > 0) {
        memcpy(directory->path, parent->path, parent_length);
        directory->path[parent_length++] = '/';
    }
    memcpy(directory->path + parent_length, name, name_length);
    directory->path_length = parent_length + name_length;
    directory->class_length = strcspn(directory->path, "/");
    return directory;
}

static void directory_destroy(struct folder_directory *directory)
{
    free(directory->names);
    free(directory);
}

/* Add to the list and the queue; the list owns it from then on. */
static bool walk_push(struct walk *walk, struct folder_directory *directory)
{
    struct folder_list *list = walk->list;
    bool is_pushed = false;
    pthread_mutex_lock(&walk->lock);
    if (list->count == list->capacity) {
        size_t capacity = list->capacity * 2 + 64;
        struct folder_directory **grown =
            realloc(list->directories, capacity * sizeof(struct folder_directory *));
        if (grown == NULL) {
            goto unlock;
        }
        list->directories = grown;
        list->capacity = capacity;
    }
    list->directories[list->count++] = directory;
    directory->next = walk->queue;
    walk->queue = directory;
    walk->open_count++;
    is_pushed = true;
    pthread_cond_signal(&walk->changed);
unlock:
    pthread_mutex_unlock(&walk->lock);
    return is_pushed;
}

/* The next directory to list; NULL when all are done or the walk has failed. */
static struct folder_directory *walk_pop(struct walk *walk)
{
    struct folder_directory *directory = NULL;
    pthread_mutex_lock(&walk->lock);
    while (walk->queue == NULL && walk->open_count > 0 && !walk->has_failed) {
        pthread_cond_wait(&walk->changed, &walk->lock);
    }
    if (!walk->has_failed && walk->queue != NULL) {
        directory = walk->queue;
        walk->queue = directory->next;
    }
    pthread_mutex_unlock(&walk->lock);
    return directory;
}

static void walk_finish_one(struct walk *walk)
{
    pthread_mutex_lock(&walk->lock);
    if (--walk->open_count == 0) {
        pthread_cond_broadcast(&walk->changed);
    }
    pthread_mutex_unlock(&walk->lock);
}

static int unreadable(const struct walk *walk, const struct folder_directory *directory,
                      struct error *error)
{
    return error_set(error, ERROR_DATASET,
                     "%s/%s: this folder cannot be listed: %s. Make it readable for user %u, or "
                     "move it out of the data set.",
                     walk->root, directory->path, strerror(errno), (unsigned)geteuid());
}

/* Open and identify; 1: opened, 0: left out, -1: error. */
static int directory_open(const struct walk *walk, struct folder_directory *directory, int *fd,
                          struct error *error)
{
    const char *path = directory->path_length > 0 ? directory->path : ".";
    *fd = openat(walk->list->root_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat status;
    if (*fd < 0 || fstat(*fd, &status) != 0) {
        int result = unreadable(walk, directory, error);
        if (*fd >= 0) {
            close(*fd);
        }
        return result;
    }
    directory->device = status.st_dev;
    directory->inode = status.st_ino;
    directory->mtime_ns = index_build_mtime_ns(&status.st_mtim, &walk->start);
    const struct folder_directory *above = directory->parent;
    for (; above != NULL; above = above->parent) {
        if (above->inode == status.st_ino && above->device == status.st_dev) {
            close(*fd); /* a symbolic link back up: listing it would never end */
            return 0;
        }
    }
    return 1;
}

enum entry_kind { ENTRY_DIRECTORY, ENTRY_FILE, ENTRY_OTHER };

/* Links are what they lead to; a broken one is a file, to be reported when it is read. */
static enum entry_kind entry_kind(int fd, const struct dirent64 *entry)
{
    if (entry->d_type == DT_REG) {
        return ENTRY_FILE;
    }
    if (entry->d_type == DT_DIR) {
        return ENTRY_DIRECTORY;
    }
    if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN) {
        return ENTRY_OTHER;
    }
    struct stat status;
    if (fstatat(fd, entry->d_name, &status, 0) != 0 || S_ISREG(status.st_mode)) {
        return ENTRY_FILE;
    }
    return S_ISDIR(status.st_mode) ? ENTRY_DIRECTORY : ENTRY_OTHER;
}

static int take_entry(struct walk *walk, struct folder_directory *directory, int fd,
                      const struct dirent64 *entry, struct listing *listing)
{
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return 0;
    }
    bool may_be_file = directory->parent != NULL && folder_list_is_image(name);
    if (entry->d_type == DT_REG && !may_be_file) {
        return 0;
    }
    enum entry_kind kind = entry_kind(fd, entry);
    if (kind == ENTRY_DIRECTORY) {
        struct folder_directory *below = directory_create(directory, name);
        if (below != NULL && walk_push(walk, below)) {
            return 0;
        }
        free(below);
        return -1;
    }
    if (kind == ENTRY_OTHER || !may_be_file) {
        return 0;
    }
    size_t bytes = strlen(name) + 1;
    char *room = growing_add(&listing->names, bytes);
    if (room == NULL) {
        return -1;
    }
    memcpy(room, name, bytes);
    listing->name_count++;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted copies of what was found, in one block that the directory keeps. */
static int keep_names(struct folder_directory *directory, struct listing *listing)
{
    size_t count = listing->name_count;
    if (count == 0) {
        return 0;
    }
    listing->starts.size_bytes = 0;
    const char **starts = growing_add(&listing->starts, count * sizeof *starts);
    char *names = malloc(listing->names.size_bytes);
    if (starts == NULL || names == NULL) {
        free(names);
        return -1;
    }
    const char *at = (const char *)listing->names.bytes;
    for (size_t i = 0; i < count; i++, at += strlen(at) + 1) {
        starts[i] = at;
    }
    qsort(starts, count, sizeof *starts, compare_names);
    char *to = names;
    for (size_t i = 0; i < count; i++) {
        to = stpcpy(to, starts[i]) + 1;
    }
    directory->names = names;
    directory->name_bytes = listing->names.size_bytes;
    directory->name_count = count;
    return 0;
}

static int list_entries(struct walk *walk, struct folder_directory *directory, int fd,
                        struct listing *listing, struct error *error)
{
    listing->names.size_bytes = 0;
    listing->name_count = 0;
    for (;;) {
        if (index_build_is_cancelled(walk->progress)) {
            return index_build_cancelled(error);
        }
        ssize_t size = getdents64(fd, listing->entries, ENTRY_BUFFER_BYTES);
        if (size < 0) {
            return unreadable(walk, directory, error);
        }
        if (size == 0) {
            break;
        }
        size_t count_before = listing->name_count;
        for (ssize_t at = 0; at < size;) {
            const struct dirent64 *entry = (const void *)(listing->entries + at);
            if (take_entry(walk, directory, fd, entry, listing) < 0) {
                return index_build_no_memory(error);
            }
            at += entry->d_reclen;
        }
        index_build_advance(walk->progress, listing->name_count - count_before);
    }
    return keep_names(directory, listing) == 0 ? 0 : index_build_no_memory(error);
}

static void list_directory(struct walk *walk, struct folder_directory *directory,
                           struct listing *listing)
{
    struct error error;
    int fd;
    int result = directory_open(walk, directory, &fd, &error);
    if (result == 1) {
        result = list_entries(walk, directory, fd, listing, &error);
        close(fd);
    } else if (result == 0) {
        directory->is_left_out = true;
    }
    if (result < 0) {
        walk_fail(walk, &error);
    }
    walk_finish_one(walk);
}

static void *walk_work(void *argument)
{
    struct walk *walk = argument;
    struct listing listing = {.entries = malloc(ENTRY_BUFFER_BYTES)};
    struct error error;
    if (listing.entries == NULL) {
        index_build_no_memory(&error);
        walk_fail(walk, &error);
        return NULL;
    }
    struct folder_directory *directory;
    while ((directory = walk_pop(walk)) != NULL) {
        list_directory(walk, directory, &listing);
    }
    free(listing.entries);
    growing_clear(&listing.names);
    growing_clear(&listing.starts);
    return NULL;
}

static int compare_directories(const void *a, const void *b)
{
    const struct folder_directory *left = *(struct folder_directory *const *)a;
    const struct folder_directory *right = *(struct folder_directory *const *)b;
    size_t shorter =
        left->class_length < right->class_length ? left->class_length : right->class_length;
    int order = memcmp(left->path, right->path, shorter);
    if (order == 0 && left->class_length != right->class_length) {
        order = left->class_length < right->class_length ? -1 : 1;
    }
    return order != 0 ? order : strcmp(left->path, right->path);
}

static void sort_directories(struct folder_list *list)
{
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (list->directories[i]->is_left_out) {
            directory_destroy(list->directories[i]);
        } else {
            list->directories[kept++] = list->directories[i];
        }
    }
    list->count = kept;
    qsort(list->directories, kept, sizeof(struct folder_directory *), compare_directories);
}

static int walk_tree(struct walk *walk, uint32_t thread_count, struct error *error)
{
    struct folder_directory *root = directory_create(NULL, "");
    if (root == NULL || !walk_push(walk, root)) {
        free(root);
        return index_build_no_memory(error);
    }
    index_build_run(thread_count, walk_work, walk);
    if (walk->has_failed) {
        if (error != NULL) {
            *error = walk->error;
        }
        return -1;
    }
    sort_directories(walk->list);
    return 0;
}

int folder_list_open(const char *root, uint32_t thread_count, struct index_progress *progress,
                     struct folder_list *list, struct error *error)
{
    *list = (struct folder_list){.root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (list->root_fd < 0) {
        return error_set(error, ERROR_DATASET, "%s: this folder cannot be opened: %s.", root,
                         strerror(errno));
    }
    struct walk walk = {.root = root, .list = list, .progress = progress};
    clock_gettime(CLOCK_REALTIME, &walk.start);
    pthread_mutex_init(&walk.lock, NULL);
    pthread_cond_init(&walk.changed, NULL);
    int result = walk_tree(&walk, thread_count, error);
    pthread_cond_destroy(&walk.changed);
    pthread_mutex_destroy(&walk.lock);
    if (result < 0) {
        folder_list_close(list);
    }
    return result;
}

void folder_list_close(struct folder_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        directory_destroy(list->directories[i]);
    }
    free(list->directories);
    if (list->root_fd >= 0) {
        close(list->root_fd);
    }
    *list = (struct folder_list){.root_fd = -1};
}
