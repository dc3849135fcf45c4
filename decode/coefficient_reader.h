/*
 * coefficient_reader.h - pixels from a coefficient record: only the blocks that a region needs.
 *
 * The functions are those of image.h for this one format, with the same contract. The usual
 * samplings (grey, 4:4:4, 4:2:2, 4:2:0) go through block_kernels.h where the processor has vectors
 * for it; for all else libjpeg-turbo is fed with the coefficients. Both give what libjpeg-turbo
 * gives for the JPEG. One reader is used by one thread at a time.
 */
#ifndef PENSTOCK_DECODE_COEFFICIENT_READER_H
#define PENSTOCK_DECODE_COEFFICIENT_READER_H

#include <stddef.h>
#include <stdint.h>

#include "decode/image.h"
#include "decode/jpeg.h"
#include "decode/status.h"

struct coefficient_reader;

/* NULL: no memory. `jpeg` is borrowed for the reader's life and used while an image is open. */
struct coefficient_reader *coefficient_reader_create(const struct image_limits *limits,
                                                     struct jpeg_reader *jpeg);
void coefficient_reader_destroy(struct coefficient_reader *reader); /* NULL is accepted */

/* Fills width_px and height_px of *info. Refuses more than pixels_max pixels. */
enum decode_status coefficient_reader_open(struct coefficient_reader *reader, const uint8_t *bytes,
                                           size_t size_bytes, struct image_info *info,
                                           struct decode_error *error);
enum decode_status coefficient_reader_start(struct coefficient_reader *reader,
                                            struct image_rect region, struct decode_error *error);
enum decode_status coefficient_reader_band(struct coefficient_reader *reader,
                                           uint32_t row_count_max, const uint8_t **rows,
                                           size_t *stride_bytes, uint32_t *row_count,
                                           struct decode_error *error);
enum decode_status coefficient_reader_finish(struct coefficient_reader *reader,
                                             struct decode_error *error);

#endif /* PENSTOCK_DECODE_COEFFICIENT_READER_H */
