/*
 * jpeg.h - JPEG by libjpeg-turbo: only the rows and columns that a region needs.
 *
 * The functions are those of image.h for this one format, with the same contract; image.c has
 * already seen that the bytes begin as a JPEG does. One reader is used by one thread at a time.
 */
#ifndef PENSTOCK_DECODE_JPEG_H
#define PENSTOCK_DECODE_JPEG_H

#include <stddef.h>
#include <stdint.h>

#include "decode/image.h"
#include "decode/status.h"

struct jpeg_reader;

struct jpeg_reader *jpeg_reader_create(const struct image_limits *limits); /* NULL: no memory */
void jpeg_reader_destroy(struct jpeg_reader *reader);                      /* NULL is accepted */

/* Fills width_px and height_px of *info. Refuses more than pixels_max pixels. */
enum decode_status jpeg_reader_open(struct jpeg_reader *reader, const uint8_t *bytes,
                                    size_t size_bytes, struct image_info *info,
                                    struct decode_error *error);
/* A progressive image is read to its end here, which takes about 6 bytes a pixel of memory. */
enum decode_status jpeg_reader_start(struct jpeg_reader *reader, struct image_rect region,
                                     struct decode_error *error);
enum decode_status jpeg_reader_band(struct jpeg_reader *reader, uint32_t row_count_max,
                                    const uint8_t **rows, size_t *stride_bytes, uint32_t *row_count,
                                    struct decode_error *error);
enum decode_status jpeg_reader_finish(struct jpeg_reader *reader, struct decode_error *error);

/* Give back the image's memory, whatever its state. */
void jpeg_reader_close(struct jpeg_reader *reader);

#endif /* PENSTOCK_DECODE_JPEG_H */
