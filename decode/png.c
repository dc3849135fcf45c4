#include "decode/png.h"

#include <string.h>

#include "decode/png_rows.h"

/* Pillow's bounds on inflated profiles and texts: of one, and of all in an image. */
enum { SIDE_BYTES_MAX = 1 << 20, SIDE_BYTES_ALL_MAX = 64 << 20 };

enum { SIGNATURE_BYTES = 8, CHUNK_HEAD_BYTES = 8, CHECKSUM_BYTES = 4, PIECE_BYTES_MAX = 65536 };

struct chunk {
    char name[5];
    size_t offset_bytes; /* of the body */
    uint32_t length_bytes;
};

/* A walk over the chunks of a file. */
struct walk {
    const uint8_t *bytes;
    size_t size_bytes;
    size_t position_bytes; /* <= size_bytes */
    struct png_header *header;
    bool has_header;
    bool has_frame;
    bool has_palette;
    bool has_single_transparent; /* of a palette image: exactly one entry is see-through */
    uint32_t frame_count;        /* as acTL says; 0 without one */
    uint64_t side_bytes;         /* inflated so far */
    struct decode_error *error;
};

static uint32_t read_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static enum decode_status fail_chunk(const struct walk *walk, const struct chunk *chunk,
                                     enum decode_status status, const char *what)
{
    return decode_fail(walk->error, status, chunk->offset_bytes - CHUNK_HEAD_BYTES,
                       "PNG chunk %s %s", chunk->name, what);
}

static bool is_chunk(const struct chunk *chunk, const char *name)
{
    return memcmp(chunk->name, name, 4) == 0;
}

static bool is_name_character(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

static enum decode_status next_chunk(struct walk *walk, struct chunk *chunk)
{
    if (walk->size_bytes - walk->position_bytes < CHUNK_HEAD_BYTES) {
        return decode_fail(walk->error, DECODE_TRUNCATED, walk->size_bytes,
                           "the PNG ends where a chunk should begin");
    }
    const uint8_t *head = walk->bytes + walk->position_bytes;
    for (int i = 4; i < 8; i++) {
        if (!is_name_character(head[i])) {
            return decode_fail(walk->error, DECODE_CORRUPT, walk->position_bytes,
                               "a PNG chunk has no proper name: %02x %02x %02x %02x", head[4],
                               head[5], head[6], head[7]);
        }
    }
    memcpy(chunk->name, head + 4, 4);
    chunk->name[4] = '\0';
    chunk->length_bytes = read_u32(head);
    walk->position_bytes += CHUNK_HEAD_BYTES;
    chunk->offset_bytes = walk->position_bytes;
    return DECODE_OK;
}

/* Step over the chunk's body, which must be there. */
static enum decode_status skip_body(struct walk *walk, const struct chunk *chunk)
{
    if (chunk->length_bytes > walk->size_bytes - chunk->offset_bytes) {
        return fail_chunk(walk, chunk, DECODE_TRUNCATED, "goes beyond the end of the file");
    }
    walk->position_bytes = chunk->offset_bytes + chunk->length_bytes;
    return DECODE_OK;
}

static void skip_checksum(struct walk *walk)
{
    size_t left = walk->size_bytes - walk->position_bytes;
    walk->position_bytes += left < CHECKSUM_BYTES ? left : CHECKSUM_BYTES;
}

static enum decode_status check_checksum(struct walk *walk, const struct chunk *chunk)
{
    if (walk->size_bytes - walk->position_bytes < CHECKSUM_BYTES) {
        return fail_chunk(walk, chunk, DECODE_TRUNCATED, "has no checksum");
    }
    uint32_t stored = read_u32(walk->bytes + walk->position_bytes);
    if (png_checksum(walk->bytes + chunk->offset_bytes - 4, (size_t)chunk->length_bytes + 4) !=
        stored) {
        return fail_chunk(walk, chunk, DECODE_CORRUPT, "has a wrong checksum");
    }
    walk->position_bytes += CHECKSUM_BYTES;
    return DECODE_OK;
}

unsigned png_pixel_bits(const struct png_header *header)
{
    switch (header->color) {
    case PNG_GREY:
    case PNG_PALETTE: return header->depth_bits;
    case PNG_GREY_ALPHA: return 2u * header->depth_bits;
    case PNG_RGB: return 3u * header->depth_bits;
    case PNG_RGB_ALPHA: return 4u * header->depth_bits;
    }
    return 0;
}

static bool is_allowed(unsigned color, unsigned depth_bits)
{
    switch (color) {
    case PNG_GREY:
        return depth_bits == 1 || depth_bits == 2 || depth_bits == 4 || depth_bits == 8 ||
               depth_bits == 16;
    case PNG_PALETTE:
        return depth_bits == 1 || depth_bits == 2 || depth_bits == 4 || depth_bits == 8;
    case PNG_RGB:
    case PNG_GREY_ALPHA:
    case PNG_RGB_ALPHA: return depth_bits == 8 || depth_bits == 16;
    default: return false;
    }
}

static void set_greys(struct png_header *header)
{
    memset(header->lookup, 0, sizeof header->lookup);
    if (header->color != PNG_GREY || header->depth_bits > 8) {
        return;
    }
    unsigned value_max = (1u << header->depth_bits) - 1;
    for (unsigned i = 0; i <= value_max; i++) {
        memset(header->lookup[i], (int)(i * 255 / value_max), 3);
    }
}

static enum decode_status read_header(struct walk *walk, const struct chunk *chunk,
                                      const uint8_t *body)
{
    struct png_header *header = walk->header;
    header->width_px = read_u32(body);
    header->height_px = read_u32(body + 4);
    if (body[11] != 0) {
        return fail_chunk(walk, chunk, DECODE_CORRUPT, "has an unknown filter method");
    }
    if (!is_allowed(body[9], body[8])) {
        return fail_chunk(walk, chunk, DECODE_CORRUPT, "has no such depth and colour type");
    }
    header->depth_bits = body[8];
    header->color = (enum png_color)body[9];
    header->is_interlaced = header->is_interlaced || body[12] != 0;
    walk->has_header = true;
    set_greys(header);
    return DECODE_OK;
}

static enum decode_status read_palette(struct walk *walk, const struct chunk *chunk,
                                       const uint8_t *body)
{
    if (walk->header->color != PNG_PALETTE || !walk->has_header) {
        return DECODE_OK;
    }
    if (chunk->length_bytes / 3 > 256) {
        return fail_chunk(walk, chunk, DECODE_CORRUPT, "has more than 256 colours");
    }
    memset(walk->header->lookup, 0, sizeof walk->header->lookup);
    memcpy(walk->header->lookup, body, chunk->length_bytes / 3 * 3);
    walk->has_palette = true;
    return DECODE_OK;
}

static enum decode_status read_transparency(struct walk *walk, const struct chunk *chunk,
                                            const uint8_t *body)
{
    if (!walk->has_header) {
        return DECODE_OK;
    }
    uint32_t need = 0;
    if (walk->header->color == PNG_RGB) {
        need = 6;
    } else if (walk->header->color == PNG_GREY) {
        need = 2;
    }
    if (chunk->length_bytes < need) {
        return fail_chunk(walk, chunk, DECODE_CORRUPT, "is too short");
    }
    uint32_t clear_count = 0, other_count = 0;
    for (uint32_t i = 0; i < chunk->length_bytes; i++) {
        clear_count += body[i] == 0;
        other_count += body[i] != 0 && body[i] != 255;
    }
    walk->has_single_transparent = clear_count == 1 && other_count == 0;
    return DECODE_OK;
}

static enum decode_status count_inflated(struct walk *walk, const struct chunk *chunk,
                                         const uint8_t *stream, size_t length)
{
    size_t inflated = png_inflated_bytes(stream, length, SIDE_BYTES_MAX);
    if (inflated > SIDE_BYTES_MAX) {
        return fail_chunk(walk, chunk, DECODE_TOO_LARGE, "inflates to more than 1 MiB");
    }
    walk->side_bytes += inflated;
    if (walk->side_bytes > SIDE_BYTES_ALL_MAX) {
        return fail_chunk(walk, chunk, DECODE_TOO_LARGE, "and others inflate to more than 64 MiB");
    }
    return DECODE_OK;
}

/* iCCP and zTXt: name, zero byte, method, compressed rest. */
static enum decode_status read_compressed(struct walk *walk, const struct chunk *chunk,
                                          const uint8_t *body)
{
    size_t length = chunk->length_bytes;
    const uint8_t *zero = length > 0 ? memchr(body, 0, length) : NULL;
    bool is_profile = is_chunk(chunk, "iCCP");
    if (zero == NULL && !is_profile) {
        return DECODE_OK; /* a text without content */
    }
    size_t method = zero == NULL ? 0 : (size_t)(zero - body) + 1;
    if (method >= length) {
        return is_profile ? fail_chunk(walk, chunk, DECODE_CORRUPT, "is too short") : DECODE_OK;
    }
    if (body[method] != 0) {
        return fail_chunk(walk, chunk, DECODE_CORRUPT, "has an unknown compression method");
    }
    return count_inflated(walk, chunk, body + method + 1, length - method - 1);
}

/* iTXt: key, 0, is compressed, method, language, 0, translated key, 0, text. */
static enum decode_status read_international(struct walk *walk, const struct chunk *chunk,
                                             const uint8_t *body)
{
    const uint8_t *end = body + chunk->length_bytes;
    const uint8_t *key_end = memchr(body, 0, chunk->length_bytes);
    if (key_end == NULL || end - key_end < 3 || key_end[1] == 0 || key_end[2] != 0) {
        return DECODE_OK;
    }
    const uint8_t *at = key_end + 3;
    for (int i = 0; i < 2; i++) {
        at = memchr(at, 0, (size_t)(end - at));
        if (at == NULL) {
            return DECODE_OK;
        }
        at++;
    }
    return count_inflated(walk, chunk, at, (size_t)(end - at));
}

static enum decode_status read_animation(struct walk *walk, const uint8_t *body)
{
    uint32_t count = read_u32(body);
    if (walk->frame_count != 0) {
        walk->frame_count = 0; /* twice is as good as never */
    } else if (count <= 0x80000000) {
        walk->frame_count = count;
    }
    return DECODE_OK;
}

static enum decode_status check_sequence(struct walk *walk, const struct chunk *chunk,
                                         uint32_t sequence)
{
    struct png_header *header = walk->header;
    uint64_t expected = header->has_sequence ? (uint64_t)header->sequence + 1 : 0;
    if (sequence != expected) {
        return fail_chunk(walk, chunk, DECODE_CORRUPT, "is out of sequence");
    }
    header->has_sequence = true;
    header->sequence = sequence;
    return DECODE_OK;
}

static enum decode_status read_frame(struct walk *walk, const struct chunk *chunk,
                                     const uint8_t *body)
{
    enum decode_status status = check_sequence(walk, chunk, read_u32(body));
    if (status != DECODE_OK) {
        return status;
    }
    struct image_rect frame = {read_u32(body + 12), read_u32(body + 16), read_u32(body + 4),
                               read_u32(body + 8)};
    if ((uint64_t)frame.x_px + frame.width_px > walk->header->width_px ||
        (uint64_t)frame.y_px + frame.height_px > walk->header->height_px) {
        return fail_chunk(walk, chunk, DECODE_CORRUPT, "has a frame outside the image");
    }
    walk->header->frame = frame;
    walk->has_frame = true;
    return DECODE_OK;
}

/* Chunks with a fixed first part. */
static const struct {
    char name[5];
    uint8_t length_bytes_min;
} short_chunks[] = {
    {"IHDR", 13}, {"gAMA", 4}, {"cHRM", 32}, {"sRGB", 1}, {"pHYs", 9}, {"acTL", 8}, {"fcTL", 26},
};

/* Any chunk but pixel data and the end. */
static enum decode_status read_chunk(struct walk *walk, const struct chunk *chunk)
{
    enum decode_status status = skip_body(walk, chunk);
    if (status != DECODE_OK) {
        return status;
    }
    for (size_t i = 0; i < sizeof short_chunks / sizeof short_chunks[0]; i++) {
        if (is_chunk(chunk, short_chunks[i].name) &&
            chunk->length_bytes < short_chunks[i].length_bytes_min) {
            return fail_chunk(walk, chunk, DECODE_CORRUPT, "is too short");
        }
    }
    const uint8_t *body = walk->bytes + chunk->offset_bytes;
    if (is_chunk(chunk, "IHDR")) {
        return read_header(walk, chunk, body);
    }
    if (is_chunk(chunk, "PLTE")) {
        return read_palette(walk, chunk, body);
    }
    if (is_chunk(chunk, "tRNS")) {
        return read_transparency(walk, chunk, body);
    }
    if (is_chunk(chunk, "iCCP") || is_chunk(chunk, "zTXt")) {
        return read_compressed(walk, chunk, body);
    }
    if (is_chunk(chunk, "iTXt")) {
        return read_international(walk, chunk, body);
    }
    if (is_chunk(chunk, "acTL")) {
        return read_animation(walk, body);
    }
    if (is_chunk(chunk, "fcTL")) {
        return read_frame(walk, chunk, body);
    }
    return DECODE_OK;
}

/* The sequence number that frame data begins with. */
static enum decode_status read_data_sequence(struct walk *walk, const struct chunk *chunk)
{
    if (chunk->length_bytes < 4) {
        return fail_chunk(walk, chunk, DECODE_CORRUPT, "is too short");
    }
    if (walk->size_bytes - chunk->offset_bytes < 4) {
        return fail_chunk(walk, chunk, DECODE_TRUNCATED, "goes beyond the end of the file");
    }
    if (!walk->header->has_sequence) {
        return fail_chunk(walk, chunk, DECODE_CORRUPT, "comes before the first frame");
    }
    return check_sequence(walk, chunk, read_u32(walk->bytes + chunk->offset_bytes));
}

/* The first pixel data was met: is the header complete and within the limits? */
static enum decode_status check_header(struct walk *walk, const struct image_limits *limits)
{
    struct png_header *header = walk->header;
    size_t offset = header->data_offset_bytes;
    if (!walk->has_header || header->width_px == 0 || header->height_px == 0) {
        return decode_fail(walk->error, DECODE_CORRUPT, offset, "a PNG without a size");
    }
    if ((uint64_t)header->width_px * header->height_px > limits->pixels_max) {
        return decode_fail(walk->error, DECODE_TOO_LARGE, offset,
                           "%u x %u pixels are more than the limit of %llu",
                           (unsigned)header->width_px, (unsigned)header->height_px,
                           (unsigned long long)limits->pixels_max);
    }
    if (header->color == PNG_PALETTE && !walk->has_palette && walk->has_single_transparent) {
        return decode_fail(walk->error, DECODE_CORRUPT, offset,
                           "a PNG with a transparent colour but no palette");
    }
    if (header->frame.width_px == 0 || header->frame.height_px == 0) {
        return decode_fail(walk->error, DECODE_CORRUPT, offset, "a PNG with an empty frame");
    }
    if ((uint64_t)header->frame.x_px + header->frame.width_px > header->width_px ||
        (uint64_t)header->frame.y_px + header->frame.height_px > header->height_px) {
        return decode_fail(walk->error, DECODE_CORRUPT, offset,
                           "a PNG with a frame outside the image");
    }
    return DECODE_OK;
}

enum decode_status png_open(const uint8_t *bytes, size_t size_bytes,
                            const struct image_limits *limits, struct png_header *header,
                            struct decode_error *error)
{
    memset(header, 0, sizeof *header);
    struct walk walk = {.bytes = bytes,
                        .size_bytes = size_bytes,
                        .position_bytes = SIGNATURE_BYTES,
                        .header = header,
                        .error = error};
    struct chunk chunk;
    enum decode_status status;
    while ((status = next_chunk(&walk, &chunk)) == DECODE_OK) {
        if (is_chunk(&chunk, "IDAT") || is_chunk(&chunk, "fdAT")) {
            break;
        }
        if (is_chunk(&chunk, "IEND")) {
            return fail_chunk(&walk, &chunk, DECODE_CORRUPT, "comes before any pixel data");
        }
        if ((status = read_chunk(&walk, &chunk)) != DECODE_OK ||
            (status = check_checksum(&walk, &chunk)) != DECODE_OK) {
            return status;
        }
    }
    uint32_t sequence_bytes = is_chunk(&chunk, "fdAT") ? 4 : 0;
    if (status == DECODE_OK && sequence_bytes > 0) {
        status = read_data_sequence(&walk, &chunk);
    }
    if (status != DECODE_OK) {
        return status;
    }
    header->data_offset_bytes = chunk.offset_bytes + sequence_bytes;
    header->data_length_bytes = chunk.length_bytes - sequence_bytes;
    /* Pixels that belong to no frame come on top of the frames that acTL counts. */
    header->is_animated = walk.frame_count > (walk.has_frame ? 1u : 0u);
    if (!walk.has_frame) {
        header->frame = (struct image_rect){0, 0, header->width_px, header->height_px};
    }
    return check_header(&walk, limits);
}

/* Feed one data chunk, as much of it as the file holds, in pieces of Pillow's size: whether an
 * error in the stream's last bytes is seen depends on them. */
static enum decode_status feed_chunk(struct walk *walk, struct png_rows *rows, uint32_t length,
                                     bool *is_done)
{
    size_t begin = walk->position_bytes;
    size_t left = walk->size_bytes - begin;
    size_t end = begin + (length < left ? length : left);
    enum decode_status status = DECODE_OK;
    *is_done = false;
    for (size_t at = begin; at < end && status == DECODE_OK && !*is_done;) {
        size_t piece = end - at < PIECE_BYTES_MAX ? end - at : PIECE_BYTES_MAX;
        status = png_rows_feed(rows, walk->bytes + at, piece, at, is_done, walk->error);
        at += piece;
    }
    walk->position_bytes = end;
    return status;
}

static enum decode_status decode_rows(struct walk *walk, struct png_rows *rows)
{
    uint32_t length = walk->header->data_length_bytes;
    for (;;) {
        bool is_done = false;
        enum decode_status status = feed_chunk(walk, rows, length, &is_done);
        if (status != DECODE_OK || is_done) {
            return status;
        }
        skip_checksum(walk);
        struct chunk chunk;
        status = next_chunk(walk, &chunk);
        if (status != DECODE_OK) {
            return status;
        }
        length = chunk.length_bytes;
        if (is_chunk(&chunk, "fdAT")) {
            status = read_data_sequence(walk, &chunk);
            if (status != DECODE_OK) {
                return status;
            }
            walk->position_bytes += 4;
            length -= 4;
        } else if (!is_chunk(&chunk, "IDAT") && !is_chunk(&chunk, "DDAT")) {
            return fail_chunk(walk, &chunk, DECODE_TRUNCATED, "comes before the last pixel");
        }
    }
}

/* What follows the pixels: a broken chunk is an error, a missing one is not. */
static enum decode_status check_tail(struct walk *walk)
{
    struct decode_error *error = walk->error;
    for (;;) {
        struct chunk chunk;
        skip_checksum(walk);
        walk->error = NULL;
        if (next_chunk(walk, &chunk) != DECODE_OK || is_chunk(&chunk, "IEND")) {
            return DECODE_OK;
        }
        if (is_chunk(&chunk, "fcTL") && walk->header->is_animated) {
            return DECODE_OK;
        }
        walk->error = error;
        enum decode_status status = DECODE_OK;
        if (is_chunk(&chunk, "IDAT")) {
            status = skip_body(walk, &chunk);
        } else {
            if (is_chunk(&chunk, "fdAT")) {
                status = read_data_sequence(walk, &chunk);
            }
            if (status == DECODE_OK) {
                status = read_chunk(walk, &chunk);
            }
        }
        if (status != DECODE_OK) {
            return status;
        }
    }
}

/* Where no pixel data comes, Pillow has sample 0, which a palette may give any colour. */
static void fill_background(const struct png_header *header, struct image_rect region,
                            uint8_t *target)
{
    static const uint8_t black[3];
    if (header->color != PNG_PALETTE || memcmp(header->lookup[0], black, 3) == 0) {
        return;
    }
    size_t pixel_count = (size_t)region.width_px * region.height_px;
    for (size_t i = 0; i < pixel_count; i++) {
        memcpy(target + i * 3, header->lookup[0], 3);
    }
}

enum decode_status png_decode(const uint8_t *bytes, size_t size_bytes,
                              const struct png_header *header, struct image_rect region,
                              uint8_t *target, struct decode_error *error)
{
    struct png_header scratch = *header; /* chunks after the pixels change nothing */
    struct walk walk = {.bytes = bytes,
                        .size_bytes = size_bytes,
                        .position_bytes = header->data_offset_bytes,
                        .header = &scratch,
                        .has_header = true,
                        .error = error};
    struct png_rows *rows = png_rows_begin(header, region, target);
    if (rows == NULL) {
        return decode_fail(error, DECODE_NO_MEMORY, 0, "no memory for a row of a PNG");
    }
    fill_background(header, region, target);
    enum decode_status status = decode_rows(&walk, rows);
    png_rows_end(rows);
    return status == DECODE_OK ? check_tail(&walk) : status;
}
