/* Chunk files that are kept open, the least recently used closed first. */
#include <assert.h>
#include <stdlib.h>

#include "loader/cache/store_private.h"

static void unlist(struct store *store, struct chunk *chunk)
{
    if (chunk->file_older != NULL) {
        chunk->file_older->file_newer = chunk->file_newer;
    } else {
        store->file_oldest = chunk->file_newer;
    }
    if (chunk->file_newer != NULL) {
        chunk->file_newer->file_older = chunk->file_older;
    } else {
        store->file_newest = chunk->file_older;
    }
    chunk->file_older = chunk->file_newer = NULL;
    store->file_count--;
}

static void list_newest(struct store *store, struct chunk *chunk)
{
    chunk->file_older = store->file_newest;
    chunk->file_newer = NULL;
    if (store->file_newest != NULL) {
        store->file_newest->file_newer = chunk;
    } else {
        store->file_oldest = chunk;
    }
    store->file_newest = chunk;
    store->file_count++;
}

void files_release(struct store *store, struct chunk_file *file)
{
    (void)store;
    assert(file->user_count > 0);
    if (--file->user_count == 0) {
        chunk_file_close(file);
    }
}

void files_drop(struct store *store, struct chunk *chunk)
{
    if (chunk->file != NULL) {
        unlist(store, chunk);
        files_release(store, chunk->file);
        chunk->file = NULL;
    }
}

void files_name(const struct chunk *chunk, char text[CHUNK_NAME_BYTES])
{
    struct chunk_name name = {
        .kind = CHUNK_OBJECT, .number = chunk->number, .file_bytes = chunk->file_bytes};
    for (size_t i = 0; i < sizeof name.key; i++) {
        name.key[i] = chunk->key[i];
    }
    chunk_name_format(&name, text);
}

struct chunk_file *files_acquire(struct store *store, struct chunk *chunk)
{
    assert(chunk->user_count > 0);
    if (chunk->file != NULL) {
        unlist(store, chunk);
        list_newest(store, chunk);
        chunk->file->user_count++;
        return chunk->file;
    }
    if (!chunk->on_disk) {
        return NULL;
    }
    char name[CHUNK_NAME_BYTES];
    files_name(chunk, name);
    struct chunk_identity identity = chunk_identity(store, chunk);
    struct chunk_file *file = NULL;
    pthread_mutex_unlock(&store->lock);
    int error = chunk_file_open(store->folder_fd, name, &identity, &file);
    pthread_mutex_lock(&store->lock);
    if (error != 0) {
        if (chunk->on_disk) {
            store->stats.corrupt_count++;
            disk_remove(store, chunk);
        }
        return NULL;
    }
    file->user_count = 1;
    if (chunk->on_disk && chunk->file == NULL) {
        file->user_count++;
        chunk->file = file;
        list_newest(store, chunk);
        if (store->file_count > OPEN_FILES_MAX) {
            files_drop(store, store->file_oldest);
        }
    }
    return file;
}
