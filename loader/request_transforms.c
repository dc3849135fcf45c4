#include "loader/request_transforms.h"

#include <stdio.h>
#include <string.h>

#include "loader/request_reader.h"

static const char *const operation_names[] = {
    "RandomResizedCrop",  "Resize",  "CenterCrop", "RandomCrop", "Pad", "RandomHorizontalFlip",
    "RandomVerticalFlip", "ToDtype", "Normalize",  NULL,
};
static const enum transform_kind operation_kinds[] = {
    TRANSFORM_RANDOM_RESIZED_CROP,  TRANSFORM_RESIZE,   TRANSFORM_CENTER_CROP,
    TRANSFORM_RANDOM_CROP,          TRANSFORM_PAD,      TRANSFORM_RANDOM_HORIZONTAL_FLIP,
    TRANSFORM_RANDOM_VERTICAL_FLIP, TRANSFORM_TO_DTYPE, TRANSFORM_NORMALIZE,
};

static void read_size(struct reader *reader, struct transform *transform)
{
    double size[2] = {0};
    bool may_be_short = transform->kind == TRANSFORM_RESIZE;
    bool may_be_absent = may_be_short && reader_has(reader, "max_size"); /* Resize(None, max) */
    if (!reader_has(reader, "size") && !may_be_absent) {
        reader_fail(reader, "size", "is missing");
    }
    size_t count =
        reader_numbers(reader, "size", size, may_be_short ? 1 : 2, 2, 1, RECIPE_SIDE_PX_MAX);
    if (count == 1) {
        transform->shorter_px = (uint32_t)size[0];
    } else {
        transform->height_px = (uint32_t)size[0];
        transform->width_px = (uint32_t)size[1];
    }
    if (may_be_short) {
        transform->longer_max_px =
            (uint32_t)reader_u64(reader, "max_size", 1, RECIPE_SIDE_PX_MAX, 0);
    }
}

static void read_filter(struct reader *reader, struct transform *transform)
{
    static const char *const names[] = {"nearest", "bilinear", "bicubic", NULL};
    static const enum resize_filter filters[] = {RESIZE_NEAREST, RESIZE_BILINEAR, RESIZE_BICUBIC};
    transform->filter = filters[reader_choice(reader, "interpolation", names, 1)];
}

static void read_pair(struct reader *reader, const char *name, double low, double high,
                      double *first, double *second)
{
    double pair[2] = {low, high};
    if (reader_has(reader, name)) {
        reader_numbers(reader, name, pair, 2, 2, 1e-6, 1e6);
    }
    *first = pair[0];
    *second = pair[1];
}

static void read_padding(struct reader *reader, struct transform *transform)
{
    static const char *const modes[] = {"constant", "edge", "reflect", "symmetric", NULL};
    double padding[4] = {0};
    double fill[3] = {0};
    reader_numbers(reader, "padding", padding, 4, 4, 0, RECIPE_SIDE_PX_MAX);
    reader_numbers(reader, "fill", fill, 3, 3, 0, 255);
    transform->pad_left = (uint32_t)padding[0];
    transform->pad_top = (uint32_t)padding[1];
    transform->pad_right = (uint32_t)padding[2];
    transform->pad_bottom = (uint32_t)padding[3];
    for (size_t i = 0; i < 3; i++) {
        transform->fill[i] = (uint8_t)fill[i];
    }
    transform->pad_mode = (enum pad_mode)reader_choice(reader, "padding_mode", modes, 0);
}

static void read_triple(struct reader *reader, const char *name, double minimum, float *target)
{
    double values[3] = {0};
    if (reader_numbers(reader, name, values, 3, 3, minimum, 1e6) != 3) {
        reader_fail(reader, name, "is missing");
    }
    for (size_t i = 0; i < 3; i++) {
        target[i] = (float)values[i];
    }
}

static void read_members(struct reader *reader, struct transform *transform)
{
    static const char *const dtypes[] = {"uint8", "float32", "float16", "bfloat16", NULL};
    static const enum pack_dtype pack_dtypes[] = {PACK_U8, PACK_F32, PACK_F16, PACK_BF16};
    switch (transform->kind) {
    case TRANSFORM_RANDOM_RESIZED_CROP:
        read_size(reader, transform);
        read_pair(reader, "scale", 0.08, 1.0, &transform->scale_min, &transform->scale_max);
        read_pair(reader, "ratio", 3.0 / 4.0, 4.0 / 3.0, &transform->ratio_min,
                  &transform->ratio_max);
        read_filter(reader, transform);
        break;
    case TRANSFORM_RESIZE:
        read_size(reader, transform);
        read_filter(reader, transform);
        break;
    case TRANSFORM_CENTER_CROP: read_size(reader, transform); break;
    case TRANSFORM_RANDOM_CROP:
        read_size(reader, transform);
        read_padding(reader, transform);
        transform->pad_if_needed = reader_bool(reader, "pad_if_needed", false);
        break;
    case TRANSFORM_PAD: read_padding(reader, transform); break;
    case TRANSFORM_RANDOM_HORIZONTAL_FLIP:
    case TRANSFORM_RANDOM_VERTICAL_FLIP:
        transform->probability = reader_number(reader, "p", 0, 1, 0.5);
        break;
    case TRANSFORM_TO_DTYPE:
        transform->dtype = pack_dtypes[reader_choice(reader, "dtype", dtypes, 1)];
        transform->scale = reader_bool(reader, "scale", false);
        break;
    case TRANSFORM_NORMALIZE:
        read_triple(reader, "mean", -1e6, transform->mean);
        read_triple(reader, "std", 1e-12, transform->std);
        break;
    }
}

static int parse_one(json_t *value, size_t place, struct transform *transform, struct error *error)
{
    char context[96];
    const char *name = json_string_value(json_object_get(value, "op"));
    snprintf(context, sizeof context, "transforms[%zu] (%.40s)", place, name != NULL ? name : "?");
    struct reader reader = reader_begin(value, context, error);
    int operation = reader_choice(&reader, "op", operation_names, -1);
    if (operation < 0) {
        reader_fail(&reader, "op", "is missing");
    } else {
        memset(transform, 0, sizeof *transform);
        transform->kind = operation_kinds[operation];
        read_members(&reader, transform);
    }
    return reader_end(&reader);
}

int request_transforms_parse(json_t *list, struct session_spec *spec, struct error *error)
{
    if (list == NULL) {
        return 0;
    }
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count > RECIPE_TRANSFORMS_MAX) {
        return error_set(error, ERROR_USAGE, "transforms: must be a list of at most %d.",
                         RECIPE_TRANSFORMS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        if (parse_one(json_array_get(list, i), i, &spec->transforms[i], error) != 0) {
            return -1;
        }
    }
    spec->transform_count = count;
    return 0;
}
