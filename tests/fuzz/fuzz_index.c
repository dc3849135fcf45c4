/* Index files from any bytes: what index_check() accepts can be read to the last sample. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loader/index.h"
#include "loader/index_draft.h"
#include "loader/index_map.h"
#include "tests/fuzz/fuzz.h"

/* Mutations would never get past the checksums and the length, so they are set right. */
static void mend(uint8_t *bytes, size_t size_bytes)
{
    struct index_header header;
    if (size_bytes < sizeof header) {
        return;
    }
    memcpy(&header, bytes, sizeof header);
    memcpy(header.magic, INDEX_MAGIC, sizeof header.magic);
    header.version = INDEX_VERSION;
    header.file_bytes = size_bytes;
    header.payload_xxh3 = index_hash64(bytes + sizeof header, size_bytes - sizeof header);
    header.header_xxh3 = index_hash64(&header, offsetof(struct index_header, header_xxh3));
    memcpy(bytes, &header, sizeof header);
}

static void read_sample(const struct index *index, const struct index_fields *fields,
                        uint64_t number)
{
    struct sample_place place;
    char path[4096], label[256];
    uint64_t found;
    assert(index_sample_find(index, index_sample_id(index, number), &found) && found == number);
    index_sample_label(index, number, label, sizeof label);
    if (fields == NULL ||
        index_sample_place(index, fields, number, &place, path, sizeof path) < 0) {
        return;
    }
    assert(strlen(place.path) > 0 || place.is_shard);
    assert(place.tag == NULL || strlen(place.tag) < INDEX_TAG_BYTES);
    assert(!place.is_shard || place.offset_bytes + place.length_bytes <= place.shard_bytes);
    for (size_t i = 0; i < INDEX_FIELDS_MAX && place.is_shard; i++) {
        assert(place.field[i].length_bytes == UINT64_MAX ||
               place.field[i].offset_bytes + place.field[i].length_bytes <= place.length_bytes);
    }
}

static void read_all(const struct index *index)
{
    static const char *const patterns[] = {"jpg;png", "cls"};
    struct index_fields *fields = NULL;
    size_t wanted = index_header(index)->kind == INDEX_TAR ? 2 : 1;
    index_fields_create(index, patterns, wanted, true, &fields, NULL);
    for (uint64_t i = 0; i < index_sample_count(index); i++) {
        read_sample(index, fields, i);
    }
    for (uint32_t i = 0; i < index_class_count(index); i++) {
        assert(strlen(index_class_name(index, i)) < index_header(index)->file_bytes);
    }
    index_fields_destroy(fields);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes)
{
    uint8_t *copy = malloc(size_bytes + 1);
    assert(copy != NULL);
    memcpy(copy, bytes, size_bytes);
    mend(copy, size_bytes);
    /* Most inputs fail here, cheaply; those that pass are mapped as index_open() would. */
    if (size_bytes >= sizeof(struct index_header) && index_check(copy, size_bytes, NULL) == 0) {
        int fd = memfd_create("fuzz", MFD_CLOEXEC);
        assert(fd >= 0 && write(fd, copy, size_bytes) == (ssize_t)size_bytes);
        struct index *index = index_map(fd, NULL);
        assert(index != NULL);
        read_all(index);
        index_unref(index);
    }
    free(copy);
    return 0;
}

static void draft_folder(struct index_draft *draft, bool is_remote)
{
    static const char *const directories[] = {"", "a", "a/x", "b"};
    struct index_shard shard = {.path = index_draft_string(draft, "/f", 2)};
    index_draft_add(draft, INDEX_SHARDS, &shard, sizeof shard);
    for (uint32_t i = 0; i < 4; i++) {
        struct index_directory directory = {
            .path = index_draft_string(draft, directories[i], strlen(directories[i])),
            .mtime_ns = 1000 + i};
        index_draft_add(draft, INDEX_DIRECTORIES, &directory, sizeof directory);
        if (i == 1 || i == 3) {
            index_draft_add(draft, INDEX_CLASSES, &directory.path, sizeof directory.path);
        }
        struct index_sample sample = {
            .name = index_draft_string(draft, "1.jpg", 5), .place = i, .label = i == 3};
        if (i > 0) {
            index_draft_add(draft, INDEX_SAMPLES, &sample, sizeof sample);
            struct index_object object = {.tag = index_draft_string(draft, "\"a\"", 3),
                                          .size_bytes = 1000 + i};
            if (is_remote) {
                index_draft_add(draft, INDEX_OBJECTS, &object, sizeof object);
            }
        }
    }
}

static void draft_tar(struct index_draft *draft)
{
    static const char *const extensions[] = {"jpg", "cls", "png"};
    for (size_t i = 0; i < 3; i++) {
        uint64_t text = index_draft_string(draft, extensions[i], 3);
        index_draft_add(draft, INDEX_EXTENSIONS, &text, sizeof text);
    }
    for (uint32_t i = 0; i < 4; i++) {
        struct index_shard shard = {
            .path = index_draft_string(draft, "/s.tar", 6),
            .sample_first = i / 2 * 2,
            .size_bytes = 10240,
            .tag = index_draft_string(draft, i == 0 ? "" : "\"t\"", i == 0 ? 0 : 3)};
        if (i % 2 == 0) {
            index_draft_add(draft, INDEX_SHARDS, &shard, sizeof shard);
        }
        struct index_sample sample = {.name = index_draft_string(draft, "key", 3),
                                      .member_first = i * 2,
                                      .member_count = 2,
                                      .place = i / 2,
                                      .label = i};
        index_draft_add(draft, INDEX_SAMPLES, &sample, sizeof sample);
        for (uint32_t j = 0; j < 2; j++) {
            struct index_member member = {
                .offset_bytes = 512 + j * 1024, .size_bytes = 100, .extension = (i + j) % 3};
            index_draft_add(draft, INDEX_MEMBERS, &member, sizeof member);
        }
    }
}

size_t fuzz_seed(size_t index, uint8_t *buffer, size_t size_max_bytes)
{
    if (index > 2) {
        return 0;
    }
    struct index_draft draft;
    index_draft_init(&draft, index == 1 ? INDEX_TAR : INDEX_FOLDER);
    if (index != 1) {
        draft_folder(&draft, index == 2);
    } else {
        draft_tar(&draft);
    }
    int fd = memfd_create("seed", MFD_CLOEXEC);
    assert(fd >= 0 && index_draft_write(&draft, fd) == 0);
    ssize_t size = pread(fd, buffer, size_max_bytes, 0);
    assert(size > 0 && index_check(buffer, (size_t)size, NULL) == 0);
    close(fd);
    index_draft_clear(&draft);
    return (size_t)size;
}
