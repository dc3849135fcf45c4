#include "loader/index_map.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/index_build.h"

static const void *section(const struct index *index, enum index_section number, size_t element,
                           uint64_t *count)
{
    *count = index->header->section[number].bytes / element;
    return index->bytes + index->header->section[number].offset_bytes;
}

static void find_sections(struct index *index)
{
    uint64_t count;
    index->shards = section(index, INDEX_SHARDS, sizeof *index->shards, &count);
    index->shard_count = (uint32_t)count;
    index->directories = section(index, INDEX_DIRECTORIES, sizeof *index->directories, &count);
    index->directory_count = count;
    index->classes = section(index, INDEX_CLASSES, sizeof *index->classes, &count);
    index->class_count = (uint32_t)count;
    index->extensions = section(index, INDEX_EXTENSIONS, sizeof *index->extensions, &count);
    index->extension_count = (uint32_t)count;
    index->samples = section(index, INDEX_SAMPLES, sizeof *index->samples, &index->sample_count);
    index->members = section(index, INDEX_MEMBERS, sizeof *index->members, &count);
    index->objects = section(index, INDEX_OBJECTS, sizeof *index->objects, &count);
    index->object_count = count;
    index->strings = section(index, INDEX_STRINGS, 1, &count);
}

void index_unmap(struct index *index)
{
    if (index->fd < 0) {
        free((void *)index->bytes);
    } else {
        if (index->bytes != NULL) {
            munmap((void *)index->bytes, index->size_bytes);
        }
        close(index->fd);
    }
    free(index->shard_first);
    free(index);
}

/* An index around bytes that are there (NULL: memory was short); ends it when they are no good. */
static struct index *check_bytes(struct index *index, struct error *error)
{
    if (index->bytes == NULL) {
        index_build_no_memory(error);
    }
    if (index->bytes == NULL || index_check(index->bytes, index->size_bytes, error) < 0) {
        index_unmap(index);
        return NULL;
    }
    index->header = (const void *)index->bytes;
    find_sections(index);
    index->shard_first = calloc((size_t)index->shard_count + 1, sizeof *index->shard_first);
    if (index->shard_first == NULL) {
        index_build_no_memory(error);
        index_unmap(index);
        return NULL;
    }
    for (uint32_t i = 0; i < index->shard_count; i++) {
        index->shard_first[i] = index->shards[i].sample_first;
    }
    index->shard_first[index->shard_count] = index->sample_count;
    return index;
}

/* Takes fd over when it fails. */
static struct index *begin(int fd, struct error *error)
{
    struct index *index = calloc(1, sizeof *index);
    struct stat status;
    if (index == NULL || fstat(fd, &status) != 0) {
        index_build_no_memory(error);
        free(index);
        close(fd);
        return NULL;
    }
    index->fd = fd;
    atomic_init(&index->reference_count, 1);
    index->size_bytes = (size_t)status.st_size;
    return index;
}

struct index *index_map(int fd, struct error *error)
{
    struct index *index = begin(fd, error);
    if (index == NULL) {
        return NULL;
    }
    void *bytes = index->size_bytes == 0
                      ? MAP_FAILED
                      : mmap(NULL, index->size_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    index->bytes = bytes == MAP_FAILED ? NULL : bytes;
    return check_bytes(index, error);
}

struct index *index_load(int fd, struct error *error)
{
    struct index *index = begin(fd, error);
    if (index == NULL) {
        return NULL;
    }
    index->fd = -1;
    uint8_t *bytes = malloc(index->size_bytes + 1);
    index->bytes = bytes;
    for (size_t done = 0; bytes != NULL && done < index->size_bytes;) {
        ssize_t count = pread(fd, bytes + done, index->size_bytes - done, (off_t)done);
        if (count <= 0) {
            index->size_bytes = done; /* cut short: the check refuses it */
            break;
        }
        done += (size_t)count;
    }
    close(fd);
    return check_bytes(index, error);
}
