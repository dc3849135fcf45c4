/* index_check(): bytes that pass may be read through index.c without further looks at bounds. */
#include <string.h>

#include "loader/index.h"
#include "loader/index_hash.h"

struct view {
    const uint8_t *bytes;
    const struct index_header *header;
    uint64_t count[INDEX_SECTIONS]; /* elements */
};

static const uint64_t element_bytes[INDEX_SECTIONS] = {
    [INDEX_SHARDS] = sizeof(struct index_shard),
    [INDEX_DIRECTORIES] = sizeof(struct index_directory),
    [INDEX_CLASSES] = sizeof(uint64_t),
    [INDEX_EXTENSIONS] = sizeof(uint64_t),
    [INDEX_SAMPLES] = sizeof(struct index_sample),
    [INDEX_MEMBERS] = sizeof(struct index_member),
    [INDEX_OBJECTS] = sizeof(struct index_object),
    [INDEX_STRINGS] = 1,
};

static int damaged(struct error *error, const char *what)
{
    return error_set(error, ERROR_DATASET, "The index is damaged: %s. Build it again.", what);
}

static const void *section(const struct view *view, enum index_section number)
{
    return view->bytes + view->header->section[number].offset_bytes;
}

static int check_header(const struct view *view, size_t size_bytes, struct error *error)
{
    const struct index_header *header = view->header;
    if (size_bytes < sizeof *header) {
        return damaged(error, "it is too short");
    }
    if (memcmp(header->magic, INDEX_MAGIC, sizeof header->magic) != 0) {
        return damaged(error, "it is no index");
    }
    if (header->version != INDEX_VERSION) {
        return damaged(error, "another version wrote it");
    }
    if (header->header_xxh3 != index_hash64(header, offsetof(struct index_header, header_xxh3))) {
        return damaged(error, "the checksum of its header is wrong");
    }
    if (header->kind != INDEX_FOLDER && header->kind != INDEX_TAR) {
        return damaged(error, "its kind is unknown");
    }
    if (header->file_bytes != size_bytes) {
        return damaged(error, "its length is wrong");
    }
    return 0;
}

/* Sections lie in order without gaps, each at a multiple of 8. */
static int check_sections(struct view *view, struct error *error)
{
    const struct index_header *header = view->header;
    uint64_t at = sizeof *header;
    for (size_t i = 0; i < INDEX_SECTIONS; i++) {
        uint64_t bytes = header->section[i].bytes;
        if (header->section[i].offset_bytes != at || bytes > header->file_bytes - at ||
            bytes % element_bytes[i] != 0) {
            return damaged(error, "its sections are out of place");
        }
        view->count[i] = bytes / element_bytes[i];
        at = (at + bytes + 7) & ~UINT64_C(7);
        if (at > header->file_bytes) {
            return damaged(error, "its sections are out of place");
        }
    }
    if (at != header->file_bytes || header->sample_count != view->count[INDEX_SAMPLES]) {
        return damaged(error, "its counts are wrong");
    }
    uint64_t strings = view->count[INDEX_STRINGS];
    const char *text = section(view, INDEX_STRINGS);
    if (strings == 0 || text[0] != '\0' || text[strings - 1] != '\0') {
        return damaged(error, "its strings do not end");
    }
    return 0;
}

static bool is_string(const struct view *view, uint64_t offset)
{
    return offset < view->count[INDEX_STRINGS]; /* the last string ends with a NUL */
}

/* A string that fits where tags go. */
static bool is_tag(const struct view *view, uint64_t offset)
{
    const char *text = section(view, INDEX_STRINGS);
    return is_string(view, offset) && strnlen(text + offset, INDEX_TAG_BYTES) < INDEX_TAG_BYTES;
}

static int check_counts(const struct view *view, struct error *error)
{
    bool is_folder = view->header->kind == INDEX_FOLDER;
    if (view->count[INDEX_SHARDS] == 0 || view->count[INDEX_SAMPLES] == 0 ||
        view->count[INDEX_SHARDS] > UINT32_MAX || view->count[INDEX_CLASSES] > UINT32_MAX ||
        view->count[INDEX_DIRECTORIES] > UINT32_MAX || view->count[INDEX_EXTENSIONS] > UINT32_MAX) {
        return damaged(error, "its counts are absurd");
    }
    if (is_folder && (view->count[INDEX_SHARDS] != 1 || view->count[INDEX_DIRECTORIES] == 0 ||
                      view->count[INDEX_MEMBERS] != 0 || view->count[INDEX_EXTENSIONS] != 0)) {
        return damaged(error, "it does not describe a folder");
    }
    uint64_t objects = view->count[INDEX_OBJECTS];
    if (objects != 0 && (!is_folder || objects != view->count[INDEX_SAMPLES])) {
        return damaged(error, "its list of objects is wrong");
    }
    if (!is_folder && (view->count[INDEX_DIRECTORIES] != 0 || view->count[INDEX_CLASSES] != 0)) {
        return damaged(error, "it does not describe tar files");
    }
    return 0;
}

static int check_tables(const struct view *view, struct error *error)
{
    const struct index_shard *shards = section(view, INDEX_SHARDS);
    uint64_t first = 0;
    for (uint64_t i = 0; i < view->count[INDEX_SHARDS]; i++) {
        /* Every shard has a sample, and its positions fit into 32 bits. */
        uint64_t end = i + 1 < view->count[INDEX_SHARDS] ? shards[i + 1].sample_first
                                                         : view->count[INDEX_SAMPLES];
        if (!is_string(view, shards[i].path) || !is_tag(view, shards[i].tag) ||
            shards[i].sample_first != first || end <= first || end > view->count[INDEX_SAMPLES] ||
            end - first > UINT32_MAX) {
            return damaged(error, "its list of shards is wrong");
        }
        first = end;
    }
    const struct index_directory *directories = section(view, INDEX_DIRECTORIES);
    for (uint64_t i = 0; i < view->count[INDEX_DIRECTORIES]; i++) {
        if (!is_string(view, directories[i].path)) {
            return damaged(error, "its list of directories is wrong");
        }
    }
    const struct index_object *objects = section(view, INDEX_OBJECTS);
    const char *strings = section(view, INDEX_STRINGS);
    for (uint64_t i = 0; i < view->count[INDEX_OBJECTS]; i++) {
        if (!is_tag(view, objects[i].tag) || strings[objects[i].tag] == '\0') {
            return damaged(error, "its list of objects is wrong");
        }
    }
    const uint64_t *classes = section(view, INDEX_CLASSES);
    for (uint64_t i = 0; i < view->count[INDEX_CLASSES]; i++) {
        if (!is_string(view, classes[i])) {
            return damaged(error, "its list of classes is wrong");
        }
    }
    const uint64_t *extensions = section(view, INDEX_EXTENSIONS);
    for (uint64_t i = 0; i < view->count[INDEX_EXTENSIONS]; i++) {
        if (!is_string(view, extensions[i])) {
            return damaged(error, "its list of extensions is wrong");
        }
    }
    return 0;
}

static int check_folder_samples(const struct view *view, struct error *error)
{
    const struct index_sample *samples = section(view, INDEX_SAMPLES);
    uint32_t place = 0;
    int64_t label = 0;
    for (uint64_t i = 0; i < view->count[INDEX_SAMPLES]; i++) {
        const struct index_sample *sample = &samples[i];
        if (!is_string(view, sample->name) || sample->place < place ||
            sample->place >= view->count[INDEX_DIRECTORIES] || sample->label < label ||
            sample->label >= (int64_t)view->count[INDEX_CLASSES] || sample->member_count != 0) {
            return damaged(error, "its samples are out of order");
        }
        place = sample->place;
        label = sample->label;
    }
    return 0;
}

/* Members of one sample lie one behind the other in its shard. */
static int check_members(const struct view *view, const struct index_sample *sample,
                         uint64_t shard_bytes, struct error *error)
{
    const struct index_member *members = section(view, INDEX_MEMBERS);
    uint64_t end = 0;
    for (uint64_t i = 0; i < sample->member_count; i++) {
        const struct index_member *member = &members[sample->member_first + i];
        if (member->offset_bytes < end || member->offset_bytes > shard_bytes ||
            member->size_bytes > shard_bytes - member->offset_bytes ||
            member->extension >= view->count[INDEX_EXTENSIONS]) {
            return damaged(error, "a member lies outside its shard");
        }
        end = member->offset_bytes + member->size_bytes;
    }
    return 0;
}

static int check_tar_samples(const struct view *view, struct error *error)
{
    const struct index_sample *samples = section(view, INDEX_SAMPLES);
    const struct index_shard *shards = section(view, INDEX_SHARDS);
    uint64_t shard = 0, member_first = 0;
    for (uint64_t i = 0; i < view->count[INDEX_SAMPLES]; i++) {
        const struct index_sample *sample = &samples[i];
        if (shard + 1 < view->count[INDEX_SHARDS] && i == shards[shard + 1].sample_first) {
            shard++;
        }
        if (!is_string(view, sample->name) || sample->place != shard ||
            sample->member_first != member_first || sample->member_count == 0 ||
            sample->member_count > view->count[INDEX_MEMBERS] - member_first) {
            return damaged(error, "its samples are out of order");
        }
        if (check_members(view, sample, shards[shard].size_bytes, error) < 0) {
            return -1;
        }
        member_first += sample->member_count;
    }
    if (member_first != view->count[INDEX_MEMBERS]) {
        return damaged(error, "some members belong to no sample");
    }
    return 0;
}

int index_check(const uint8_t *bytes, size_t size_bytes, struct error *error)
{
    struct view view = {.bytes = bytes, .header = (const void *)bytes};
    if (check_header(&view, size_bytes, error) < 0 || check_sections(&view, error) < 0) {
        return -1;
    }
    const uint8_t *payload = bytes + sizeof *view.header;
    if (view.header->payload_xxh3 != index_hash64(payload, size_bytes - sizeof *view.header)) {
        return damaged(error, "its checksum is wrong");
    }
    if (check_counts(&view, error) < 0 || check_tables(&view, error) < 0) {
        return -1;
    }
    return view.header->kind == INDEX_FOLDER ? check_folder_samples(&view, error)
                                             : check_tar_samples(&view, error);
}
