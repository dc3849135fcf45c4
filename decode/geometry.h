/*
 * geometry.h - where each output pixel comes from: random choices drawn, rectangles worked out.
 *
 * geometry_draw() turns a recipe, a sample's key and an image's size into a list of concrete steps:
 * what torchvision would do to that image once it has thrown its dice. Nothing here sees a pixel;
 * decoder.c carries the steps out, and may skip what no output pixel depends on. Both axes go
 * their own ways: everything but the fill colour of a padding can be said of one axis alone.
 */
#ifndef PENSTOCK_DECODE_GEOMETRY_H
#define PENSTOCK_DECODE_GEOMETRY_H

#include <stddef.h>
#include <stdint.h>

#include "decode/recipe.h"
#include "decode/status.h"

/* What the random choices of a sample depend on, and nothing else. */
struct sample_key {
    uint64_t seed, epoch, sample_id;
};

enum geometry_axis { GEOMETRY_X = 0, GEOMETRY_Y = 1 };

enum geometry_step_kind {
    GEOMETRY_CROP = 1,
    GEOMETRY_PAD,
    GEOMETRY_FLIP, /* along one axis */
    GEOMETRY_RESIZE,
};

/* One step. Arrays of two are indexed by enum geometry_axis. */
struct geometry_step {
    enum geometry_step_kind kind;
    uint32_t in_px[2], out_px[2];
    uint32_t first_px[2];         /* CROP: the box's corner; PAD: what is added left and above */
    enum geometry_axis flip_axis; /* FLIP */
    enum resize_filter filter;    /* RESIZE */
    enum pad_mode pad_mode;       /* PAD */
    uint8_t fill[3];              /* PAD, constant mode */
};

enum {
    GEOMETRY_STEPS_MAX = 2 * RECIPE_TRANSFORMS_MAX, /* a transform makes at most two */
    GEOMETRY_SIDE_PX_MAX = 1 << 26,                 /* of an image before or after any step */
    GEOMETRY_RESIZE_PX_MAX = 1 << 20, /* of a side that is resized: bounds the weights' memory */
};

struct geometry {
    struct geometry_step steps[GEOMETRY_STEPS_MAX]; /* none without effect */
    uint32_t step_count;
    uint32_t image_px[2];
};

/* Draw the random choices of a sample whose image has the given size (>= 1). Each transform draws
 * from the stream (seed, epoch, sample_id, its place in the list), see philox.h:
 *     flips              u: flipped where u < p
 *     RandomResizedCrop  ten tries of (u area, u log ratio); then top, left
 *     RandomCrop         top, left
 * Unlike torchvision a fallback crop never has an empty side: it has 1 px.
 * DECODE_INVALID or DECODE_TOO_LARGE where the image cannot be transformed. */
enum decode_status geometry_draw(const struct recipe *recipe, struct sample_key key,
                                 uint32_t width_px, uint32_t height_px, struct geometry *geometry,
                                 struct decode_error *error);

/* The steps as text, one a line, to be replayed elsewhere:
 *     image WIDTH HEIGHT
 *     crop LEFT TOP WIDTH HEIGHT
 *     pad LEFT TOP RIGHT BOTTOM MODE RED GREEN BLUE
 *     flip x|y
 *     resize WIDTH HEIGHT nearest|bilinear|bicubic
 * Returns the length without the final 0, as snprintf does; GEOMETRY_TEXT_BYTES are enough. */
enum { GEOMETRY_TEXT_BYTES = 80 * (GEOMETRY_STEPS_MAX + 1) };
size_t geometry_describe(const struct geometry *geometry, char *text, size_t size_bytes);

/* ---- Backwards through steps that do not resize -----------------------------------------------
 */

/* Positions [first, first + count) of one axis. */
struct geometry_span {
    uint32_t first, count;
};

enum geometry_order {
    GEOMETRY_FORWARD = 1, /* consecutive, ascending */
    GEOMETRY_REVERSED,    /* consecutive, descending */
    GEOMETRY_GATHER,      /* anything else: ask geometry_gather() */
};

/* A run of steps [begin, end) without a resize. */
struct geometry_run {
    uint32_t begin, end;
};

/* *span is of the image after the run; unless the answer is GEOMETRY_GATHER it becomes the span
 * of the image before the run that it is a copy of. */
enum geometry_order geometry_span_back(const struct geometry *geometry, struct geometry_run run,
                                       enum geometry_axis axis, struct geometry_span *span);

/* For each position of `span` the position before the run that it is a copy of, or -1 - step where
 * that step of constant padding fills it; where the axes disagree the later step prevails.
 * Returns the span of the positions copied from, {0, 1} if there are none. */
struct geometry_span geometry_gather(const struct geometry *geometry, struct geometry_run run,
                                     enum geometry_axis axis, struct geometry_span span,
                                     int32_t *sources);

#endif /* PENSTOCK_DECODE_GEOMETRY_H */
