#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "decode/recipe.h"

#define CROP_SIDE(kind_, side)                                                                     \
    {                                                                                              \
        .kind = (kind_), .height_px = (side), .width_px = (side)                                   \
    }

static const struct transform train = {
    .kind = TRANSFORM_RANDOM_RESIZED_CROP,
    .height_px = 224,
    .width_px = 224,
    .filter = RESIZE_BILINEAR,
    .scale_min = 0.08,
    .scale_max = 1,
    .ratio_min = 3.0 / 4,
    .ratio_max = 4.0 / 3,
};
static const struct transform resize_256 = {
    .kind = TRANSFORM_RESIZE, .shorter_px = 256, .filter = RESIZE_BILINEAR};
static const struct transform resize_fixed = {
    .kind = TRANSFORM_RESIZE, .height_px = 30, .width_px = 20, .filter = RESIZE_BICUBIC};
static const struct transform center_224 = CROP_SIDE(TRANSFORM_CENTER_CROP, 224);
static const struct transform random_224 = CROP_SIDE(TRANSFORM_RANDOM_CROP, 224);
static const struct transform flip = {.kind = TRANSFORM_RANDOM_HORIZONTAL_FLIP, .probability = 0.5};
static const struct transform pad = {.kind = TRANSFORM_PAD, .pad_left = 1, .pad_bottom = 2};
static const struct transform to_f32 = {
    .kind = TRANSFORM_TO_DTYPE, .dtype = PACK_F32, .scale = true};
static const struct transform to_f16 = {.kind = TRANSFORM_TO_DTYPE, .dtype = PACK_F16};
static const struct transform to_bf16 = {.kind = TRANSFORM_TO_DTYPE, .dtype = PACK_BF16};
static const struct transform to_u8 = {.kind = TRANSFORM_TO_DTYPE, .dtype = PACK_U8};
static const struct transform normalize = {
    .kind = TRANSFORM_NORMALIZE, .mean = {0.5f, 0.4f, 0.3f}, .std = {0.1f, 0.2f, 0.3f}};

#define LIST(...)                                                                                  \
    (const struct transform[]){__VA_ARGS__},                                                       \
        sizeof((const struct transform[]){__VA_ARGS__}) / sizeof(struct transform)

static void accept(const struct transform *list, size_t count, struct recipe_output expected,
                   bool scale, bool normalized)
{
    struct recipe *recipe = NULL;
    struct decode_error error = {.reason = ""};
    enum decode_status status = recipe_create(list, count, PACK_NCHW, &recipe, &error);
    assert_string_equal(error.reason, "");
    assert_int_equal(status, DECODE_OK);
    struct recipe_output output = recipe_output(recipe);
    assert_int_equal(output.height_px, expected.height_px);
    assert_int_equal(output.width_px, expected.width_px);
    assert_int_equal(output.dtype, expected.dtype);
    assert_int_equal(output.layout, PACK_NCHW);
    assert_int_equal(output.bytes,
                     3 * expected.height_px * expected.width_px * pack_dtype_bytes(expected.dtype));
    struct pack_format format = recipe_format(recipe);
    assert_int_equal(format.scale, scale);
    assert_int_equal(format.normalize, normalized);
    recipe_destroy(recipe);
}

#define SHAPE(height, width, type) ((struct recipe_output){height, width, type, PACK_NCHW, 0})

static void test_accepted(void **state)
{
    (void)state;
    accept(LIST(train, flip), SHAPE(224, 224, PACK_U8), false, false);
    accept(LIST(resize_256, center_224), SHAPE(224, 224, PACK_U8), false, false);
    accept(LIST(resize_fixed), SHAPE(30, 20, PACK_U8), false, false);
    accept(LIST(resize_fixed, pad), SHAPE(32, 21, PACK_U8), false, false);
    accept(LIST(pad, flip, random_224), SHAPE(224, 224, PACK_U8), false, false);
    accept(LIST(resize_fixed, resize_256), SHAPE(384, 256, PACK_U8), false, false);
    accept(LIST(train, to_f32), SHAPE(224, 224, PACK_F32), true, false);
    accept(LIST(train, to_f16), SHAPE(224, 224, PACK_F16), false, false);
    accept(LIST(train, to_u8, normalize), SHAPE(224, 224, PACK_F32), true, true);
    accept(LIST(train, to_f32, normalize, to_bf16), SHAPE(224, 224, PACK_BF16), true, true);
    accept(LIST(train, to_f16, normalize), SHAPE(224, 224, PACK_F16), false, true);
}

static void test_geometry_that_commutes_may_follow(void **state)
{
    (void)state;
    struct transform center_20 = CROP_SIDE(TRANSFORM_CENTER_CROP, 20);
    struct transform random_20 = CROP_SIDE(TRANSFORM_RANDOM_CROP, 20);
    struct transform random_20_padded = random_20;
    random_20_padded.pad_if_needed = true; /* not needed: the input is known to be larger */
    accept(LIST(to_f32, random_224), SHAPE(224, 224, PACK_F32), true, false);
    accept(LIST(resize_fixed, normalize, center_20, flip), SHAPE(20, 20, PACK_F32), true, true);
    accept(LIST(resize_fixed, normalize, random_20), SHAPE(20, 20, PACK_F32), true, true);
    accept(LIST(resize_fixed, normalize, random_20_padded), SHAPE(20, 20, PACK_F32), true, true);
    accept(LIST(to_u8, train), SHAPE(224, 224, PACK_U8), false, false);
}

/* The reason must begin with this and hold that. */
static void refuse(const struct transform *list, size_t count, const char *begin, const char *hint)
{
    struct recipe *recipe = NULL;
    struct decode_error error;
    assert_int_equal(recipe_create(list, count, PACK_NHWC, &recipe, &error), DECODE_INVALID);
    assert_null(recipe);
    assert_int_equal(error.status, DECODE_INVALID);
    if (strncmp(error.reason, begin, strlen(begin)) != 0 || strstr(error.reason, hint) == NULL) {
        fail_msg("reason: %s", error.reason);
    }
    assert_int_equal(recipe_create(list, count, PACK_NHWC, &recipe, NULL), DECODE_INVALID);
}

static void test_open_shapes_are_refused(void **state)
{
    (void)state;
    refuse(NULL, 0, "the transforms leave the size", "RandomResizedCrop(224)");
    refuse(LIST(flip), "the transforms leave the size", "CenterCrop(224)");
    refuse(LIST(flip, resize_256), "transform 1 (Resize(256)) leaves", "add CenterCrop(256)");
    refuse(LIST(resize_256, flip, to_f32), "transform 0 (Resize(256)) leaves",
           "Resize((256, 256))");
    refuse(LIST(pad), "transform 0 (Pad([1, 0, 0, 2])) leaves", "CenterCrop");
}

static void test_order_of_types_and_geometry(void **state)
{
    (void)state;
    refuse(LIST(to_f32, train), "transform 1 (RandomResizedCrop(224)) comes after",
           "put it before");
    refuse(LIST(train, normalize, resize_fixed), "transform 2 (Resize((30, 20))) comes", "before");
    refuse(LIST(train, normalize, pad), "transform 2 (Pad([1, 0, 0, 2])) comes", "before");
    refuse(LIST(to_f32, center_224), "transform 1 (CenterCrop(224)) may pad", "before");
    refuse(LIST(resize_fixed, to_f32, center_224), "transform 2 (CenterCrop(224)) may pad", "");
    refuse(LIST(train, to_f32, to_u8), "transform 2 (ToDtype(uint8)) cannot follow", "float32");
    refuse(LIST(train, to_f16, to_f32), "transform 2 (ToDtype(float32)) cannot", "float16");
    refuse(LIST(train, to_f16, to_bf16), "transform 2 (ToDtype(bfloat16)) cannot", "float16");
    refuse(LIST(train, normalize, normalize), "transform 2 (Normalize) is the second", "");
}

static void test_ranges(void **state)
{
    (void)state;
    struct transform bad;
#define REFUSE_WITH(good, member, value, name)                                                     \
    bad = (good);                                                                                  \
    bad.member = (value);                                                                          \
    refuse(&bad, 1, "transform 0 (" name, "")
    REFUSE_WITH(train, height_px, 0, "RandomResizedCrop((0, 224))");
    REFUSE_WITH(train, width_px, RECIPE_SIDE_PX_MAX + 1, "RandomResizedCrop((224, 16385))");
    REFUSE_WITH(train, scale_min, -0.1, "RandomResizedCrop");
    REFUSE_WITH(train, scale_min, 1.1, "RandomResizedCrop");
    REFUSE_WITH(train, scale_max, NAN, "RandomResizedCrop");
    REFUSE_WITH(train, scale_max, INFINITY, "RandomResizedCrop");
    REFUSE_WITH(train, ratio_min, 0, "RandomResizedCrop");
    REFUSE_WITH(train, ratio_max, 0.5, "RandomResizedCrop");
    REFUSE_WITH(train, filter, (enum resize_filter)9, "RandomResizedCrop");
    REFUSE_WITH(resize_256, shorter_px, 0, "Resize(None, max_size=0)");
    REFUSE_WITH(resize_256, shorter_px, 70000, "Resize(70000)");
    REFUSE_WITH(resize_256, longer_max_px, 256, "Resize(256, max_size=256)");
    REFUSE_WITH(resize_fixed, width_px, 0, "Resize((30, 0))");
    REFUSE_WITH(pad, pad_right, 20000, "Pad([1, 0, 20000, 2])");
    REFUSE_WITH(pad, pad_mode, (enum pad_mode)4, "Pad");
    REFUSE_WITH(random_224, pad_top, UINT32_MAX, "RandomCrop(224)");
    REFUSE_WITH(flip, probability, 1.5, "RandomHorizontalFlip)");
    REFUSE_WITH(flip, probability, NAN, "RandomHorizontalFlip)");
    REFUSE_WITH(to_f32, dtype, (enum pack_dtype)0, "ToDtype(unknown)");
    REFUSE_WITH(normalize, std[1], 0, "Normalize)");
    REFUSE_WITH(normalize, mean[2], NAN, "Normalize)");
    REFUSE_WITH(train, kind, (enum transform_kind)99, "unknown transform");
#undef REFUSE_WITH
    refuse(LIST(resize_fixed, random_224), "transform 1 (RandomCrop(224)) is larger",
           "20x30 px (width x height)");
    struct transform many[RECIPE_TRANSFORMS_MAX + 1];
    for (size_t i = 0; i <= RECIPE_TRANSFORMS_MAX; i++) {
        many[i] = flip;
    }
    refuse(many, RECIPE_TRANSFORMS_MAX + 1, "33 transforms are more than the 32", "");
    struct recipe *recipe;
    assert_int_equal(recipe_create(&train, 1, (enum pack_layout)0, &recipe, NULL), DECODE_INVALID);
}

static void test_static_growth_is_bounded(void **state)
{
    (void)state;
    struct transform thin = resize_fixed;
    thin.height_px = 1;
    thin.width_px = 16384;
    refuse(LIST(thin, resize_256), "transform 1 (Resize(256)) makes of 16384x1 px", "16384");
    struct transform wide = pad;
    wide.pad_left = 10000;
    refuse(LIST(resize_fixed, wide, wide), "transform 2 (Pad(", "16384");
}

static void check_resized(struct transform resize, uint64_t width, uint64_t height,
                          uint64_t expected_width, uint64_t expected_height)
{
    uint64_t resized_width, resized_height;
    assert_true(transform_resized_size(&resize, width, height, &resized_width, &resized_height));
    assert_int_equal(resized_width, expected_width);
    assert_int_equal(resized_height, expected_height);
}

/* Expected values are torchvision's. */
static void test_resized_size(void **state)
{
    (void)state;
    struct transform resize = resize_256;
    check_resized(resize, 500, 375, 341, 256);
    check_resized(resize, 375, 500, 256, 341);
    check_resized(resize, 100, 100, 256, 256);
    check_resized(resize, 1, 30000, 256, 7680000);
    resize.longer_max_px = 300;
    check_resized(resize, 500, 375, 300, 225);
    check_resized(resize, 375, 500, 225, 300);
    check_resized(resize, 300, 290, 264, 256);
    resize.shorter_px = 0;
    check_resized(resize, 500, 375, 300, 225);
    check_resized(resize, 7, 700, 3, 300);
    uint64_t width, height;
    assert_false(transform_resized_size(&resize, 1, 301, &width, &height));
    check_resized(resize_fixed, 1000, 1, 20, 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_geometry_that_commutes_may_follow),
        cmocka_unit_test(test_open_shapes_are_refused),
        cmocka_unit_test(test_order_of_types_and_geometry),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_static_growth_is_bounded),
        cmocka_unit_test(test_resized_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
