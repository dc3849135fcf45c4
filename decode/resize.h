/*
 * resize.h - separable, antialiased resampling of 8-bit RGB, equal to Pillow's to the bit.
 *
 * Pillow resamples the columns first, rounds to 8 bits, then the rows; since its version 13 it
 * takes the rows first where resize_rows_first() says so. Each output value of a pass is
 *     clip8((2^21 + sum(pixel[i] * weight[i])) >> 22)
 * with weights of the antialiased filter (its support widened by the scale when shrinking),
 * computed in double, normalised to 1 and rounded to 22 fractional bits. Every variant here
 * (plain C, AVX2, AVX-512, NEON) does that arithmetic exactly, so all give the same bits.
 *
 * An axis may be cut: only out_first .. out_first + out_count - 1 of its out_size positions are
 * computed; the result equals the same positions of the full resize. That is how Resize followed
 * by CenterCrop costs only what the crop needs.
 */
#ifndef PENSTOCK_DECODE_RESIZE_H
#define PENSTOCK_DECODE_RESIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/kernels.h"

enum resize_filter { RESIZE_NEAREST = 1, RESIZE_BILINEAR, RESIZE_BICUBIC };

struct resize_axis; /* weights of one axis; memory is kept and reused from call to call */

struct resize_axis *resize_axis_create(void); /* NULL when memory is short */
void resize_axis_destroy(struct resize_axis *axis);

/* Prepare `axis` for in_size -> out_size, positions [out_first, out_first + out_count).
 * Sizes are >= 1; false only when memory is short. */
bool resize_axis_set(struct resize_axis *axis, enum resize_filter filter, uint32_t in_size,
                     uint32_t out_size, uint32_t out_first, uint32_t out_count);

/* The input positions that the output needs: [*in_first, *in_first + *in_count). */
void resize_axis_input(const struct resize_axis *axis, uint32_t *in_first, uint32_t *in_count);

/* Whether the rows pass comes before the columns pass, as in Pillow 13, when a whole picture of
 * in_* is resized to out_* (for an axis that is cut: the size before the cut). The passes round in
 * between, so the order shows in the result. Of no account for RESIZE_NEAREST. */
bool resize_rows_first(uint32_t in_width_px, uint32_t in_height_px, uint32_t out_width_px,
                       uint32_t out_height_px);

/* Columns: row_count rows of RGB, each beginning at input position in_first and holding in_count
 * pixels, to rows of out_count pixels. Vector variants may read up to 64 bytes past the end of a
 * row (what they find there does not matter); nothing is written outside the output rows. */
void resize_columns(const struct kernels *kernels, const struct resize_axis *axis,
                    const uint8_t *source, size_t source_stride_bytes, uint8_t *target,
                    size_t target_stride_bytes, uint32_t row_count);

/* Rows: source row 0 is input position in_first; each row is row_bytes bytes (3 * width). Writes
 * out_count rows. Never reads or writes outside [0, row_bytes) of a row. */
void resize_rows(const struct kernels *kernels, const struct resize_axis *axis,
                 const uint8_t *source, size_t source_stride_bytes, uint8_t *target,
                 size_t target_stride_bytes, uint32_t row_bytes);

#endif /* PENSTOCK_DECODE_RESIZE_H */
