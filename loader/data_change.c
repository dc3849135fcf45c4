#include "loader/data_change.h"

#include <stdio.h>
#include <string.h>

#include "loader/catalog.h"
#include "loader/remote/remote.h"

struct object {
    const char *url;
    const char *tag;
    uint64_t size_bytes;
};

static uint64_t count_objects(const struct data_view *view)
{
    if (view->index == NULL) {
        return view->catalog != NULL ? catalog_shard_count(view->catalog) : 0;
    }
    return index_header(view->index)->kind == INDEX_TAR ? index_shard_count(view->index)
                                                        : index_sample_count(view->index);
}

/* False: it is a file. `buffer` has REMOTE_URL_BYTES and holds the URL where that must be made. */
static bool get_object(const struct data_view *view, uint64_t number, char *buffer,
                       struct object *object)
{
    if (view->index == NULL) {
        const struct dataset *dataset = catalog_dataset(view->catalog);
        *object = (struct object){dataset->paths.texts[number], dataset->objects[number].tag,
                                  dataset->objects[number].size_bytes};
        return true;
    }
    if (index_header(view->index)->kind == INDEX_TAR) {
        index_shard_object(view->index, (uint32_t)number, &object->url, &object->tag,
                           &object->size_bytes);
        return remote_is_url(object->url);
    }
    struct sample_place place;
    if (index_sample_place(view->index, NULL, number, &place, buffer, REMOTE_URL_BYTES) != 0) {
        return false;
    }
    *object = (struct object){buffer, place.tag, place.object_bytes};
    return place.tag != NULL;
}

static bool is_same_version(const struct object *a, const struct object *b)
{
    return a->size_bytes == b->size_bytes && a->tag != NULL && b->tag != NULL &&
           strcmp(a->tag, b->tag) == 0;
}

static bool has_object(const struct data_view *view, const char *url)
{
    char buffer[REMOTE_URL_BYTES];
    struct object object;
    uint64_t count = count_objects(view);
    for (uint64_t i = 0; i < count && get_object(view, i, buffer, &object); i++) {
        if (strcmp(object.url, url) == 0) {
            return true;
        }
    }
    return false;
}

bool data_change_describe(const struct data_view *before, const struct data_view *after, char *text,
                          size_t text_bytes)
{
    uint64_t before_count = count_objects(before), after_count = count_objects(after);
    char before_url[REMOTE_URL_BYTES], after_url[REMOTE_URL_BYTES];
    if (before_count == 0 || after_count == 0) {
        return false; /* nothing was known */
    }
    for (uint64_t i = 0; i < before_count || i < after_count; i++) {
        struct object old = {.url = NULL}, new = {.url = NULL};
        if ((i < before_count && !get_object(before, i, before_url, &old)) ||
            (i < after_count && !get_object(after, i, after_url, &new))) {
            return false;
        }
        if (old.url != NULL && new.url != NULL && strcmp(old.url, new.url) == 0) {
            if (is_same_version(&old, &new)) {
                continue;
            }
            snprintf(text, text_bytes, "%s was replaced", old.url);
        } else if (old.url != NULL && !has_object(after, old.url)) {
            snprintf(text, text_bytes, "%s was removed", old.url);
        } else {
            snprintf(text, text_bytes, "%s was added", new.url != NULL ? new.url : old.url);
        }
        return true;
    }
    return false;
}
