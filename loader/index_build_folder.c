/* A folder with a class per directory becomes a draft: directories, classes, samples in the order
 * in which torchvision's ImageFolder has them. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "loader/folder_list.h"
#include "loader/index_build.h"

static int missing_layout(const char *root, const char *what, struct error *error)
{
    return error_set(error, ERROR_DATASET,
                     "%s: %s. A folder of images has a folder for each class with the images "
                     "inside, FOLDER/CLASS/IMAGE.jpg: give the folder that holds the class "
                     "folders. For tar files write \"FOLDER/*.tar\".",
                     root, what);
}

static bool is_same_class(const struct folder_directory *a, const struct folder_directory *b)
{
    return a->class_length == b->class_length && memcmp(a->path, b->path, a->class_length) == 0;
}

/* One directory, its class if it is the class's first, and its samples. */
static void add_directory(struct index_draft *draft, const struct folder_list *list, size_t number,
                          struct index_hash *fingerprint)
{
    struct folder_directory *directory = list->directories[number];
    struct index_directory entry = {
        .path = index_draft_string(draft, directory->path, directory->path_length),
        .mtime_ns = directory->mtime_ns,
    };
    index_draft_add(draft, INDEX_DIRECTORIES, &entry, sizeof entry);
    if (number > 0 && !is_same_class(directory, list->directories[number - 1])) {
        uint64_t name = index_draft_string(draft, directory->path, directory->class_length);
        index_draft_add(draft, INDEX_CLASSES, &name, sizeof name);
    }
    size_t class_count = index_draft_count(draft, INDEX_CLASSES, sizeof(uint64_t));
    index_hash_add_text(fingerprint, directory->path);
    index_hash_add_u64(fingerprint, directory->name_count);
    index_hash_add(fingerprint, directory->name_count > 0 ? directory->names : "",
                   directory->name_bytes);

    const char *name = directory->names;
    for (size_t i = 0; i < directory->name_count; i++) {
        size_t length = strlen(name);
        struct index_sample sample = {
            .name = index_draft_string(draft, name, length),
            .place = (uint32_t)number,
            .label = (int64_t)class_count - 1,
        };
        index_draft_add(draft, INDEX_SAMPLES, &sample, sizeof sample);
        name += length + 1;
    }
}

enum { MEASURED_MAX = 512 };

/* The size of all files, from that of some, evenly chosen. */
static uint64_t estimate_data_bytes(const struct folder_list *list, uint64_t sample_count)
{
    uint64_t measured = 0, sum_bytes = 0, first = 0, chosen = 0;
    uint64_t wanted = sample_count < MEASURED_MAX ? sample_count : MEASURED_MAX;
    for (size_t i = 0; i < list->count; i++) {
        const struct folder_directory *directory = list->directories[i];
        const char *name = directory->names;
        uint64_t at = first;
        for (; chosen < wanted; chosen++) {
            uint64_t next = chosen * sample_count / wanted;
            if (next >= first + directory->name_count) {
                break;
            }
            for (; at < next; at++) {
                name += strlen(name) + 1;
            }
            char path[4096];
            int length = snprintf(path, sizeof path, "%s/%s", directory->path, name);
            struct stat status;
            if (length < (int)sizeof path && fstatat(list->root_fd, path, &status, 0) == 0) {
                measured++;
                sum_bytes += (uint64_t)status.st_size;
            }
        }
        first += directory->name_count;
    }
    return measured == 0 ? 0
                         : (uint64_t)((double)sum_bytes / (double)measured * (double)sample_count);
}

static int fill_draft(const char *root, const struct folder_list *list, struct index_draft *draft,
                      struct error *error)
{
    struct index_hash *fingerprint = index_hash_create();
    if (fingerprint == NULL) {
        return index_build_no_memory(error);
    }
    index_hash_add_u64(fingerprint, INDEX_FOLDER);
    struct index_shard shard = {
        .path = index_draft_string(draft, root, strlen(root)),
        .mtime_ns = list->directories[0]->mtime_ns,
    };
    index_draft_add(draft, INDEX_SHARDS, &shard, sizeof shard);
    for (size_t i = 0; i < list->count; i++) {
        add_directory(draft, list, i, fingerprint);
    }
    index_hash_value128(fingerprint, draft->fingerprint);
    index_hash_destroy(fingerprint);
    return draft->is_out_of_memory ? index_build_no_memory(error) : 0;
}

int index_build_folder(const struct dataset *dataset, uint32_t thread_count,
                       struct index_progress *progress, struct index_draft *draft,
                       struct error *error)
{
    const char *root = dataset->paths.texts[0];
    struct folder_list list;
    if (folder_list_open(root, thread_count, progress, &list, error) < 0) {
        return -1;
    }
    uint64_t sample_count = 0;
    for (size_t i = 0; i < list.count; i++) {
        sample_count += list.directories[i]->name_count;
    }
    int result = 0;
    if (list.count > UINT32_MAX || sample_count > UINT32_MAX) {
        result =
            error_set(error, ERROR_DATASET,
                      "%s: more than 4,294,967,295 files or folders. Split the data set.", root);
    } else if (list.count == 1) {
        result = missing_layout(root, "no folder is inside", error);
    } else if (sample_count == 0) {
        result = missing_layout(root,
                                "no image is inside (looked for .jpg .jpeg .png .ppm .bmp "
                                ".pgm .tif .tiff .webp)",
                                error);
    }
    if (result == 0) {
        result = fill_draft(root, &list, draft, error);
    }
    if (result == 0) {
        draft->data_bytes = estimate_data_bytes(&list, sample_count);
    }
    folder_list_close(&list);
    return result;
}
