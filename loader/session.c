#include "loader/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode/philox.h"
#include "loader/clock.h"
#include "loader/session_private.h"

enum {
    READ_ATTEMPTS_MAX = 4,
    REPLACEMENTS_MAX = 16,
    READ_RETRY_NS = 50000000, /* before the second attempt; doubled for each further one */
};

uint64_t session_id(const struct session *session)
{
    return session->id;
}

const struct session_spec *session_spec(const struct session *session)
{
    return &session->spec;
}

const struct batch_layout *session_layout(const struct session *session)
{
    return &session->layout;
}

struct recipe_output session_image(const struct session *session)
{
    return recipe_output(session->recipe);
}

struct ring *session_ring(struct session *session)
{
    return session->ring;
}

uint64_t session_sample_count(const struct session *session)
{
    return session->windows.walk != NULL ? session_windows_sample_count(session)
                                         : session->order.sample_count;
}

uint64_t session_mean_bytes(const struct session *session)
{
    return samples_mean_bytes(&session->samples);
}

struct session_queue *session_queue(struct session *session)
{
    return &session->queue;
}

uint64_t session_batches_from(const struct session *session, uint64_t position)
{
    struct plan_cut cut = session->cut;
    cut.sample_count = session_sample_count(session);
    if (cut.sample_count == UINT64_MAX) {
        return UINT64_MAX;
    }
    cut.start = position < cut.sample_count ? position : cut.sample_count;
    return plan_batch_count(&cut);
}

/* ---- Work ------------------------------------------------------------------------------- */

bool session_has_next(struct session *session)
{
    if (session->has_ended || session->queue.is_closing) {
        return false;
    }
    return (session->planning != NULL &&
            session->planning->planned_count < session->planning->sample_count) ||
           (ring_usage(session->ring).free_count > 0 &&
            (session->windows.walk == NULL || session_windows_are_ready(session)));
}

/* Fill in everything of *work that follows from its sample. */
static bool locate_work(struct session *session, struct work *work)
{
    struct read_request *request = &work->request;
    work->sample_id = samples_id(&session->samples, work->canonical);
    work->read_attempts = 0;
    work->not_before_ns = 0;
    if (samples_place(&session->samples, work->canonical, &work->where, work->path,
                      sizeof work->path) != 0) {
        request->error = ENAMETOOLONG;
        return false;
    }
    request->path = work->where.path;
    request->keep_open = work->where.is_shard;
    request->direct = session->reads_direct;
    request->offset_bytes = work->where.offset_bytes;
    request->length_bytes = work->where.length_bytes;
    request->expect_bytes = work->where.shard_bytes;
    request->expect_mtime_ns = work->where.shard_mtime_ns;
    request->tag = work->where.tag;
    request->object_bytes = work->where.object_bytes;
    request->profile = session->spec.profile;
    request->job = read_ahead_job(session->read_ahead);
    request->owner = work;
    request->error = 0;
    work->has_no_bytes = (work->where.is_shard && work->where.length_bytes == 0) ||
                         (work->where.tag != NULL && work->where.object_bytes == 0);
    if (work->has_no_bytes) {
        request->bytes = NULL;
        request->size_bytes = 0;
    }
    session_write_id(session, work->slot, work->place, work->sample_id);
    session_write_valid(session, work->slot, work->place, true);
    for (size_t i = 0; i < session->spec.field_count; i++) {
        if (session->spec.fields[i].kind == FIELD_LABEL) {
            int64_t label =
                work->where.label == INDEX_NO_LABEL ? BATCH_LABEL_NONE : work->where.label;
            memcpy(session_place(session, work->slot, i, work->place), &label, sizeof label);
        }
    }
    return true;
}

bool session_next(struct session *session, struct work *work)
{
    struct fill *fill = session->planning;
    while (fill == NULL || fill->planned_count == fill->sample_count) {
        if (!session_has_next(session) || !session_begin_fill(session)) {
            return false;
        }
        fill = session->planning;
        if (fill->sample_count == 0) { /* nothing but padding */
            session->planning = NULL;
            session_settle_fills(session);
        }
        fill = session->planning;
    }
    work->session = session;
    work->slot = fill->slot;
    work->place = fill->planned_count;
    work->epoch = fill->epoch;
    work->canonical = session_canonical_at(session, fill->first_position + fill->planned_count);
    work->replacements = 0;
    fill->planned_count++;
    fill->pending_count++;
    locate_work(session, work); /* a path that is too long fails when it is read */
    return true;
}

bool session_wants(const struct session *session, const struct work *work)
{
    return session->fills[work->slot].generation == session->generation && !session->has_ended &&
           !session->queue.is_closing;
}

/* Copy a text or bytes field into the side area; false if it has no room. */
static bool make_side_field(struct session *session, struct work *work, size_t field,
                            const uint8_t *bytes, uint64_t size_bytes)
{
    struct fill *fill = &session->fills[work->slot];
    if (size_bytes > session->spec.side_bytes) {
        return false;
    }
    uint64_t offset = atomic_fetch_add(&fill->side_used_bytes, size_bytes);
    if (offset + size_bytes > session->layout.side_bytes) {
        return false; /* only after many replacements in one batch */
    }
    memcpy(ring_slot_base(session->ring, work->slot) + session->layout.side_offset_bytes + offset,
           bytes, size_bytes);
    struct slot_text text = {.offset_bytes = (uint32_t)offset,
                             .length_bytes = (uint32_t)size_bytes};
    memcpy(session_place(session, work->slot, field, work->place), &text, sizeof text);
    return true;
}

enum decode_status session_make(struct session *session, struct work *work, struct decoder *decoder,
                                struct decode_error *error)
{
    struct read_request *request = &work->request;
    for (size_t i = 0; i < session->spec.field_count; i++) {
        const struct field_spec *field = &session->spec.fields[i];
        if (field->kind == FIELD_LABEL) {
            continue;
        }
        uint64_t offset;
        uint64_t length;
        if (!field_map_range(&session->samples.fields, &work->where, i, request->size_bytes,
                             &offset, &length)) {
            return decode_fail(error, DECODE_CORRUPT, work->where.offset_bytes,
                               "the sample has no member for field \"%s\" (%s)", field->name,
                               field->pattern);
        }
        if (field->kind == FIELD_IMAGE) {
            struct sample_key key = {session->spec.seed, work->epoch, work->sample_id};
            enum decode_status status =
                decoder_run(decoder, session->recipe, key, request->bytes + offset, length,
                            session_place(session, work->slot, i, work->place), error);
            if (status != DECODE_OK) {
                error->offset_bytes += work->where.offset_bytes + offset;
                return status;
            }
        } else if (!make_side_field(session, work, i, request->bytes + offset, length)) {
            return decode_fail(error, DECODE_TOO_LARGE, work->where.offset_bytes + offset,
                               "field \"%s\" has %llu bytes, more than the %u that side_bytes "
                               "allows",
                               field->name, (unsigned long long)length, session->spec.side_bytes);
        }
    }
    return DECODE_OK;
}

/* The place is finished, good or bad. */
static void complete_place(struct session *session, struct fill *fill)
{
    fill->pending_count--;
    session_settle_fills(session);
}

/* Keep the failure of the lowest place: which one is told does not depend on threads. */
static void note_fill_error(struct fill *fill, uint32_t place, const struct error *error)
{
    if (fill->error.kind == ERROR_NONE || place < fill->error_place) {
        fill->error = *error;
        fill->error_place = place;
    }
}

static void report_bad(struct session *session, const struct work *work, enum decode_status status,
                       const struct decode_error *decode_error, const char *action,
                       const char *name)
{
    struct bad_sample bad = {
        .time_s = time(NULL),
        .rank = session->spec.rank,
        .epoch = work->epoch,
        .sample_id = work->sample_id,
        .offset_bytes = decode_error->offset_bytes,
        .action = action,
    };
    snprintf(bad.job, sizeof bad.job, "%s", session->spec.job);
    snprintf(bad.name, sizeof bad.name, "%s", name);
    snprintf(bad.reason, sizeof bad.reason, "%s: %s", decode_status_name(status),
             decode_error->reason);
    bad_samples_add(session->bad_samples, &bad);
}

/* Put another sample, drawn from (seed, epoch, sample id), in the place of a bad one. */
static bool replace_work(struct session *session, struct work *work)
{
    if (work->replacements >= REPLACEMENTS_MAX) {
        return false;
    }
    struct philox_stream draws = philox_stream_begin(session->spec.seed, work->epoch,
                                                     work->sample_id, PHILOX_OPERATION_REPLACE);
    uint64_t index = philox_below(&draws, session->order.sample_count);
    work->canonical = session->subset != NULL ? session->subset[index] : index;
    work->replacements++;
    return locate_work(session, work);
}

static enum work_fate finish_bad(struct session *session, struct work *work,
                                 enum decode_status status, const struct decode_error *decode_error)
{
    static const char *const actions[] = {"raised", "skipped", "zeroed", "replaced"};
    struct fill *fill = &session->fills[work->slot];
    char name[BAD_SAMPLE_NAME_BYTES];
    samples_label(&session->samples, work->canonical, name, sizeof name);
    report_bad(session, work, status, decode_error, actions[session->spec.on_error], name);
    fill->bad_count++;
    switch (session->spec.on_error) {
    case BAD_RAISE: break;
    case BAD_SKIP: session_write_valid(session, work->slot, work->place, false); return WORK_DONE;
    case BAD_ZERO:
        session_write_blank(session, work->slot, work->place);
        session_write_valid(session, work->slot, work->place, false);
        return WORK_DONE;
    case BAD_REPLACE:
        if (replace_work(session, work)) {
            return WORK_RETRY;
        }
        break;
    }
    struct error error;
    error_set(&error, ERROR_SAMPLE,
              "%s, byte %llu: %s: %s. To train without such samples use on_error=\"skip\", "
              "\"zero\" or \"replace\"; `penstock errors` lists them.",
              name, (unsigned long long)decode_error->offset_bytes, decode_status_name(status),
              decode_error->reason);
    note_fill_error(fill, work->place, &error);
    return WORK_DONE;
}

enum work_fate session_finish(struct session *session, struct work *work, enum decode_status status,
                              const struct decode_error *error)
{
    struct fill *fill = &session->fills[work->slot];
    bool is_stale = !session_wants(session, work);
    if (status != DECODE_OK && !is_stale &&
        finish_bad(session, work, status, error) == WORK_RETRY) {
        return WORK_RETRY;
    }
    complete_place(session, fill);
    return WORK_DONE;
}

/* What the user can do about a failed read. */
static const char *read_advice(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ESTALE:
    case ENODATA:
        return "The data set changed after it was indexed: make the loader again, or run "
               "`penstock index --rebuild` on it.";
    case EACCES:
    case EPERM: return "Give the user that runs the daemon the right to read it.";
    case EMFILE:
    case ENFILE: return "Raise the limit of open files (ulimit -n).";
    default: return "Check the disk or the network file system (`dmesg`), then start again.";
    }
}

static bool is_lasting(int error)
{
    return error == ENOENT || error == ENOTDIR || error == ESTALE || error == EACCES ||
           error == EPERM || error == ENAMETOOLONG || error == EREMOTEIO || error == ENODATA ||
           error == EISDIR || error == EINVAL;
}

enum work_fate session_read_failed(struct session *session, struct work *work)
{
    struct fill *fill = &session->fills[work->slot];
    int code = work->request.error;
    bool is_stale = !session_wants(session, work);
    if (code == EFBIG && !is_stale) {
        struct decode_error error;
        decode_fail(&error, DECODE_TOO_LARGE, 0, "the file is larger than the daemon reads");
        return session_finish(session, work, DECODE_TOO_LARGE, &error);
    }
    if (!is_stale && !is_lasting(code) && ++work->read_attempts < READ_ATTEMPTS_MAX) {
        work->not_before_ns =
            clock_now_ns() + ((uint64_t)READ_RETRY_NS << (work->read_attempts - 1));
        work->request.error = 0;
        return WORK_RETRY;
    }
    if (!is_stale && code == EREMOTEIO) {
        note_fill_error(fill, work->place, &work->request.failure);
    } else if (!is_stale) {
        char name[BAD_SAMPLE_NAME_BYTES];
        samples_label(&session->samples, work->canonical, name, sizeof name);
        struct error error;
        error_set(&error, ERROR_IO, "cannot read %s (%s) at byte %llu: %s. %s", name,
                  work->where.path != NULL ? work->where.path : "?",
                  (unsigned long long)work->where.offset_bytes, strerror(code), read_advice(code));
        note_fill_error(fill, work->place, &error);
    }
    complete_place(session, fill);
    return WORK_DONE;
}

/* ---- Trainer ---------------------------------------------------------------------------- */

bool session_collect(struct session *session)
{
    bool any = ring_collect(session->ring) > 0;
    if (any) {
        session_note_time(session);
    }
    return any;
}

int session_seek(struct session *session, const struct session_place *place, uint32_t taken_count,
                 struct error *error)
{
    uint64_t sample_count = session_sample_count(session);
    if (place->position > sample_count || place->window_first > place->position) {
        return error_set(error, ERROR_STATE,
                         "position %llu lies behind the end of the epoch (%llu samples) or before "
                         "its window: the state belongs to another data set; start the epoch "
                         "again without it.",
                         (unsigned long long)place->position, (unsigned long long)sample_count);
    }
    if (ring_rewind(session->ring, taken_count) != 0) {
        return error_set(error, ERROR_PROTOCOL, "seek: %u batches taken is impossible.",
                         taken_count);
    }
    session->generation++;
    session->has_ended = false;
    session->planning = NULL;
    if (session->windows.walk != NULL) {
        session_windows_move(session, place->epoch, place->position, place->window_ordinal,
                             place->window_first);
    } else if (!session_move_cursor(session, place->epoch, place->position)) {
        session->has_ended = true;
        return error_set(error, ERROR_MEMORY, "no memory for the plan of epoch %llu.",
                         (unsigned long long)place->epoch);
    }
    read_ahead_move(session->read_ahead, place->epoch, place->position, place->window_ordinal,
                    place->window_first);
    session_settle_fills(session);
    session_note_time(session);
    return 0;
}

struct session_stats session_stats(const struct session *session)
{
    return (struct session_stats){
        .batch_count = session->published_batches,
        .sample_count = session->published_samples,
        .bad_count = session->bad_count,
        .epoch = session->last_epoch,
        .step = session->last_step,
        .batches_per_epoch = session_batches_from(session, 0),
        .images_per_second = session->images_per_second,
        .full_ns = session->full_ns,
        .waited_ns = ring_waited_ns(session->ring),
        .wait_ratio =
            wait_window_ratio(&session->waits, clock_now_ns(), ring_waited_ns(session->ring)),
        .opened_ns = session->opened_ns,
        .ring = ring_usage(session->ring),
        .slot_count = ring_slot_count(session->ring),
    };
}

double session_lead(const struct session *session)
{
    double lead = ring_usage(session->ring).published_count;
    for (uint32_t i = session->order_head; i != session->order_tail; i++) {
        const struct fill *fill = &session->fills[session->order_queue[i % LAYOUT_SLOTS_MAX]];
        uint32_t finished = fill->planned_count - fill->pending_count;
        lead += fill->sample_count == 0 ? 1.0 : (double)finished / fill->sample_count;
    }
    return lead;
}
