#include "loader/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/layout.h"
#include "loader/request_reader.h"
#include "loader/request_transforms.h"

static const char *const op_names[] = {
    "hello",  "dataset", "plan",   "attach", "seek",  "stats",   "sample", "status",
    "errors", "logs",    "doctor", "stop",   "cache", "preload", NULL,
};

enum { BATCH_MAX = 1 << 24, WORLD_MAX = 1 << 20, EPOCH_MAX = 1 << 30 };

static char *copy_text(const char *text)
{
    return strdup(text);
}

/* "source": {"urls": [...]} */
static void read_source(struct reader *outer, struct request *request)
{
    json_t *value = reader_get(outer, "source");
    if (value == NULL) {
        reader_fail(outer, "source", "is missing");
        return;
    }
    struct reader reader = reader_begin(value, "source", outer->error);
    json_t *urls = reader_get(&reader, "urls");
    size_t count = json_array_size(urls);
    if (!json_is_array(urls) || count == 0 || count > REQUEST_URLS_MAX) {
        reader_fail(&reader, "urls", "must be a list of 1 to %d texts", REQUEST_URLS_MAX);
        count = 0;
    }
    request->urls = calloc(count > 0 ? count : 1, sizeof *request->urls);
    for (size_t i = 0; i < count && request->urls != NULL; i++) {
        const char *url = json_string_value(json_array_get(urls, i));
        if (url == NULL || url[0] == '\0') {
            reader_fail(&reader, "urls", "must hold texts that are not empty");
            break;
        }
        request->urls[i] = copy_text(url);
        if (request->urls[i] == NULL) {
            break;
        }
        request->url_count++;
    }
    reader_text(&reader, "profile", request->spec.profile, sizeof request->spec.profile, "");
    if (reader_end(&reader) != 0 || request->url_count != count) {
        outer->has_failed = true;
    }
}

static void read_plan(struct reader *reader, struct session_spec *spec)
{
    static const char *const orders[] = {"sequential", "full", "window", NULL};
    static const char *const tails[] = {"drop", "even", "pad", NULL};
    spec->order = (enum plan_kind)(PLAN_SEQUENTIAL + reader_choice(reader, "order", orders, 0));
    spec->window_shards =
        (uint32_t)reader_u64(reader, "window", 1, 1 << 20, PLAN_WINDOW_SHARDS_DEFAULT);
    spec->seed = reader_u64(reader, "seed", 0, UINT64_MAX, 0);
    spec->world = (uint32_t)reader_u64(reader, "world", 1, WORLD_MAX, 1);
    spec->rank = (uint32_t)reader_u64(reader, "rank", 0, WORLD_MAX, 0);
    spec->batch = reader_u64(reader, "batch", 1, BATCH_MAX, 1);
    spec->tail = (enum plan_tail)(PLAN_DROP + reader_choice(reader, "tail", tails, 1));
    spec->epoch = reader_u64(reader, "epoch", 0, EPOCH_MAX, 0);
    spec->position = reader_u64(reader, "position", 0, PLAN_SAMPLES_MAX, 0);
    spec->window_ordinal = reader_u64(reader, "window_ordinal", 0, PLAN_SHARDS_MAX, 0);
    spec->window_first = reader_u64(reader, "window_first", 0, PLAN_SAMPLES_MAX, 0);
    if (!reader->has_failed && (spec->rank >= spec->world || spec->batch < spec->world)) {
        reader_fail(reader, "rank",
                    "%u, world %u, batch %llu: rank must be below world, and the "
                    "global batch at least world",
                    spec->rank, spec->world, (unsigned long long)spec->batch);
    }
}

static void read_default_fields(struct session_spec *spec)
{
    spec->fields[0] = (struct field_spec){
        .name = "image",
        .kind = FIELD_IMAGE,
        .pattern = "jpg;jpeg;png;webp;ppm;pgm;bmp;tif;tiff",
    };
    spec->fields[1] = (struct field_spec){.name = "label", .kind = FIELD_LABEL, .pattern = "cls"};
    spec->field_count = 2;
}

static void read_fields(struct reader *outer, struct session_spec *spec)
{
    static const char *const kinds[] = {"image", "label", "text", "bytes", NULL};
    json_t *list = reader_get(outer, "fields");
    if (list == NULL) {
        read_default_fields(spec);
        return;
    }
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count == 0 || count > INDEX_FIELDS_MAX) {
        reader_fail(outer, "fields", "must be a list of 1 to %d", INDEX_FIELDS_MAX);
        return;
    }
    for (size_t i = 0; i < count && !outer->has_failed; i++) {
        char context[32];
        snprintf(context, sizeof context, "fields[%zu]", i);
        struct reader reader = reader_begin(json_array_get(list, i), context, outer->error);
        struct field_spec *field = &spec->fields[i];
        reader_text(&reader, "name", field->name, sizeof field->name, "");
        reader_text(&reader, "pattern", field->pattern, sizeof field->pattern, "");
        field->kind = (enum field_kind)reader_choice(&reader, "kind", kinds, 0);
        if (field->name[0] == '\0' || field->name[0] == '_') {
            reader_fail(&reader, "name", "must be given and not begin with '_'");
        }
        outer->has_failed = reader_end(&reader) != 0;
    }
    spec->field_count = count;
}

static void read_cpus(struct reader *reader, struct session_spec *spec)
{
    json_t *list = reader_get(reader, "cpus");
    CPU_ZERO(&spec->cpus);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *cpu = json_array_get(list, i);
        if (!json_is_integer(cpu) || json_integer_value(cpu) < 0) {
            reader_fail(reader, "cpus", "must be a list of CPU numbers");
            return;
        }
        if (json_integer_value(cpu) < CPU_SETSIZE) {
            CPU_SET((size_t)json_integer_value(cpu), &spec->cpus);
            spec->has_cpus = true;
        }
    }
}

/* What a single sample needs, too. */
static void read_samples(struct reader *reader, struct session_spec *spec)
{
    static const char *const layouts[] = {"nchw", "nhwc", NULL};
    spec->layout = (enum pack_layout)(PACK_NCHW + reader_choice(reader, "layout", layouts, 0));
    read_fields(reader, spec);
    if (!reader->has_failed &&
        request_transforms_parse(reader_get(reader, "transforms"), spec, reader->error) != 0) {
        reader->has_failed = true;
    }
}

static void read_attach(struct reader *reader, struct session_spec *spec)
{
    static const char *const policies[] = {"raise", "skip", "zero", "replace", NULL};
    spec->on_error = (enum bad_policy)reader_choice(reader, "on_error", policies, 0);
    spec->side_bytes =
        (uint32_t)reader_u64(reader, "side_bytes", 1, 1 << 24, SESSION_SIDE_BYTES_DEFAULT);
    spec->slots = (uint32_t)reader_u64(reader, "slots", 2, LAYOUT_SLOTS_MAX, SESSION_SLOTS_DEFAULT);
    spec->workers = (uint32_t)reader_u64(reader, "workers", 0, 4096, 0);
    spec->weight = reader_number(reader, "weight", 1e-3, 1e3, 1.0);
    reader_text(reader, "job", spec->job, sizeof spec->job, "");
    reader_text(reader, "name", spec->name, sizeof spec->name, "");
    read_cpus(reader, spec);
}

static void read_members(struct reader *reader, struct request *request)
{
    struct session_spec *spec = &request->spec;
    switch (request->op) {
    case REQUEST_HELLO: {
        char version[64];
        request->protocol = reader_u64(reader, "protocol", 0, UINT32_MAX, 0);
        reader_text(reader, "version", version, sizeof version, "");
        reader_u64(reader, "pid", 0, UINT32_MAX, 0);
        break;
    }
    case REQUEST_DATASET:
        read_source(reader, request);
        request->rebuild = reader_bool(reader, "rebuild", false);
        request->wait = reader_bool(reader, "wait", true);
        break;
    case REQUEST_PLAN:
    case REQUEST_ATTACH:
        read_source(reader, request);
        request->has_subset = reader_bool(reader, "subset", false);
        read_plan(reader, spec);
        if (request->op == REQUEST_ATTACH) {
            read_samples(reader, spec);
            read_attach(reader, spec);
        }
        break;
    case REQUEST_SAMPLE:
        read_source(reader, request);
        read_samples(reader, spec);
        spec->seed = reader_u64(reader, "seed", 0, UINT64_MAX, 0);
        spec->epoch = reader_u64(reader, "epoch", 0, EPOCH_MAX, 0);
        request->sample_id = reader_u64(reader, "sample_id", 0, UINT64_MAX, 0);
        break;
    case REQUEST_SEEK:
        request->epoch = reader_u64(reader, "epoch", 0, EPOCH_MAX, 0);
        request->position = reader_u64(reader, "position", 0, PLAN_SAMPLES_MAX, 0);
        request->taken = reader_u64(reader, "taken", 0, UINT32_MAX, 0);
        spec->window_ordinal = reader_u64(reader, "window_ordinal", 0, PLAN_SHARDS_MAX, 0);
        spec->window_first = reader_u64(reader, "window_first", 0, PLAN_SAMPLES_MAX, 0);
        break;
    case REQUEST_ERRORS: request->count = reader_u64(reader, "count", 1, 1000, 100); break;
    case REQUEST_LOGS: request->count = reader_u64(reader, "lines", 1, 1000, 100); break;
    case REQUEST_STOP: request->drain = reader_bool(reader, "drain", true); break;
    case REQUEST_PRELOAD: read_source(reader, request); break;
    case REQUEST_CACHE:
    case REQUEST_STATS:
    case REQUEST_STATUS:
    case REQUEST_DOCTOR: break;
    }
}

int request_parse(const char *bytes, size_t length_bytes, struct request *request,
                  struct error *error)
{
    memset(request, 0, sizeof *request);
    json_error_t fault;
    json_t *root = json_loadb(bytes, length_bytes, JSON_REJECT_DUPLICATES, &fault);
    if (root == NULL) {
        return error_set(error, ERROR_PROTOCOL, "the request is no JSON: %s at byte %d.",
                         fault.text, fault.position);
    }
    const char *name = json_string_value(json_object_get(root, "op"));
    char context[32];
    snprintf(context, sizeof context, "%.30s", name != NULL ? name : "request");
    struct reader reader = reader_begin(root, context, error);
    int op = reader_choice(&reader, "op", op_names, -1);
    if (op < 0) {
        reader_fail(&reader, "op", "is missing");
    } else {
        request->op = (enum request_op)(REQUEST_HELLO + op);
        read_members(&reader, request);
    }
    int status = reader_end(&reader);
    json_decref(root);
    if (status != 0) {
        request_clear(request);
    }
    return status;
}

void request_clear(struct request *request)
{
    for (size_t i = 0; i < request->url_count; i++) {
        free(request->urls[i]);
    }
    free(request->urls);
    request->urls = NULL;
    request->url_count = 0;
}
