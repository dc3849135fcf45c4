#include "loader/catalog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loader/catalog_private.h"
#include "loader/index_build.h"
#include "loader/index_join.h"

enum {
    THREADS = 8,       /* shards scanned at once; each is read with many requests at once */
    IDLE_SECONDS = 60, /* catalogs that nobody uses are kept so long */
    THREAD_STACK_BYTES = 256 * 1024,
};

enum shard_state { SHARD_UNKNOWN = 0, SHARD_WANTED, SHARD_SCANNING, SHARD_KNOWN, SHARD_FAILED };

struct shard {
    _Atomic(struct index *) index; /* NULL until it is known */
    enum shard_state state;        /* this and below under the registry's lock */
    struct error *error;           /* SHARD_FAILED; may be NULL: no memory for it */
};

struct catalog {
    struct catalogs *catalogs;
    struct dataset dataset;
    char *profile;
    uint8_t fingerprint[INDEX_HASH_BYTES];
    uint64_t data_bytes;
    atomic_uint reference_count; /* of users; the registry frees it some time after the last */
    atomic_uint_fast64_t changes, sample_count;
    atomic_uint_fast32_t known_count;
    struct index_progress progress; /* is_cancelled: nobody uses it, or the end */
    struct shard *shards;
    /* Under the registry's lock. */
    uint32_t *queue; /* shards in the state SHARD_WANTED, a ring */
    uint32_t queue_first, queue_count;
    uint32_t all_next; /* wants_all: shards before this one were looked at */
    bool wants_all;
    uint32_t scan_count; /* going on */
    time_t idle_since_s;
    struct index *whole;
    struct catalog *next;
};

struct catalogs {
    struct catalogs_options options;
    pthread_mutex_t lock;
    pthread_cond_t work, change;
    struct catalog *first;
    pthread_t threads[THREADS];
    uint32_t thread_count, waiting_count;
    bool is_stopping;
};

/* ---- What is known ---------------------------------------------------------------------- */

const struct dataset *catalog_dataset(const struct catalog *catalog)
{
    return &catalog->dataset;
}

const char *catalog_profile(const struct catalog *catalog)
{
    return catalog->profile;
}

const uint8_t *catalog_fingerprint(const struct catalog *catalog)
{
    return catalog->fingerprint;
}

uint32_t catalog_shard_count(const struct catalog *catalog)
{
    return (uint32_t)catalog->dataset.paths.count;
}

uint64_t catalog_data_bytes(const struct catalog *catalog)
{
    return catalog->data_bytes;
}

const struct index *catalog_shard(const struct catalog *catalog, uint32_t shard)
{
    return atomic_load_explicit(&catalog->shards[shard].index, memory_order_acquire);
}

uint64_t catalog_sample_count(const struct catalog *catalog)
{
    return atomic_load(&catalog->known_count) == catalog_shard_count(catalog)
               ? atomic_load(&catalog->sample_count)
               : UINT64_MAX;
}

uint64_t catalog_known_bytes(const struct catalog *catalog)
{
    uint64_t bytes = atomic_load(&catalog->progress.done_count);
    return bytes < catalog->data_bytes ? bytes : catalog->data_bytes;
}

uint64_t catalog_changes(const struct catalog *catalog)
{
    return atomic_load(&catalog->changes);
}

/* ---- Making and letting go -------------------------------------------------------------- */

static void catalog_free(struct catalog *catalog)
{
    for (size_t i = 0; catalog->shards != NULL && i < catalog->dataset.paths.count; i++) {
        index_unref(atomic_load(&catalog->shards[i].index));
        free(catalog->shards[i].error);
    }
    index_unref(catalog->whole);
    free(catalog->shards);
    free(catalog->queue);
    free(catalog->profile);
    dataset_clear(&catalog->dataset);
    free(catalog);
}

static struct catalog *catalog_create(struct catalogs *catalogs, struct dataset *dataset,
                                      const char *profile)
{
    struct catalog *catalog = calloc(1, sizeof *catalog);
    if (catalog == NULL) {
        return NULL;
    }
    size_t count = dataset->paths.count;
    catalog->catalogs = catalogs;
    catalog->profile = strdup(profile != NULL ? profile : "");
    catalog->shards = calloc(count, sizeof *catalog->shards);
    catalog->queue = calloc(count, sizeof *catalog->queue);
    if (catalog->profile == NULL || catalog->shards == NULL || catalog->queue == NULL ||
        !dataset_fingerprint(dataset, catalog->fingerprint)) {
        catalog_free(catalog);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        catalog->data_bytes += dataset->objects[i].size_bytes;
    }
    catalog->dataset = *dataset;
    *dataset = (struct dataset){.kind = INDEX_TAR};
    atomic_init(&catalog->reference_count, 1);
    return catalog;
}

static bool is_same(const struct catalog *catalog, const struct dataset *dataset,
                    const uint8_t *fingerprint, const char *profile)
{
    const struct text_list *ours = &catalog->dataset.paths;
    if (memcmp(catalog->fingerprint, fingerprint, INDEX_HASH_BYTES) != 0 ||
        strcmp(catalog->profile, profile != NULL ? profile : "") != 0 ||
        ours->count != dataset->paths.count) {
        return false;
    }
    for (size_t i = 0; i < ours->count; i++) {
        if (strcmp(ours->texts[i], dataset->paths.texts[i]) != 0) {
            return false;
        }
    }
    return true;
}

struct catalog *catalog_open(struct catalogs *catalogs, struct dataset *dataset,
                             const char *profile, struct error *error)
{
    uint8_t fingerprint[INDEX_HASH_BYTES];
    struct catalog *catalog = NULL;
    if (dataset_fingerprint(dataset, fingerprint)) {
        pthread_mutex_lock(&catalogs->lock);
        for (catalog = catalogs->first; catalog != NULL; catalog = catalog->next) {
            if (is_same(catalog, dataset, fingerprint, profile)) {
                atomic_store(&catalog->progress.is_cancelled, false);
                catalog_ref(catalog);
                break;
            }
        }
        if (catalog == NULL) {
            catalog = catalog_create(catalogs, dataset, profile);
            if (catalog != NULL) {
                catalog->next = catalogs->first;
                catalogs->first = catalog;
            }
        }
        pthread_mutex_unlock(&catalogs->lock);
    }
    if (catalog == NULL) {
        error_set(error, ERROR_MEMORY, "No memory is left for a data set of %zu shards.",
                  dataset->paths.count);
    }
    return catalog;
}

struct catalog *catalog_ref(struct catalog *catalog)
{
    atomic_fetch_add(&catalog->reference_count, 1);
    return catalog;
}

void catalog_unref(struct catalog *catalog)
{
    if (catalog != NULL) {
        atomic_fetch_sub(&catalog->reference_count, 1);
    }
}

/* ---- Scanning --------------------------------------------------------------------------- */

/* The next shard that is wanted, or false. */
static bool take_shard(struct catalog *catalog, uint32_t *number)
{
    if (catalog->queue_count > 0) {
        *number = catalog->queue[catalog->queue_first];
        catalog->queue_first = (catalog->queue_first + 1) % catalog_shard_count(catalog);
        catalog->queue_count--;
        return true;
    }
    while (catalog->wants_all && catalog->all_next < catalog_shard_count(catalog)) {
        *number = catalog->all_next++;
        if (catalog->shards[*number].state == SHARD_UNKNOWN) {
            return true;
        }
    }
    return false;
}

static struct catalog *find_work(struct catalogs *catalogs, uint32_t *number)
{
    for (struct catalog *catalog = catalogs->first; catalog != NULL; catalog = catalog->next) {
        if (atomic_load(&catalog->reference_count) > 0 && take_shard(catalog, number)) {
            return catalog;
        }
    }
    return NULL;
}

static void note_result(struct catalog *catalog, uint32_t number, struct index *index,
                        const struct error *error)
{
    struct shard *shard = &catalog->shards[number];
    if (index != NULL) {
        atomic_fetch_add(&catalog->sample_count, index_sample_count(index));
        atomic_store_explicit(&shard->index, index, memory_order_release);
        shard->state = SHARD_KNOWN;
        atomic_fetch_add(&catalog->known_count, 1);
    } else if (error->kind == ERROR_CANCELLED) {
        shard->state = SHARD_UNKNOWN;
        catalog->all_next = 0;
    } else {
        shard->state = SHARD_FAILED;
        shard->error = malloc(sizeof *shard->error);
        if (shard->error != NULL) {
            *shard->error = *error;
        }
    }
}

/* Without the lock while it scans. */
static void scan_one(struct catalogs *catalogs, struct catalog *catalog, uint32_t number)
{
    struct catalog_scan scan = {
        .store = catalogs->options.store,
        .cache_folder = catalogs->options.cache_folder,
        .profile = catalog->profile,
        .url = catalog->dataset.paths.texts[number],
        .object = &catalog->dataset.objects[number],
        .progress = &catalog->progress,
    };
    struct error error = {.kind = ERROR_NONE};
    catalog->shards[number].state = SHARD_SCANNING;
    catalog->scan_count++;
    pthread_mutex_unlock(&catalogs->lock);
    struct index *index = catalog_scan_shard(&scan, &error);
    bool was_cancelled = atomic_load(&catalog->progress.is_cancelled);
    pthread_mutex_lock(&catalogs->lock);
    if (index == NULL && was_cancelled) {
        error.kind = ERROR_CANCELLED;
    }
    note_result(catalog, number, index, &error);
    atomic_fetch_add(&catalog->changes, 1);
    pthread_cond_broadcast(&catalogs->change);
    pthread_mutex_unlock(&catalogs->lock);
    catalogs->options.on_change(catalogs->options.context);
    pthread_mutex_lock(&catalogs->lock);
    catalog->scan_count--;
}

/* Catalogs without users: their scans end at once, they themselves after a while. */
static void sweep(struct catalogs *catalogs)
{
    time_t now_s = time(NULL);
    for (struct catalog **link = &catalogs->first; *link != NULL;) {
        struct catalog *catalog = *link;
        if (atomic_load(&catalog->reference_count) > 0) {
            catalog->idle_since_s = now_s;
        } else {
            atomic_store(&catalog->progress.is_cancelled, true);
            if (catalog->scan_count == 0 && now_s - catalog->idle_since_s > IDLE_SECONDS) {
                *link = catalog->next;
                catalog_free(catalog);
                continue;
            }
        }
        link = &catalog->next;
    }
}

static struct timespec later_ms(long milliseconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += milliseconds / 1000;
    until.tv_nsec += milliseconds % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    return until;
}

static void *run_thread(void *argument)
{
    struct catalogs *catalogs = argument;
    pthread_mutex_lock(&catalogs->lock);
    while (!catalogs->is_stopping) {
        uint32_t number = 0;
        struct catalog *catalog = find_work(catalogs, &number);
        if (catalog != NULL) {
            scan_one(catalogs, catalog, number);
            continue;
        }
        sweep(catalogs);
        struct timespec until = later_ms(1000);
        catalogs->waiting_count++;
        pthread_cond_timedwait(&catalogs->work, &catalogs->lock, &until);
        catalogs->waiting_count--;
    }
    pthread_mutex_unlock(&catalogs->lock);
    return NULL;
}

/* Have a thread for each of `count` more shards, as far as there are threads. */
static void wake_threads(struct catalogs *catalogs, uint32_t count)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
    while (!catalogs->is_stopping && catalogs->waiting_count < count &&
           catalogs->thread_count < THREADS &&
           pthread_create(&catalogs->threads[catalogs->thread_count], &attributes, run_thread,
                          catalogs) == 0) {
        catalogs->thread_count++;
        count--;
    }
    pthread_attr_destroy(&attributes);
    pthread_cond_broadcast(&catalogs->work);
}

/* ---- Wanting ---------------------------------------------------------------------------- */

static bool enqueue(struct catalog *catalog, uint32_t number)
{
    struct shard *shard = &catalog->shards[number];
    if (shard->state != SHARD_UNKNOWN && shard->state != SHARD_FAILED) {
        return false;
    }
    free(shard->error);
    shard->error = NULL;
    shard->state = SHARD_WANTED;
    uint32_t place = (uint32_t)(((uint64_t)catalog->queue_first + catalog->queue_count) %
                                catalog_shard_count(catalog));
    catalog->queue[place] = number;
    catalog->queue_count++;
    return true;
}

void catalog_want(struct catalog *catalog, const uint32_t *shards, uint32_t count)
{
    struct catalogs *catalogs = catalog->catalogs;
    uint32_t added = 0;
    pthread_mutex_lock(&catalogs->lock);
    for (uint32_t i = 0; i < count; i++) {
        added += enqueue(catalog, shards[i]);
    }
    if (added > 0) {
        wake_threads(catalogs, added);
    }
    pthread_mutex_unlock(&catalogs->lock);
}

void catalog_want_all(struct catalog *catalog)
{
    struct catalogs *catalogs = catalog->catalogs;
    pthread_mutex_lock(&catalogs->lock);
    for (uint32_t i = 0; i < catalog_shard_count(catalog); i++) {
        if (catalog->shards[i].state == SHARD_FAILED) {
            free(catalog->shards[i].error);
            catalog->shards[i].error = NULL;
            catalog->shards[i].state = SHARD_UNKNOWN;
        }
    }
    catalog->wants_all = true;
    catalog->all_next = 0;
    wake_threads(catalogs, THREADS);
    pthread_mutex_unlock(&catalogs->lock);
}

bool catalog_has_failed(struct catalog *catalog, uint32_t number, struct error *error)
{
    struct catalogs *catalogs = catalog->catalogs;
    pthread_mutex_lock(&catalogs->lock);
    const struct shard *shard = &catalog->shards[number];
    bool has_failed = shard->state == SHARD_FAILED;
    if (has_failed && shard->error != NULL) {
        *error = *shard->error;
    } else if (has_failed) {
        error_set(error, ERROR_MEMORY, "No memory is left to index the data set.");
    }
    pthread_mutex_unlock(&catalogs->lock);
    return has_failed;
}

void catalog_wait(struct catalog *catalog, uint64_t seen)
{
    struct catalogs *catalogs = catalog->catalogs;
    struct timespec until = later_ms(100);
    pthread_mutex_lock(&catalogs->lock);
    while (catalog_changes(catalog) == seen && !catalogs->is_stopping &&
           pthread_cond_timedwait(&catalogs->change, &catalogs->lock, &until) == 0) {
    }
    pthread_mutex_unlock(&catalogs->lock);
}

/* ---- All together ----------------------------------------------------------------------- */

static struct index *join_all(struct catalog *catalog, char *warning, struct error *error)
{
    struct index_draft draft;
    index_draft_init(&draft, INDEX_TAR);
    for (uint32_t i = 0; i < catalog_shard_count(catalog) && !draft.is_out_of_memory; i++) {
        struct index_part part = index_part_of_index(catalog_shard(catalog, i));
        index_join(&draft, &part);
    }
    memcpy(draft.fingerprint, catalog->fingerprint, sizeof draft.fingerprint);
    if (draft.is_out_of_memory) {
        index_draft_clear(&draft);
        index_build_no_memory(error);
        return NULL;
    }
    struct index_options options = {.cache_folder = catalog->catalogs->options.cache_folder};
    return index_finish(&options, &catalog->dataset, &draft, warning, error);
}

/* The first shard that failed; false: none did. */
static bool find_failure(struct catalog *catalog, struct error *error)
{
    for (uint32_t i = 0; i < catalog_shard_count(catalog); i++) {
        if (catalog_has_failed(catalog, i, error)) {
            return true;
        }
    }
    return false;
}

static int wait_for_all(struct catalog *catalog, struct index_progress *progress,
                        struct error *error)
{
    catalog_want_all(catalog);
    for (uint64_t looked = UINT64_MAX;;) {
        uint64_t changes = catalog_changes(catalog);
        if (progress != NULL) {
            atomic_store(&progress->total_count, catalog->data_bytes);
            atomic_store(&progress->done_count, catalog_known_bytes(catalog));
        }
        if (catalog_sample_count(catalog) != UINT64_MAX) {
            return 0;
        }
        if (changes != looked && find_failure(catalog, error)) {
            return -1;
        }
        if (index_build_is_cancelled(progress) || catalog->catalogs->is_stopping) {
            return index_build_cancelled(error);
        }
        looked = changes;
        catalog_wait(catalog, changes);
    }
}

struct index *catalog_whole(struct catalog *catalog, struct index_progress *progress, char *warning,
                            struct error *error)
{
    struct catalogs *catalogs = catalog->catalogs;
    if (wait_for_all(catalog, progress, error) < 0) {
        return NULL;
    }
    pthread_mutex_lock(&catalogs->lock);
    struct index *index = catalog->whole != NULL ? index_ref(catalog->whole) : NULL;
    pthread_mutex_unlock(&catalogs->lock);
    if (index != NULL) {
        return index;
    }
    index = join_all(catalog, warning, error);
    if (index != NULL) {
        pthread_mutex_lock(&catalogs->lock);
        if (catalog->whole == NULL) { /* not made by somebody else meanwhile */
            catalog->whole = index_ref(index);
        }
        pthread_mutex_unlock(&catalogs->lock);
    }
    return index;
}

/* ---- The registry ----------------------------------------------------------------------- */

struct catalogs *catalogs_create(const struct catalogs_options *options)
{
    struct catalogs *catalogs = calloc(1, sizeof *catalogs);
    if (catalogs == NULL) {
        return NULL;
    }
    catalogs->options = *options;
    pthread_mutex_init(&catalogs->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&catalogs->work, &attributes);
    pthread_cond_init(&catalogs->change, &attributes);
    pthread_condattr_destroy(&attributes);
    return catalogs;
}

void catalogs_stop(struct catalogs *catalogs)
{
    if (catalogs == NULL) {
        return;
    }
    pthread_mutex_lock(&catalogs->lock);
    catalogs->is_stopping = true;
    for (struct catalog *catalog = catalogs->first; catalog != NULL; catalog = catalog->next) {
        atomic_store(&catalog->progress.is_cancelled, true);
    }
    pthread_cond_broadcast(&catalogs->work);
    pthread_cond_broadcast(&catalogs->change);
    pthread_mutex_unlock(&catalogs->lock);
    for (uint32_t i = 0; i < catalogs->thread_count; i++) {
        pthread_join(catalogs->threads[i], NULL);
    }
    catalogs->thread_count = 0;
}

void catalogs_destroy(struct catalogs *catalogs)
{
    if (catalogs == NULL) {
        return;
    }
    catalogs_stop(catalogs);
    while (catalogs->first != NULL) {
        struct catalog *catalog = catalogs->first;
        catalogs->first = catalog->next;
        catalog_free(catalog);
    }
    pthread_cond_destroy(&catalogs->work);
    pthread_cond_destroy(&catalogs->change);
    pthread_mutex_destroy(&catalogs->lock);
    free(catalogs);
}
