#include "decode/recipe.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct recipe {
    struct transform transforms[RECIPE_TRANSFORMS_MAX];
    size_t transform_count;
    struct pack_format format;
    uint32_t height_px, width_px;
};

/* ---- Names and sizes ------------------------------------------------------------------------- */

static void size_name(const char *kind, uint32_t height_px, uint32_t width_px,
                      char name[TRANSFORM_NAME_BYTES])
{
    if (height_px == width_px) {
        snprintf(name, TRANSFORM_NAME_BYTES, "%s(%u)", kind, height_px);
    } else {
        snprintf(name, TRANSFORM_NAME_BYTES, "%s((%u, %u))", kind, height_px, width_px);
    }
}

static void resize_name(const struct transform *resize, char name[TRANSFORM_NAME_BYTES])
{
    if (resize->height_px > 0 || resize->width_px > 0) {
        snprintf(name, TRANSFORM_NAME_BYTES, "Resize((%u, %u))", resize->height_px,
                 resize->width_px);
    } else if (resize->shorter_px == 0) {
        snprintf(name, TRANSFORM_NAME_BYTES, "Resize(None, max_size=%u)", resize->longer_max_px);
    } else if (resize->longer_max_px > 0) {
        snprintf(name, TRANSFORM_NAME_BYTES, "Resize(%u, max_size=%u)", resize->shorter_px,
                 resize->longer_max_px);
    } else {
        snprintf(name, TRANSFORM_NAME_BYTES, "Resize(%u)", resize->shorter_px);
    }
}

static const char *dtype_name(enum pack_dtype dtype)
{
    switch (dtype) {
    case PACK_U8: return "uint8";
    case PACK_F32: return "float32";
    case PACK_F16: return "float16";
    case PACK_BF16: return "bfloat16";
    }
    return "unknown";
}

void transform_name(const struct transform *transform, char name[TRANSFORM_NAME_BYTES])
{
    const char *plain = "unknown transform";
    switch (transform->kind) {
    case TRANSFORM_RANDOM_RESIZED_CROP:
        size_name("RandomResizedCrop", transform->height_px, transform->width_px, name);
        return;
    case TRANSFORM_RESIZE: resize_name(transform, name); return;
    case TRANSFORM_CENTER_CROP:
        size_name("CenterCrop", transform->height_px, transform->width_px, name);
        return;
    case TRANSFORM_RANDOM_CROP:
        size_name("RandomCrop", transform->height_px, transform->width_px, name);
        return;
    case TRANSFORM_PAD:
        snprintf(name, TRANSFORM_NAME_BYTES, "Pad([%u, %u, %u, %u])", transform->pad_left,
                 transform->pad_top, transform->pad_right, transform->pad_bottom);
        return;
    case TRANSFORM_TO_DTYPE:
        snprintf(name, TRANSFORM_NAME_BYTES, "ToDtype(%s)", dtype_name(transform->dtype));
        return;
    case TRANSFORM_RANDOM_HORIZONTAL_FLIP: plain = "RandomHorizontalFlip"; break;
    case TRANSFORM_RANDOM_VERTICAL_FLIP: plain = "RandomVerticalFlip"; break;
    case TRANSFORM_NORMALIZE: plain = "Normalize"; break;
    }
    snprintf(name, TRANSFORM_NAME_BYTES, "%s", plain);
}

/* Python's int(a * b / c) for a, b, c below 2^26: the product is exact in a double. */
static uint64_t scaled(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)((double)(a * b) / (double)c);
}

bool transform_resized_size(const struct transform *resize, uint64_t width_px, uint64_t height_px,
                            uint64_t *resized_width_px, uint64_t *resized_height_px)
{
    if (resize->height_px > 0) {
        *resized_width_px = resize->width_px;
        *resized_height_px = resize->height_px;
        return true;
    }
    bool upright = width_px <= height_px;
    uint64_t shorter = upright ? width_px : height_px, longer = upright ? height_px : width_px;
    uint64_t new_shorter = resize->shorter_px, new_longer;
    if (resize->shorter_px == 0) {
        new_longer = resize->longer_max_px;
        new_shorter = scaled(new_longer, shorter, longer);
    } else {
        new_longer = scaled(new_shorter, longer, shorter);
        if (resize->longer_max_px > 0 && new_longer > resize->longer_max_px) {
            new_shorter = scaled(resize->longer_max_px, new_shorter, new_longer);
            new_longer = resize->longer_max_px;
        }
    }
    *resized_width_px = upright ? new_shorter : new_longer;
    *resized_height_px = upright ? new_longer : new_shorter;
    return new_shorter > 0;
}

/* ---- Checks ---------------------------------------------------------------------------------- */

/* What is known after the transforms looked at so far. */
struct check {
    const struct transform *transform;
    size_t index;
    uint32_t height_px, width_px; /* 0: depends on the image */
    struct pack_format format;
    struct decode_error *error;
};

__attribute__((format(printf, 2, 3))) static enum decode_status refuse(const struct check *check,
                                                                       const char *format, ...)
{
    char name[TRANSFORM_NAME_BYTES], reason[DECODE_REASON_BYTES];
    transform_name(check->transform, name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    return decode_fail(check->error, DECODE_INVALID, 0, "transform %zu (%s) %s", check->index, name,
                       reason);
}

static bool in_range(double value, double least, double most)
{
    return value >= least && value <= most; /* false for NaN */
}

static enum decode_status check_size(const struct check *check)
{
    uint32_t height_px = check->transform->height_px, width_px = check->transform->width_px;
    if (height_px < 1 || width_px < 1 || height_px > RECIPE_SIDE_PX_MAX ||
        width_px > RECIPE_SIDE_PX_MAX) {
        return refuse(check, "has a side outside 1 .. %d px", RECIPE_SIDE_PX_MAX);
    }
    return DECODE_OK;
}

static enum decode_status check_filter(const struct check *check)
{
    enum resize_filter filter = check->transform->filter;
    if (filter < RESIZE_NEAREST || filter > RESIZE_BICUBIC) {
        return refuse(check, "has an interpolation that is not nearest, bilinear or bicubic");
    }
    return DECODE_OK;
}

static enum decode_status check_random_resized_crop(struct check *check)
{
    const struct transform *transform = check->transform;
    enum decode_status status = check_size(check);
    if (status == DECODE_OK) {
        status = check_filter(check);
    }
    if (status != DECODE_OK) {
        return status;
    }
    if (!in_range(transform->scale_min, 0, transform->scale_max) ||
        !in_range(transform->scale_max, 1e-12, 1e6)) {
        return refuse(check, "needs scale=(min, max) with 0 <= min <= max");
    }
    if (!in_range(transform->ratio_min, 1e-6, transform->ratio_max) ||
        !in_range(transform->ratio_max, 1e-6, 1e6)) {
        return refuse(check, "needs ratio=(min, max) with 0 < min <= max");
    }
    check->height_px = transform->height_px;
    check->width_px = transform->width_px;
    return DECODE_OK;
}

static enum decode_status check_resize_sides(const struct check *check)
{
    const struct transform *transform = check->transform;
    if (transform->height_px > 0 || transform->width_px > 0) {
        return check_size(check);
    }
    if (transform->shorter_px > RECIPE_SIDE_PX_MAX ||
        transform->longer_max_px > RECIPE_SIDE_PX_MAX ||
        (transform->shorter_px == 0 && transform->longer_max_px == 0)) {
        return refuse(check, "has a side outside 1 .. %d px", RECIPE_SIDE_PX_MAX);
    }
    if (transform->longer_max_px > 0 && transform->longer_max_px <= transform->shorter_px) {
        return refuse(check, "needs a max_size above its size");
    }
    return DECODE_OK;
}

static enum decode_status check_resize(struct check *check)
{
    const struct transform *transform = check->transform;
    enum decode_status status = check_resize_sides(check);
    if (status == DECODE_OK) {
        status = check_filter(check);
    }
    if (status != DECODE_OK) {
        return status;
    }
    if (transform->height_px > 0) {
        check->height_px = transform->height_px;
        check->width_px = transform->width_px;
    } else if (check->height_px > 0) {
        uint64_t width_px, height_px;
        if (!transform_resized_size(transform, check->width_px, check->height_px, &width_px,
                                    &height_px) ||
            width_px > RECIPE_SIDE_PX_MAX || height_px > RECIPE_SIDE_PX_MAX) {
            return refuse(check, "makes of %ux%u px (width x height) a side outside 1 .. %d px",
                          check->width_px, check->height_px, RECIPE_SIDE_PX_MAX);
        }
        check->width_px = (uint32_t)width_px;
        check->height_px = (uint32_t)height_px;
    }
    return DECODE_OK;
}

static enum decode_status check_pad_members(const struct check *check)
{
    const struct transform *transform = check->transform;
    const uint32_t most = RECIPE_SIDE_PX_MAX;
    if (transform->pad_left > most || transform->pad_top > most || transform->pad_right > most ||
        transform->pad_bottom > most) {
        return refuse(check, "pads by more than %u px", most);
    }
    if ((unsigned)transform->pad_mode > PAD_SYMMETRIC) {
        return refuse(check, "has a padding_mode that is not constant, edge, reflect or symmetric");
    }
    return DECODE_OK;
}

static enum decode_status check_pad(struct check *check)
{
    const struct transform *transform = check->transform;
    enum decode_status status = check_pad_members(check);
    if (status != DECODE_OK || check->height_px == 0) {
        return status;
    }
    check->height_px += transform->pad_top + transform->pad_bottom;
    check->width_px += transform->pad_left + transform->pad_right;
    if (check->height_px > RECIPE_SIDE_PX_MAX || check->width_px > RECIPE_SIDE_PX_MAX) {
        return refuse(check, "makes a side longer than %d px", RECIPE_SIDE_PX_MAX);
    }
    return DECODE_OK;
}

static bool has_padding(const struct transform *transform)
{
    return transform->pad_left > 0 || transform->pad_top > 0 || transform->pad_right > 0 ||
           transform->pad_bottom > 0;
}

static enum decode_status check_crop(struct check *check)
{
    const struct transform *transform = check->transform;
    bool random = transform->kind == TRANSFORM_RANDOM_CROP;
    enum decode_status status = check_size(check);
    if (status == DECODE_OK && random) {
        status = check_pad_members(check);
    }
    if (status != DECODE_OK) {
        return status;
    }
    uint32_t height_px = check->height_px, width_px = check->width_px;
    if (random && height_px > 0) {
        height_px += transform->pad_top + transform->pad_bottom;
        width_px += transform->pad_left + transform->pad_right;
    }
    bool large_enough = height_px >= transform->height_px && width_px >= transform->width_px;
    if (random && check->height_px > 0 && !large_enough && !transform->pad_if_needed) {
        return refuse(check,
                      "is larger than its input, %ux%u px (width x height); use "
                      "pad_if_needed=True or a smaller size",
                      width_px, height_px);
    }
    bool may_pad = random ? has_padding(transform) || (transform->pad_if_needed && !large_enough)
                          : !large_enough;
    if (may_pad && check->format.dtype != PACK_U8) {
        return refuse(check, "may pad and comes after ToDtype or Normalize; put it before them");
    }
    check->height_px = transform->height_px;
    check->width_px = transform->width_px;
    return DECODE_OK;
}

static enum decode_status check_to_dtype(struct check *check)
{
    enum pack_dtype from = check->format.dtype, to = check->transform->dtype;
    if (to < PACK_U8 || to > PACK_BF16) {
        return refuse(check, "names a type that is not uint8, float32, float16 or bfloat16");
    }
    if (from == to) {
        return DECODE_OK;
    }
    if (from != PACK_U8 && (from != PACK_F32 || to == PACK_U8)) {
        return refuse(check, "cannot follow ToDtype(%s); leave one of them out", dtype_name(from));
    }
    if (from == PACK_U8) {
        check->format.scale = check->transform->scale;
    }
    check->format.dtype = to;
    return DECODE_OK;
}

static enum decode_status check_normalize(struct check *check)
{
    const struct transform *transform = check->transform;
    if (check->format.normalize) {
        return refuse(check, "is the second of its kind; leave one of them out");
    }
    for (int channel = 0; channel < 3; channel++) {
        if (!isfinite(transform->mean[channel]) || !isfinite(transform->std[channel]) ||
            transform->std[channel] == 0) {
            return refuse(check, "needs finite means, and standard deviations that are not 0");
        }
    }
    if (check->format.dtype == PACK_U8) {
        check->format.dtype = PACK_F32;
        check->format.scale = true;
    }
    check->format.normalize = true;
    memcpy(check->format.mean, transform->mean, sizeof check->format.mean);
    memcpy(check->format.std, transform->std, sizeof check->format.std);
    return DECODE_OK;
}

static enum decode_status check_transform(struct check *check)
{
    enum transform_kind kind = check->transform->kind;
    bool resamples =
        kind == TRANSFORM_RANDOM_RESIZED_CROP || kind == TRANSFORM_RESIZE || kind == TRANSFORM_PAD;
    if (resamples && check->format.dtype != PACK_U8) {
        return refuse(check, "comes after ToDtype or Normalize; put it before them");
    }
    switch (kind) {
    case TRANSFORM_RANDOM_RESIZED_CROP: return check_random_resized_crop(check);
    case TRANSFORM_RESIZE: return check_resize(check);
    case TRANSFORM_CENTER_CROP:
    case TRANSFORM_RANDOM_CROP: return check_crop(check);
    case TRANSFORM_PAD: return check_pad(check);
    case TRANSFORM_RANDOM_HORIZONTAL_FLIP:
    case TRANSFORM_RANDOM_VERTICAL_FLIP:
        if (!in_range(check->transform->probability, 0, 1)) {
            return refuse(check, "needs a probability p with 0 <= p <= 1");
        }
        return DECODE_OK;
    case TRANSFORM_TO_DTYPE: return check_to_dtype(check);
    case TRANSFORM_NORMALIZE: return check_normalize(check);
    }
    return refuse(check, "is of kind %d, which this version does not know", (int)kind);
}

/* Name the transform that leaves the size to the image: the last Resize or Pad, if any. */
static enum decode_status refuse_open_size(struct check *check, const struct transform *transforms,
                                           size_t transform_count)
{
    for (size_t i = transform_count; i-- > 0;) {
        const struct transform *transform = &transforms[i];
        check->transform = transform;
        check->index = i;
        if (transform->kind == TRANSFORM_RESIZE && transform->shorter_px > 0) {
            return refuse(check,
                          "leaves the longer side to the image, so images would not stack; add "
                          "CenterCrop(%u) after it or give both sides, Resize((%u, %u))",
                          transform->shorter_px, transform->shorter_px, transform->shorter_px);
        }
        if (transform->kind == TRANSFORM_RESIZE || transform->kind == TRANSFORM_PAD) {
            return refuse(check, "leaves the size to the image, so images would not stack; add a "
                                 "CenterCrop after it");
        }
    }
    return decode_fail(check->error, DECODE_INVALID, 0,
                       "the transforms leave the size to the image, so images would not stack; add "
                       "RandomResizedCrop(224), or Resize(256) and CenterCrop(224)");
}

/* ---- Recipes --------------------------------------------------------------------------------- */

static enum decode_status recipe_check(const struct transform *transforms, size_t transform_count,
                                       enum pack_layout layout, struct check *check)
{
    if (transform_count > RECIPE_TRANSFORMS_MAX) {
        return decode_fail(check->error, DECODE_INVALID, 0,
                           "%zu transforms are more than the %d that are possible", transform_count,
                           RECIPE_TRANSFORMS_MAX);
    }
    if (layout != PACK_NCHW && layout != PACK_NHWC) {
        return decode_fail(check->error, DECODE_INVALID, 0,
                           "the memory format is neither channels first nor channels last");
    }
    for (size_t i = 0; i < transform_count; i++) {
        check->index = i;
        check->transform = &transforms[i];
        enum decode_status status = check_transform(check);
        if (status != DECODE_OK) {
            return status;
        }
    }
    if (check->height_px == 0) {
        return refuse_open_size(check, transforms, transform_count);
    }
    return DECODE_OK;
}

enum decode_status recipe_create(const struct transform *transforms, size_t transform_count,
                                 enum pack_layout layout, struct recipe **recipe,
                                 struct decode_error *error)
{
    struct check check = {.format = {.dtype = PACK_U8, .layout = layout}, .error = error};
    enum decode_status status = recipe_check(transforms, transform_count, layout, &check);
    if (status != DECODE_OK) {
        return status;
    }
    struct recipe *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return decode_fail(error, DECODE_NO_MEMORY, 0, "no memory for the list of transforms");
    }
    memcpy(made->transforms, transforms, transform_count * sizeof *transforms);
    made->transform_count = transform_count;
    made->format = check.format;
    made->height_px = check.height_px;
    made->width_px = check.width_px;
    *recipe = made;
    return DECODE_OK;
}

void recipe_destroy(struct recipe *recipe)
{
    free(recipe);
}

struct recipe_output recipe_output(const struct recipe *recipe)
{
    return (struct recipe_output){
        .height_px = recipe->height_px,
        .width_px = recipe->width_px,
        .dtype = recipe->format.dtype,
        .layout = recipe->format.layout,
        .bytes = 3 * (size_t)recipe->height_px * recipe->width_px *
                 pack_dtype_bytes(recipe->format.dtype),
    };
}

const struct transform *recipe_transforms(const struct recipe *recipe, size_t *count)
{
    *count = recipe->transform_count;
    return recipe->transforms;
}

struct pack_format recipe_format(const struct recipe *recipe)
{
    return recipe->format;
}
