#include "loader/dataset.h"

#include <ctype.h>
#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/remote/remote.h"

static int no_memory(struct error *error)
{
    return error_set(error, ERROR_MEMORY,
                     "No memory is left for the list of files of the data "
                     "set. Free some memory and try again.");
}

/* The length of "scheme:" before "//", or of "pipe:"; 0: a plain path. */
static size_t scheme_length(const char *url)
{
    size_t length = 0;
    while (isalnum((unsigned char)url[length]) ||
           (length > 0 && strchr("+.-", url[length]) && url[length] != '\0')) {
        length++;
    }
    if (length > 1 && strncmp(url + length, "://", 3) == 0) {
        return length + 1;
    }
    return strncmp(url, "pipe:", 5) == 0 ? 5 : 0;
}

/* Skip "file://"; refuse every other scheme. */
static const char *local_path(const char *url, struct error *error)
{
    size_t length = scheme_length(url);
    if (length == 0) {
        return url;
    }
    if (strncmp(url, "file:///", 8) == 0) {
        return url + 7;
    }
    if (remote_is_url(url)) {
        error_set(error, ERROR_DATASET,
                  "%s: a URL beside local files. Give either, or make a loader of each.", url);
        return NULL;
    }
    error_set(
        error, ERROR_DATASET,
        "%s: data behind \"%.*s\" cannot be read; what can is local files, s3://, https:// and "
        "http://. Copy the data to one of these.",
        url, (int)length, url);
    return NULL;
}

/* Absolute, without "//", "/." and a slash at the end; links and ".." stay. */
static char *absolute_path(const char *path)
{
    char *here = path[0] == '/' ? NULL : getcwd(NULL, 0);
    if (path[0] != '/' && here == NULL) {
        return NULL;
    }
    size_t here_length = here != NULL ? strlen(here) : 0;
    char *result = malloc(here_length + strlen(path) + 2);
    if (result != NULL) {
        memcpy(result, here != NULL ? here : "", here_length);
        size_t length = here_length == 1 ? 0 : here_length; /* the working directory is "/" */
        for (const char *at = path; *at != '\0';) {
            at += strspn(at, "/");
            size_t part = strcspn(at, "/");
            if (part > 0 && !(part == 1 && at[0] == '.')) {
                result[length++] = '/';
                memcpy(result + length, at, part);
                length += part;
            }
            at += part;
        }
        if (length == 0) {
            result[length++] = '/';
        }
        result[length] = '\0';
    }
    free(here);
    return result;
}

static int add_path(struct text_list *paths, const char *path, struct error *error)
{
    if (paths->count >= PATTERN_TEXTS_MAX) {
        return error_set(error, ERROR_DATASET,
                         "%s: the data set has more than %d files. Check its pattern.", path,
                         PATTERN_TEXTS_MAX);
    }
    char *absolute = absolute_path(path);
    bool is_added = absolute != NULL && text_list_add(paths, absolute, strlen(absolute));
    free(absolute);
    return is_added ? 0 : no_memory(error);
}

/* "*.tar": every match, sorted by bytes. */
static int add_matches(struct text_list *paths, const char *pattern, const char *url,
                       struct error *error)
{
    glob_t matches = {0};
    int result = glob(pattern, GLOB_NOSORT | GLOB_ERR, NULL, &matches);
    size_t first = paths->count;
    if (result == GLOB_NOMATCH) {
        result = error_set(error, ERROR_DATASET,
                           "%s: no file matches %s. Check the path and the pattern.", url, pattern);
    } else if (result == GLOB_ABORTED) {
        result = error_set(error, ERROR_DATASET,
                           "%s: a folder of this pattern cannot be read (%s). Make it readable for "
                           "user %u.",
                           pattern, strerror(errno), (unsigned)geteuid());
    } else if (result != 0) {
        result = no_memory(error);
    }
    for (size_t i = 0; i < matches.gl_pathc && result == 0; i++) {
        result = add_path(paths, matches.gl_pathv[i], error);
    }
    globfree(&matches);
    text_list_sort(paths, first);
    return result;
}

static int add_expanded(struct text_list *paths, const char *text, const char *url,
                        struct error *error)
{
    const char *path = local_path(text, error);
    if (path == NULL) {
        return -1;
    }
    if (path[0] == '\0') {
        return error_set(error, ERROR_DATASET,
                         "\"%s\": an empty path. Name a folder of images or tar files.", url);
    }
    if (strpbrk(path, "*?[") != NULL && access(path, F_OK) != 0) {
        return add_matches(paths, path, url, error);
    }
    return add_path(paths, path, error);
}

static int add_names(struct text_list *names, const char *name, const char *url,
                     struct error *error)
{
    int result = pattern_expand(name, names);
    if (result == -E2BIG) {
        return error_set(error, ERROR_DATASET,
                         "%s: the braces stand for more than %d files. Check the numbers.", url,
                         PATTERN_TEXTS_MAX);
    }
    return result < 0 ? no_memory(error) : 0;
}

/* One name between "::", braces and all. */
static int add_name(struct text_list *paths, const char *name, const char *url, struct error *error)
{
    if (access(name, F_OK) == 0) {
        return add_path(paths, name, error);
    }
    struct text_list expanded = {0};
    int result = add_names(&expanded, name, url, error);
    for (size_t i = 0; i < expanded.count && result == 0; i++) {
        result = add_expanded(paths, expanded.texts[i], url, error);
    }
    text_list_clear(&expanded);
    return result;
}

/* The "::" that ends a name, or NULL; not the one in "http://[::1]/". */
static const char *find_end(const char *name)
{
    const char *bracket = strstr(name, "://[");
    const char *from = bracket != NULL ? strchr(bracket, ']') : NULL;
    const char *end = strstr(name, "::");
    return end != NULL && from != NULL && end < from && end > bracket ? strstr(from, "::") : end;
}

typedef int (*name_taker)(struct text_list *list, const char *name, const char *url,
                          struct error *error);

/* Each of "a::b::c". */
static int split_url(struct text_list *list, const char *url, name_taker take, struct error *error)
{
    int result = 0;
    for (const char *at = url; result == 0;) {
        const char *end = find_end(at);
        char *name = end != NULL ? strndup(at, (size_t)(end - at)) : strdup(at);
        if (name == NULL) {
            return no_memory(error);
        }
        result = take(list, name, url, error);
        free(name);
        if (end == NULL) {
            break;
        }
        at = end + 2;
    }
    return result;
}

static int add_url(struct text_list *paths, const char *url, struct error *error)
{
    return access(url, F_OK) == 0 ? add_path(paths, url, error)
                                  : split_url(paths, url, add_name, error);
}

/* stat with the user's view of what went wrong. */
static int look_at(const struct dataset *dataset, size_t i, struct stat *status,
                   struct error *error)
{
    const char *path = dataset->paths.texts[i];
    if (stat(path, status) == 0) {
        return 0;
    }
    const char *what = errno == EACCES ? "Make it readable for this user."
                                       : "Check the path; if it is relative, give it absolute.";
    if (dataset->paths.count == 1) {
        return error_set(error, ERROR_DATASET, "%s: cannot be opened: %s. %s", path,
                         strerror(errno), what);
    }
    return error_set(error, ERROR_DATASET, "%s (file %zu of %zu): cannot be opened: %s. %s", path,
                     i + 1, dataset->paths.count, strerror(errno), what);
}

static int check_shard(const struct dataset *dataset, size_t i, struct error *error)
{
    struct stat status;
    if (look_at(dataset, i, &status, error) < 0) {
        return -1;
    }
    const char *path = dataset->paths.texts[i];
    if (S_ISDIR(status.st_mode)) {
        return error_set(error, ERROR_DATASET,
                         "%s: a folder among %zu files. A data set is one folder of images or a "
                         "list of tar files; for the tar files of a folder write \"%s/*.tar\".",
                         path, dataset->paths.count, path);
    }
    if (!S_ISREG(status.st_mode)) {
        return error_set(error, ERROR_DATASET,
                         "%s: not a regular file. Tar files are read at random, so pipes and "
                         "devices cannot be used; copy the data to a file.",
                         path);
    }
    return 0;
}

static bool is_one_folder(const struct dataset *dataset)
{
    struct stat status;
    return dataset->paths.count == 1 && stat(dataset->paths.texts[0], &status) == 0 &&
           S_ISDIR(status.st_mode);
}

static int resolve_folder(struct dataset *dataset, struct error *error)
{
    char *real = realpath(dataset->paths.texts[0], NULL);
    if (real == NULL) {
        return error_set(error, ERROR_DATASET, "%s: cannot be opened: %s.", dataset->paths.texts[0],
                         strerror(errno));
    }
    free(dataset->paths.texts[0]);
    dataset->paths.texts[0] = real;
    dataset->kind = INDEX_FOLDER;
    return 0;
}

static int resolve_local(const char *const *urls, size_t url_count, struct dataset *dataset,
                         struct error *error)
{
    int result = 0;
    for (size_t i = 0; i < url_count && result == 0; i++) {
        result = add_url(&dataset->paths, urls[i], error);
    }
    if (result == 0 && is_one_folder(dataset)) {
        return resolve_folder(dataset, error);
    }
    for (size_t i = 0; i < dataset->paths.count && result == 0; i++) {
        result = check_shard(dataset, i, error);
    }
    return result;
}

static int resolve_remote(const char *const *urls, size_t url_count, const struct origin *origin,
                          struct dataset *dataset, struct error *error)
{
    if (origin == NULL || origin->remote == NULL) {
        return error_set(error, ERROR_DATASET,
                         "%s: remote data cannot be read here; the daemon's log says why.",
                         urls[0]);
    }
    struct text_list names = {0};
    int result = 0;
    for (size_t i = 0; i < url_count && result == 0; i++) {
        result = split_url(&names, urls[i], add_names, error);
    }
    for (size_t i = 0; i < names.count && result == 0; i++) {
        if (!remote_is_url(names.texts[i])) {
            result = error_set(error, ERROR_DATASET,
                               "%s: a local file beside URLs (%s). Give either, or make a loader "
                               "of each.",
                               names.texts[i], urls[0]);
        }
    }
    if (result == 0) {
        result = dataset_resolve_remote(&names, origin, dataset, error);
    }
    text_list_clear(&names);
    return result;
}

int dataset_resolve(const char *const *urls, size_t url_count, const struct origin *origin,
                    struct dataset *dataset, struct error *error)
{
    *dataset = (struct dataset){.kind = INDEX_TAR};
    int result;
    if (url_count == 0) {
        result = error_set(error, ERROR_DATASET,
                           "The data set is empty. Name a folder of images or tar files.");
    } else if (remote_is_url(urls[0])) {
        dataset->is_remote = true;
        result = resolve_remote(urls, url_count, origin, dataset, error);
    } else {
        result = resolve_local(urls, url_count, dataset, error);
    }
    if (result < 0) {
        dataset_clear(dataset);
    }
    return result;
}

void dataset_clear(struct dataset *dataset)
{
    text_list_clear(&dataset->paths);
    for (size_t i = 0; i < dataset->object_count; i++) {
        free(dataset->objects[i].key);
        free(dataset->objects[i].tag);
    }
    free(dataset->objects);
    dataset->objects = NULL;
    dataset->object_count = 0;
    dataset->object_capacity = 0;
}

/* Names without their folder: the same data elsewhere is the same data set. */
bool dataset_fingerprint(const struct dataset *dataset, uint8_t fingerprint[INDEX_HASH_BYTES])
{
    struct index_hash *hash = index_hash_create();
    if (hash == NULL) {
        return false;
    }
    index_hash_add_u64(hash, dataset->kind);
    for (size_t i = 0; i < dataset->object_count; i++) {
        const struct dataset_object *object = &dataset->objects[i];
        const char *name =
            object->key != NULL ? object->key : strrchr(dataset->paths.texts[i], '/') + 1;
        index_hash_add_text(hash, name);
        index_hash_add_u64(hash, object->size_bytes);
        index_hash_add_text(hash, object->tag != NULL ? object->tag : "");
    }
    index_hash_value128(hash, fingerprint);
    index_hash_destroy(hash);
    return true;
}
