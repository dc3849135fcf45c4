#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "decode/geometry.h"

static struct transform random_resized_crop(void)
{
    return (struct transform){
        .kind = TRANSFORM_RANDOM_RESIZED_CROP,
        .height_px = 224,
        .width_px = 224,
        .filter = RESIZE_BILINEAR,
        .scale_min = 0.08,
        .scale_max = 1,
        .ratio_min = 3.0 / 4,
        .ratio_max = 4.0 / 3,
    };
}

static struct recipe *make(const struct transform *transforms, size_t count)
{
    struct recipe *recipe = NULL;
    struct decode_error error;
    if (recipe_create(transforms, count, PACK_NCHW, &recipe, &error) != DECODE_OK) {
        fail_msg("%s", error.reason);
    }
    return recipe;
}

static struct geometry draw(const struct recipe *recipe, uint64_t sample_id, uint32_t width_px,
                            uint32_t height_px)
{
    struct geometry geometry;
    struct decode_error error;
    struct sample_key key = {.seed = 7, .epoch = 3, .sample_id = sample_id};
    if (geometry_draw(recipe, key, width_px, height_px, &geometry, &error) != DECODE_OK) {
        fail_msg("%s", error.reason);
    }
    return geometry;
}

static void check_text(const struct geometry *geometry, const char *expected)
{
    char text[GEOMETRY_TEXT_BYTES];
    size_t length = geometry_describe(geometry, text, sizeof text);
    assert_string_equal(text, expected);
    assert_int_equal(length, strlen(expected));
}

static void check_deterministic(const struct transform *transforms, size_t count, uint32_t width_px,
                                uint32_t height_px, const char *expected)
{
    struct recipe *recipe = make(transforms, count);
    struct geometry geometry = draw(recipe, 1, width_px, height_px);
    check_text(&geometry, expected);
    recipe_destroy(recipe);
}

/* ---- Draws ----------------------------------------------------------------------------------- */

/* The crop of a RandomResizedCrop, the whole image if there is no step for it. */
static void crop_of(const struct geometry *geometry, uint32_t first_px[2], uint32_t size_px[2])
{
    const struct geometry_step *step = &geometry->steps[0];
    bool crops = geometry->step_count > 0 && step->kind == GEOMETRY_CROP;
    for (int axis = 0; axis < 2; axis++) {
        first_px[axis] = crops ? step->first_px[axis] : 0;
        size_px[axis] = crops ? step->out_px[axis] : geometry->image_px[axis];
    }
}

/* On a large square image nearly every first try fits, so the crop's share of the area is uniform
 * and the logarithm of its ratio too. */
static void test_random_resized_crop_distribution(void **state)
{
    (void)state;
    enum { DRAWS = 20000, SIDE = 4000 };
    struct transform transform = random_resized_crop();
    transform.scale_max = 0.5;
    struct recipe *recipe = make(&transform, 1);
    double area_sum = 0, log_sum = 0, log_square_sum = 0, place_sum[2] = {0, 0};
    for (uint64_t id = 0; id < DRAWS; id++) {
        struct geometry geometry = draw(recipe, id, SIDE, SIDE);
        uint32_t first[2], size[2];
        crop_of(&geometry, first, size);
        double area = (double)size[0] * size[1] / SIDE / SIDE;
        double log_ratio = log((double)size[0] / size[1]);
        assert_true(area > 0.0799 && area < 0.5001);
        assert_true(fabs(log_ratio) < log(4.0 / 3) + 0.002);
        assert_true(first[0] + size[0] <= SIDE && first[1] + size[1] <= SIDE);
        area_sum += area;
        log_sum += log_ratio;
        log_square_sum += log_ratio * log_ratio;
        for (int axis = 0; axis < 2; axis++) {
            place_sum[axis] += (double)first[axis] / (SIDE - size[axis]);
        }
    }
    const double width = 2 * log(4.0 / 3);
    assert_true(fabs(area_sum / DRAWS - 0.29) < 0.004);
    assert_true(fabs(log_sum / DRAWS) < 0.006);
    assert_true(fabs(log_square_sum / DRAWS - width * width / 12) < 0.001);
    assert_true(fabs(place_sum[0] / DRAWS - 0.5) < 0.01);
    assert_true(fabs(place_sum[1] / DRAWS - 0.5) < 0.01);
    recipe_destroy(recipe);
}

static void test_random_resized_crop_fits_any_image(void **state)
{
    (void)state;
    struct transform transform = random_resized_crop();
    struct recipe *recipe = make(&transform, 1);
    for (uint32_t width = 1; width < 40; width++) {
        for (uint32_t height = 1; height < 40; height++) {
            struct geometry geometry = draw(recipe, width * 64 + height, width, height);
            uint32_t first[2], size[2];
            crop_of(&geometry, first, size);
            assert_true(size[0] >= 1 && first[0] + size[0] <= width);
            assert_true(size[1] >= 1 && first[1] + size[1] <= height);
            const struct geometry_step *last = &geometry.steps[geometry.step_count - 1];
            assert_true(last->kind == GEOMETRY_RESIZE && last->out_px[0] == 224);
        }
    }
    recipe_destroy(recipe);
}

static void test_random_resized_crop_falls_back(void **state)
{
    (void)state;
    struct transform transform = random_resized_crop();
    transform.scale_min = transform.scale_max = 1; /* no crop of another shape has the area */
    check_deterministic(&transform, 1, 1000, 100,
                        "image 1000 100\ncrop 433 0 133 100\n"
                        "resize 224 224 bilinear\n");
    check_deterministic(&transform, 1, 99, 1001,
                        "image 99 1001\ncrop 0 434 99 132\n"
                        "resize 224 224 bilinear\n");
    transform.ratio_min = 50;
    transform.ratio_max = 60;
    check_deterministic(&transform, 1, 3, 3, "image 3 3\ncrop 0 1 3 1\nresize 224 224 bilinear\n");
}

static void test_flip_probability(void **state)
{
    (void)state;
    struct transform transforms[] = {
        {.kind = TRANSFORM_CENTER_CROP, .height_px = 8, .width_px = 8},
        {.kind = TRANSFORM_RANDOM_HORIZONTAL_FLIP, .probability = 0.25},
        {.kind = TRANSFORM_RANDOM_VERTICAL_FLIP, .probability = 0.5},
        {.kind = TRANSFORM_RANDOM_VERTICAL_FLIP, .probability = 0},
        {.kind = TRANSFORM_RANDOM_VERTICAL_FLIP, .probability = 1},
    };
    struct recipe *recipe = make(transforms, 5);
    uint32_t across = 0, upright = 0, both = 0;
    for (uint64_t id = 0; id < 10000; id++) {
        struct geometry geometry = draw(recipe, id, 8, 8);
        uint32_t x = 0, y = 0;
        for (uint32_t i = 0; i < geometry.step_count; i++) {
            assert_int_equal(geometry.steps[i].kind, GEOMETRY_FLIP);
            x += geometry.steps[i].flip_axis == GEOMETRY_X;
            y += geometry.steps[i].flip_axis == GEOMETRY_Y;
        }
        assert_true(y >= 1);
        across += x;
        upright += y - 1;
        both += x == 1 && y == 2;
    }
    assert_in_range(across, 2300, 2700);
    assert_in_range(upright, 4750, 5250);
    assert_in_range(both, 1100, 1400); /* the two do not hang together */
    recipe_destroy(recipe);
}

static void test_random_crop_reaches_every_place(void **state)
{
    (void)state;
    struct transform transform = {.kind = TRANSFORM_RANDOM_CROP, .height_px = 8, .width_px = 8};
    struct recipe *recipe = make(&transform, 1);
    uint32_t hits[5][4] = {{0}};
    for (uint64_t id = 0; id < 10000; id++) {
        struct geometry geometry = draw(recipe, id, 11, 12);
        hits[geometry.steps[0].first_px[1]][geometry.steps[0].first_px[0]]++;
    }
    for (int i = 0; i < 20; i++) {
        assert_in_range(hits[i / 4][i % 4], 400, 600);
    }
    recipe_destroy(recipe);
}

/* A change of these breaks the replay of samples and every resumed run: mend the code instead. */
static void test_draws_never_change(void **state)
{
    (void)state;
    struct transform transforms[] = {
        random_resized_crop(),
        {.kind = TRANSFORM_RANDOM_HORIZONTAL_FLIP, .probability = 0.5},
        {.kind = TRANSFORM_RANDOM_VERTICAL_FLIP, .probability = 0.5},
        {.kind = TRANSFORM_RANDOM_CROP, .height_px = 200, .width_px = 180},
    };
    struct recipe *recipe = make(transforms, 4);
    struct geometry geometry = draw(recipe, 0, 500, 375);
    check_text(&geometry, "image 500 375\n"
                          "crop 226 167 118 132\n"
                          "resize 224 224 bilinear\n"
                          "crop 44 20 180 200\n");
    geometry = draw(recipe, ((uint64_t)5 << 32) + 77, 375, 500);
    check_text(&geometry, "image 375 500\n"
                          "crop 44 142 293 295\n"
                          "resize 224 224 bilinear\n"
                          "flip x\n"
                          "flip y\n"
                          "crop 25 23 180 200\n");
    recipe_destroy(recipe);
}

/* ---- What is not drawn ----------------------------------------------------------------------- */

static void test_center_crop(void **state)
{
    (void)state;
    struct transform center = {.kind = TRANSFORM_CENTER_CROP, .height_px = 10, .width_px = 11};
    check_deterministic(&center, 1, 11, 10, "image 11 10\n");
    /* 1 / 2 and 5 / 2 are rounded to the even numbers 0 and 2, 3 / 2 and 7 / 2 to 2 and 4. */
    check_deterministic(&center, 1, 12, 15, "image 12 15\ncrop 0 2 11 10\n");
    check_deterministic(&center, 1, 14, 17, "image 14 17\ncrop 2 4 11 10\n");
    check_deterministic(&center, 1, 8, 14,
                        "image 8 14\npad 1 0 2 0 constant 0 0 0\ncrop 0 2 11 10\n");
    check_deterministic(&center, 1, 8, 9, "image 8 9\npad 1 0 2 1 constant 0 0 0\n");
}

static void test_random_crop_padding(void **state)
{
    (void)state;
    struct transform crop = {.kind = TRANSFORM_RANDOM_CROP,
                             .height_px = 10,
                             .width_px = 10,
                             .pad_left = 1,
                             .pad_right = 2,
                             .pad_if_needed = true,
                             .pad_mode = PAD_EDGE};
    check_deterministic(&crop, 1, 7, 10, "image 7 10\npad 1 0 2 0 edge 0 0 0\n");
    struct recipe *recipe = make(&crop, 1);
    struct geometry geometry = draw(recipe, 0, 5, 8);
    assert_int_equal(geometry.steps[0].out_px[0], 12); /* 8 padded, 2 missing, added twice */
    assert_int_equal(geometry.steps[0].out_px[1], 12);
    assert_int_equal(geometry.steps[0].first_px[0], 3);
    recipe_destroy(recipe);
}

static void test_images_that_cannot_be_transformed(void **state)
{
    (void)state;
    struct decode_error error;
    struct geometry geometry;
    struct sample_key key = {0};
    struct transform crop = {.kind = TRANSFORM_RANDOM_CROP, .height_px = 10, .width_px = 10};
    struct recipe *recipe = make(&crop, 1);
    assert_int_equal(geometry_draw(recipe, key, 10, 9, &geometry, &error), DECODE_INVALID);
    assert_string_equal(error.reason,
                        "transform 0 (RandomCrop(10)) needs pad_if_needed=True or a smaller size "
                        "for an image of 10x9 px (width x height)");
    assert_int_equal(geometry_draw(recipe, key, UINT32_MAX, UINT32_MAX, &geometry, &error),
                     DECODE_TOO_LARGE);
    recipe_destroy(recipe);
    struct transform eval[] = {
        {.kind = TRANSFORM_RESIZE, .longer_max_px = 20, .filter = RESIZE_BILINEAR},
        {.kind = TRANSFORM_CENTER_CROP, .height_px = 10, .width_px = 10},
    };
    recipe = make(eval, 2);
    assert_int_equal(geometry_draw(recipe, key, 1, 21, &geometry, &error), DECODE_INVALID);
    recipe_destroy(recipe);
    eval[0].shorter_px = 16384;
    eval[0].longer_max_px = 0;
    recipe = make(eval, 2);
    assert_int_equal(geometry_draw(recipe, key, 1, 65535, &geometry, &error), DECODE_TOO_LARGE);
    assert_int_equal(geometry_draw(recipe, key, 1 << 21, 1 << 21, &geometry, &error),
                     DECODE_TOO_LARGE);
    recipe_destroy(recipe);
}

static void test_description_is_cut_to_size(void **state)
{
    (void)state;
    struct transform transform = random_resized_crop();
    struct recipe *recipe = make(&transform, 1);
    struct geometry geometry = draw(recipe, 0, 500, 375);
    char whole[GEOMETRY_TEXT_BYTES], cut[GEOMETRY_TEXT_BYTES];
    size_t length = geometry_describe(&geometry, whole, sizeof whole);
    for (size_t size = 1; size <= length + 1; size++) {
        memset(cut, '#', sizeof cut);
        assert_int_equal(geometry_describe(&geometry, cut, size), length);
        assert_int_equal(strlen(cut), size - 1);
        assert_memory_equal(cut, whole, size - 1);
        assert_int_equal(cut[size], '#');
    }
    recipe_destroy(recipe);
}

/* ---- Backwards ------------------------------------------------------------------------------- */

static void test_spans_go_back(void **state)
{
    (void)state;
    struct geometry geometry = {
        .steps =
            {{.kind = GEOMETRY_CROP, .in_px = {100, 50}, .out_px = {60, 50}, .first_px = {10, 0}},
             {.kind = GEOMETRY_FLIP, .in_px = {60, 50}, .out_px = {60, 50}},
             {.kind = GEOMETRY_PAD, .in_px = {60, 50}, .out_px = {70, 52}, .first_px = {5, 1}}},
        .step_count = 3,
        .image_px = {100, 50},
    };
    struct geometry_run run = {0, 3};
    struct geometry_span span = {5, 60};
    assert_int_equal(geometry_span_back(&geometry, run, GEOMETRY_X, &span), GEOMETRY_REVERSED);
    assert_true(span.first == 10 && span.count == 60);
    span = (struct geometry_span){7, 3}; /* 2, 3, 4 before the pad, 57, 56, 55 before the flip */
    assert_int_equal(geometry_span_back(&geometry, run, GEOMETRY_X, &span), GEOMETRY_REVERSED);
    assert_true(span.first == 65 && span.count == 3);
    span = (struct geometry_span){1, 50};
    assert_int_equal(geometry_span_back(&geometry, run, GEOMETRY_Y, &span), GEOMETRY_FORWARD);
    assert_true(span.first == 0 && span.count == 50);
    span = (struct geometry_span){4, 3};
    assert_int_equal(geometry_span_back(&geometry, run, GEOMETRY_X, &span), GEOMETRY_GATHER);
    assert_true(span.first == 4 && span.count == 3);
    int32_t sources[3];
    struct geometry_span used = geometry_gather(&geometry, run, GEOMETRY_X, span, sources);
    assert_int_equal(sources[0], -3);
    assert_int_equal(sources[1], 69);
    assert_int_equal(sources[2], 68);
    assert_true(used.first == 68 && used.count == 2);
    used = geometry_gather(&geometry, run, GEOMETRY_X, (struct geometry_span){0, 2}, sources);
    assert_true(used.first == 0 && used.count == 1);
}

static void check_padded(enum pad_mode mode, uint32_t size, const int32_t *expected)
{
    enum { LEFT = 5, COUNT = 12 };
    struct geometry geometry = {
        .steps = {{.kind = GEOMETRY_PAD,
                   .in_px = {size, size},
                   .out_px = {COUNT, COUNT},
                   .first_px = {LEFT, LEFT},
                   .pad_mode = mode}},
        .step_count = 1,
    };
    int32_t sources[COUNT];
    geometry_gather(&geometry, (struct geometry_run){0, 1}, GEOMETRY_Y,
                    (struct geometry_span){0, COUNT}, sources);
    assert_memory_equal(sources, expected, sizeof sources);
}

/* Expected values are numpy.pad's. */
static void test_pad_modes(void **state)
{
    (void)state;
    check_padded(PAD_EDGE, 3, (const int32_t[]){0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2});
    check_padded(PAD_REFLECT, 3, (const int32_t[]){1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2});
    check_padded(PAD_SYMMETRIC, 3, (const int32_t[]){1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0});
    check_padded(PAD_CONSTANT, 3, (const int32_t[]){-1, -1, -1, -1, -1, 0, 1, 2, -1, -1, -1, -1});
    const int32_t zeros[12] = {0};
    check_padded(PAD_REFLECT, 1, zeros);
    check_padded(PAD_SYMMETRIC, 1, zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_resized_crop_distribution),
        cmocka_unit_test(test_random_resized_crop_fits_any_image),
        cmocka_unit_test(test_random_resized_crop_falls_back),
        cmocka_unit_test(test_flip_probability),
        cmocka_unit_test(test_random_crop_reaches_every_place),
        cmocka_unit_test(test_draws_never_change),
        cmocka_unit_test(test_center_crop),
        cmocka_unit_test(test_random_crop_padding),
        cmocka_unit_test(test_images_that_cannot_be_transformed),
        cmocka_unit_test(test_description_is_cut_to_size),
        cmocka_unit_test(test_spans_go_back),
        cmocka_unit_test(test_pad_modes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
