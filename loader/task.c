#include "loader/task.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "decode/decoder.h"
#include "ipc/region.h"
#include "loader/cache/store.h"
#include "loader/catalog.h"
#include "loader/data_change.h"
#include "loader/dataset.h"
#include "loader/field_map.h"
#include "loader/reader.h"
#include "loader/reply.h"
#include "loader/task_cache.h"

enum { TASK_STACK_BYTES = 1 << 20 };

/* ---- The subset ------------------------------------------------------------------------- */

/* Read the client's list of canonical indices: a copy, since it may write to it at any time. */
static int read_subset(int fd, uint64_t **subset, uint64_t *count, struct error *error)
{
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) ||
        status.st_size % (off_t)sizeof(uint64_t) != 0 ||
        (uint64_t)status.st_size > PLAN_SAMPLES_MAX) {
        return error_set(error, ERROR_PROTOCOL,
                         "subset: a memfd of 64-bit indices must come with the request.");
    }
    size_t bytes = (size_t)status.st_size;
    if (bytes > region_memory_available_bytes() / 4) {
        return error_set(error, ERROR_MEMORY, "subset: %zu bytes of indices are too much here.",
                         bytes);
    }
    uint64_t *copy = malloc(bytes > 0 ? bytes : 1);
    if (copy == NULL) {
        return error_set(error, ERROR_MEMORY, "no memory for a subset of %zu bytes.", bytes);
    }
    for (size_t done = 0; done < bytes;) {
        ssize_t got = pread(fd, (char *)copy + done, bytes - done, (off_t)done);
        if (got <= 0) {
            free(copy);
            return error_set(error, ERROR_PROTOCOL, "subset: the memfd cannot be read.");
        }
        done += (size_t)got;
    }
    *subset = copy;
    *count = bytes / sizeof(uint64_t);
    return 0;
}

/* ---- The operations --------------------------------------------------------------------- */

/* Resolve the data set and open what is known of it: an index, or a catalog of remote tars. */
static int open_data(struct task *task, bool *was_built, char *warning)
{
    *was_built = false;
    warning[0] = '\0';
    if (task->index != NULL || task->catalog != NULL) {
        return 0;
    }
    struct origin origin = {.remote = task->remote,
                            .store = task->store,
                            .profile = task->request.spec.profile,
                            .cancel = &task->progress.is_cancelled};
    struct dataset dataset;
    struct index_options options = {
        .urls = (const char *const *)task->request.urls,
        .url_count = task->request.url_count,
        .cache_folder = task->cache_folder,
        .thread_count = task->index_threads,
        .rebuild = task->request.rebuild,
    };
    if (dataset_resolve(options.urls, options.url_count, &origin, &dataset, &task->error) < 0) {
        return -1;
    }
    if (dataset.is_remote && dataset.kind == INDEX_TAR) {
        bool may_be_kept = options.cache_folder != NULL && !options.rebuild;
        task->index = may_be_kept ? index_open_stored(options.cache_folder, &dataset) : NULL;
        if (task->index == NULL) {
            *was_built = true;
            task->catalog =
                catalog_open(task->catalogs, &dataset, task->request.spec.profile, &task->error);
        }
    } else {
        index_open_dataset(&options, &dataset, &task->progress, &task->index, was_built, warning,
                           &task->error);
    }
    dataset_clear(&dataset);
    return task->index != NULL || task->catalog != NULL ? 0 : -1;
}

/* Have the index of everything, however long that takes. */
static int open_whole(struct task *task, char *warning)
{
    if (task->index == NULL) {
        task->index = catalog_whole(task->catalog, &task->progress, warning, &task->error);
    }
    return task->index != NULL ? 0 : -1;
}

/* Can this be done with the shards that happen to be known? */
static bool needs_whole(const struct task *task)
{
    const struct request *request = &task->request;
    switch ((int)request->op) {
    case REQUEST_DATASET: return request->wait;
    case REQUEST_PRELOAD: return false;
    case REQUEST_PLAN:
    case REQUEST_ATTACH:
        return request->spec.order != PLAN_WINDOW || request->has_subset ||
               request->spec.on_error == BAD_REPLACE;
    default: return true;
    }
}

/* Name in the answer what is not as the last request on this connection found it. */
static void add_change(struct task *task)
{
    struct data_view before = {task->index_before, task->catalog_before};
    struct data_view after = {task->index, task->catalog};
    char text[ERROR_TEXT_BYTES];
    bool is_other = data_change_describe(&before, &after, text, sizeof text);
    json_object_set_new(task->reply, "changed", is_other ? json_string(text) : json_null());
}

static void run_dataset(struct task *task, bool was_built, const char *warning)
{
    if (task->index == NULL) {
        task->reply = reply_catalog(task->catalog);
        add_change(task);
        return;
    }
    char link[64];
    char path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", index_fd(task->index));
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    bool is_file = length > 0 && path[0] == '/' && strncmp(path, "/memfd:", 7) != 0;
    task->reply = reply_dataset(task->index, was_built, warning, is_file ? path : NULL);
    add_change(task);
    task->fds[0] = fcntl(index_fd(task->index), F_DUPFD_CLOEXEC, 3);
}

/* UINT64_MAX while unknown. */
static uint64_t count_samples(const struct task *task)
{
    return task->index != NULL ? index_sample_count(task->index)
                               : catalog_sample_count(task->catalog);
}

static void run_plan(struct task *task, uint64_t subset_count)
{
    const struct session_spec *spec = &task->request.spec;
    uint64_t sample_count = task->request.has_subset ? subset_count : count_samples(task);
    struct plan_cut cut = {
        .sample_count = sample_count == UINT64_MAX ? PLAN_SAMPLES_MAX : sample_count,
        .start = spec->position,
        .batch = spec->batch,
        .world = spec->world,
        .tail = spec->tail,
    };
    if (!plan_cut_is_valid(&cut)) {
        error_set(&task->error, ERROR_STATE,
                  "position %llu of %llu samples, batch %llu, world %u: these do not go together. "
                  "A saved state may belong to another data set.",
                  (unsigned long long)cut.start, (unsigned long long)cut.sample_count,
                  (unsigned long long)cut.batch, cut.world);
        return;
    }
    task->reply = reply_plan(sample_count, &cut, spec->rank);
}

static void run_attach(struct task *task, const uint64_t *subset, uint64_t subset_count)
{
    struct session_data data = {.index = task->index,
                                .catalog = task->index == NULL ? task->catalog : NULL,
                                .subset = subset,
                                .subset_count = subset_count,
                                .store = task->store,
                                .bad_samples = task->bad_samples,
                                .progress = &task->progress};
    if (session_create(task->session_id, &task->request.spec, &data, &task->session,
                       &task->error) != 0) {
        return;
    }
    struct ring *ring = session_ring(task->session);
    task->reply = reply_attach(task->session);
    task->fds[0] = fcntl(ring_memory_fd(ring), F_DUPFD_CLOEXEC, 3);
    task->fds[1] = fcntl(ring_release_fd(ring), F_DUPFD_CLOEXEC, 3);
}

/* Read one sample's bytes with a reader of its own. */
static int read_sample(const struct task *task, struct read_request *request, struct error *error,
                       const char *name)
{
    struct reader_options options = {
        .source = {.engine = SOURCE_PREAD, .depth = 1, .file_bytes_max = (uint64_t)1 << 30},
        .store = task->store};
    struct reader *reader = reader_create(&options);
    if (reader == NULL) {
        return error_set(error, ERROR_MEMORY, "no memory to read a sample.");
    }
    reader_submit(reader, &request, 1);
    struct read_request *done = NULL;
    while (reader_reap(reader, &done, 1, 100) == 0) {
        if (atomic_load(&task->progress.is_cancelled)) {
            reader_cancel(reader, request);
        }
    }
    reader_destroy(reader);
    if (request->error == EREMOTEIO) {
        return error_set(error, request->failure.kind, "%s", request->failure.text);
    }
    if (request->error != 0) {
        return error_set(error, ERROR_IO, "cannot read %s: %s.", name, strerror(request->error));
    }
    return 0;
}

/* Decode into a memfd of its own. */
static void make_sample(struct task *task, struct recipe *recipe, const struct read_request *read,
                        const struct field_map *fields, const struct sample_place *place,
                        const char *name)
{
    struct recipe_output image = recipe_output(recipe);
    struct decoder_options options = {
        .level_max = task->level_max,
        .limits = {.pixels_max = IMAGE_PIXELS_MAX_DEFAULT,
                   .scans_max = IMAGE_SCANS_MAX_DEFAULT,
                   .plain_huffman = task->level_max == KERNEL_SCALAR}};
    struct decoder *decoder = decoder_create(&options);
    int fd = memfd_create("penstock-sample", MFD_CLOEXEC);
    void *target = MAP_FAILED;
    if (decoder != NULL && fd >= 0 && ftruncate(fd, (off_t)image.bytes) == 0) {
        target = mmap(NULL, image.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (target == MAP_FAILED) {
        error_set(&task->error, ERROR_MEMORY, "no memory for a sample of %zu bytes.", image.bytes);
    } else {
        const struct session_spec *spec = &task->request.spec;
        struct sample_key key = {spec->seed, spec->epoch, task->request.sample_id};
        uint64_t offset;
        uint64_t length;
        bool has_image =
            field_map_range(fields, place, fields->image, read->size_bytes, &offset, &length);
        struct decode_error fault = {.reason = "it has no image"};
        enum decode_status status =
            !has_image
                ? DECODE_CORRUPT
                : decoder_run(decoder, recipe, key, read->bytes + offset, length, target, &fault);
        if (status != DECODE_OK) {
            error_set(&task->error, ERROR_SAMPLE, "%s, byte %llu: %s: %s.", name,
                      (unsigned long long)(place->offset_bytes + offset + fault.offset_bytes),
                      decode_status_name(status), fault.reason);
        } else {
            char geometry[GEOMETRY_TEXT_BYTES];
            geometry_describe(decoder_geometry(decoder), geometry, sizeof geometry);
            task->reply = json_pack("{s:b, s:[i,i,i], s:s, s:s, s:I, s:s, s:I, s:s}", "ok", 1,
                                    "shape", 3, (int)image.height_px, (int)image.width_px, "dtype",
                                    reply_dtype_name(image.dtype), "strides",
                                    image.layout == PACK_NCHW ? "nchw" : "nhwc", "label",
                                    (json_int_t)place->label, "name", name, "bytes",
                                    (json_int_t)length, "geometry", geometry);
            task->fds[0] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        }
        munmap(target, image.bytes);
    }
    if (fd >= 0) {
        close(fd);
    }
    decoder_destroy(decoder);
}

static void run_sample(struct task *task)
{
    const struct session_spec *spec = &task->request.spec;
    uint64_t canonical = 0;
    if (!index_sample_find(task->index, task->request.sample_id, &canonical)) {
        error_set(&task->error, ERROR_USAGE,
                  "sample %llu: there is no such sample; ids are shard << 32 | position, for "
                  "folders the position (0 .. %llu).",
                  (unsigned long long)task->request.sample_id,
                  (unsigned long long)index_sample_count(task->index) - 1);
        return;
    }
    struct field_map fields;
    struct recipe *recipe = NULL;
    struct decode_error fault;
    char name[BAD_SAMPLE_NAME_BYTES];
    char path[4096];
    struct sample_place place;
    index_sample_label(task->index, canonical, name, sizeof name);
    if (field_map_init(&fields, task->index, spec, &task->error) != 0) {
        field_map_clear(&fields);
        return;
    }
    if (recipe_create(spec->transforms, spec->transform_count, spec->layout, &recipe, &fault) !=
        DECODE_OK) {
        error_set(&task->error, ERROR_USAGE, "transforms: %s.", fault.reason);
    } else if (index_sample_place(task->index, fields.members, canonical, &place, path,
                                  sizeof path) != 0) {
        error_set(&task->error, ERROR_IO, "%s: the path is too long.", name);
    } else {
        struct read_request request = {
            .path = place.path,
            .keep_open = place.is_shard,
            .offset_bytes = place.offset_bytes,
            .length_bytes = place.length_bytes,
            .expect_bytes = place.shard_bytes,
            .expect_mtime_ns = place.shard_mtime_ns,
            .tag = place.tag,
            .object_bytes = place.object_bytes,
            .profile = spec->profile,
        };
        bool has_bytes = (!place.is_shard || place.length_bytes > 0) &&
                         (place.tag == NULL || place.object_bytes > 0);
        if (!has_bytes || read_sample(task, &request, &task->error, name) == 0) {
            make_sample(task, recipe, &request, &fields, &place, name);
        }
        read_request_clear(&request);
    }
    recipe_destroy(recipe);
    field_map_clear(&fields);
}

/* ---- The thread ------------------------------------------------------------------------- */

static void run_operation(struct task *task)
{
    bool was_built = false;
    char warning[ERROR_TEXT_BYTES];
    uint64_t *subset = NULL;
    uint64_t subset_count = 0;
    if (task->request.op == REQUEST_CACHE) {
        task_run_cache(task);
        return;
    }
    if (open_data(task, &was_built, warning) != 0 ||
        (needs_whole(task) && open_whole(task, warning) != 0) ||
        (task->request.has_subset &&
         read_subset(task->subset_fd, &subset, &subset_count, &task->error) != 0)) {
        return;
    }
    switch (task->request.op) {
    case REQUEST_DATASET: run_dataset(task, was_built, warning); break;
    case REQUEST_PLAN: run_plan(task, subset_count); break;
    case REQUEST_ATTACH: run_attach(task, subset, subset_count); break;
    case REQUEST_SAMPLE: run_sample(task); break;
    case REQUEST_PRELOAD: task_run_preload(task); break;
    case REQUEST_CACHE:
    case REQUEST_HELLO:
    case REQUEST_SEEK:
    case REQUEST_STATS:
    case REQUEST_STATUS:
    case REQUEST_ERRORS:
    case REQUEST_LOGS:
    case REQUEST_DOCTOR:
    case REQUEST_STOP: abort(); /* not for tasks */
    }
    free(subset);
}

static void *run_task(void *argument)
{
    struct task *task = argument;
    run_operation(task);
    if (task->error.kind == ERROR_NONE && task->reply == NULL) {
        error_set(&task->error, ERROR_MEMORY, "no memory for an answer.");
    }
    int bell_fd = task->bell_fd;
    atomic_store(&task->is_done, true); /* from here on the task is the control thread's */
    uint64_t one = 1;
    ssize_t written = write(bell_fd, &one, sizeof one);
    (void)written; /* the counter of an eventfd cannot overflow here */
    return NULL;
}

struct task *task_start(const struct task *template_task)
{
    struct task *task = malloc(sizeof *task);
    if (task == NULL) {
        return NULL;
    }
    *task = *template_task;
    task->fds[0] = -1;
    task->fds[1] = -1;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, TASK_STACK_BYTES);
    pthread_t thread;
    int status = pthread_create(&thread, &attributes, run_task, task);
    pthread_attr_destroy(&attributes);
    if (status != 0) {
        free(task);
        return NULL;
    }
    return task;
}

void task_destroy(struct task *task)
{
    if (task == NULL) {
        return;
    }
    atomic_store(&task->progress.is_cancelled, true);
    while (!atomic_load(&task->is_done)) {
        usleep(1000);
    }
    for (size_t i = 0; i < TASK_FDS_MAX; i++) {
        if (task->fds[i] >= 0) {
            close(task->fds[i]);
        }
    }
    if (task->subset_fd >= 0) {
        close(task->subset_fd);
    }
    json_decref(task->reply);
    session_destroy(task->session);
    index_unref(task->index);
    index_unref(task->index_before);
    catalog_unref(task->catalog);
    catalog_unref(task->catalog_before);
    request_clear(&task->request);
    free(task);
}
