/*
 * reader.h - bytes of samples for the pipeline, wherever they are: local files through source.h,
 * remote objects (requests with a tag) through the store.
 *
 * Local requests are handed on as they are. A remote one is copied from memory, read from a chunk
 * file by the same engine as local files and checked, or waits until its bytes have come.
 *
 * Threads and ownership as in source.h; cancel and interrupt: any thread. A request must not be
 * touched between submit and the reap that gives it back.
 */
#ifndef PENSTOCK_LOADER_READER_H
#define PENSTOCK_LOADER_READER_H

#include "loader/error.h"
#include "loader/source.h"

struct store;
struct reader;

struct reader_options {
    struct source_options source; /* its depth counts local and remote requests together */
    struct store *store;          /* borrowed; NULL: remote requests fail */
};

/* NULL: no memory. */
struct reader *reader_create(const struct reader_options *options);
void reader_destroy(struct reader *reader); /* no remote request is in flight; NULL is accepted */

enum source_engine reader_engine(const struct reader *reader);
const char *reader_engine_reason(const struct reader *reader);

void reader_submit(struct reader *reader, struct read_request *const *requests, size_t count);
size_t reader_reap(struct reader *reader, struct read_request **done, size_t max, int timeout_ms);
void reader_interrupt(struct reader *reader);

/* A remote request that waits for the network is given back soon, with ECANCELED. Any thread, for
 * any request of this reader, in flight or not; no effect on local ones. */
void reader_cancel(struct reader *reader, struct read_request *request);

#endif /* PENSTOCK_LOADER_READER_H */
