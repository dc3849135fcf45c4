/*
 * jpeg.h - JPEG by libjpeg-turbo: only the rows and columns that a region needs.
 *
 * The functions are those of image.h for this one format, with the same contract; image.c has
 * already seen that the bytes begin as a JPEG does. One reader is used by one thread at a time.
 */
#ifndef PENSTOCK_DECODE_JPEG_H
#define PENSTOCK_DECODE_JPEG_H

#include <stdbool.h>
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

/* ---- Coefficients instead of Huffman codes ---- */

struct coefficient_layout;

/* Where coefficients come from: GROUP_BLOCKS blocks of a component's block row
 * (coefficient_format.h), not dequantised, in natural order. `blocks` is aligned to 64 bytes.
 * False: they are no good. */
struct jpeg_block_source {
    void *context;
    bool (*read_group)(void *context, uint32_t component, uint32_t row, uint32_t group,
                       int16_t *blocks);
};

/* jpeg_reader_open() for an image of which header[0, header_bytes) has all but the entropy-coded
 * data: the coefficients are the source's. Both are borrowed like the bytes of an image. */
enum decode_status jpeg_reader_open_blocks(struct jpeg_reader *reader, const uint8_t *header,
                                           size_t header_bytes,
                                           const struct jpeg_block_source *source,
                                           struct decode_error *error);

/* Where coefficients go: begin() once with form and table_count unset, then row() for every block
 * row: width_blocks blocks of 64 in natural order. After a row of a component comes the row below.
 * A failed attempt may be followed by another begin(). */
struct jpeg_block_sink {
    void *context;
    enum decode_status (*begin)(void *context, const struct coefficient_layout *layout,
                                struct decode_error *error);
    enum decode_status (*row)(void *context, uint32_t component, uint32_t row,
                              const int16_t *blocks, struct decode_error *error);
};

/* Hand all coefficients of a JPEG to the sink. Refuses what coefficients.h says does not fit. */
enum decode_status jpeg_reader_read_blocks(struct jpeg_reader *reader, const uint8_t *bytes,
                                           size_t size_bytes, const struct jpeg_block_sink *sink,
                                           struct decode_error *error);

/* Give back the image's memory, whatever its state. */
void jpeg_reader_close(struct jpeg_reader *reader);

#endif /* PENSTOCK_DECODE_JPEG_H */
