/* Pins and times to live: rules on prefixes of URLs, kept in "rules.json" beside the chunk files.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "loader/cache/store_manage.h"
#include "loader/cache/store_private.h"
#include "loader/log.h"

enum { RULES_MAX = 4096, FILE_BYTES_MAX = 32 << 20, VERSION = 1 };

static const char file_name[] = "rules.json";
static const char temporary_name[] = "temporary-rules"; /* a scan of the folder removes it */

struct rule {
    char *prefix;
    bool is_pinned;
    uint32_t ttl_s; /* 0: none */
};

struct rules {
    struct rule *list;
    size_t count;
};

static void rules_free(struct rules *rules)
{
    for (size_t i = 0; rules != NULL && i < rules->count; i++) {
        free(rules->list[i].prefix);
    }
    if (rules != NULL) {
        free(rules->list);
    }
    free(rules);
}

/* An empty list with room for `count`, or NULL. */
static struct rules *rules_new(size_t count)
{
    struct rules *rules = calloc(1, sizeof *rules);
    if (rules != NULL) {
        rules->list = calloc(count > 0 ? count : 1, sizeof *rules->list);
    }
    if (rules == NULL || rules->list == NULL) {
        free(rules);
        return NULL;
    }
    return rules;
}

static bool add_rule(struct rules *rules, const char *prefix, bool is_pinned, uint32_t ttl_s)
{
    char *copy = strdup(prefix);
    if (copy != NULL) {
        rules->list[rules->count++] = (struct rule){copy, is_pinned, ttl_s};
    }
    return copy != NULL;
}

/* ---- The file ---------------------------------------------------------------------------- */

/* The rules of a parsed file; NULL when it is none of ours. */
static struct rules *rules_of_json(const json_t *root)
{
    const json_t *list = json_object_get(root, "rules");
    size_t count = json_array_size(list);
    if (json_integer_value(json_object_get(root, "version")) != VERSION || !json_is_array(list) ||
        count > RULES_MAX) {
        return NULL;
    }
    struct rules *rules = rules_new(count);
    for (size_t i = 0; rules != NULL && i < count; i++) {
        const json_t *rule = json_array_get(list, i);
        const char *prefix = json_string_value(json_object_get(rule, "prefix"));
        json_int_t ttl_s = json_integer_value(json_object_get(rule, "ttl_seconds"));
        if (prefix == NULL || strlen(prefix) >= REMOTE_URL_BYTES || ttl_s < 0 ||
            ttl_s > UINT32_MAX ||
            !add_rule(rules, prefix, json_is_true(json_object_get(rule, "pinned")),
                      (uint32_t)ttl_s)) {
            rules_free(rules);
            return NULL;
        }
    }
    return rules;
}

/* A new text of the file; NULL: no memory. */
static char *text_of_rules(const struct rules *rules)
{
    json_t *list = json_array();
    for (size_t i = 0; i < rules->count; i++) {
        const struct rule *rule = &rules->list[i];
        json_t *one = json_pack("{s:s, s:b, s:I}", "prefix", rule->prefix, "pinned",
                                (int)rule->is_pinned, "ttl_seconds", (json_int_t)rule->ttl_s);
        if (json_array_append_new(list, one) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    json_t *root = json_pack("{s:i, s:o}", "version", VERSION, "rules", list);
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    return text;
}

/* 0, or an errno. Pins are a user's words, so unlike chunks they are synced. */
static int write_text(int folder_fd, const char *text)
{
    unlinkat(folder_fd, temporary_name, 0);
    int fd = openat(folder_fd, temporary_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                    0600);
    int error = fd >= 0 ? 0 : errno;
    size_t size = strlen(text);
    for (size_t done = 0; error == 0 && done < size;) {
        ssize_t wrote = write(fd, text + done, size - done);
        if (wrote < 0 && errno != EINTR) {
            error = errno;
        }
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    if (error == 0 &&
        (fsync(fd) != 0 || renameat(folder_fd, temporary_name, folder_fd, file_name) != 0)) {
        error = errno;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (error != 0) {
        unlinkat(folder_fd, temporary_name, 0);
    }
    return error;
}

/* The file's rules. NULL: there is no file (*why NULL), or it is not used (*why says it). */
static struct rules *read_file(int folder_fd, const char **why)
{
    int fd = openat(folder_fd, file_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat status;
    *why = NULL;
    if (fd < 0) {
        *why = errno == ENOENT ? NULL : strerror(errno);
        return NULL;
    }
    struct rules *rules = NULL;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_uid != geteuid() ||
        status.st_size > FILE_BYTES_MAX) {
        *why = "it is no file of ours";
    } else {
        json_t *root = json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
        rules = rules_of_json(root);
        json_decref(root);
        *why = rules == NULL ? "it is damaged" : NULL;
    }
    close(fd);
    return rules;
}

/* ---- Use --------------------------------------------------------------------------------- */

static void apply_to_all(struct store *store)
{
    for (size_t i = 0; i < store->bucket_count; i++) {
        for (struct chunk *chunk = store->buckets[i]; chunk != NULL; chunk = chunk->hash_next) {
            rules_apply(store, chunk);
        }
    }
    schedule_changed(store);
}

void rules_load(struct store *store)
{
    const char *why;
    struct rules *rules = read_file(store->folder_fd, &why);
    if (why != NULL) {
        char folder[1200];
        log_warn("cache_rules_unusable", "file=%s/%s error=\"%s\"",
                 log_quote(store->folder, folder, sizeof folder), file_name, why);
    }
    pthread_mutex_lock(&store->manage_lock);
    pthread_mutex_lock(&store->lock);
    rules_free(store->rules);
    store->rules = rules;
    apply_to_all(store);
    pthread_mutex_unlock(&store->lock);
    pthread_mutex_unlock(&store->manage_lock);
}

void rules_destroy(struct store *store)
{
    rules_free(store->rules);
    store->rules = NULL;
}

bool rules_exist(const struct store *store)
{
    return store->rules != NULL && store->rules->count > 0;
}

bool rules_may_expire(const struct store *store)
{
    bool has_ttl = false;
    for (size_t i = 0; store->rules != NULL && i < store->rules->count; i++) {
        has_ttl |= store->rules->list[i].ttl_s > 0;
    }
    return has_ttl;
}

void rules_apply(struct store *store, struct chunk *chunk)
{
    if (chunk->object == NULL) {
        return;
    }
    chunk->is_pinned = false;
    chunk->ttl_s = 0;
    size_t longest = 0;
    for (size_t i = 0; store->rules != NULL && i < store->rules->count; i++) {
        const struct rule *rule = &store->rules->list[i];
        size_t length = strlen(rule->prefix);
        if (strncmp(chunk->object->url, rule->prefix, length) != 0) {
            continue;
        }
        chunk->is_pinned |= rule->is_pinned;
        if (rule->ttl_s > 0 && length >= longest) {
            chunk->ttl_s = rule->ttl_s;
            longest = length;
        }
    }
}

bool rules_expired(const struct chunk *chunk, int64_t now_s)
{
    return chunk->ttl_s > 0 && chunk->fetched_s > 0 &&
           now_s >= (int64_t)chunk->fetched_s + chunk->ttl_s;
}

/* ---- Changes ------------------------------------------------------------------------------ */

struct change {
    const char *prefix;
    bool is_of_pins; /* else of times to live */
    bool is_pinned;
    uint32_t ttl_s;
    bool takes_back; /* rules of its kind, of the prefix and of longer ones */
};

static bool begins_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* The rules as they will be; NULL: no memory. Under manage_lock, which alone changes them. */
static struct rules *changed_rules(const struct rules *old, const struct change *change)
{
    size_t count = old != NULL ? old->count : 0;
    struct rules *rules = rules_new(count + 1);
    bool is_good = rules != NULL, is_there = false;
    for (size_t i = 0; is_good && i < count; i++) {
        struct rule rule = old->list[i];
        bool is_meant = change->takes_back ? begins_with(rule.prefix, change->prefix)
                                           : strcmp(rule.prefix, change->prefix) == 0;
        if (is_meant && change->is_of_pins) {
            rule.is_pinned = change->is_pinned;
        } else if (is_meant) {
            rule.ttl_s = change->ttl_s;
        }
        is_there |= is_meant;
        if (rule.is_pinned || rule.ttl_s > 0) {
            is_good = add_rule(rules, rule.prefix, rule.is_pinned, rule.ttl_s);
        }
    }
    if (is_good && !is_there && !change->takes_back) {
        is_good = add_rule(rules, change->prefix, change->is_pinned, change->ttl_s);
    }
    if (!is_good) {
        rules_free(rules);
        rules = NULL;
    }
    return rules;
}

static int write_rules(struct store *store, const struct rules *rules, struct error *error)
{
    if (rules != NULL && rules->count > RULES_MAX) {
        return error_set(error, ERROR_USAGE,
                         "The cache has %d rules for prefixes, which is the limit; take some back "
                         "(unpin, ttl 0), or give a shorter prefix.",
                         RULES_MAX);
    }
    char *text = rules != NULL ? text_of_rules(rules) : NULL;
    if (text == NULL) {
        return error_set(error, ERROR_MEMORY, "no memory for the cache's rules.");
    }
    int reason = write_text(store->folder_fd, text);
    free(text);
    return reason == 0 ? 0
                       : error_set(error, ERROR_IO,
                                   "%.1000s/%s cannot be written: %s; nothing was changed. Make "
                                   "room, or mend the folder.",
                                   store->folder, file_name, strerror(reason));
}

/* Only the daemon that has the chunk files keeps rules for them. */
static int check_folder(struct store *store, struct error *error)
{
    pthread_mutex_lock(&store->lock);
    bool owns_folder = store->owns_folder;
    pthread_mutex_unlock(&store->lock);
    if (owns_folder) {
        return 0;
    }
    return store->folder_fd < 0
               ? error_set(error, ERROR_STATE,
                           "This daemon has no cache on disk, so there is nothing to keep; give it "
                           "a folder (PENSTOCK_CACHE).")
               : error_set(error, ERROR_STATE,
                           "Another daemon has the cache folder %.1000s; ask that one (--address).",
                           store->folder);
}

/* Written first, used afterwards. */
static int change_rules(struct store *store, const struct change *change, struct error *error)
{
    if (strlen(change->prefix) >= REMOTE_URL_BYTES) {
        return error_set(error, ERROR_USAGE, "a prefix of %zu bytes: at most %d.",
                         strlen(change->prefix), REMOTE_URL_BYTES - 1);
    }
    if (store_identify(store, NULL, error) != 0 || check_folder(store, error) != 0) {
        return -1;
    }
    pthread_mutex_lock(&store->manage_lock);
    struct rules *rules = changed_rules(store->rules, change);
    int status = write_rules(store, rules, error);
    if (status == 0) {
        pthread_mutex_lock(&store->lock);
        struct rules *old = store->rules;
        store->rules = rules;
        rules = old;
        apply_to_all(store);
        schedule(store);
        pthread_mutex_unlock(&store->lock);
    }
    rules_free(rules);
    pthread_mutex_unlock(&store->manage_lock);
    return status;
}

int store_pin(struct store *store, const char *prefix, struct error *error)
{
    struct change change = {.prefix = prefix, .is_of_pins = true, .is_pinned = true};
    return change_rules(store, &change, error);
}

int store_unpin(struct store *store, const char *prefix, struct error *error)
{
    struct change change = {.prefix = prefix, .is_of_pins = true, .takes_back = true};
    return change_rules(store, &change, error);
}

int store_ttl(struct store *store, const char *prefix, uint64_t seconds, struct error *error)
{
    struct change change = {.prefix = prefix,
                            .ttl_s = seconds < UINT32_MAX ? (uint32_t)seconds : UINT32_MAX,
                            .takes_back = seconds == 0};
    return change_rules(store, &change, error);
}

void store_rules(struct store *store, void (*visit)(void *context, const struct store_rule *rule),
                 void *context)
{
    pthread_mutex_lock(&store->manage_lock);
    for (size_t i = 0; store->rules != NULL && i < store->rules->count; i++) {
        const struct rule *rule = &store->rules->list[i];
        struct store_rule shown = {rule->prefix, rule->is_pinned, rule->ttl_s};
        visit(context, &shown);
    }
    pthread_mutex_unlock(&store->manage_lock);
}
