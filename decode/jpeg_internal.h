/*
 * jpeg_internal.h - the state of a JPEG reader, shared by jpeg.c (pixels) and jpeg_coefficients.c
 * (coefficients). Whatever calls libjpeg may fail by a longjmp to `escape`, with the verdict in
 * `status` and *error.
 */
#ifndef PENSTOCK_DECODE_JPEG_INTERNAL_H
#define PENSTOCK_DECODE_JPEG_INTERNAL_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

#include "decode/image.h"
#include "decode/jpeg.h"
#include "decode/status.h"

struct jpeg_reader {
    struct jpeg_decompress_struct codec;
    struct jpeg_entropy *entropy;
    struct jpeg_blocks *blocks;
    struct jpeg_block_source block_source; /* read_group NULL: the coefficients are the file's */
    bool is_plain;                         /* this image is left to libjpeg's own entropy decoder */
    bool is_odd;                           /* ours gave up: to be started again, plainly */
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf escape; /* where a failing call of libjpeg lands */
    struct decode_error *error;
    enum decode_status status;
    struct image_limits limits;
    const uint8_t *bytes;
    size_t size_bytes;
    size_t scan_offset_bytes; /* the first scan's data */
    bool is_created;          /* codec holds memory */
    struct image_rect region;
    uint32_t rows_left;
    bool has_all_rows; /* of the image, not only of the region */
    size_t lead_bytes; /* columns decoded left of the region */
    size_t stride_bytes;
    uint32_t band_rows; /* that fit into `band` */
    uint8_t *band;
    size_t band_bytes;
};

/* Make the codec anew and read the header of reader->bytes; may escape. */
void jpeg_begin_image(struct jpeg_reader *reader);

/* For codec.progress: keeps the limit of scans; may escape. */
void jpeg_on_progress(j_common_ptr common);

/* For jpeg_entropy_attach(): escapes with is_odd set. */
void jpeg_on_odd(j_decompress_ptr codec);

/* True when libjpeg smooths an incomplete progressive image, which looks at blocks around. */
bool jpeg_is_smoothed(const struct jpeg_decompress_struct *codec);

/* An end-of-image marker after the first scan? Looked for from the back, where it should be. */
bool jpeg_has_end_marker(const struct jpeg_reader *reader);

#endif /* PENSTOCK_DECODE_JPEG_INTERNAL_H */
