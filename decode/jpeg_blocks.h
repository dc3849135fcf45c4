/*
 * jpeg_blocks.h - between libjpeg-turbo's decompressor and quantised coefficients that are not, or
 * not to be, Huffman-coded.
 *
 * jpeg_blocks_attach() feeds coefficients from elsewhere to a decompressor, through the same
 * function pointer as jpeg_entropy.h, so that IDCT, upsampling and colour are libjpeg-turbo's.
 */
#ifndef PENSTOCK_DECODE_JPEG_BLOCKS_H
#define PENSTOCK_DECODE_JPEG_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

#include "decode/coefficient_format.h"
#include "decode/jpeg.h"

struct jpeg_blocks; /* scratch, kept from image to image; one per reader */

struct jpeg_blocks *jpeg_blocks_create(void); /* NULL when memory is short */
void jpeg_blocks_destroy(struct jpeg_blocks *blocks);

/* Take over the scan of all components that jpeg_start_decompress() has begun. `give_up` is called
 * when the source fails, and must not return (longjmp). To be called after jpeg_crop_scanline(),
 * before the first row. */
void jpeg_blocks_attach(struct jpeg_blocks *blocks, j_decompress_ptr codec,
                        const struct jpeg_block_source *source,
                        void (*give_up)(j_decompress_ptr codec));

#endif /* PENSTOCK_DECODE_JPEG_BLOCKS_H */
