/*
 * decoder.h - the one call a decode thread makes: compressed bytes to a tensor in the batch.
 *
 * The random choices are drawn first; from them the rectangle of the image that the output needs
 * is worked out backwards through the transforms; only that is decoded, in bands of rows that
 * stay in the cache, each band resampled in x at once; then resampled in y and packed, mirrored
 * where needed, straight into the target. What Pillow refuses to open and what torchvision refuses
 * to transform is an error; beyond that no buffer may hold more than limits.pixels_max pixels.
 */
#ifndef PENSTOCK_DECODE_DECODER_H
#define PENSTOCK_DECODE_DECODER_H

#include <stddef.h>
#include <stdint.h>

#include "decode/geometry.h"
#include "decode/image.h"
#include "decode/kernels.h"
#include "decode/recipe.h"
#include "decode/status.h"

struct decoder; /* scratch and codec state of one thread */

struct decoder_options {
    struct image_limits limits;
    enum kernel_level level_max; /* KERNEL_AVX512 means: the best there is */
};

/* NULL when memory is short. */
struct decoder *decoder_create(const struct decoder_options *options);
void decoder_destroy(struct decoder *decoder);

/* Decode bytes[0, size_bytes), apply the recipe, write recipe_output().bytes bytes to `target`.
 * On error the target's contents are unspecified. */
enum decode_status decoder_run(struct decoder *decoder, const struct recipe *recipe,
                               struct sample_key key, const uint8_t *bytes, size_t size_bytes,
                               void *target, struct decode_error *error);

/* The steps of the last decoder_run() that got as far as drawing them; borrowed until the next. */
const struct geometry *decoder_geometry(const struct decoder *decoder);

#endif /* PENSTOCK_DECODE_DECODER_H */
