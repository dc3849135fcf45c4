/* Sessions on a catalog: the cursor goes through the windows of an epoch as their shards become
 * known, and asks for those that come next. */
#include <stdlib.h>
#include <string.h>

#include "loader/index_build.h"
#include "loader/session_private.h"

/* Windows asked for after the last one that is known: one is scanned while another is waited
 * for, and no more, since scanning reads them whole. */
enum { WINDOWS_AHEAD = 2 };

static int64_t count_samples(void *context, uint32_t shard)
{
    const struct index *index = catalog_shard(context, shard);
    return index != NULL ? (int64_t)index_sample_count(index) : WALK_UNKNOWN;
}

uint64_t session_windows_sample_count(const struct session *session)
{
    uint64_t count = catalog_sample_count(session->samples.catalog);
    const struct window_walk *walk = session->windows.walk;
    return count == UINT64_MAX && window_walk_is_complete(walk) ? window_walk_end(walk) : count;
}

uint64_t session_windows_sample(const struct session *session, uint64_t position)
{
    struct plan_place place = window_walk_at(session->windows.walk, position);
    return (uint64_t)place.shard << 32 | place.position;
}

/* ---- Asking for shards ------------------------------------------------------------------ */

static void want_window(struct session *session, uint64_t epoch, const struct plan_window *window)
{
    for (uint32_t i = 0; i < window->shard_count; i++) {
        uint32_t shard = plan_shard(&session->order, epoch, window->shard_first + i);
        catalog_want(session->samples.catalog, &shard, 1);
    }
}

static void want_ahead(struct session *session)
{
    struct session_windows *windows = &session->windows;
    struct plan_window next = window_walk_next(windows->walk);
    uint64_t epoch = window_walk_epoch(windows->walk);
    if (catalog_sample_count(session->samples.catalog) != UINT64_MAX) {
        return;
    }
    if (windows->wanted_ordinal < next.ordinal) {
        windows->wanted_ordinal = next.ordinal;
    }
    for (; windows->wanted_ordinal < next.ordinal + WINDOWS_AHEAD; windows->wanted_ordinal++) {
        struct plan_window window = plan_window(&session->order, epoch, windows->wanted_ordinal);
        want_window(session, epoch, &window);
    }
}

/* Has a shard that is waited for failed? */
static bool note_failure(struct session *session)
{
    struct session_windows *windows = &session->windows;
    struct plan_window next = window_walk_next(windows->walk);
    for (uint32_t i = 0; i < next.shard_count; i++) {
        uint32_t shard =
            plan_shard(&session->order, window_walk_epoch(windows->walk), next.shard_first + i);
        if (catalog_has_failed(session->samples.catalog, shard, &windows->error)) {
            return true;
        }
    }
    return false;
}

/* ---- The cursor ------------------------------------------------------------------------- */

void session_windows_move(struct session *session, uint64_t epoch, uint64_t position,
                          uint64_t window_ordinal, uint64_t window_first)
{
    struct session_windows *windows = &session->windows;
    window_walk_start(windows->walk, epoch, window_ordinal, window_first);
    windows->position = position;
    windows->has_batch = false;
    windows->is_waiting = false;
    windows->wanted_ordinal = 0;
    windows->error.kind = ERROR_NONE;
    session->plan_epoch_number = epoch;
    session->cut.start = position;
    session->cursor_batch = 0;
    want_ahead(session);
}

/* Find the cursor's batch. */
static enum walk_result look(struct session *session)
{
    struct session_windows *windows = &session->windows;
    struct plan_cut cut = session->cut;
    cut.start = windows->position;
    cut.sample_count = catalog_sample_count(session->samples.catalog);
    window_walk_forget(windows->walk, windows->position);
    enum walk_result result =
        window_walk_batch(windows->walk, &cut, session->spec.rank, &windows->batch);
    want_ahead(session);
    return result;
}

bool session_windows_are_ready(struct session *session)
{
    struct session_windows *windows = &session->windows;
    if (windows->has_batch || windows->error.kind != ERROR_NONE) {
        return true;
    }
    uint64_t changes = catalog_changes(session->samples.catalog);
    if (windows->is_waiting && windows->changes == changes) {
        return false;
    }
    windows->changes = changes;
    for (;;) {
        switch (look(session)) {
        case WALK_READY: windows->has_batch = true; return true;
        case WALK_WAIT: windows->is_waiting = true; return note_failure(session);
        case WALK_OVER:
            session_windows_move(session, session->plan_epoch_number + 1, 0, 0, 0);
            break;
        case WALK_NO_MEMORY:
            error_set(&windows->error, ERROR_MEMORY, "no memory for the plan of an epoch.");
            return true;
        }
    }
}

struct next_batch session_windows_next(struct session *session)
{
    struct session_windows *windows = &session->windows;
    struct next_batch next = {
        .step = session->cut.start / session->cut.batch + session->cursor_batch,
        .next_epoch = session->plan_epoch_number,
    };
    if (windows->error.kind != ERROR_NONE) {
        next.error = &windows->error;
        next.next_position = windows->position;
        return next;
    }
    next.slice = windows->batch.slice;
    next.is_last = windows->batch.is_last;
    if (next.is_last) {
        next.next_epoch++;
    } else {
        next.next_position = windows->batch.next_position;
        struct plan_window window = window_walk_window(windows->walk, next.next_position);
        next.next_window_ordinal = window.ordinal;
        next.next_window_first = window.position_first;
    }
    windows->position = windows->batch.next_position;
    windows->has_batch = false;
    windows->is_waiting = false;
    session->cursor_batch++;
    return next;
}

/* ---- Life ------------------------------------------------------------------------------- */

/* What does not depend on the shards. */
static int check_place(const struct session_spec *spec, struct error *error)
{
    struct plan_cut cut = {
        .sample_count = 1, .batch = spec->batch, .world = spec->world, .tail = spec->tail};
    if (spec->rank >= spec->world || !plan_cut_is_valid(&cut)) {
        return error_set(error, ERROR_USAGE,
                         "a global batch of %llu over %u ranks (this is rank %u) cannot be cut: "
                         "it needs at least one sample per rank, and rank < world_size.",
                         (unsigned long long)spec->batch, spec->world, spec->rank);
    }
    if (spec->window_first > spec->position) {
        return error_set(error, ERROR_STATE,
                         "position %llu lies before its window: the state belongs to another data "
                         "set; start without it.",
                         (unsigned long long)spec->position);
    }
    return 0;
}

/* Until the first batch can be told, or that the epoch has none from there on. */
static int wait_for_batch(struct session *session, struct index_progress *progress,
                          struct error *error)
{
    struct catalog *catalog = session->samples.catalog;
    for (;;) {
        uint64_t changes = catalog_changes(catalog);
        switch (look(session)) {
        case WALK_READY: return 0;
        case WALK_OVER: return 0;
        case WALK_NO_MEMORY:
            return error_set(error, ERROR_MEMORY, "no memory for the plan of an epoch.");
        case WALK_WAIT: break;
        }
        if (note_failure(session)) {
            return error_set(error, session->windows.error.kind, "%s", session->windows.error.text);
        }
        if (progress != NULL) {
            atomic_store(&progress->total_count, catalog_data_bytes(catalog));
            atomic_store(&progress->done_count, catalog_known_bytes(catalog));
        }
        if (index_build_is_cancelled(progress)) {
            return index_build_cancelled(error);
        }
        catalog_wait(catalog, changes);
    }
}

static int check_samples(const struct session *session, struct error *error)
{
    uint64_t count = session_windows_sample_count(session);
    if (count != UINT64_MAX && session->spec.position > count) {
        return error_set(error, ERROR_STATE,
                         "position %llu lies behind the end of the epoch (%llu samples): the state "
                         "belongs to another data set; start without it.",
                         (unsigned long long)session->spec.position, (unsigned long long)count);
    }
    if (count != UINT64_MAX && session_batches_from(session, 0) == 0) {
        return error_set(error, ERROR_USAGE,
                         "drop_last=True leaves no batch: the global batch of %llu is larger than "
                         "the %llu samples. Use a smaller batch_size or drop_last=False.",
                         (unsigned long long)session->spec.batch, (unsigned long long)count);
    }
    return 0;
}

int session_windows_create(struct session *session, struct index_progress *progress,
                           uint32_t *shard, struct error *error)
{
    const struct session_spec *spec = &session->spec;
    struct catalog *catalog = session->samples.catalog;
    if (check_place(spec, error) != 0) {
        return -1;
    }
    session->order = (struct plan_order){.kind = PLAN_WINDOW,
                                         .seed = spec->seed,
                                         .sample_count = UINT64_MAX,
                                         .shard_count = catalog_shard_count(catalog),
                                         .window_shards = spec->window_shards};
    session->cut =
        (struct plan_cut){.batch = spec->batch, .world = spec->world, .tail = spec->tail};
    session->windows.walk = window_walk_create(&session->order, count_samples, catalog);
    if (session->windows.walk == NULL) {
        return error_set(error, ERROR_MEMORY, "no memory for the plan of an epoch.");
    }
    session_windows_move(session, spec->epoch, spec->position, spec->window_ordinal,
                         spec->window_first);
    if (wait_for_batch(session, progress, error) != 0 || check_samples(session, error) != 0) {
        return -1;
    }
    for (*shard = 0; *shard < catalog_shard_count(catalog); ++*shard) {
        if (catalog_shard(catalog, *shard) != NULL) {
            return 0;
        }
    }
    return error_set(error, ERROR_STATE,
                     "window %llu lies behind the end of the epoch: the state belongs to another "
                     "data set; start without it.",
                     (unsigned long long)spec->window_ordinal);
}

void session_windows_destroy(struct session *session)
{
    window_walk_destroy(session->windows.walk);
}
