/* Reads that do not block: cut into segments, each served from memory, a file or the network. */
#include "loader/cache/store_port.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "loader/cache/store_private.h"

static void append(struct segment_list *list, struct segment *segment)
{
    segment->next = NULL;
    if (list->first == NULL) {
        list->first = segment;
    } else {
        list->last->next = segment;
    }
    list->last = segment;
}

static struct segment *take(struct segment_list *list)
{
    struct segment *segment = list->first;
    if (segment != NULL) {
        list->first = segment->next;
    }
    return segment;
}

static void wake_port(struct store_port *port)
{
    if (port->is_waiting) {
        port->is_waiting = false;
        port->wake(port->context);
    }
}

struct store_port *store_port_create(struct store *store, void (*wake)(void *context),
                                     void *context)
{
    struct store_port *port = calloc(1, sizeof *port);
    if (port != NULL) {
        port->store = store;
        port->wake = wake;
        port->context = context;
    }
    return port;
}

void store_port_destroy(struct store_port *port)
{
    if (port != NULL) {
        pthread_mutex_lock(&port->store->lock); /* a wake that is under way ends first */
        assert(port->read_count == 0);
        pthread_mutex_unlock(&port->store->lock);
        free(port);
    }
}

/* ---- Ends -------------------------------------------------------------------------------- */

/* The errno that goes with an error: the text is in request->failure. */
static int error_code(const struct error *error)
{
    return error->kind == ERROR_CANCELLED ? ECANCELED
           : error->kind == ERROR_MEMORY  ? ENOMEM
                                          : EREMOTEIO;
}

static void fail_read(struct store_read *read, const struct error *error)
{
    if (read->request->error == 0) {
        read->request->error = error_code(error);
        read->request->failure = *error;
    }
}

static void append_done(struct store_read *read)
{
    struct store_port *port = read->port;
    read->next = NULL;
    if (port->done_first == NULL) {
        port->done_first = read;
    } else {
        port->done_last->next = read;
    }
    port->done_last = read;
    wake_port(port);
}

void segment_finish(struct store *store, struct segment *segment, const struct error *error)
{
    struct store_read *read = segment->read;
    if (error != NULL) {
        fail_read(read, error);
    }
    segment->state = SEGMENT_DONE;
    chunk_release(store, segment->chunk);
    segment->chunk = NULL;
    if (--read->pending_count == 0) {
        append_done(read);
    }
}

/* ---- Where the bytes are ------------------------------------------------------------------ */

/* Note for the figures where the bytes of a read come from. */
static void count_read(struct store *store, const struct segment *segment, uint64_t *counter)
{
    const struct chunk *chunk = segment->chunk;
    struct store_job *job = segment->read->request->job;
    *counter += segment->length_bytes;
    if (job == NULL) {
        return;
    }
    bool is_fresh = counter == &store->stats.miss_bytes ||
                    (chunk->fresh_job_id == job->id && job->now <= chunk->fresh_until);
    *(is_fresh ? &job->stats.miss_bytes : &job->stats.hit_bytes) += segment->length_bytes;
}

static void wait_for_chunk(struct segment *segment)
{
    segment->state = SEGMENT_WAIT;
    segment->next = segment->chunk->waiters;
    segment->chunk->waiters = segment;
}

/* The chunk is nowhere: fetch it, or as much of it as this read needs. */
static void fetch_segment(struct store *store, struct segment *segment)
{
    struct chunk *chunk = segment->chunk;
    struct error error = {.kind = ERROR_NONE};
    count_read(store, segment, &store->stats.miss_bytes);
    /* Most of a chunk costs as much as all of it. */
    bool is_whole = segment->length_bytes >= chunk->data_bytes / 4 * 3;
    if (store->is_stopping) {
        error_set(&error, ERROR_CANCELLED, "the daemon is stopping.");
        segment_finish(store, segment, &error);
        return;
    }
    if (chunk->buffer == NULL && (is_whole || schedule_admits(store, chunk)) &&
        fetch_chunk(store, chunk, segment->read->request->job, false)) {
        wait_for_chunk(segment);
        return;
    }
    segment->state = SEGMENT_RANGE;
    if (!fetch_range(store, segment)) {
        error_set(&error, ERROR_MEMORY, "no memory to read %s.", chunk->object->url);
        segment_finish(store, segment, &error);
    }
}

/* Decide how a segment gets its bytes. */
static void route(struct store *store, struct segment *segment)
{
    struct chunk *chunk = segment->chunk;
    struct store_port *port = segment->read->port;
    uint32_t end = segment->offset_bytes + segment->length_bytes;
    chunk->used_at = ++store->clock;
    schedule_not_ahead(store, chunk);
    if (chunk->buffer != NULL && !chunk->is_void && chunk->ready_bytes >= end) {
        count_read(store, segment,
                   chunk->fetch != NULL ? &store->stats.joined_bytes
                                        : &store->stats.memory_hit_bytes);
        segment->state = SEGMENT_COPY;
        append(&port->ready, segment);
    } else if (chunk->fetch != NULL) {
        count_read(store, segment, &store->stats.joined_bytes);
        wait_for_chunk(segment);
    } else if (chunk->on_disk) {
        count_read(store, segment, &store->stats.disk_hit_bytes);
        segment->state = SEGMENT_FILE;
        append(&port->local, segment);
    } else {
        fetch_segment(store, segment);
    }
}

void port_serve(struct store *store, struct chunk *chunk)
{
    (void)store;
    struct segment **link = &chunk->waiters;
    while (*link != NULL) {
        struct segment *segment = *link;
        if (segment->offset_bytes + segment->length_bytes > chunk->ready_bytes) {
            link = &segment->next;
            continue;
        }
        *link = segment->next;
        segment->state = SEGMENT_COPY;
        append(&segment->read->port->ready, segment);
        wake_port(segment->read->port);
    }
}

void port_fail_waiters(struct store *store, struct chunk *chunk, const struct error *error)
{
    while (chunk->waiters != NULL) {
        struct segment *segment = chunk->waiters;
        chunk->waiters = segment->next;
        segment_finish(store, segment, error);
    }
}

/* ---- A read's way ------------------------------------------------------------------------- */

/* Finish a read that never got segments. */
static void refuse(struct store_read *read, int code)
{
    read->request->error = code;
    read->segment_count = 0;
    append_done(read);
}

/* Cut the read at the edges of chunks and route each part. False: no memory. */
static bool start_read(struct store *store, struct store_read *read,
                       const struct store_object *object, uint64_t offset_bytes)
{
    uint8_t key[CHUNK_KEY_BYTES];
    store_object_key(store, object, key);
    uint64_t done = 0;
    for (uint32_t i = 0; i < read->segment_count; i++) {
        struct segment *segment = &read->segments[i];
        uint64_t at = offset_bytes + done;
        uint32_t number = (uint32_t)(at / store->chunk_bytes);
        segment->read = read;
        segment->chunk = chunk_of_object(store, object, key, number);
        if (segment->chunk == NULL) {
            while (i-- > 0) {
                chunk_release(store, read->segments[i].chunk);
            }
            return false;
        }
        segment->chunk->user_count++;
        segment->offset_bytes = (uint32_t)(at % store->chunk_bytes);
        uint64_t left = read->length_bytes - done;
        uint64_t in_chunk = store->chunk_bytes - segment->offset_bytes;
        segment->length_bytes = (uint32_t)(left < in_chunk ? left : in_chunk);
        segment->out_bytes = done;
        done += segment->length_bytes;
    }
    read->pending_count = read->segment_count;
    for (uint32_t i = 0; i < read->segment_count; i++) {
        route(store, &read->segments[i]);
    }
    return true;
}

static void reset_request(struct read_request *request)
{
    request->error = 0;
    request->failure.kind = ERROR_NONE;
    request->bytes = NULL;
    request->size_bytes = 0;
    request->next = NULL;
}

void store_port_submit(struct store_port *port, struct read_request *request)
{
    struct store *store = port->store;
    bool is_whole = request->length_bytes == 0 && !request->keep_open;
    uint64_t offset = is_whole ? 0 : request->offset_bytes;
    uint64_t length = is_whole ? request->object_bytes : request->length_bytes;
    uint64_t chunks =
        length == 0 ? 0
                    : (offset + length - 1) / store->chunk_bytes - offset / store->chunk_bytes + 1;
    bool is_inside = offset <= request->object_bytes && length <= request->object_bytes - offset;
    if (!is_inside || chunks > UINT32_MAX / 2) {
        chunks = 0;
    }
    reset_request(request);
    struct store_read *read = calloc(1, sizeof *read + chunks * sizeof(struct segment));
    if (read == NULL) {
        request->error = ENOMEM;
        read_list_append(&port->refused, request);
        return;
    }
    read->request = request;
    read->port = port;
    read->length_bytes = length;
    read->segment_count = (uint32_t)chunks;
    bool has_buffer = is_inside && read_reserve(request, length + READ_TAIL_BYTES);
    struct store_object object = {.url = request->path,
                                  .profile = request->profile,
                                  .tag = request->tag,
                                  .size_bytes = request->object_bytes};
    pthread_mutex_lock(&store->lock);
    request->remote = read;
    port->read_count++;
    if (!is_inside) {
        refuse(read, ENODATA);
    } else if (!has_buffer || !start_read(store, read, &object, offset)) {
        refuse(read, ENOMEM);
    } else if (chunks == 0) {
        refuse(read, 0);
    } else {
        schedule(store);
    }
    pthread_mutex_unlock(&store->lock);
}

/* ---- Local reads of chunk files ------------------------------------------------------------ */

/* A single segment is read straight into the request's buffer, which the local read borrows. */
static void lend_buffer(struct read_request *from, struct read_request *to)
{
    to->buffer = from->buffer;
    to->buffer_bytes = from->buffer_bytes;
    from->buffer = NULL;
    from->buffer_bytes = 0;
}

static void prepare_local(struct segment *segment)
{
    struct read_request *local = &segment->local;
    struct chunk_file *file = segment->file;
    uint32_t begin = segment->offset_bytes / CHUNK_BLOCK_BYTES * CHUNK_BLOCK_BYTES;
    uint32_t end = segment->offset_bytes + segment->length_bytes;
    end = (end + CHUNK_BLOCK_BYTES - 1) / CHUNK_BLOCK_BYTES * CHUNK_BLOCK_BYTES;
    end = end < file->data_bytes ? end : file->data_bytes;
    *local = (struct read_request){
        .path = "",
        .keep_open = true,
        .file = &file->file,
        .offset_bytes = file->header_bytes + begin,
        .length_bytes = end - begin,
        .owner = segment,
    };
    if (segment->read->segment_count == 1) {
        lend_buffer(segment->read->request, local);
    }
}

struct read_request *store_port_take_local(struct store_port *port)
{
    struct store *store = port->store;
    struct read_request *local = NULL;
    pthread_mutex_lock(&store->lock);
    while (local == NULL && port->local.first != NULL) {
        struct segment *segment = take(&port->local);
        segment->file = files_acquire(store, segment->chunk);
        if (segment->file == NULL) {
            route(store, segment); /* it is not what it should be: fetched again */
            continue;
        }
        segment->state = SEGMENT_LOCAL;
        prepare_local(segment);
        local = &segment->local;
    }
    pthread_mutex_unlock(&store->lock);
    return local;
}

/* The segment's bytes out of the blocks that were read, if their checksums hold. No lock. */
static bool accept_blocks(struct segment *segment)
{
    struct read_request *local = &segment->local;
    struct store_read *read = segment->read;
    uint32_t first_block = segment->offset_bytes / CHUNK_BLOCK_BYTES;
    uint32_t lead = segment->offset_bytes % CHUNK_BLOCK_BYTES;
    bool is_good = local->error == 0 && chunk_file_check(segment->file, first_block, local->bytes,
                                                         (uint32_t)local->size_bytes);
    uint8_t *bytes = is_good ? local->bytes + lead : NULL;
    if (read->segment_count == 1) {
        lend_buffer(local, read->request);
        if (is_good) {
            read->request->bytes = bytes;
        }
    } else if (is_good) {
        memcpy(read->request->buffer + segment->out_bytes, bytes, segment->length_bytes);
    }
    free(local->buffer); /* NULL when it went back */
    local->buffer = NULL;
    return is_good;
}

void store_port_local_done(struct store_port *port, struct read_request *local)
{
    struct store *store = port->store;
    struct segment *segment = local->owner;
    bool is_good = accept_blocks(segment);
    bool has_buffer = is_good || read_reserve(segment->read->request,
                                              segment->read->length_bytes + READ_TAIL_BYTES);
    pthread_mutex_lock(&store->lock);
    files_release(store, segment->file);
    segment->file = NULL;
    if (is_good) {
        segment_finish(store, segment, NULL);
    } else if (!has_buffer) {
        struct error error;
        error_set(&error, ERROR_MEMORY, "no memory to read %s.", segment->chunk->object->url);
        segment_finish(store, segment, &error);
    } else {
        if (segment->chunk->on_disk) {
            store->stats.corrupt_count++;
            disk_remove(store, segment->chunk);
        }
        route(store, segment);
    }
    pthread_mutex_unlock(&store->lock);
}

/* ---- Collecting ---------------------------------------------------------------------------- */

/* Copy what is ready, without the lock: the chunks are held. */
static void copy_ready(struct store_port *port)
{
    struct store *store = port->store;
    struct segment_list ready = port->ready;
    port->ready = (struct segment_list){NULL, NULL};
    pthread_mutex_unlock(&store->lock);
    for (struct segment *segment = ready.first; segment != NULL; segment = segment->next) {
        memcpy(segment->read->request->buffer + segment->out_bytes,
               segment->chunk->buffer + segment->offset_bytes, segment->length_bytes);
    }
    pthread_mutex_lock(&store->lock);
    struct segment *segment;
    while ((segment = take(&ready)) != NULL) {
        segment_finish(store, segment, NULL);
    }
}

/* Set the result of a read that is over; its request is the reader's again. */
static void complete(struct store_read *read)
{
    struct read_request *request = read->request;
    if (request->error == 0) {
        if (request->bytes == NULL) { /* not read in place */
            request->bytes = request->buffer;
        }
        request->size_bytes = read->length_bytes;
        memset(request->bytes + request->size_bytes, 0, READ_TAIL_BYTES);
    } else {
        request->bytes = NULL;
    }
    request->remote = NULL;
    free(read);
}

size_t store_port_reap(struct store_port *port, struct read_request **done, size_t max)
{
    struct store *store = port->store;
    size_t count = 0;
    while (count < max && (done[count] = read_list_take(&port->refused)) != NULL) {
        count++;
    }
    size_t refused_count = count;
    pthread_mutex_lock(&store->lock);
    if (port->ready.first != NULL) {
        copy_ready(port);
    }
    while (count < max && port->done_first != NULL) {
        struct store_read *read = port->done_first;
        port->done_first = read->next;
        done[count++] = read->request;
        complete(read);
    }
    port->read_count -= (uint32_t)(count - refused_count);
    pthread_mutex_unlock(&store->lock);
    return count;
}

bool store_port_wait_begin(struct store_port *port)
{
    pthread_mutex_lock(&port->store->lock);
    bool is_idle = port->ready.first == NULL && port->done_first == NULL &&
                   port->local.first == NULL && port->refused.first == NULL;
    port->is_waiting = is_idle;
    pthread_mutex_unlock(&port->store->lock);
    return is_idle;
}

void store_port_wait_end(struct store_port *port)
{
    pthread_mutex_lock(&port->store->lock);
    port->is_waiting = false;
    pthread_mutex_unlock(&port->store->lock);
}

static void cancel_segment(struct store *store, struct segment *segment, const struct error *error)
{
    if (segment->state == SEGMENT_RANGE && segment->fetch != NULL) {
        remote_part_cancel(store->remote, &segment->fetch->part);
    }
    if (segment->state != SEGMENT_WAIT) {
        return; /* it ends by itself */
    }
    struct segment **link = &segment->chunk->waiters;
    while (*link != segment) {
        link = &(*link)->next;
    }
    *link = segment->next;
    segment_finish(store, segment, error);
}

void store_port_cancel(struct store_port *port, struct read_request *request)
{
    struct store *store = port->store;
    struct error error;
    error_set(&error, ERROR_CANCELLED, "the read is not wanted any more.");
    pthread_mutex_lock(&store->lock);
    struct store_read *read = request->remote;
    if (read != NULL && !read->is_cancelled) {
        read->is_cancelled = true;
        uint32_t count = read->segment_count;
        for (uint32_t i = 0; i < count && read->pending_count > 0; i++) {
            cancel_segment(store, &read->segments[i], &error);
        }
        fetch_cancel_unwanted(store);
    }
    pthread_mutex_unlock(&store->lock);
}
