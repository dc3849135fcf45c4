/*
 * png_rows.h - the compressed rows of a PNG: inflate, undo the filters, spread over the image.
 *
 * The only user of zlib in decode/; png.c borrows two small things from it.
 */
#ifndef PENSTOCK_DECODE_PNG_ROWS_H
#define PENSTOCK_DECODE_PNG_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/image.h"
#include "decode/png.h"
#include "decode/status.h"

struct png_rows;

/* Rows go to `target` (see png_decode()). header and target are borrowed until the end. NULL when
 * memory is short. */
struct png_rows *png_rows_begin(const struct png_header *header, struct image_rect region,
                                uint8_t *target);
void png_rows_end(struct png_rows *rows); /* NULL is accepted */

/* Decode on with the next bytes of the stream. *is_done once the last row is there or the stream
 * has ended after a whole row. offset_bytes is where `bytes` lie in the file, for errors. */
enum decode_status png_rows_feed(struct png_rows *rows, const uint8_t *bytes, size_t size_bytes,
                                 size_t offset_bytes, bool *is_done, struct decode_error *error);

/* The checksum of a chunk: `bytes` begin with its name. */
uint32_t png_checksum(const uint8_t *bytes, size_t size_bytes);

/* How many bytes the zlib stream inflates to; of a broken one, those before the break. Counting
 * stops soon after limit_bytes. */
size_t png_inflated_bytes(const uint8_t *bytes, size_t size_bytes, size_t limit_bytes);

#endif /* PENSTOCK_DECODE_PNG_ROWS_H */
