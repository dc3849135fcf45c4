#include "tests/tools/recipe_samples.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- Recipes from bytes ---------------------------------------------------------------------- */

struct source {
    const uint8_t *bytes;
    size_t left_bytes;
};

static uint32_t next(struct source *source, uint32_t count)
{
    if (source->left_bytes == 0) {
        return 0;
    }
    source->left_bytes--;
    return *source->bytes++ % count;
}

/* Mostly 1 .. 70 px, now and then 0 or something large. */
static uint32_t next_side(struct source *source)
{
    uint32_t side = next(source, 256);
    return side < 250 ? 1 + side % 70 : side == 250 ? 0 : side == 251 ? 20000 : 1u << (side - 246);
}

static void sample_crop(struct source *source, struct transform *transform)
{
    transform->height_px = next_side(source);
    transform->width_px = next_side(source);
}

static void sample_padding(struct source *source, struct transform *transform)
{
    uint32_t most = next(source, 8) == 0 ? 200 : 12;
    transform->pad_left = next(source, most);
    transform->pad_top = next(source, most);
    transform->pad_right = next(source, most);
    transform->pad_bottom = next(source, most);
    transform->pad_mode = (enum pad_mode)next(source, 4);
    for (int i = 0; i < 3; i++) {
        transform->fill[i] = (uint8_t)next(source, 256);
    }
}

static void sample_random_resized_crop(struct source *source, struct transform *transform)
{
    sample_crop(source, transform);
    transform->scale_min = next(source, 101) / 100.0;
    transform->scale_max = transform->scale_min + next(source, 50) / 50.0;
    transform->ratio_min = (1 + next(source, 40)) / 20.0;
    transform->ratio_max = transform->ratio_min + next(source, 40) / 10.0;
}

static void sample_resize(struct source *source, struct transform *transform)
{
    switch (next(source, 4)) {
    case 0: transform->shorter_px = next_side(source); break;
    case 1: transform->longer_max_px = next_side(source); break;
    case 2:
        transform->shorter_px = next_side(source);
        transform->longer_max_px = transform->shorter_px + next(source, 40);
        break;
    default: sample_crop(source, transform); break;
    }
}

static struct transform sample_transform(struct source *source)
{
    static const uint8_t kinds[] = {1, 2, 2, 3, 3, 4, 5, 6, 6, 7, 7, 8, 9, 10};
    struct transform transform = {
        .kind = (enum transform_kind)kinds[next(source, sizeof kinds)],
        .filter = (enum resize_filter)(1 + next(source, 3)),
        .probability = next(source, 5) / 4.0,
        .dtype = (enum pack_dtype)(1 + next(source, 4)),
        .scale = next(source, 2),
        .pad_if_needed = next(source, 2),
        .mean = {0.5f, 0.25f, 3},
        .std = {0.2f, 100, 1},
    };
    switch (transform.kind) {
    case TRANSFORM_RANDOM_RESIZED_CROP: sample_random_resized_crop(source, &transform); break;
    case TRANSFORM_RESIZE: sample_resize(source, &transform); break;
    case TRANSFORM_RANDOM_CROP:
        sample_padding(source, &transform);
        sample_crop(source, &transform);
        break;
    case TRANSFORM_CENTER_CROP: sample_crop(source, &transform); break;
    case TRANSFORM_PAD: sample_padding(source, &transform); break;
    case TRANSFORM_RANDOM_HORIZONTAL_FLIP:
    case TRANSFORM_RANDOM_VERTICAL_FLIP:
    case TRANSFORM_TO_DTYPE:
    case TRANSFORM_NORMALIZE: break;
    }
    return transform;
}

size_t recipe_sample_make(const uint8_t *bytes, size_t size_bytes, struct transform *transforms,
                          enum pack_layout *layout)
{
    struct source source = {bytes, size_bytes};
    *layout = next(&source, 2) == 0 ? PACK_NCHW : PACK_NHWC;
    size_t count = 1 + next(&source, RECIPE_SAMPLE_TRANSFORMS_MAX - 1);
    for (size_t i = 0; i < count; i++) {
        transforms[i] = sample_transform(&source);
    }
    return count;
}

/* ---- Recipes carried out plainly ------------------------------------------------------------- */

enum { PIXELS_MAX = 1000000, SLACK_BYTES = 64 };

struct picture {
    uint8_t *pixels; /* dense, with slack for vector code */
    uint32_t px[2];
};

static struct picture picture_make(uint32_t width_px, uint32_t height_px)
{
    size_t bytes = 3 * (size_t)width_px * height_px + SLACK_BYTES;
    struct picture picture = {calloc(1, bytes), {width_px, height_px}};
    if (picture.pixels == NULL) {
        abort();
    }
    return picture;
}

/* The position that a step's output position is a copy of, or -1: filled. */
static int64_t position_before(const struct geometry_step *step, int axis, int64_t position)
{
    int64_t size = step->in_px[axis];
    switch (step->kind) {
    case GEOMETRY_CROP: return position + step->first_px[axis];
    case GEOMETRY_FLIP: return (int)step->flip_axis == axis ? size - 1 - position : position;
    case GEOMETRY_PAD: break;
    case GEOMETRY_RESIZE: abort();
    }
    position -= step->first_px[axis];
    while (position < 0 || position >= size) { /* mirror at the edge until inside */
        if (step->pad_mode == PAD_CONSTANT) {
            return -1;
        }
        if (step->pad_mode == PAD_EDGE || size == 1) {
            return position < 0 ? 0 : size - 1;
        }
        int64_t again = step->pad_mode == PAD_SYMMETRIC;
        position = position < 0 ? -position - again : 2 * size - 2 + again - position;
    }
    return position;
}

static struct picture move_pixels(const struct geometry_step *step, struct picture in)
{
    struct picture out = picture_make(step->out_px[0], step->out_px[1]);
    int64_t *from_x = calloc(out.px[0], sizeof *from_x);
    if (from_x == NULL) {
        abort();
    }
    for (uint32_t x = 0; x < out.px[0]; x++) {
        from_x[x] = position_before(step, GEOMETRY_X, x);
    }
    for (uint32_t y = 0; y < out.px[1]; y++) {
        int64_t from_y = position_before(step, GEOMETRY_Y, y);
        for (uint32_t x = 0; x < out.px[0]; x++) {
            const uint8_t *pixel = step->fill;
            if (from_x[x] >= 0 && from_y >= 0) {
                pixel = in.pixels + 3 * ((size_t)from_y * in.px[0] + (size_t)from_x[x]);
            }
            memcpy(out.pixels + 3 * ((size_t)y * out.px[0] + x), pixel, 3);
        }
    }
    free(from_x);
    return out;
}

/* One pass over the whole picture; rows go through resize_columns() one by one, since it may write
 * beyond each. */
static struct picture resample(struct picture in, enum resize_filter filter, int axis,
                               uint32_t size_px)
{
    const struct kernels *kernels = kernels_get(KERNEL_SCALAR);
    struct resize_axis *weights = resize_axis_create();
    if (weights == NULL || !resize_axis_set(weights, filter, in.px[axis], size_px, 0, size_px)) {
        abort();
    }
    uint32_t first, count;
    resize_axis_input(weights, &first, &count);
    struct picture out =
        axis == GEOMETRY_X ? picture_make(size_px, in.px[1]) : picture_make(in.px[0], size_px);
    size_t in_row = 3 * (size_t)in.px[0], out_row = 3 * (size_t)out.px[0];
    if (axis == GEOMETRY_X) {
        for (uint32_t y = 0; y < in.px[1]; y++) {
            resize_columns(kernels, weights, in.pixels + y * in_row + 3 * (size_t)first, in_row,
                           out.pixels + y * out_row, out_row, 1);
        }
    } else {
        resize_rows(kernels, weights, in.pixels + first * in_row, in_row, out.pixels, out_row,
                    (uint32_t)in_row);
    }
    resize_axis_destroy(weights);
    return out;
}

static struct picture resize(const struct geometry_step *step, struct picture in)
{
    int first = resize_rows_first(step->in_px[0], step->in_px[1], step->out_px[0], step->out_px[1])
                    ? GEOMETRY_Y
                    : GEOMETRY_X;
    struct picture between = resample(in, step->filter, first, step->out_px[first]);
    struct picture out = resample(between, step->filter, 1 - first, step->out_px[1 - first]);
    free(between.pixels);
    return out;
}

static bool is_too_large(const struct geometry *geometry)
{
    for (uint32_t i = 0; i < geometry->step_count; i++) {
        const struct geometry_step *step = &geometry->steps[i];
        uint64_t between =
            (uint64_t)(step->in_px[0] > step->out_px[0] ? step->in_px[0] : step->out_px[0]) *
            (step->in_px[1] > step->out_px[1] ? step->in_px[1] : step->out_px[1]);
        if (between > PIXELS_MAX) {
            return true;
        }
    }
    return false;
}

void *recipe_sample_apply(const struct recipe *recipe, const struct geometry *geometry,
                          const uint8_t *rgb)
{
    if (is_too_large(geometry)) {
        return NULL;
    }
    struct picture picture = picture_make(geometry->image_px[0], geometry->image_px[1]);
    memcpy(picture.pixels, rgb, 3 * (size_t)picture.px[0] * picture.px[1]);
    for (uint32_t i = 0; i < geometry->step_count; i++) {
        const struct geometry_step *step = &geometry->steps[i];
        struct picture after =
            step->kind == GEOMETRY_RESIZE ? resize(step, picture) : move_pixels(step, picture);
        free(picture.pixels);
        picture = after;
    }
    struct pack_format format = recipe_format(recipe);
    void *tensor = malloc(recipe_output(recipe).bytes);
    if (tensor == NULL) {
        abort();
    }
    pack_image(kernels_get(KERNEL_SCALAR), &format, picture.pixels, 3 * (size_t)picture.px[0],
               picture.px[0], picture.px[1], false, false, tensor);
    free(picture.pixels);
    return tensor;
}
