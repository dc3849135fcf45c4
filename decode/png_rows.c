#include "decode/png_rows.h"

#include <stdlib.h>
#include <string.h>

#include <zlib.h>

/* The passes of an interlaced image: first column and row, steps between columns and rows. */
struct pass {
    uint8_t x, y, x_step, y_step;
};

static const struct pass interlaced_passes[] = {
    {0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
    {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2},
};
static const struct pass plain_pass = {0, 0, 1, 1};

struct png_rows {
    const struct png_header *header;
    struct image_rect region;
    uint8_t *target;
    z_stream stream;
    const struct pass *pass; /* the one in work, of pass_end */
    const struct pass *pass_end;
    uint32_t y; /* within the frame */
    size_t pixel_bits, filter_bytes;
    size_t row_bytes;    /* of a row of this pass, without its filter byte */
    size_t filled_bytes; /* of `row`, filter byte included */
    uint8_t *row;        /* filter byte and row_bytes */
    uint8_t *previous;   /* the row above, of the same pass */
};

static uint32_t pass_columns(const struct pass *pass, uint32_t width_px)
{
    return width_px <= pass->x ? 0 : (width_px - pass->x + pass->x_step - 1) / pass->x_step;
}

static size_t row_bytes_of(const struct png_rows *rows)
{
    size_t columns = pass_columns(rows->pass, rows->header->frame.width_px);
    return (columns * rows->pixel_bits + 7) / 8;
}

struct png_rows *png_rows_begin(const struct png_header *header, struct image_rect region,
                                uint8_t *target)
{
    struct png_rows *rows = calloc(1, sizeof *rows);
    if (rows == NULL) {
        return NULL;
    }
    if (inflateInit(&rows->stream) != Z_OK) {
        free(rows);
        return NULL;
    }
    rows->header = header;
    rows->region = region;
    rows->target = target;
    rows->pass = header->is_interlaced ? interlaced_passes : &plain_pass;
    rows->pass_end = rows->pass + (header->is_interlaced ? 7 : 1);
    rows->y = rows->pass->y;
    rows->pixel_bits = png_pixel_bits(header);
    rows->filter_bytes = (rows->pixel_bits + 7) / 8;
    rows->row_bytes = row_bytes_of(rows);
    size_t size = ((size_t)header->frame.width_px * rows->pixel_bits + 7) / 8 + 1;
    rows->row = calloc(1, size);
    rows->previous = calloc(1, size);
    if (rows->row == NULL || rows->previous == NULL) {
        png_rows_end(rows);
        return NULL;
    }
    return rows;
}

void png_rows_end(struct png_rows *rows)
{
    if (rows == NULL) {
        return;
    }
    inflateEnd(&rows->stream);
    free(rows->row);
    free(rows->previous);
    free(rows);
}

/* The neighbour nearest to left + above - corner; written so that it compiles without jumps, which
 * would be guessed wrong half of the time. */
static inline uint8_t paeth(int left, int above, int corner)
{
    int distance = abs(above - corner);
    int to_above = abs(left - corner);
    int to_corner = abs(left + above - 2 * corner);
    int nearest = left;
    nearest = to_above < distance ? above : nearest;
    distance = to_above < distance ? to_above : distance;
    return (uint8_t)(to_corner < distance ? corner : nearest);
}

/* Paeth's filter, of the pixels after the first. The neighbours stay in registers where the
 * compiler knows `step`; it is the commonest filter of photographs. */
static inline void unfilter_paeth(uint8_t *row, const uint8_t *above, size_t size, size_t step)
{
    uint8_t left[8], corner[8];
    for (size_t c = 0; c < step; c++) {
        left[c] = row[c];
        corner[c] = above[c];
    }
    for (size_t i = step; i + step <= size; i += step) {
        for (size_t c = 0; c < step; c++) {
            uint8_t up = above[i + c];
            left[c] = (uint8_t)(row[i + c] + paeth(left[c], up, corner[c]));
            row[i + c] = left[c];
            corner[c] = up;
        }
    }
}

/* Undo the filter of row[0, size); pixels are `step` bytes apart. False: no such filter. */
static bool unfilter(unsigned filter, uint8_t *row, const uint8_t *above, size_t size, size_t step)
{
    size_t head = size < step ? size : step; /* the first pixel has none at its left */
    switch (filter) {
    case 0: return true;
    case 1:
        for (size_t i = step; i < size; i++) {
            row[i] = (uint8_t)(row[i] + row[i - step]);
        }
        return true;
    case 2:
        for (size_t i = 0; i < size; i++) {
            row[i] = (uint8_t)(row[i] + above[i]);
        }
        return true;
    case 3:
        for (size_t i = 0; i < head; i++) {
            row[i] = (uint8_t)(row[i] + above[i] / 2);
        }
        for (size_t i = step; i < size; i++) {
            row[i] = (uint8_t)(row[i] + (row[i - step] + above[i]) / 2);
        }
        return true;
    case 4:
        for (size_t i = 0; i < head; i++) {
            row[i] = (uint8_t)(row[i] + above[i]);
        }
        switch (step) {
        case 3: unfilter_paeth(row, above, size, 3); break;
        case 4: unfilter_paeth(row, above, size, 4); break;
        default: unfilter_paeth(row, above, size, step); break;
        }
        return true;
    default: return false;
    }
}

/* Samples of 1, 2, 4 or 8 bits by the look-up table; `out` steps by out_step per pixel. */
static void expand_indices(const struct png_header *header, const uint8_t *raw, size_t first,
                           size_t count, uint8_t *out, size_t out_step)
{
    size_t bits = header->depth_bits;
    unsigned mask = (1u << bits) - 1;
    for (size_t i = first; i < first + count; i++, out += out_step) {
        size_t bit = i * bits;
        unsigned index = (raw[bit / 8] >> (8 - bits - bit % 8)) & mask;
        memcpy(out, header->lookup[index], 3);
    }
}

/* Pixels [first, first + count) of a row to RGB. Of 16-bit samples the high byte stays, but 16-bit
 * grey is cut off at 255, as Pillow does it. */
static void expand(const struct png_header *header, const uint8_t *raw, size_t first, size_t count,
                   uint8_t *out, size_t out_step)
{
    size_t pixel_bytes = png_pixel_bits(header) / 8;
    bool has_one_sample = header->color == PNG_GREY || header->color == PNG_PALETTE;
    if (has_one_sample && header->depth_bits <= 8) {
        expand_indices(header, raw, first, count, out, out_step);
        return;
    }
    raw += first * pixel_bytes;
    if (has_one_sample) {
        for (size_t i = 0; i < count; i++, raw += 2, out += out_step) {
            out[0] = out[1] = out[2] = raw[0] == 0 ? raw[1] : 255;
        }
        return;
    }
    bool has_color = header->color == PNG_RGB || header->color == PNG_RGB_ALPHA;
    size_t next = has_color ? header->depth_bits / 8 : 0;
    for (size_t i = 0; i < count; i++, raw += pixel_bytes, out += out_step) {
        out[0] = raw[0];
        out[1] = raw[next];
        out[2] = raw[2 * next];
    }
}

/* Put the finished row where the region wants it. */
static void place_row(const struct png_rows *rows)
{
    const struct pass *pass = rows->pass;
    const struct image_rect *region = &rows->region;
    /* Pillow forgets the frame's offset when it is interlaced. */
    bool has_offset = !rows->header->is_interlaced;
    uint32_t x0 = pass->x + (has_offset ? rows->header->frame.x_px : 0);
    uint32_t y = rows->y + (has_offset ? rows->header->frame.y_px : 0);
    if (y < region->y_px || y - region->y_px >= region->height_px) {
        return;
    }
    uint32_t columns = pass_columns(pass, rows->header->frame.width_px);
    uint32_t first = 0;
    if (region->x_px > x0) {
        first = (region->x_px - x0 + pass->x_step - 1) / pass->x_step;
    }
    uint32_t region_end = region->x_px + region->width_px;
    uint32_t end = region_end > x0 ? (region_end - x0 + pass->x_step - 1) / pass->x_step : 0;
    end = end < columns ? end : columns;
    if (first >= end) {
        return;
    }
    size_t x = x0 + (size_t)first * pass->x_step - region->x_px;
    size_t target_row = (size_t)(y - region->y_px) * region->width_px;
    expand(rows->header, rows->row + 1, first, end - first, rows->target + (target_row + x) * 3,
           (size_t)pass->x_step * 3);
}

/* To the next row that the stream holds; false after the last. */
static bool next_row(struct png_rows *rows)
{
    uint32_t height_px = rows->header->frame.height_px;
    uint8_t *row = rows->row;
    rows->row = rows->previous;
    rows->previous = row;
    rows->filled_bytes = 0;
    if (height_px - rows->y > rows->pass->y_step) {
        rows->y += rows->pass->y_step;
        return true;
    }
    do {
        if (++rows->pass == rows->pass_end) {
            return false;
        }
        rows->y = rows->pass->y;
        rows->row_bytes = row_bytes_of(rows);
    } while (rows->y >= height_px || rows->row_bytes == 0);
    size_t widest = ((size_t)rows->header->frame.width_px * rows->pixel_bits + 7) / 8;
    memset(rows->previous, 0, widest + 1);
    return true;
}

static enum decode_status fail_inflate(const struct png_rows *rows, int result, size_t offset_bytes,
                                       struct decode_error *error)
{
    if (result == Z_MEM_ERROR) {
        return decode_fail(error, DECODE_NO_MEMORY, offset_bytes, "no memory to inflate a PNG");
    }
    const char *message = rows->stream.msg != NULL ? rows->stream.msg : "no zlib stream";
    return decode_fail(error, DECODE_CORRUPT, offset_bytes, "bad PNG pixel data: %s", message);
}

enum decode_status png_rows_feed(struct png_rows *rows, const uint8_t *bytes, size_t size_bytes,
                                 size_t offset_bytes, bool *is_done, struct decode_error *error)
{
    z_stream *stream = &rows->stream;
    stream->next_in = (z_const Bytef *)bytes;
    stream->avail_in = (uInt)size_bytes;
    *is_done = false;
    while (stream->avail_in > 0 && !*is_done) {
        stream->next_out = rows->row + rows->filled_bytes;
        stream->avail_out = (uInt)(rows->row_bytes + 1 - rows->filled_bytes);
        int result = inflate(stream, Z_NO_FLUSH);
        size_t offset_now = offset_bytes + size_bytes - stream->avail_in;
        if (result < 0) {
            return fail_inflate(rows, result, offset_now, error);
        }
        rows->filled_bytes = rows->row_bytes + 1 - stream->avail_out;
        if (stream->avail_out > 0) {
            break; /* wants more bytes, or has ended within a row and will never be done */
        }
        if (!unfilter(rows->row[0], rows->row + 1, rows->previous + 1, rows->row_bytes,
                      rows->filter_bytes)) {
            return decode_fail(error, DECODE_CORRUPT, offset_now, "a PNG row has filter type %u",
                               rows->row[0]);
        }
        place_row(rows);
        *is_done = !next_row(rows) || result == Z_STREAM_END;
    }
    return DECODE_OK;
}

uint32_t png_checksum(const uint8_t *bytes, size_t size_bytes)
{
    return (uint32_t)crc32_z(crc32_z(0, NULL, 0), bytes, size_bytes);
}

size_t png_inflated_bytes(const uint8_t *bytes, size_t size_bytes, size_t limit_bytes)
{
    uint8_t waste[4096];
    z_stream stream = {.next_in = (z_const Bytef *)bytes, .avail_in = (uInt)size_bytes};
    if (inflateInit(&stream) != Z_OK) {
        return 0;
    }
    int result = Z_OK;
    size_t inflated = 0;
    while (result == Z_OK && inflated <= limit_bytes) {
        stream.next_out = waste;
        stream.avail_out = sizeof waste;
        result = inflate(&stream, Z_SYNC_FLUSH);
        inflated += sizeof waste - stream.avail_out;
    }
    inflateEnd(&stream);
    return inflated;
}
