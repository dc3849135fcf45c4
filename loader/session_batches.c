/* The batches of a session: where the cursor stands, slots being filled, publication in order. */
#include <stdio.h>
#include <string.h>

#include "loader/clock.h"
#include "loader/session_private.h"

/* ---- The cursor: which batch comes next ------------------------------------------------- */

/* Stand at (epoch, position); false when memory for the epoch's plan is short. */
bool session_move_cursor(struct session *session, uint64_t epoch, uint64_t position)
{
    if (session->plan == NULL || session->plan_epoch_number != epoch) {
        struct plan_epoch *plan = plan_epoch_create(&session->order, epoch);
        if (plan == NULL) {
            return false;
        }
        plan_epoch_destroy(session->plan);
        session->plan = plan;
        session->plan_epoch_number = epoch;
    }
    session->cut.start = position;
    session->cursor_batch = 0;
    session->cursor_batches = plan_batch_count(&session->cut);
    return true;
}

/* If the cursor's epoch is used up, go to the start of the next one. */
static bool settle_cursor(struct session *session)
{
    while (session->cursor_batch >= session->cursor_batches) {
        if (!session_move_cursor(session, session->plan_epoch_number + 1, 0)) {
            return false;
        }
    }
    return true;
}

/* Canonical index of the sample at a position of the cursor's epoch. */
uint64_t session_canonical_at(const struct session *session, uint64_t position)
{
    if (session->windows.walk != NULL) {
        return session_windows_sample(session, position);
    }
    uint64_t index = plan_index(session->plan, position);
    return session->subset != NULL ? session->subset[index] : index;
}

/* ---- Slots ------------------------------------------------------------------------------ */

uint8_t *session_place(struct session *session, uint32_t slot, size_t field, uint32_t place)
{
    const struct batch_layout *layout = &session->layout;
    return ring_slot_base(session->ring, slot) + layout->field_offset_bytes[field] +
           place * layout->row_bytes[field];
}

void session_write_id(struct session *session, uint32_t slot, uint32_t place, uint64_t sample_id)
{
    uint8_t *base = ring_slot_base(session->ring, slot) + session->layout.id_offset_bytes;
    memcpy(base + place * sizeof sample_id, &sample_id, sizeof sample_id);
}

void session_write_valid(struct session *session, uint32_t slot, uint32_t place, bool is_valid)
{
    ring_slot_base(session->ring, slot)[session->layout.valid_offset_bytes + place] = is_valid;
    session->fills[slot].is_good[place] = is_valid;
}

/* Everything of a place but id and validity as for a sample that does not exist. */
void session_write_blank(struct session *session, uint32_t slot, uint32_t place)
{
    const int64_t label = BATCH_LABEL_NONE;
    for (size_t i = 0; i < session->spec.field_count; i++) {
        uint8_t *address = session_place(session, slot, i, place);
        memset(address, 0, session->layout.row_bytes[i]);
        if (session->spec.fields[i].kind == FIELD_LABEL) {
            memcpy(address, &label, sizeof label);
        }
    }
}

static void write_padding(struct session *session, struct fill *fill)
{
    for (uint32_t place = fill->sample_count; place < fill->place_count; place++) {
        session_write_blank(session, fill->slot, place);
        session_write_id(session, fill->slot, place, BATCH_ID_NONE);
        session_write_valid(session, fill->slot, place, false);
    }
}

/* The cursor's batch and what the state is after it; the cursor moves past it. */
static struct next_batch take_batch(struct session *session)
{
    struct next_batch next = {
        .step = session->cut.start / session->cut.batch + session->cursor_batch,
        .slice = plan_slice(&session->cut, session->cursor_batch, session->spec.rank),
        .next_epoch = session->plan_epoch_number,
        .is_last = session->cursor_batch + 1 == session->cursor_batches,
    };
    if (next.is_last) {
        next.next_epoch++;
    } else {
        next.next_position = plan_position_after(&session->cut, session->cursor_batch);
        if (session->spec.order == PLAN_WINDOW) {
            struct plan_window window = plan_epoch_window(session->plan, next.next_position);
            next.next_window_ordinal = window.ordinal;
            next.next_window_first = window.position_first;
        }
    }
    session->cursor_batch++;
    return next;
}

/* Claim a slot for the cursor's batch and make it the one that is planned. */
bool session_begin_fill(struct session *session)
{
    bool has_windows = session->windows.walk != NULL;
    if (!has_windows && !settle_cursor(session)) {
        session->has_ended = true; /* no memory: the trainer's timeout tells it */
        return false;
    }
    int slot = has_windows && !session_windows_are_ready(session) ? -1 : ring_claim(session->ring);
    if (slot < 0) {
        return false;
    }
    struct fill *fill = &session->fills[slot];
    uint8_t *is_good = fill->is_good;
    uint64_t epoch = session->plan_epoch_number;
    bool is_new_epoch = session->cursor_batch == 0 && session->cut.start == 0;
    struct next_batch next = has_windows ? session_windows_next(session) : take_batch(session);
    *fill = (struct fill){
        .is_active = true,
        .is_good = is_good,
        .slot = (uint32_t)slot,
        .generation = session->generation,
        .epoch = epoch,
        .step = next.step,
        .first_position = next.slice.first,
        .sample_count = next.slice.count,
        .place_count = next.slice.count + next.slice.padded_count,
        .next_epoch = next.next_epoch,
        .next_position = next.next_position,
        .next_window_ordinal = next.next_window_ordinal,
        .next_window_first = next.next_window_first,
        .is_last = next.is_last,
    };
    if (is_new_epoch) {
        read_ahead_move(session->read_ahead, epoch, 0, 0, 0);
    } else {
        read_ahead_note(session->read_ahead, epoch, next.slice.first);
    }
    if (next.error != NULL) {
        fill->error = *next.error;
    }
    write_padding(session, fill);
    session->order_queue[session->order_tail++ % LAYOUT_SLOTS_MAX] = (uint32_t)slot;
    session->planning = fill;
    return true;
}

/* ---- Publishing ------------------------------------------------------------------------- */

static void move_place(struct session *session, uint32_t slot, uint32_t from, uint32_t to)
{
    uint8_t *base = ring_slot_base(session->ring, slot);
    for (size_t i = 0; i < session->spec.field_count; i++) {
        memcpy(session_place(session, slot, i, to), session_place(session, slot, i, from),
               session->layout.row_bytes[i]);
    }
    uint8_t *ids = base + session->layout.id_offset_bytes;
    memcpy(ids + to * sizeof(uint64_t), ids + from * sizeof(uint64_t), sizeof(uint64_t));
    uint8_t *valid = base + session->layout.valid_offset_bytes;
    valid[to] = valid[from];
}

/* Under "skip": close the gaps that bad samples left. */
static void close_gaps(struct session *session, struct fill *fill)
{
    uint32_t kept = 0;
    for (uint32_t place = 0; place < fill->place_count; place++) {
        bool is_padding = place >= fill->sample_count;
        if (fill->is_good[place] || is_padding) {
            if (kept != place) {
                move_place(session, fill->slot, place, kept);
            }
            kept++;
        }
    }
    fill->sample_count -= fill->place_count - kept;
    fill->place_count = kept;
}

static void write_header(struct session *session, const struct fill *fill)
{
    struct slot_header *header = ring_slot_header(session->ring, fill->slot);
    memset(header, 0, sizeof *header);
    bool is_error = fill->error.kind != ERROR_NONE;
    header->kind = is_error ? SLOT_ERROR : SLOT_BATCH;
    header->epoch = fill->epoch;
    header->step = fill->step;
    header->position = fill->first_position;
    header->next_epoch = fill->next_epoch;
    header->next_position = fill->next_position;
    header->next_window_ordinal = fill->next_window_ordinal;
    header->next_window_first = fill->next_window_first;
    header->place_count = fill->place_count;
    for (uint32_t place = 0; place < fill->sample_count; place++) {
        header->valid_count += session->spec.on_error == BAD_SKIP || fill->is_good[place];
    }
    header->bad_count = fill->bad_count;
    header->is_last = fill->is_last;
    header->side_bytes = fill->side_used_bytes;
    if (is_error) {
        snprintf(header->error_kind, sizeof header->error_kind, "%s",
                 error_kind_name(fill->error.kind));
        snprintf(header->error_text, sizeof header->error_text, "%s", fill->error.text);
    }
}

void session_note_time(struct session *session)
{
    uint64_t now_ns = clock_now_ns();
    struct ring_usage usage = ring_usage(session->ring);
    uint64_t passed_ns = now_ns - session->noted_ns;
    if (session->was_full) {
        session->full_ns += passed_ns;
    }
    session->noted_ns = now_ns;
    session->was_full = usage.free_count == 0 && usage.filling_count == 0;
    if (now_ns - session->rate_ns >= 1000000000u) {
        session->images_per_second = (double)(session->published_samples - session->rate_samples) *
                                     1e9 / (double)(now_ns - session->rate_ns);
        session->rate_ns = now_ns;
        session->rate_samples = session->published_samples;
        wait_window_mark(&session->waits, now_ns, ring_waited_ns(session->ring));
    }
}

static void publish_fill(struct session *session, struct fill *fill)
{
    if (session->spec.on_error == BAD_SKIP && fill->bad_count > 0) {
        close_gaps(session, fill);
    }
    write_header(session, fill);
    if (fill->error.kind != ERROR_NONE) {
        session->has_ended = true;
    }
    session->published_batches++;
    session->published_samples += fill->sample_count;
    session->bad_count += fill->bad_count;
    session->last_epoch = fill->epoch;
    session->last_step = fill->step;
    ring_publish(session->ring, fill->slot);
    fill->is_active = false;
    session_note_time(session);
}

/* Publish or put back every finished slot whose turn has come. */
void session_settle_fills(struct session *session)
{
    while (session->order_head != session->order_tail) {
        struct fill *fill =
            &session->fills[session->order_queue[session->order_head % LAYOUT_SLOTS_MAX]];
        bool is_planned = fill->planned_count == fill->sample_count;
        bool is_stale = fill->generation != session->generation || session->has_ended;
        if (fill->pending_count > 0 || (!is_planned && !is_stale)) {
            return;
        }
        session->order_head++;
        if (session->planning == fill) {
            session->planning = NULL;
        }
        if (is_stale) {
            fill->is_active = false;
            ring_abandon(session->ring, fill->slot);
        } else {
            publish_fill(session, fill);
        }
    }
}
