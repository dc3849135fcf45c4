#include "decode/geometry.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "decode/philox.h"

/* ---- Drawing --------------------------------------------------------------------------------- */

/* The image as it is after the steps so far. */
struct draw {
    struct geometry *geometry;
    const struct transform *transform;
    uint32_t index;
    uint64_t width_px, height_px;
    struct philox_stream stream;
    struct decode_error *error;
};

static struct geometry_step *add_step(struct draw *draw, enum geometry_step_kind kind,
                                      uint64_t width_px, uint64_t height_px)
{
    struct geometry *geometry = draw->geometry;
    assert(geometry->step_count < GEOMETRY_STEPS_MAX);
    struct geometry_step *step = &geometry->steps[geometry->step_count++];
    *step = (struct geometry_step){
        .kind = kind,
        .in_px = {(uint32_t)draw->width_px, (uint32_t)draw->height_px},
        .out_px = {(uint32_t)width_px, (uint32_t)height_px},
    };
    draw->width_px = width_px;
    draw->height_px = height_px;
    return step;
}

static enum decode_status fail(const struct draw *draw, enum decode_status status, const char *what,
                               uint64_t width_px, uint64_t height_px)
{
    char name[TRANSFORM_NAME_BYTES];
    transform_name(draw->transform, name);
    return decode_fail(draw->error, status, 0, "transform %u (%s) %s %llux%llu px (width x height)",
                       draw->index, name, what, (unsigned long long)width_px,
                       (unsigned long long)height_px);
}

static void add_crop(struct draw *draw, uint64_t left_px, uint64_t top_px, uint64_t width_px,
                     uint64_t height_px)
{
    assert(left_px + width_px <= draw->width_px && top_px + height_px <= draw->height_px);
    if (width_px == draw->width_px && height_px == draw->height_px) {
        return;
    }
    struct geometry_step *step = add_step(draw, GEOMETRY_CROP, width_px, height_px);
    step->first_px[GEOMETRY_X] = (uint32_t)left_px;
    step->first_px[GEOMETRY_Y] = (uint32_t)top_px;
}

static enum decode_status add_resize(struct draw *draw, uint64_t width_px, uint64_t height_px)
{
    if (width_px == draw->width_px && height_px == draw->height_px) {
        return DECODE_OK;
    }
    if (width_px > GEOMETRY_SIDE_PX_MAX || height_px > GEOMETRY_SIDE_PX_MAX) {
        return fail(draw, DECODE_TOO_LARGE, "would make an image of", width_px, height_px);
    }
    if (draw->width_px > GEOMETRY_RESIZE_PX_MAX || draw->height_px > GEOMETRY_RESIZE_PX_MAX) {
        return fail(draw, DECODE_TOO_LARGE, "does not resize an image of", draw->width_px,
                    draw->height_px);
    }
    struct geometry_step *step = add_step(draw, GEOMETRY_RESIZE, width_px, height_px);
    step->filter = draw->transform->filter;
    return DECODE_OK;
}

/* Paddings around the image; 64 bits, since pad_if_needed adds to what the recipe says. */
struct padding {
    uint64_t left_px, top_px, right_px, bottom_px;
    enum pad_mode mode;
    uint8_t fill[3];
};

static enum decode_status add_pad(struct draw *draw, const struct padding *padding)
{
    uint64_t width_px = padding->left_px + draw->width_px + padding->right_px;
    uint64_t height_px = padding->top_px + draw->height_px + padding->bottom_px;
    if (width_px == draw->width_px && height_px == draw->height_px) {
        return DECODE_OK;
    }
    if (width_px > GEOMETRY_SIDE_PX_MAX || height_px > GEOMETRY_SIDE_PX_MAX) {
        return fail(draw, DECODE_TOO_LARGE, "would make an image of", width_px, height_px);
    }
    struct geometry_step *step = add_step(draw, GEOMETRY_PAD, width_px, height_px);
    step->first_px[GEOMETRY_X] = (uint32_t)padding->left_px;
    step->first_px[GEOMETRY_Y] = (uint32_t)padding->top_px;
    step->pad_mode = padding->mode;
    memcpy(step->fill, padding->fill, sizeof step->fill);
    return DECODE_OK;
}

static double uniform(struct philox_stream *stream, double least, double most)
{
    return least + philox_unit(stream) * (most - least);
}

/* The crop for an image whose shape no try fitted: centred, as large as the ratios allow. */
static void add_fallback_crop(struct draw *draw)
{
    double ratio_min = draw->transform->ratio_min, ratio_max = draw->transform->ratio_max;
    double in_ratio = (double)draw->width_px / (double)draw->height_px;
    uint64_t width_px = draw->width_px, height_px = draw->height_px;
    if (in_ratio < ratio_min) {
        height_px = (uint64_t)rint((double)width_px / ratio_min);
    } else if (in_ratio > ratio_max) {
        width_px = (uint64_t)rint((double)height_px * ratio_max);
    }
    width_px = width_px > 0 ? width_px : 1;
    height_px = height_px > 0 ? height_px : 1;
    add_crop(draw, (draw->width_px - width_px) / 2, (draw->height_px - height_px) / 2, width_px,
             height_px);
}

static enum decode_status draw_random_resized_crop(struct draw *draw)
{
    enum { TRIES = 10 };
    const struct transform *transform = draw->transform;
    double area = (double)draw->width_px * (double)draw->height_px;
    double log_min = log(transform->ratio_min), log_max = log(transform->ratio_max);
    int try = 0;
    for (; try < TRIES; try++) {
        double target = area * uniform(&draw->stream, transform->scale_min, transform->scale_max);
        double ratio = exp(uniform(&draw->stream, log_min, log_max));
        double width_px = rint(sqrt(target * ratio)), height_px = rint(sqrt(target / ratio));
        if (width_px >= 1 && width_px <= (double)draw->width_px && height_px >= 1 &&
            height_px <= (double)draw->height_px) {
            uint64_t width = (uint64_t)width_px, height = (uint64_t)height_px;
            uint64_t top_px = philox_below(&draw->stream, draw->height_px - height + 1);
            uint64_t left_px = philox_below(&draw->stream, draw->width_px - width + 1);
            add_crop(draw, left_px, top_px, width, height);
            break;
        }
    }
    if (try == TRIES) {
        add_fallback_crop(draw);
    }
    return add_resize(draw, transform->width_px, transform->height_px);
}

static enum decode_status draw_resize(struct draw *draw)
{
    uint64_t width_px, height_px;
    if (!transform_resized_size(draw->transform, draw->width_px, draw->height_px, &width_px,
                                &height_px)) {
        return fail(draw, DECODE_INVALID, "would leave nothing of an image of", draw->width_px,
                    draw->height_px);
    }
    return add_resize(draw, width_px, height_px);
}

/* count / 2, a half rounded to even, as Python's round() has it. */
static uint64_t half_to_even(uint64_t count)
{
    uint64_t half = count / 2;
    return half + (count % 2 == 1 && half % 2 == 1);
}

static enum decode_status draw_center_crop(struct draw *draw)
{
    uint64_t width_px = draw->transform->width_px, height_px = draw->transform->height_px;
    uint64_t missing_x = width_px > draw->width_px ? width_px - draw->width_px : 0;
    uint64_t missing_y = height_px > draw->height_px ? height_px - draw->height_px : 0;
    struct padding padding = {.left_px = missing_x / 2,
                              .top_px = missing_y / 2,
                              .right_px = (missing_x + 1) / 2,
                              .bottom_px = (missing_y + 1) / 2,
                              .mode = PAD_CONSTANT};
    enum decode_status status = add_pad(draw, &padding);
    if (status == DECODE_OK) {
        add_crop(draw, half_to_even(draw->width_px - width_px),
                 half_to_even(draw->height_px - height_px), width_px, height_px);
    }
    return status;
}

static struct padding recipe_padding(const struct transform *transform)
{
    return (struct padding){
        .left_px = transform->pad_left,
        .top_px = transform->pad_top,
        .right_px = transform->pad_right,
        .bottom_px = transform->pad_bottom,
        .mode = transform->pad_mode,
        .fill = {transform->fill[0], transform->fill[1], transform->fill[2]},
    };
}

static enum decode_status draw_random_crop(struct draw *draw)
{
    const struct transform *transform = draw->transform;
    struct padding padding = recipe_padding(transform);
    uint64_t padded_width_px = draw->width_px + padding.left_px + padding.right_px;
    uint64_t padded_height_px = draw->height_px + padding.top_px + padding.bottom_px;
    if (transform->pad_if_needed && padded_width_px < transform->width_px) {
        padding.left_px += transform->width_px - padded_width_px;
        padding.right_px += transform->width_px - padded_width_px;
    }
    if (transform->pad_if_needed && padded_height_px < transform->height_px) {
        padding.top_px += transform->height_px - padded_height_px;
        padding.bottom_px += transform->height_px - padded_height_px;
    }
    enum decode_status status = add_pad(draw, &padding);
    if (status != DECODE_OK) {
        return status;
    }
    if (draw->width_px < transform->width_px || draw->height_px < transform->height_px) {
        return fail(draw, DECODE_INVALID,
                    "needs pad_if_needed=True or a smaller size for an image of", draw->width_px,
                    draw->height_px);
    }
    uint64_t top_px = philox_below(&draw->stream, draw->height_px - transform->height_px + 1);
    uint64_t left_px = philox_below(&draw->stream, draw->width_px - transform->width_px + 1);
    add_crop(draw, left_px, top_px, transform->width_px, transform->height_px);
    return DECODE_OK;
}

static void draw_flip(struct draw *draw, enum geometry_axis axis)
{
    if (philox_unit(&draw->stream) < draw->transform->probability) {
        add_step(draw, GEOMETRY_FLIP, draw->width_px, draw->height_px)->flip_axis = axis;
    }
}

static enum decode_status draw_transform(struct draw *draw)
{
    switch (draw->transform->kind) {
    case TRANSFORM_RANDOM_RESIZED_CROP: return draw_random_resized_crop(draw);
    case TRANSFORM_RESIZE: return draw_resize(draw);
    case TRANSFORM_CENTER_CROP: return draw_center_crop(draw);
    case TRANSFORM_RANDOM_CROP: return draw_random_crop(draw);
    case TRANSFORM_PAD: {
        struct padding padding = recipe_padding(draw->transform);
        return add_pad(draw, &padding);
    }
    case TRANSFORM_RANDOM_HORIZONTAL_FLIP: draw_flip(draw, GEOMETRY_X); return DECODE_OK;
    case TRANSFORM_RANDOM_VERTICAL_FLIP: draw_flip(draw, GEOMETRY_Y); return DECODE_OK;
    case TRANSFORM_TO_DTYPE:
    case TRANSFORM_NORMALIZE: return DECODE_OK;
    }
    return DECODE_OK;
}

enum decode_status geometry_draw(const struct recipe *recipe, struct sample_key key,
                                 uint32_t width_px, uint32_t height_px, struct geometry *geometry,
                                 struct decode_error *error)
{
    assert(width_px >= 1 && height_px >= 1);
    if (width_px > GEOMETRY_SIDE_PX_MAX || height_px > GEOMETRY_SIDE_PX_MAX) {
        return decode_fail(error, DECODE_TOO_LARGE, 0, "a side of %ux%u px is longer than %d px",
                           width_px, height_px, GEOMETRY_SIDE_PX_MAX);
    }
    geometry->step_count = 0;
    geometry->image_px[GEOMETRY_X] = width_px;
    geometry->image_px[GEOMETRY_Y] = height_px;
    size_t count;
    const struct transform *transforms = recipe_transforms(recipe, &count);
    struct draw draw = {
        .geometry = geometry, .width_px = width_px, .height_px = height_px, .error = error};
    for (uint32_t i = 0; i < count; i++) {
        draw.transform = &transforms[i];
        draw.index = i;
        draw.stream = philox_stream_begin(key.seed, key.epoch, key.sample_id, i);
        enum decode_status status = draw_transform(&draw);
        if (status != DECODE_OK) {
            return status;
        }
    }
    return DECODE_OK;
}

/* ---- Text ------------------------------------------------------------------------------------ */

static const char *pad_mode_name(enum pad_mode mode)
{
    switch (mode) {
    case PAD_CONSTANT: return "constant";
    case PAD_EDGE: return "edge";
    case PAD_REFLECT: return "reflect";
    case PAD_SYMMETRIC: return "symmetric";
    }
    return "unknown";
}

static const char *filter_name(enum resize_filter filter)
{
    switch (filter) {
    case RESIZE_NEAREST: return "nearest";
    case RESIZE_BILINEAR: return "bilinear";
    case RESIZE_BICUBIC: return "bicubic";
    }
    return "unknown";
}

static int step_describe(const struct geometry_step *step, char *text, size_t size_bytes)
{
    const uint32_t *in = step->in_px, *out = step->out_px, *first = step->first_px;
    switch (step->kind) {
    case GEOMETRY_CROP:
        return snprintf(text, size_bytes, "crop %u %u %u %u\n", first[0], first[1], out[0], out[1]);
    case GEOMETRY_PAD:
        return snprintf(text, size_bytes, "pad %u %u %u %u %s %u %u %u\n", first[0], first[1],
                        out[0] - in[0] - first[0], out[1] - in[1] - first[1],
                        pad_mode_name(step->pad_mode), step->fill[0], step->fill[1], step->fill[2]);
    case GEOMETRY_FLIP:
        return snprintf(text, size_bytes, "flip %s\n", step->flip_axis == GEOMETRY_X ? "x" : "y");
    case GEOMETRY_RESIZE:
        return snprintf(text, size_bytes, "resize %u %u %s\n", out[0], out[1],
                        filter_name(step->filter));
    }
    return 0;
}

size_t geometry_describe(const struct geometry *geometry, char *text, size_t size_bytes)
{
    size_t length =
        (size_t)snprintf(text, size_bytes, "image %u %u\n", geometry->image_px[GEOMETRY_X],
                         geometry->image_px[GEOMETRY_Y]);
    for (uint32_t i = 0; i < geometry->step_count; i++) {
        size_t used = length < size_bytes ? length : size_bytes;
        length += (size_t)step_describe(&geometry->steps[i], text + used, size_bytes - used);
    }
    return length;
}

/* ---- Backwards ------------------------------------------------------------------------------- */

enum geometry_order geometry_span_back(const struct geometry *geometry, struct geometry_run run,
                                       enum geometry_axis axis, struct geometry_span *span)
{
    struct geometry_span back = *span;
    enum geometry_order order = GEOMETRY_FORWARD;
    for (uint32_t i = run.end; i-- > run.begin;) {
        const struct geometry_step *step = &geometry->steps[i];
        assert(step->kind != GEOMETRY_RESIZE);
        assert(back.first + back.count <= step->out_px[axis]);
        if (step->kind == GEOMETRY_CROP) {
            back.first += step->first_px[axis];
        } else if (step->kind == GEOMETRY_PAD) {
            if (back.first < step->first_px[axis] ||
                back.first + back.count > step->first_px[axis] + step->in_px[axis]) {
                return GEOMETRY_GATHER;
            }
            back.first -= step->first_px[axis];
        } else if (step->flip_axis == axis) {
            back.first = step->in_px[axis] - back.first - back.count;
            order = order == GEOMETRY_FORWARD ? GEOMETRY_REVERSED : GEOMETRY_FORWARD;
        }
    }
    *span = back;
    return order;
}

/* The position inside [0, size) that padding at `position` outside it repeats, as numpy.pad does
 * it however often the image has to be mirrored. */
static int64_t padded_position(enum pad_mode mode, int64_t position, int64_t size)
{
    if (mode == PAD_EDGE || size == 1) {
        return position < 0 ? 0 : size - 1;
    }
    /* Mirrored with (symmetric) or without (reflect) the edge twice: period 2n or 2n - 2. */
    int64_t period = mode == PAD_SYMMETRIC ? 2 * size : 2 * size - 2;
    int64_t phase = (position % period + period) % period;
    if (phase < size) {
        return phase;
    }
    return mode == PAD_SYMMETRIC ? period - 1 - phase : period - phase;
}

/* One position back through the run; see geometry_gather(). */
static int32_t position_back(const struct geometry *geometry, struct geometry_run run,
                             enum geometry_axis axis, int64_t position)
{
    for (uint32_t i = run.end; i-- > run.begin;) {
        const struct geometry_step *step = &geometry->steps[i];
        int64_t size = step->in_px[axis];
        if (step->kind == GEOMETRY_CROP) {
            position += step->first_px[axis];
        } else if (step->kind == GEOMETRY_PAD) {
            position -= step->first_px[axis];
            if (position < 0 || position >= size) {
                if (step->pad_mode == PAD_CONSTANT) {
                    return -1 - (int32_t)i;
                }
                position = padded_position(step->pad_mode, position, size);
            }
        } else if (step->flip_axis == axis) {
            position = size - 1 - position;
        }
    }
    return (int32_t)position;
}

struct geometry_span geometry_gather(const struct geometry *geometry, struct geometry_run run,
                                     enum geometry_axis axis, struct geometry_span span,
                                     int32_t *sources)
{
    int32_t least = INT32_MAX, most = -1;
    for (uint32_t i = 0; i < span.count; i++) {
        int32_t source = position_back(geometry, run, axis, (int64_t)span.first + i);
        sources[i] = source;
        if (source >= 0) {
            least = source < least ? source : least;
            most = source > most ? source : most;
        }
    }
    if (most < 0) {
        return (struct geometry_span){0, 1};
    }
    return (struct geometry_span){(uint32_t)least, (uint32_t)(most - least) + 1};
}
