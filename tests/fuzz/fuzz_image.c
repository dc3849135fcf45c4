/*
 * fuzz_image.c - any bytes as an image: the whole picture, then a region of it, which must be the
 * same pixels; and both again with libjpeg-turbo's own entropy decoder, which must make no
 * difference. The first bytes are the image's own; the region comes from the last ones.
 */
#include "tests/fuzz/fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <webp/encode.h>
#include <zlib.h>

#include "decode/image.h"
#include "tests/tools/jpeg_samples.h"

enum { PIXELS_MAX = 1 << 18, SCANS_MAX = 20 };

/* Decode `region`, or all of the image when its width is 0; NULL when refused. */
static uint8_t *decode(struct image_reader *reader, const uint8_t *bytes, size_t size_bytes,
                       struct image_rect region, struct image_info *info)
{
    struct decode_error error;
    if (image_open(reader, bytes, size_bytes, info, &error) != DECODE_OK) {
        return NULL;
    }
    if ((uint64_t)info->width_px * info->height_px > PIXELS_MAX || info->width_px == 0) {
        abort();
    }
    if (region.width_px == 0) {
        region = (struct image_rect){0, 0, info->width_px, info->height_px};
    }
    if (image_start(reader, region, &error) != DECODE_OK) {
        return NULL;
    }
    size_t row_bytes = (size_t)region.width_px * 3;
    uint8_t *pixels = malloc(row_bytes * region.height_px);
    if (pixels == NULL) {
        abort();
    }
    for (uint32_t y = 0;;) {
        const uint8_t *rows = NULL;
        size_t stride_bytes = 0;
        uint32_t count = 0;
        if (image_band(reader, 7, &rows, &stride_bytes, &count, &error) != DECODE_OK ||
            (count == 0 && image_finish(reader, &error) != DECODE_OK)) {
            break;
        }
        if (count > 7 || (count == 0 && y != region.height_px)) {
            abort();
        }
        if (count == 0) {
            return pixels;
        }
        for (uint32_t i = 0; i < count; i++, y++) {
            memcpy(pixels + y * row_bytes, rows + i * stride_bytes, row_bytes);
        }
    }
    free(pixels);
    return NULL;
}

static void check_region(struct image_reader *reader, const uint8_t *bytes, size_t size_bytes,
                         const struct image_info *info, const uint8_t *full)
{
    uint32_t choice[4] = {0};
    for (size_t i = 0; i < 8 && i < size_bytes; i++) {
        choice[i / 2] = choice[i / 2] * 251 + bytes[size_bytes - 1 - i] * (i < 2 ? 1u : 97u);
    }
    struct image_rect region = {choice[2] % info->width_px, choice[3] % info->height_px, 0, 0};
    region.width_px = 1 + choice[1] % (info->width_px - region.x_px);
    region.height_px = 1 + choice[0] % (info->height_px - region.y_px);
    struct image_info again;
    uint8_t *part = decode(reader, bytes, size_bytes, region, &again);
    if (part == NULL) {
        abort(); /* less is asked for, so it must be given */
    }
    for (uint32_t y = 0; y < region.height_px; y++) {
        size_t from = ((size_t)(region.y_px + y) * info->width_px + region.x_px) * 3;
        size_t row_bytes = (size_t)region.width_px * 3;
        if (memcmp(full + from, part + y * row_bytes, row_bytes) != 0) {
            abort();
        }
    }
    free(part);
}

/* Make the checksums of a PNG right again, or hardly a changed file would get past its header. */
static void repair_checksums(uint8_t *bytes, size_t size_bytes)
{
    for (size_t at = 8; size_bytes >= 12 && at <= size_bytes - 12;) {
        size_t length = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 |
                        (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (length > size_bytes - at - 12) {
            return;
        }
        uint32_t sum = (uint32_t)crc32_z(0, bytes + at + 4, length + 4);
        for (int i = 0; i < 4; i++) {
            bytes[at + 8 + length + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        }
        at += length + 12;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes)
{
    struct image_limits limits = {.pixels_max = PIXELS_MAX, .scans_max = SCANS_MAX};
    struct image_reader *reader = image_reader_create(&limits);
    limits.plain_huffman = true;
    struct image_reader *plain = image_reader_create(&limits);
    uint8_t *copy = malloc(size_bytes > 0 ? size_bytes : 1);
    if (reader == NULL || plain == NULL || copy == NULL) {
        abort();
    }
    memcpy(copy, bytes, size_bytes);
    if (size_bytes > 8 && memcmp(copy, "\x89PNG", 4) == 0 && copy[size_bytes - 1] % 8 != 0) {
        repair_checksums(copy, size_bytes);
    }
    struct image_info info;
    struct image_rect whole = {0, 0, 0, 0};
    uint8_t *full = decode(reader, copy, size_bytes, whole, &info);
    uint8_t *twin = decode(plain, copy, size_bytes, whole, &info);
    if ((full == NULL) != (twin == NULL)) {
        abort();
    }
    if (full != NULL) {
        if (memcmp(full, twin, (size_t)info.width_px * info.height_px * 3) != 0) {
            abort();
        }
        check_region(reader, copy, size_bytes, &info, full);
    }
    free(full);
    free(twin);
    free(copy);
    image_reader_destroy(plain);
    image_reader_destroy(reader);
    return 0;
}

static size_t put_chunk(uint8_t *at, const char *name, const uint8_t *body, size_t length)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(length >> (24 - 8 * i));
    }
    memcpy(at + 4, name, 4);
    memcpy(at + 8, body, length);
    memset(at + 8 + length, 0, 4);
    return length + 12;
}

/* A PNG of 13 x 9 pixels with rows of every filter. */
static size_t make_png(uint8_t depth, uint8_t color, bool is_interlaced, uint8_t *buffer)
{
    static const uint8_t frame[26] = {[7] = 13, [11] = 9};
    static const uint8_t animation[8] = {[3] = 2};
    uint8_t header[13] = {[3] = 13, [7] = 9, [8] = depth, [9] = color, [12] = is_interlaced};
    uint8_t raw[4000], packed[5000];
    for (size_t i = 0; i < sizeof raw; i++) {
        raw[i] = (uint8_t)(i % 5);
    }
    uLongf packed_size = sizeof packed;
    compress2(packed, &packed_size, raw, sizeof raw, 6);
    memcpy(buffer, "\x89PNG\r\n\x1a\n", 8);
    size_t size = 8;
    size += put_chunk(buffer + size, "IHDR", header, sizeof header);
    if (color == 3) {
        size += put_chunk(buffer + size, "PLTE", raw, 30);
    }
    size += put_chunk(buffer + size, "tRNS", raw, 6);
    size += put_chunk(buffer + size, "acTL", animation, sizeof animation);
    size += put_chunk(buffer + size, "fcTL", frame, sizeof frame);
    size += put_chunk(buffer + size, "iCCP", (const uint8_t *)"x\0\0abcd", 7);
    size += put_chunk(buffer + size, "IDAT", packed, packed_size / 2);
    size +=
        put_chunk(buffer + size, "IDAT", packed + packed_size / 2, packed_size - packed_size / 2);
    size += put_chunk(buffer + size, "IEND", raw, 0);
    repair_checksums(buffer, size);
    return size;
}

static size_t png_seed(size_t index, uint8_t *buffer)
{
    static const uint8_t kinds[][2] = {{1, 0}, {2, 0},  {4, 0},  {8, 0}, {16, 0},
                                       {8, 2}, {16, 2}, {1, 3},  {2, 3}, {4, 3},
                                       {8, 3}, {8, 4},  {16, 4}, {8, 6}, {16, 6}};
    if (index >= 2 * sizeof kinds / sizeof kinds[0]) {
        return 0;
    }
    return make_png(kinds[index / 2][0], kinds[index / 2][1], index % 2 != 0, buffer);
}

static size_t webp_seed(size_t index, uint8_t *buffer, size_t size_max_bytes)
{
    uint8_t rgba[23 * 17 * 4], *bytes = NULL;
    for (size_t i = 0; i < sizeof rgba; i++) {
        rgba[i] = (uint8_t)(i * i / 7);
    }
    size_t size = 0;
    if (index == 0) {
        size = WebPEncodeRGB(rgba, 23, 17, 23 * 3, 75, &bytes);
    } else if (index == 1) {
        size = WebPEncodeRGBA(rgba, 23, 17, 23 * 4, 75, &bytes);
    } else if (index == 2) {
        size = WebPEncodeLosslessRGBA(rgba, 23, 17, 23 * 4, &bytes);
    }
    size = size < size_max_bytes ? size : size_max_bytes;
    if (size > 0) {
        memcpy(buffer, bytes, size);
    }
    WebPFree(bytes);
    return size;
}

size_t fuzz_seed(size_t index, uint8_t *buffer, size_t size_max_bytes)
{
    static const struct jpeg_sample samples[] = {
        {.color = SAMPLE_GREY},
        {.color = SAMPLE_YCC},
        {.color = SAMPLE_YCC, .sampling = {{2, 2}}, .restart_interval = 2},
        {.color = SAMPLE_YCC, .sampling = {{2, 1}}, .is_split = true},
        {.color = SAMPLE_YCC, .sampling = {{1, 2}}, .is_progressive = true},
        {.color = SAMPLE_YCC, .sampling = {{2, 2}}, .is_progressive = true},
        {.color = SAMPLE_YCC, .sampling = {{4, 1}}, .is_arithmetic = true},
        {.color = SAMPLE_YCCK, .sampling = {{2, 2}, {1, 1}, {1, 1}, {2, 2}}},
        {.color = SAMPLE_CMYK, .is_progressive = true},
    };
    enum { SAMPLE_COUNT = sizeof samples / sizeof samples[0], WEBP_COUNT = 3 };
    if (index >= SAMPLE_COUNT + WEBP_COUNT) {
        return png_seed(index - SAMPLE_COUNT - WEBP_COUNT, buffer);
    }
    if (index >= SAMPLE_COUNT) {
        return webp_seed(index - SAMPLE_COUNT, buffer, size_max_bytes);
    }
    struct jpeg_sample sample = samples[index];
    sample.width_px = 45;
    sample.height_px = 37;
    sample.quality = 60;
    size_t size = 0;
    uint8_t *bytes = jpeg_sample_make(&sample, &size);
    size = size < size_max_bytes ? size : size_max_bytes;
    memcpy(buffer, bytes, size);
    free(bytes);
    return size;
}
