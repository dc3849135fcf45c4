#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "decode/decoder.h"
#include "decode/philox.h"
#include "tests/tools/jpeg_samples.h"
#include "tests/tools/recipe_samples.h"

struct sample {
    uint32_t width_px, height_px;
    uint8_t *bytes, *rgb;
    size_t size_bytes;
};

/* A JPEG with subsampled chroma, so that a margin that is missing shows. */
static struct sample sample_make(uint32_t width_px, uint32_t height_px)
{
    struct sample sample = {.width_px = width_px, .height_px = height_px};
    struct jpeg_sample how = {.width_px = width_px,
                              .height_px = height_px,
                              .color = SAMPLE_YCC,
                              .sampling = {{2, 2}, {1, 1}, {1, 1}},
                              .seed = 3};
    sample.bytes = jpeg_sample_make(&how, &sample.size_bytes);
    sample.rgb = jpeg_sample_decode(sample.bytes, sample.size_bytes);
    return sample;
}

static void sample_free(struct sample *sample)
{
    free(sample->bytes);
    free(sample->rgb);
}

static struct decoder *make_decoder(uint64_t pixels_max, enum kernel_level level)
{
    struct decoder_options options = {
        .limits = {.pixels_max = pixels_max, .scans_max = IMAGE_SCANS_MAX_DEFAULT},
        .level_max = level};
    struct decoder *decoder = decoder_create(&options);
    assert_non_null(decoder);
    return decoder;
}

static struct recipe *make_recipe(const struct transform *transforms, size_t count,
                                  enum pack_layout layout)
{
    struct recipe *recipe = NULL;
    struct decode_error error;
    if (recipe_create(transforms, count, layout, &recipe, &error) != DECODE_OK) {
        fail_msg("%s", error.reason);
    }
    return recipe;
}

/* A target with bytes behind it that nobody may touch. */
enum { GUARD_BYTES = 256 };

static uint8_t *make_target(size_t bytes)
{
    uint8_t *target = malloc(bytes + GUARD_BYTES);
    assert_non_null(target);
    memset(target, 0xa5, bytes + GUARD_BYTES);
    return target;
}

static void check_guard(const uint8_t *target, size_t bytes)
{
    for (size_t i = 0; i < GUARD_BYTES; i++) {
        assert_int_equal(target[bytes + i], 0xa5);
    }
}

/* decoder_run() against the plain way; true when the two could be compared. */
static bool check_run(struct decoder *decoder, const struct recipe *recipe, struct sample_key key,
                      const struct sample *sample)
{
    size_t bytes = recipe_output(recipe).bytes;
    uint8_t *target = make_target(bytes);
    struct decode_error error;
    enum decode_status status =
        decoder_run(decoder, recipe, key, sample->bytes, sample->size_bytes, target, &error);
    check_guard(target, bytes);
    bool compared = false;
    if (status == DECODE_OK) {
        void *expected = recipe_sample_apply(recipe, decoder_geometry(decoder), sample->rgb);
        compared = expected != NULL;
        if (compared && memcmp(target, expected, bytes) != 0) {
            char text[GEOMETRY_TEXT_BYTES];
            geometry_describe(decoder_geometry(decoder), text, sizeof text);
            fail_msg("other pixels:\n%s", text);
        }
        free(expected);
    } else if (status != DECODE_INVALID && status != DECODE_TOO_LARGE) {
        fail_msg("%s", error.reason);
    }
    free(target);
    return compared;
}

/* ---- Tests ----------------------------------------------------------------------------------- */

/* Random recipes on images of many sizes, all on one decoder, so that what one leaves behind in the
 * scratch meets all others. */
static void check_random_recipes(uint64_t seed, enum kernel_level level, uint32_t recipe_count)
{
    struct sample samples[] = {sample_make(1, 1),   sample_make(1, 70),  sample_make(90, 2),
                               sample_make(35, 17), sample_make(64, 64), sample_make(200, 101),
                               sample_make(77, 190)};
    enum { SAMPLES = sizeof samples / sizeof *samples };
    struct decoder *decoder = make_decoder(IMAGE_PIXELS_MAX_DEFAULT, level);
    uint32_t compared = 0, accepted = 0;
    for (uint64_t id = 0; accepted < recipe_count; id++) {
        struct philox_stream stream = philox_stream_begin(seed, 0, id, 0);
        uint8_t bytes[256];
        for (size_t i = 0; i < sizeof bytes; i++) {
            bytes[i] = (uint8_t)philox_u32(&stream);
        }
        struct transform transforms[RECIPE_SAMPLE_TRANSFORMS_MAX];
        enum pack_layout layout;
        size_t count = recipe_sample_make(bytes, sizeof bytes, transforms, &layout);
        struct recipe *recipe;
        if (recipe_create(transforms, count, layout, &recipe, NULL) != DECODE_OK) {
            continue;
        }
        accepted++;
        struct sample_key key = {.seed = seed, .epoch = 1, .sample_id = id};
        compared += check_run(decoder, recipe, key, &samples[id % SAMPLES]);
        recipe_destroy(recipe);
    }
    assert_true(compared > recipe_count / 2);
    decoder_destroy(decoder);
    for (size_t i = 0; i < SAMPLES; i++) {
        sample_free(&samples[i]);
    }
}

static void test_random_recipes(void **state)
{
    (void)state;
    check_random_recipes(1, KERNEL_AVX512, 1500);
    check_random_recipes(2, KERNEL_SCALAR, 500);
}

static const struct transform train[] = {
    {.kind = TRANSFORM_RANDOM_RESIZED_CROP,
     .height_px = 64,
     .width_px = 64,
     .filter = RESIZE_BILINEAR,
     .scale_min = 0.08,
     .scale_max = 1,
     .ratio_min = 0.75,
     .ratio_max = 1.33},
    {.kind = TRANSFORM_RANDOM_HORIZONTAL_FLIP, .probability = 0.5},
};

/* The same key gives the same tensor whatever came before; another key another one. */
static void test_only_the_key_matters(void **state)
{
    (void)state;
    struct sample sample = sample_make(300, 200);
    struct recipe *recipe = make_recipe(train, 2, PACK_NCHW);
    size_t bytes = recipe_output(recipe).bytes;
    uint8_t *targets[5];
    const struct sample_key keys[] = {{1, 2, 3}, {1, 2, 3}, {2, 2, 3}, {1, 3, 3}, {1, 2, 4}};
    struct decoder *used = make_decoder(IMAGE_PIXELS_MAX_DEFAULT, KERNEL_AVX512);
    for (int i = 0; i < 5; i++) {
        struct decoder *fresh = make_decoder(IMAGE_PIXELS_MAX_DEFAULT, KERNEL_SCALAR);
        struct decode_error error;
        targets[i] = make_target(bytes);
        assert_int_equal(decoder_run(i == 1 ? fresh : used, recipe, keys[i], sample.bytes,
                                     sample.size_bytes, targets[i], &error),
                         DECODE_OK);
        assert_int_equal(memcmp(targets[0], targets[i], bytes) == 0, i < 2);
        decoder_destroy(fresh);
    }
    for (int i = 0; i < 5; i++) {
        free(targets[i]);
    }
    decoder_destroy(used);
    recipe_destroy(recipe);
    sample_free(&sample);
}

static void test_bad_bytes_leave_the_decoder_usable(void **state)
{
    (void)state;
    struct sample sample = sample_make(300, 200);
    struct recipe *recipe = make_recipe(train, 2, PACK_NHWC);
    struct decoder *decoder = make_decoder(IMAGE_PIXELS_MAX_DEFAULT, KERNEL_AVX512);
    uint8_t *target = make_target(recipe_output(recipe).bytes);
    const struct sample_key key = {1, 2, 3};
    for (size_t size = 0; size < sample.size_bytes; size += 1 + sample.size_bytes / 50) {
        struct decode_error error = {.reason = ""};
        enum decode_status status =
            decoder_run(decoder, recipe, key, sample.bytes, size, target, &error);
        assert_true(status == DECODE_TRUNCATED || status == DECODE_CORRUPT);
        assert_int_equal(error.status, status);
        assert_true(error.reason[0] != '\0');
        assert_true(check_run(decoder, recipe, key, &sample));
    }
    assert_true(decoder_run(decoder, recipe, key, sample.bytes, 100, target, NULL) != DECODE_OK);
    check_guard(target, recipe_output(recipe).bytes);
    free(target);
    decoder_destroy(decoder);
    recipe_destroy(recipe);
    sample_free(&sample);
}

/* Intermediate pictures are bounded too, but only by what is held of them. */
static void test_limits(void **state)
{
    (void)state;
    struct sample thin = sample_make(1, 500);
    struct transform eval[] = {
        {.kind = TRANSFORM_RESIZE, .shorter_px = 2000, .filter = RESIZE_BILINEAR},
        {.kind = TRANSFORM_CENTER_CROP, .height_px = 30, .width_px = 20},
        {.kind = TRANSFORM_RESIZE, .height_px = 2000, .width_px = 2000, .filter = RESIZE_NEAREST},
        {.kind = TRANSFORM_CENTER_CROP, .height_px = 30, .width_px = 20},
    };
    struct decoder *decoder = make_decoder(1000, KERNEL_AVX512);
    const struct sample_key key = {0};
    for (size_t count = 2; count <= 4; count++) {
        struct recipe *recipe = make_recipe(eval, count, PACK_NCHW);
        struct decode_error error = {.reason = ""};
        uint8_t *target = make_target(recipe_output(recipe).bytes);
        enum decode_status status =
            decoder_run(decoder, recipe, key, thin.bytes, thin.size_bytes, target, &error);
        assert_int_equal(status, count == 3 ? DECODE_TOO_LARGE : DECODE_OK);
        assert_true(count != 3 || strstr(error.reason, "above the limit of 1000") != NULL);
        free(target);
        recipe_destroy(recipe);
    }
    struct sample large = sample_make(40, 26);
    struct recipe *recipe = make_recipe(train, 2, PACK_NCHW);
    uint8_t *target = make_target(recipe_output(recipe).bytes);
    assert_int_equal(decoder_run(decoder, recipe, key, large.bytes, large.size_bytes, target, NULL),
                     DECODE_TOO_LARGE);
    free(target);
    recipe_destroy(recipe);
    sample_free(&large);
    sample_free(&thin);
    decoder_destroy(decoder);
}

static void test_destroy_accepts_null(void **state)
{
    (void)state;
    decoder_destroy(NULL);
    recipe_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_recipes),
        cmocka_unit_test(test_only_the_key_matters),
        cmocka_unit_test(test_bad_bytes_leave_the_decoder_usable),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_destroy_accepts_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
