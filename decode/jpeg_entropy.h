/*
 * jpeg_entropy.h - our Huffman decoder (huffman.h) inside libjpeg-turbo's decompressor.
 *
 * libjpeg's decompressor calls its entropy decoder through two function pointers (jpegint.h, an
 * installed header, unchanged since 1998). For ordinary baseline images ours takes that place
 * after jpeg_start_decompress(); IDCT, upsampling, colour, cropping and skipping stay
 * libjpeg-turbo's. MCUs outside the columns that are wanted are passed over.
 *
 * At anything odd `give_up` is called and must not return (longjmp): the caller starts the image
 * again without us.
 */
#ifndef PENSTOCK_DECODE_JPEG_ENTROPY_H
#define PENSTOCK_DECODE_JPEG_ENTROPY_H

#include <stdbool.h>
#include <stdio.h>

#include <jpeglib.h>

struct jpeg_entropy; /* tables, kept from image to image; one per reader */

struct jpeg_entropy *jpeg_entropy_create(void); /* NULL when memory is short */
void jpeg_entropy_destroy(struct jpeg_entropy *entropy);

/* Take over the scan that jpeg_start_decompress() has begun; the source must hold all the bytes.
 * False, and nothing is changed, if the image is not of our kind: progressive, arithmetic, more
 * than one scan. To be called after jpeg_crop_scanline(), before the first row. */
bool jpeg_entropy_attach(struct jpeg_entropy *entropy, j_decompress_ptr codec,
                         void (*give_up)(j_decompress_ptr codec));

/* For who wants coefficients instead of pixels, after jpeg_entropy_attach(): the next MCU of the
 * scan into the blocks target[], which hold zeros. May give up. */
void jpeg_entropy_next(j_decompress_ptr codec, JBLOCKROW *target);

/* After the scan's last MCU: no data is left, and the source stands at a marker. */
bool jpeg_entropy_is_used_up(const struct jpeg_entropy *entropy);

#endif /* PENSTOCK_DECODE_JPEG_ENTROPY_H */
