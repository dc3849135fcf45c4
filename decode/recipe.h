/*
 * recipe.h - the transforms of a loader, checked once and then constant.
 *
 * Names, arguments and meaning are torchvision.transforms.v2's on PIL images. A recipe is made
 * from plain structs (the daemon fills them from a control message); it is immutable afterwards
 * and shared by all decode threads.
 */
#ifndef PENSTOCK_DECODE_RECIPE_H
#define PENSTOCK_DECODE_RECIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/pack.h"
#include "decode/resize.h"
#include "decode/status.h"

enum transform_kind {
    TRANSFORM_RANDOM_RESIZED_CROP = 1,
    TRANSFORM_RESIZE,
    TRANSFORM_CENTER_CROP,
    TRANSFORM_RANDOM_CROP,
    TRANSFORM_PAD,
    TRANSFORM_RANDOM_HORIZONTAL_FLIP,
    TRANSFORM_RANDOM_VERTICAL_FLIP,
    TRANSFORM_TO_DTYPE,
    TRANSFORM_NORMALIZE,
};

enum pad_mode { PAD_CONSTANT = 0, PAD_EDGE, PAD_REFLECT, PAD_SYMMETRIC };

/* One transform. Only the members named beside a kind are read. */
struct transform {
    enum transform_kind kind;
    uint32_t height_px, width_px; /* RRC, CenterCrop, RandomCrop; Resize to a fixed (h, w) */
    /* Resize with height_px == width_px == 0. Resize(shorter, max_size=longer_max), 0 = no maximum;
     * with shorter_px 0, as Resize(None, max_size): the longer side becomes longer_max_px. */
    uint32_t shorter_px, longer_max_px;
    enum resize_filter filter;                         /* RRC, Resize */
    double scale_min, scale_max;                       /* RRC: share of the area, 0.08 .. 1 */
    double ratio_min, ratio_max;                       /* RRC: width / height, 3/4 .. 4/3 */
    uint32_t pad_left, pad_top, pad_right, pad_bottom; /* Pad, RandomCrop(padding=) */
    bool pad_if_needed;                                /* RandomCrop */
    enum pad_mode pad_mode;                            /* Pad, RandomCrop */
    uint8_t fill[3];                                   /* Pad, RandomCrop, constant mode */
    double probability;                                /* flips */
    enum pack_dtype dtype;                             /* ToDtype */
    bool scale;                                        /* ToDtype */
    float mean[3], std[3];                             /* Normalize */
};

enum { RECIPE_TRANSFORMS_MAX = 32, RECIPE_SIDE_PX_MAX = 16384 };

struct recipe;

/* Check the list and make a recipe of it; *recipe is the caller's. The output must have one fixed
 * shape for every image, else DECODE_INVALID with a reason that names the transform (from 0:
 * "transform 1 (Resize(256)) ...") and what to add. Normalize on uint8 first applies
 * ToDtype(float32, scale=True); arithmetic is in single precision whatever the type (pack.h).
 * Geometry after ToDtype or Normalize is refused, but flips and crops without padding, which
 * commute; so are a second Normalize and a float type turned into a wider one or into uint8. */
enum decode_status recipe_create(const struct transform *transforms, size_t transform_count,
                                 enum pack_layout layout, struct recipe **recipe,
                                 struct decode_error *error);
void recipe_destroy(struct recipe *recipe);

/* The image tensor of one sample: 3 x height x width of dtype, `bytes` in all. */
struct recipe_output {
    uint32_t height_px, width_px;
    enum pack_dtype dtype;
    enum pack_layout layout;
    size_t bytes;
};
struct recipe_output recipe_output(const struct recipe *recipe);

/* What it was made from, for geometry.c and decoder.c. Borrowed from the recipe. */
const struct transform *recipe_transforms(const struct recipe *recipe, size_t *count);
struct pack_format recipe_format(const struct recipe *recipe);

/* The size that a Resize gives to an image of width_px * height_px, as torchvision computes it.
 * False where torchvision refuses: a side would be 0 px. */
bool transform_resized_size(const struct transform *resize, uint64_t width_px, uint64_t height_px,
                            uint64_t *resized_width_px, uint64_t *resized_height_px);

enum { TRANSFORM_NAME_BYTES = 64 };

/* "Resize(256)": the name and the arguments that say most, for error messages. */
void transform_name(const struct transform *transform, char name[TRANSFORM_NAME_BYTES]);

#endif /* PENSTOCK_DECODE_RECIPE_H */
