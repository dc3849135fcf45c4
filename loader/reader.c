#include "loader/reader.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "loader/cache/store_port.h"
#include "loader/source_engine.h"

enum { SUBMIT_MAX = 16 };

struct reader {
    struct source *source;
    uint64_t file_bytes_max;
    struct store_port *port;  /* NULL: no store */
    uint32_t depth;           /* of the source */
    uint32_t source_count;    /* requests with the source, the port's local reads included */
    uint32_t remote_count;    /* requests with the port */
    struct read_list waiting; /* local reads of the port that the source has no place for */
    struct read_list refused; /* remote requests without a store */
};

static void wake(void *context)
{
    struct reader *reader = context;
    source_interrupt(reader->source);
}

struct reader *reader_create(const struct reader_options *options)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        return NULL;
    }
    reader->depth = options->source.depth;
    reader->file_bytes_max = options->source.file_bytes_max;
    reader->source = source_create(&options->source);
    if (reader->source != NULL && options->store != NULL) {
        reader->port = store_port_create(options->store, wake, reader);
    }
    if (reader->source == NULL || (options->store != NULL && reader->port == NULL)) {
        reader_destroy(reader);
        return NULL;
    }
    return reader;
}

enum source_engine reader_engine(const struct reader *reader)
{
    return source_engine(reader->source);
}

const char *reader_engine_reason(const struct reader *reader)
{
    return source_engine_reason(reader->source);
}

/* Give the source what it has places for: its engine takes `depth` reads at most. */
static void submit_local(struct reader *reader)
{
    struct read_request *local[SUBMIT_MAX];
    size_t count = 0;
    do {
        for (count = 0; count < SUBMIT_MAX && reader->source_count < reader->depth; count++) {
            local[count] = read_list_take(&reader->waiting);
            if (local[count] == NULL && reader->remote_count > 0) {
                local[count] = store_port_take_local(reader->port);
            }
            if (local[count] == NULL) {
                break;
            }
            reader->source_count++;
        }
        source_submit(reader->source, local, count);
    } while (count == SUBMIT_MAX);
}

static void submit_remote(struct reader *reader, struct read_request *request)
{
    uint64_t length = request->length_bytes != 0 ? request->length_bytes : request->object_bytes;
    request->failure.kind = ERROR_NONE;
    if (reader->port != NULL && length <= reader->file_bytes_max) {
        store_port_submit(reader->port, request);
        reader->remote_count++;
        return;
    }
    request->error = EFBIG;
    if (reader->port == NULL) {
        request->error = EREMOTEIO;
        error_set(&request->failure, ERROR_INTERNAL, "%s: this daemon has no store.",
                  request->path);
    }
    request->bytes = NULL;
    request->size_bytes = 0;
    read_list_append(&reader->refused, request);
}

void reader_submit(struct reader *reader, struct read_request *const *requests, size_t count)
{
    bool is_local = reader->waiting.first == NULL && count <= reader->depth - reader->source_count;
    for (size_t i = 0; i < count && is_local; i++) {
        is_local = requests[i]->tag == NULL;
    }
    if (is_local) {
        source_submit(reader->source, requests, count);
        reader->source_count += (uint32_t)count;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (requests[i]->tag != NULL) {
            submit_remote(reader, requests[i]);
        } else {
            read_list_append(&reader->waiting, requests[i]);
        }
    }
    submit_local(reader);
}

/* One look at everything: finished requests into `done`. */
static size_t collect(struct reader *reader, struct read_request **done, size_t max, int timeout_ms)
{
    size_t count = 0;
    while (count < max && (done[count] = read_list_take(&reader->refused)) != NULL) {
        count++;
    }
    struct read_request *finished[SUBMIT_MAX];
    size_t room = max - count < SUBMIT_MAX ? max - count : SUBMIT_MAX;
    size_t reaped = room == 0 ? 0 : source_reap(reader->source, finished, room, timeout_ms);
    reader->source_count -= (uint32_t)reaped;
    for (size_t i = 0; i < reaped; i++) {
        if (finished[i]->file != NULL) {
            store_port_local_done(reader->port, finished[i]);
        } else {
            done[count++] = finished[i];
        }
    }
    if (reader->remote_count > 0) {
        size_t remote = store_port_reap(reader->port, done + count, max - count);
        reader->remote_count -= (uint32_t)remote;
        count += remote;
    }
    submit_local(reader);
    return count;
}

size_t reader_reap(struct reader *reader, struct read_request **done, size_t max, int timeout_ms)
{
    if (reader->remote_count == 0 && reader->refused.first == NULL) {
        size_t count = source_reap(reader->source, done, max, timeout_ms);
        reader->source_count -= (uint32_t)count;
        if (reader->waiting.first != NULL) {
            submit_local(reader);
        }
        return count;
    }
    size_t count = collect(reader, done, max, 0);
    if (count > 0 || timeout_ms == 0) {
        return count;
    }
    /* A wake-up between here and the sleep ends the sleep at once. */
    if (store_port_wait_begin(reader->port)) {
        count = collect(reader, done, max, timeout_ms);
    }
    store_port_wait_end(reader->port);
    return count > 0 ? count : collect(reader, done, max, 0);
}

void reader_interrupt(struct reader *reader)
{
    source_interrupt(reader->source);
}

void reader_cancel(struct reader *reader, struct read_request *request)
{
    if (reader->port != NULL) {
        store_port_cancel(reader->port, request);
    }
}

void reader_destroy(struct reader *reader)
{
    if (reader == NULL) {
        return;
    }
    assert(reader->remote_count == 0);
    source_destroy(reader->source);
    store_port_destroy(reader->port);
    free(reader);
}
