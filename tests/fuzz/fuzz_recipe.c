/*
 * fuzz_recipe.c - any list of transforms on a few images: refused, or carried out exactly.
 *
 * Input: byte 0 chooses the image, byte 1 seeds the draws, the rest makes the recipe.
 */
#include <stdlib.h>
#include <string.h>

#include "decode/decoder.h"
#include "tests/fuzz/fuzz.h"
#include "tests/tools/jpeg_samples.h"
#include "tests/tools/recipe_samples.h"

enum { TARGET_BYTES_MAX = 1 << 24 };

static void check(const struct recipe *recipe, struct sample_key key, const uint8_t *bytes,
                  size_t size_bytes)
{
    const struct decoder_options options = {
        .limits = {.pixels_max = 1000000, .scans_max = IMAGE_SCANS_MAX_DEFAULT},
        .level_max = KERNEL_AVX512};
    struct decoder *decoder = decoder_create(&options);
    size_t target_bytes = recipe_output(recipe).bytes;
    uint8_t *target = malloc(target_bytes);
    if (decoder == NULL || target == NULL) {
        abort();
    }
    enum decode_status status = decoder_run(decoder, recipe, key, bytes, size_bytes, target, NULL);
    if (status == DECODE_OK) {
        uint8_t *rgb = jpeg_sample_decode(bytes, size_bytes);
        void *expected = recipe_sample_apply(recipe, decoder_geometry(decoder), rgb);
        if (expected != NULL && memcmp(target, expected, target_bytes) != 0) {
            abort();
        }
        free(expected);
        free(rgb);
    } else if (status != DECODE_INVALID && status != DECODE_TOO_LARGE) {
        abort(); /* the image is sound */
    }
    free(target);
    decoder_destroy(decoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes)
{
    static const uint32_t sizes_px[][2] = {{1, 1}, {1, 60}, {70, 2}, {33, 47}, {120, 50}};
    if (size_bytes < 3) {
        return 0;
    }
    struct transform transforms[RECIPE_SAMPLE_TRANSFORMS_MAX];
    enum pack_layout layout;
    size_t count = recipe_sample_make(bytes + 2, size_bytes - 2, transforms, &layout);
    struct recipe *recipe;
    if (recipe_create(transforms, count, layout, &recipe, NULL) != DECODE_OK) {
        return 0;
    }
    if (recipe_output(recipe).bytes <= TARGET_BYTES_MAX) {
        const uint32_t *size_px = sizes_px[bytes[0] % (sizeof sizes_px / sizeof *sizes_px)];
        struct jpeg_sample how = {.width_px = size_px[0],
                                  .height_px = size_px[1],
                                  .color = SAMPLE_YCC,
                                  .sampling = {{2, 2}, {1, 1}, {1, 1}}};
        size_t jpeg_bytes;
        uint8_t *jpeg = jpeg_sample_make(&how, &jpeg_bytes);
        check(recipe, (struct sample_key){.seed = bytes[1]}, jpeg, jpeg_bytes);
        free(jpeg);
    }
    recipe_destroy(recipe);
    return 0;
}

/* Enough bytes for the longest list; what they say does not matter. */
size_t fuzz_seed(size_t index, uint8_t *buffer, size_t size_max_bytes)
{
    enum { SEEDS = 64, SEED_BYTES = 160 };
    if (index >= SEEDS || size_max_bytes < SEED_BYTES) {
        return 0;
    }
    uint64_t word = index + 1;
    for (size_t i = 0; i < SEED_BYTES; i++) {
        word = word * 6364136223846793005u + 1442695040888963407u;
        buffer[i] = (uint8_t)(word >> 56);
    }
    return SEED_BYTES;
}
