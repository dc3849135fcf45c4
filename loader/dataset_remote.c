/* Remote data sets: names become objects with their sizes and versions, by listings where the
 * store has them and by HEAD requests, many at a time, where it does not. */
#include <fnmatch.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader/dataset.h"
#include "loader/folder_list.h"
#include "loader/index_build.h"
#include "loader/remote/remote.h"

enum {
    HEADS_AT_ONCE = 32,
    /* A listing that has shown so many objects besides the wanted ones is given up for HEADs. */
    LISTED_STRANGERS_MAX = 5000,
    LISTED_WANTED_MIN = 3, /* fewer are asked for one by one */
};

static int no_memory(struct error *error)
{
    return error_set(error, ERROR_MEMORY,
                     "No memory is left for the list of objects of the data set. Free some memory "
                     "and try again.");
}

static struct remote_call call_of(const struct origin *origin)
{
    return (struct remote_call){.profile = origin->profile, .cancel = origin->cancel};
}

static bool is_s3(const char *url)
{
    return strncmp(url, "s3://", 5) == 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* Copies key and tag; either may be NULL. */
static bool add_object(struct dataset *dataset, const char *key, size_t key_length, const char *tag,
                       uint64_t size_bytes)
{
    if (dataset->object_count == dataset->object_capacity) {
        size_t capacity = dataset->object_capacity * 2 + 64;
        struct dataset_object *objects = realloc(dataset->objects, capacity * sizeof *objects);
        if (objects == NULL) {
            return false;
        }
        dataset->objects = objects;
        dataset->object_capacity = capacity;
    }
    struct dataset_object object = {.size_bytes = size_bytes};
    object.key = key != NULL ? strndup(key, key_length) : NULL;
    object.tag = tag != NULL ? strdup(tag) : NULL;
    if ((key != NULL && object.key == NULL) || (tag != NULL && object.tag == NULL)) {
        free(object.key);
        free(object.tag);
        return false;
    }
    dataset->objects[dataset->object_count++] = object;
    return true;
}

static const char *known_tag(const struct remote_version *version)
{
    return version->tag[0] != '\0' ? version->tag : NULL;
}

static bool add_shard(struct dataset *dataset, const char *url,
                      const struct remote_version *version)
{
    return dataset->paths.count < PATTERN_TEXTS_MAX &&
           text_list_add(&dataset->paths, url, strlen(url)) &&
           add_object(dataset, NULL, 0, version != NULL ? known_tag(version) : NULL,
                      version != NULL ? version->size_bytes : 0);
}

/* ---- "s3://bucket/train-*.tar" ---------------------------------------------------------- */

struct glob {
    struct dataset *dataset;
    const char *pattern;
    bool is_out_of_memory;
};

static bool visit_match(void *context, const struct remote_entry *entry)
{
    struct glob *glob = context;
    if (!entry->is_prefix &&
        fnmatch(glob->pattern, entry->url, FNM_PATHNAME | FNM_PERIOD | FNM_NOESCAPE) == 0) {
        glob->is_out_of_memory = !add_shard(glob->dataset, entry->url, &entry->version);
    }
    return !glob->is_out_of_memory;
}

static int add_matches(struct dataset *dataset, const char *pattern, const struct origin *origin,
                       struct error *error)
{
    struct glob glob = {.dataset = dataset, .pattern = pattern};
    size_t first = dataset->paths.count;
    size_t length = strcspn(pattern, "*?[");
    /* In one folder, if nothing below it can match. */
    bool is_deep = strchr(pattern + length, '/') != NULL;
    char *prefix = strndup(pattern, length);
    struct remote_call call = call_of(origin);
    int result = prefix == NULL ? no_memory(error)
                                : remote_list(origin->remote, prefix, is_deep, &call, visit_match,
                                              &glob, error);
    free(prefix);
    if (result == 0 && glob.is_out_of_memory) {
        result = no_memory(error);
    } else if (result == 0 && dataset->paths.count == first) {
        result = error_set(error, ERROR_MISSING,
                           "%s: no object matches. Check the bucket and the pattern (`penstock ls` "
                           "shows what is there).",
                           pattern);
    }
    return result;
}

/* ---- "s3://bucket/train/" --------------------------------------------------------------- */

struct folder {
    struct dataset *dataset;
    size_t root_length; /* of the prefix with its '/' */
    bool is_out_of_memory;
    uint64_t listed_count, tar_count;
};

static bool is_last_key(const struct dataset *dataset, const char *key, size_t length)
{
    const char *last =
        dataset->object_count > 0 ? dataset->objects[dataset->object_count - 1].key : NULL;
    return last != NULL && strlen(last) == length && memcmp(last, key, length) == 0;
}

static bool visit_below(void *context, const struct remote_entry *entry)
{
    struct folder *folder = context;
    const char *key = entry->url + folder->root_length;
    const char *slash = strrchr(key, '/');
    folder->listed_count++;
    folder->tar_count += ends_with(key, ".tar");
    if (slash == NULL) {
        return true; /* in the root: of no class */
    }
    bool is_added = true;
    if (folder_list_is_image(slash + 1)) {
        is_added = add_object(folder->dataset, key, strlen(key), known_tag(&entry->version),
                              entry->version.size_bytes);
    } else if (!is_last_key(folder->dataset, key, (size_t)(slash - key) + 1)) {
        is_added = add_object(folder->dataset, key, (size_t)(slash - key) + 1, NULL, 0);
    }
    folder->is_out_of_memory = !is_added;
    return is_added;
}

static int fail_folder(const char *url, const struct folder *folder, struct error *error)
{
    if (folder->listed_count == 0) {
        return error_set(error, ERROR_MISSING,
                         "%s: nothing is there. Check the bucket and the prefix (`penstock ls` "
                         "shows what is there).",
                         url);
    }
    return error_set(error, ERROR_DATASET,
                     "%s: no image is inside, as PREFIX/CLASS/IMAGE.jpg (looked for .jpg .jpeg "
                     ".png .ppm .bmp .pgm .tif .tiff .webp in %" PRIu64 " objects).%s%s%s",
                     url, folder->listed_count,
                     folder->tar_count > 0 ? " For tar files write " : "",
                     folder->tar_count > 0 ? url : "", folder->tar_count > 0 ? "*.tar" : "");
}

/* `root` without its last '/'. *is_found: something lies below it. */
static int list_folder(struct dataset *dataset, const char *root, const struct origin *origin,
                       bool *is_found, struct error *error)
{
    struct folder folder = {.dataset = dataset, .root_length = strlen(root) + 1};
    char *prefix = malloc(folder.root_length + 1);
    if (prefix == NULL || !text_list_add(&dataset->paths, root, strlen(root))) {
        free(prefix);
        return no_memory(error);
    }
    memcpy(prefix, root, folder.root_length - 1);
    memcpy(prefix + folder.root_length - 1, "/", 2);
    struct remote_call call = call_of(origin);
    int result = remote_list(origin->remote, prefix, true, &call, visit_below, &folder, error);
    dataset->kind = INDEX_FOLDER;
    *is_found = folder.listed_count > 0;
    bool has_images = false;
    for (size_t i = 0; i < dataset->object_count && !has_images; i++) {
        has_images = !ends_with(dataset->objects[i].key, "/");
    }
    if (result == 0 && folder.is_out_of_memory) {
        result = no_memory(error);
    } else if (result == 0 && !has_images) {
        result = fail_folder(prefix, &folder, error);
    }
    free(prefix);
    return result;
}

/* ---- Versions of shards ----------------------------------------------------------------- */

/* Shards without a version, sorted by URL. */
struct wanted {
    struct dataset *dataset;
    size_t *numbers;
    size_t count;
    uint64_t found_count, stranger_count;
    bool is_out_of_memory;
};

static int compare_numbers(const void *a, const void *b, void *context)
{
    const struct dataset *dataset = context;
    return strcmp(dataset->paths.texts[*(const size_t *)a],
                  dataset->paths.texts[*(const size_t *)b]);
}

/* The s3:// shards of the bucket of the first one that has no version. */
static bool find_wanted(struct dataset *dataset, struct wanted *wanted)
{
    *wanted = (struct wanted){.dataset = dataset};
    wanted->numbers = calloc(dataset->paths.count, sizeof *wanted->numbers);
    const char *first = NULL;
    for (size_t i = 0; i < dataset->paths.count && wanted->numbers != NULL; i++) {
        const char *url = dataset->paths.texts[i];
        if (dataset->objects[i].tag != NULL || !is_s3(url)) {
            continue;
        }
        first = first == NULL ? url : first;
        size_t bucket = 5 + strcspn(first + 5, "/");
        if (strncmp(url, first, bucket) == 0 && (url[bucket] == '/' || url[bucket] == '\0')) {
            wanted->numbers[wanted->count++] = i;
        }
    }
    if (wanted->numbers != NULL) {
        qsort_r(wanted->numbers, wanted->count, sizeof *wanted->numbers, compare_numbers, dataset);
    }
    return wanted->numbers != NULL;
}

static bool visit_wanted(void *context, const struct remote_entry *entry)
{
    struct wanted *wanted = context;
    const struct text_list *paths = &wanted->dataset->paths;
    size_t low = 0, high = wanted->count; /* the first that is not before the entry */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(paths->texts[wanted->numbers[middle]], entry->url) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool is_stranger = true;
    for (; low < wanted->count && strcmp(paths->texts[wanted->numbers[low]], entry->url) == 0;
         low++) {
        struct dataset_object *object = &wanted->dataset->objects[wanted->numbers[low]];
        is_stranger = false;
        wanted->found_count++;
        if (known_tag(&entry->version) != NULL && object->tag == NULL) {
            object->tag = strdup(entry->version.tag);
            object->size_bytes = entry->version.size_bytes;
            wanted->is_out_of_memory = object->tag == NULL;
        }
    }
    wanted->stranger_count += is_stranger;
    return !wanted->is_out_of_memory && wanted->found_count < wanted->count &&
           wanted->stranger_count < LISTED_STRANGERS_MAX;
}

/* What all wanted URLs begin with: at least the bucket. */
static char *common_prefix(const struct wanted *wanted)
{
    const struct text_list *paths = &wanted->dataset->paths;
    const char *first = paths->texts[wanted->numbers[0]];
    const char *last = paths->texts[wanted->numbers[wanted->count - 1]];
    size_t length = 0;
    while (first[length] != '\0' && first[length] == last[length]) {
        length++;
    }
    return strndup(first, length);
}

/* One listing in the place of many HEADs. What it does not tell is asked for afterwards, so its
 * failure is none: the right to list may be missing where reading is allowed. */
static int list_versions(struct dataset *dataset, const struct origin *origin, struct error *error)
{
    struct wanted wanted;
    if (!find_wanted(dataset, &wanted)) {
        return no_memory(error);
    }
    int result = 0;
    if (wanted.count >= LISTED_WANTED_MIN) {
        char *prefix = common_prefix(&wanted);
        struct remote_call call = call_of(origin);
        if (prefix == NULL) {
            result = no_memory(error);
        } else {
            remote_list(origin->remote, prefix, true, &call, visit_wanted, &wanted, NULL);
        }
        free(prefix);
    }
    free(wanted.numbers);
    return wanted.is_out_of_memory ? no_memory(error) : result;
}

struct heads {
    struct dataset *dataset;
    const struct origin *origin;
    atomic_size_t next;
    atomic_bool has_failed;
    pthread_mutex_t lock;
    size_t failed_number, missing_count;
    struct error error; /* of the first shard that failed */
};

static const char *url_of(const struct dataset *dataset, size_t number, char *buffer, size_t bytes)
{
    if (dataset->kind == INDEX_TAR) {
        return dataset->paths.texts[number];
    }
    int length =
        snprintf(buffer, bytes, "%s/%s", dataset->paths.texts[0], dataset->objects[number].key);
    return length > 0 && (size_t)length < bytes ? buffer : NULL;
}

static void note_failure(struct heads *heads, size_t number, const struct error *error)
{
    pthread_mutex_lock(&heads->lock);
    heads->missing_count += error->kind == ERROR_MISSING;
    if (!atomic_load(&heads->has_failed) || number < heads->failed_number) {
        heads->failed_number = number;
        heads->error = *error;
    }
    /* Missing ones are counted, so the rest is still asked for; other failures end it. */
    if (error->kind != ERROR_MISSING) {
        atomic_store(&heads->next, heads->dataset->object_count);
    }
    atomic_store(&heads->has_failed, true);
    pthread_mutex_unlock(&heads->lock);
}

static void ask_head(struct heads *heads, size_t number)
{
    struct dataset_object *object = &heads->dataset->objects[number];
    struct remote_call call = call_of(heads->origin);
    struct remote_version version = {0};
    struct error error = {.kind = ERROR_NONE};
    char buffer[REMOTE_URL_BYTES];
    const char *url = url_of(heads->dataset, number, buffer, sizeof buffer);
    if (url == NULL) {
        error_set(&error, ERROR_DATASET, "%s: a key is too long.", heads->dataset->paths.texts[0]);
    } else if (remote_head(heads->origin->remote, url, &call, &version, &error) == 0) {
        if (version.tag[0] == '\0') {
            error_set(&error, ERROR_DATASET,
                      "%s: its server tells neither ETag nor Last-Modified, so versions cannot be "
                      "told apart. Use another server.",
                      url);
        } else {
            object->tag = strdup(version.tag);
            object->size_bytes = version.size_bytes;
            if (object->tag == NULL) {
                no_memory(&error);
            }
        }
    }
    if (error.kind != ERROR_NONE) {
        note_failure(heads, number, &error);
    }
}

static void *ask_heads(void *argument)
{
    struct heads *heads = argument;
    size_t number;
    while ((number = atomic_fetch_add(&heads->next, 1)) < heads->dataset->object_count) {
        const struct dataset_object *object = &heads->dataset->objects[number];
        if (object->tag == NULL && (object->key == NULL || !ends_with(object->key, "/"))) {
            ask_head(heads, number);
        }
    }
    return NULL;
}

static int head_versions(struct dataset *dataset, const struct origin *origin, struct error *error)
{
    size_t unknown = 0;
    for (size_t i = 0; i < dataset->object_count; i++) {
        const char *key = dataset->objects[i].key;
        unknown += dataset->objects[i].tag == NULL && (key == NULL || !ends_with(key, "/"));
    }
    if (unknown == 0) {
        return 0;
    }
    struct heads heads = {.dataset = dataset, .origin = origin};
    pthread_mutex_init(&heads.lock, NULL);
    index_build_run(unknown < HEADS_AT_ONCE ? (uint32_t)unknown : HEADS_AT_ONCE, ask_heads, &heads);
    pthread_mutex_destroy(&heads.lock);
    if (!atomic_load(&heads.has_failed)) {
        return 0;
    }
    if (heads.missing_count > 0 && dataset->object_count > 1) {
        return error_set(
            error, ERROR_MISSING, "%zu of %zu objects are not there; the first is number %zu: %s",
            heads.missing_count, dataset->object_count, heads.failed_number + 1, heads.error.text);
    }
    return error_set(error, heads.error.kind, "%s", heads.error.text);
}

/* ---- All names --------------------------------------------------------------------------- */

/* A folder when its name says so, or when nothing has just this name. */
static int resolve_single(const char *url, const struct origin *origin, struct dataset *dataset,
                          struct error *error)
{
    bool is_folder = ends_with(url, "/") || strchr(url + 5, '/') == NULL;
    bool is_found = false;
    char *root = strdup(url);
    if (root == NULL) {
        return no_memory(error);
    }
    while (ends_with(root, "/")) {
        root[strlen(root) - 1] = '\0';
    }
    int result = list_folder(dataset, root, origin, &is_found, error);
    free(root);
    if (result < 0 && !is_found && !is_folder && error->kind == ERROR_MISSING) {
        text_list_clear(&dataset->paths);
        dataset->kind = INDEX_TAR;
        result = add_shard(dataset, url, NULL) ? 0 : no_memory(error);
    }
    return result;
}

static int add_name(struct dataset *dataset, const char *name, const struct origin *origin,
                    struct error *error)
{
    if (is_s3(name) && strpbrk(name, "*?[") != NULL) {
        return add_matches(dataset, name, origin, error);
    }
    if (ends_with(name, "/")) {
        return error_set(error, ERROR_DATASET,
                         "%s: %s. A data set is one prefix of images below s3:// or a list of tar "
                         "files; for the tar files of a prefix write \"%s*.tar\".",
                         name, is_s3(name) ? "a prefix among several names" : "no file", name);
    }
    return add_shard(dataset, name, NULL) ? 0 : no_memory(error);
}

int dataset_resolve_remote(const struct text_list *names, const struct origin *origin,
                           struct dataset *dataset, struct error *error)
{
    struct error own;
    error = error != NULL ? error : &own;
    const char *only = names->count == 1 ? names->texts[0] : NULL;
    int result = 0;
    if (only != NULL && is_s3(only) && strpbrk(only, "*?[") == NULL && !ends_with(only, ".tar")) {
        result = resolve_single(only, origin, dataset, error);
    } else {
        for (size_t i = 0; i < names->count && result == 0; i++) {
            result = add_name(dataset, names->texts[i], origin, error);
        }
    }
    if (result == 0 && dataset->kind == INDEX_TAR) {
        result = list_versions(dataset, origin, error);
    }
    return result == 0 ? head_versions(dataset, origin, error) : -1;
}
