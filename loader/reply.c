#include "loader/reply.h"

#include <stdio.h>
#include <string.h>

#include "loader/catalog.h"
#include "loader/clock.h"

json_t *reply_error(const struct error *error)
{
    /* Names of files may be no UTF-8: then the text is sent with those bytes replaced. */
    char text[ERROR_TEXT_BYTES];
    snprintf(text, sizeof text, "%s", error->text);
    json_t *message = json_string(text);
    for (char *c = text; message == NULL && *c != '\0'; c++) {
        *c = (unsigned char)*c < 0x80 ? *c : '?';
        message = c[1] == '\0' ? json_string(text) : NULL;
    }
    return json_pack("{s:b, s:{s:s, s:o}}", "ok", 0, "error", "kind", error_kind_name(error->kind),
                     "message", message);
}

const char *reply_dtype_name(enum pack_dtype dtype)
{
    switch (dtype) {
    case PACK_U8: return "uint8";
    case PACK_F32: return "float32";
    case PACK_F16: return "float16";
    case PACK_BF16: return "bfloat16";
    }
    return "uint8";
}

json_t *reply_count(uint64_t count)
{
    return count == UINT64_MAX ? json_null() : json_integer((json_int_t)count);
}

static void write_hex(const uint8_t *bytes, size_t count, char *text)
{
    for (size_t i = 0; i < count; i++) {
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
}

json_t *reply_catalog(const struct catalog *catalog)
{
    char fingerprint[2 * INDEX_HASH_BYTES + 1];
    write_hex(catalog_fingerprint(catalog), INDEX_HASH_BYTES, fingerprint);
    return json_pack("{s:b, s:s, s:o, s:I, s:I, s:I, s:s, s:b, s:n, s:n}", "ok", 1, "kind", "tar",
                     "samples", reply_count(catalog_sample_count(catalog)), "shards",
                     (json_int_t)catalog_shard_count(catalog), "classes", (json_int_t)0,
                     "data_bytes", (json_int_t)catalog_data_bytes(catalog), "fingerprint",
                     fingerprint, "built", 0, "warning", "index_path");
}

json_t *reply_dataset(const struct index *index, bool was_built, const char *warning,
                      const char *index_path)
{
    const struct index_header *header = index_header(index);
    char fingerprint[2 * sizeof header->fingerprint + 1];
    write_hex(header->fingerprint, sizeof header->fingerprint, fingerprint);
    return json_pack("{s:b, s:s, s:I, s:I, s:I, s:I, s:s, s:b, s:s?, s:s?}", "ok", 1, "kind",
                     header->kind == INDEX_FOLDER ? "folder" : "tar", "samples",
                     (json_int_t)header->sample_count, "shards",
                     (json_int_t)index_shard_count(index), "classes",
                     (json_int_t)index_class_count(index), "data_bytes",
                     (json_int_t)header->data_bytes, "fingerprint", fingerprint, "built", was_built,
                     "warning", warning[0] != '\0' ? warning : NULL, "index_path", index_path);
}

/* Samples of one rank in a whole epoch: the difference of the sums of its slices' ends. */
static uint64_t rank_samples(const struct plan_cut *cut, uint32_t rank)
{
    struct plan_cut whole = *cut;
    whole.start = 0;
    uint64_t batches = plan_batch_count(&whole);
    if (batches == 0) {
        return 0;
    }
    uint64_t full = plan_slice(&whole, 0, rank).count;
    return full * (batches - 1) + plan_slice(&whole, batches - 1, rank).count;
}

json_t *reply_plan(uint64_t sample_count, const struct plan_cut *cut, uint32_t rank)
{
    struct plan_cut whole = *cut;
    whole.start = 0;
    if (sample_count == UINT64_MAX) {
        return json_pack("{s:b, s:n, s:n, s:n, s:n}", "ok", 1, "samples", "batches_per_epoch",
                         "batches_left", "rank_samples");
    }
    return json_pack("{s:b, s:I, s:I, s:I, s:I}", "ok", 1, "samples", (json_int_t)sample_count,
                     "batches_per_epoch", (json_int_t)plan_batch_count(&whole), "batches_left",
                     (json_int_t)plan_batch_count(cut), "rank_samples",
                     (json_int_t)rank_samples(cut, rank));
}

/* ---- attach ----------------------------------------------------------------------------- */

static json_t *tensor_field(const char *name, const char *dtype, json_t *shape, const char *strides,
                            uint64_t offset_bytes, uint64_t bytes)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:s?, s:I, s:I}", "name", name, "kind", "tensor",
                     "dtype", dtype, "shape", shape, "strides", strides, "offset",
                     (json_int_t)offset_bytes, "bytes", (json_int_t)bytes);
}

static json_t *describe_field(const struct session *session, size_t place)
{
    const struct session_spec *spec = session_spec(session);
    const struct batch_layout *layout = session_layout(session);
    const struct field_spec *field = &spec->fields[place];
    uint64_t offset = layout->field_offset_bytes[place];
    uint64_t bytes = layout->row_bytes[place] * layout->place_count;
    if (field->kind == FIELD_IMAGE) {
        struct recipe_output image = session_image(session);
        json_t *shape = json_pack("[i, i, i]", 3, (int)image.height_px, (int)image.width_px);
        return tensor_field(field->name, reply_dtype_name(image.dtype), shape,
                            image.layout == PACK_NCHW ? "nchw" : "nhwc", offset, bytes);
    }
    if (field->kind == FIELD_LABEL) {
        return tensor_field(field->name, "int64", json_array(), NULL, offset, bytes);
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "name", field->name, "kind",
                     field->kind == FIELD_TEXT ? "text" : "bytes", "offset", (json_int_t)offset,
                     "bytes", (json_int_t)bytes, "side_offset",
                     (json_int_t)layout->side_offset_bytes, "side_bytes",
                     (json_int_t)layout->side_bytes);
}

json_t *reply_attach(struct session *session)
{
    const struct session_spec *spec = session_spec(session);
    const struct batch_layout *layout = session_layout(session);
    struct ring *ring = session_ring(session);
    json_t *fields = json_array();
    for (size_t i = 0; i < spec->field_count; i++) {
        json_array_append_new(fields, describe_field(session, i));
    }
    json_array_append_new(fields, tensor_field("__id__", "uint64", json_array(), NULL,
                                               layout->id_offset_bytes,
                                               sizeof(uint64_t) * layout->place_count));
    json_array_append_new(fields, tensor_field("__valid__", "bool", json_array(), NULL,
                                               layout->valid_offset_bytes, layout->place_count));
    return json_pack("{s:b, s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:o}", "ok", 1, "session",
                     (json_int_t)session_id(session), "batches_per_epoch",
                     reply_count(session_batches_from(session, 0)), "batches_left",
                     reply_count(session_batches_from(session, spec->position)), "samples",
                     reply_count(session_sample_count(session)), "slots",
                     (json_int_t)ring_slot_count(ring), "places", (json_int_t)layout->place_count,
                     "slot_bytes", (json_int_t)ring_slot_bytes(ring), "region_bytes",
                     (json_int_t)ring_region_bytes(ring), "fields", fields);
}

/* ---- stats ------------------------------------------------------------------------------ */

const char *reply_limit(const struct pipeline_session_stats *stats,
                        const struct pipeline_stats *pool)
{
    uint64_t open_ns = clock_now_ns() - stats->session.opened_ns;
    if (stats->session.full_ns * 2 > open_ns) {
        return "trainer";
    }
    return pool->read_wait_ns > pool->busy_ns ? "read" : "decode";
}

const char *reply_verdict(const struct pipeline_session_stats *stats,
                          const struct pipeline_stats *pool)
{
    const char *limit = reply_limit(stats, pool);
    if (strcmp(limit, "trainer") == 0) {
        return "the trainer is the slower one: the loader keeps up";
    }
    return strcmp(limit, "read") == 0 ? "reading limits: a faster disk or a local copy would help"
                                      : "decoding limits: more CPU threads would help";
}

json_t *reply_stats(const struct pipeline_session_stats *stats, const struct pipeline_stats *pool)
{
    const struct session_stats *s = &stats->session;
    return json_pack(
        "{s:b, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:I, s:f, s:f, s:s, s:n}", "ok", 1,
        "batches", (json_int_t)s->batch_count, "samples", (json_int_t)s->sample_count,
        "bad_samples", (json_int_t)s->bad_count, "read_bytes", (json_int_t)stats->read_bytes,
        "read_seconds", (double)stats->read_ns / 1e9, "decode_seconds",
        (double)stats->decode_ns / 1e9, "images_per_second", s->images_per_second, "slots_ready",
        (json_int_t)s->ring.published_count, "slots_free", (json_int_t)s->ring.free_count, "slots",
        (json_int_t)s->slot_count, "wait_seconds", (double)s->waited_ns / 1e9, "full_seconds",
        (double)s->full_ns / 1e9, "limit", reply_limit(stats, pool), "cache_hit_ratio");
}
