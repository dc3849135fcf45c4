/*
 * recipe_samples.h - recipes made from bytes, and a plain way to carry them out.
 */
#ifndef PENSTOCK_TESTS_RECIPE_SAMPLES_H
#define PENSTOCK_TESTS_RECIPE_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

#include "decode/geometry.h"
#include "decode/pack.h"
#include "decode/recipe.h"

enum { RECIPE_SAMPLE_TRANSFORMS_MAX = 8 };

/* Up to RECIPE_SAMPLE_TRANSFORMS_MAX transforms and a layout. Any bytes make a list; most lists are
 * accepted by recipe_create(), some are beyond its ranges. Sizes are small. Returns the count. */
size_t recipe_sample_make(const uint8_t *bytes, size_t size_bytes, struct transform *transforms,
                          enum pack_layout *layout);

/* Every step of `geometry` on the whole picture, one after the other, with nothing left out, then
 * packed: what decoder_run() must give. `rgb` is the picture, dense. Returns a fresh tensor that
 * the caller frees; NULL where an intermediate picture has more than a million pixels. */
void *recipe_sample_apply(const struct recipe *recipe, const struct geometry *geometry,
                          const uint8_t *rgb);

#endif /* PENSTOCK_TESTS_RECIPE_SAMPLES_H */
