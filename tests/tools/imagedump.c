/*
 * imagedump.c - decodes images for the Python tests.
 *
 * Reads lines "X Y WIDTH HEIGHT BAND PATH" from stdin; WIDTH 0 means the whole image; BAND is the
 * most rows asked for at a time. Answers each on stdout with "ok IMAGE_WIDTH IMAGE_HEIGHT BYTES",
 * a newline and BYTES bytes of RGB, or with "STATUS OFFSET REASON" and a newline.
 *
 *     imagedump [fast | compact [scalar | avx2 | avx512]]
 *
 * With a form, every JPEG that is suitable is made a coefficient record of that form first, and the
 * record is decoded, with kernels of at most that level.
 */
#include "decode/coefficients.h"
#include "decode/image.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t *read_file(const char *path, size_t *size_bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(2);
    }
    *size_bytes = (size_t)ftell(file);
    uint8_t *bytes = malloc(*size_bytes > 0 ? *size_bytes : 1);
    rewind(file);
    if (bytes == NULL || fread(bytes, 1, *size_bytes, file) != *size_bytes) {
        perror(path);
        exit(2);
    }
    fclose(file);
    return bytes;
}

/* The region's pixels, dense, in a fresh buffer that is the caller's; NULL when refused. */
static uint8_t *decode(struct image_reader *reader, const uint8_t *bytes, size_t size_bytes,
                       struct image_rect *region, uint32_t band_rows, struct image_info *info,
                       struct decode_error *error)
{
    if (image_open(reader, bytes, size_bytes, info, error) != DECODE_OK) {
        return NULL;
    }
    if (region->width_px == 0) {
        *region = (struct image_rect){0, 0, info->width_px, info->height_px};
    }
    if (image_start(reader, *region, error) != DECODE_OK) {
        return NULL;
    }
    size_t row_bytes = (size_t)region->width_px * 3;
    uint8_t *pixels = malloc(row_bytes * region->height_px);
    for (size_t y = 0; pixels != NULL;) {
        const uint8_t *rows = NULL;
        size_t stride_bytes = 0;
        uint32_t count = 0;
        if (image_band(reader, band_rows, &rows, &stride_bytes, &count, error) != DECODE_OK) {
            break;
        }
        for (uint32_t i = 0; i < count; i++, y++) {
            memcpy(pixels + y * row_bytes, rows + i * stride_bytes, row_bytes);
        }
        if (count == 0 && image_finish(reader, error) != DECODE_OK) {
            break;
        }
        if (count == 0) {
            return pixels;
        }
    }
    free(pixels);
    return NULL;
}

/* The file at `path`, or a record of it, in a fresh buffer that is the caller's. */
static uint8_t *read_image(struct coefficients_encoder *encoder, int form, const char *path,
                           size_t *size_bytes)
{
    uint8_t *bytes = read_file(path, size_bytes);
    const uint8_t *record = NULL;
    size_t record_bytes = 0;
    struct decode_error error;
    if (form != 0 && coefficients_encode(encoder, bytes, *size_bytes, (enum coefficients_form)form,
                                         &record, &record_bytes, &error) == DECODE_OK) {
        free(bytes);
        bytes = malloc(record_bytes);
        if (bytes == NULL) {
            exit(2);
        }
        memcpy(bytes, record, record_bytes);
        *size_bytes = record_bytes;
    }
    return bytes;
}

static void answer(struct image_reader *reader, struct coefficients_encoder *encoder, int form,
                   const char *path, struct image_rect region, uint32_t band_rows)
{
    size_t size_bytes = 0;
    struct image_info info;
    struct decode_error error;
    uint8_t *bytes = read_image(encoder, form, path, &size_bytes);
    uint8_t *pixels = decode(reader, bytes, size_bytes, &region, band_rows, &info, &error);
    if (pixels != NULL) {
        size_t count = (size_t)region.width_px * region.height_px * 3;
        printf("ok %" PRIu32 " %" PRIu32 " %zu\n", info.width_px, info.height_px, count);
        fwrite(pixels, 1, count, stdout);
    } else {
        printf("%s %" PRIu64 " %s\n", decode_status_name(error.status), error.offset_bytes,
               error.reason);
    }
    fflush(stdout);
    free(pixels);
    free(bytes);
}

static enum kernel_level level_named(const char *name)
{
    enum kernel_level level = KERNEL_AVX512;
    while (level > KERNEL_SCALAR && strcmp(name, kernel_level_name(level)) != 0) {
        level--;
    }
    return level;
}

int main(int argc, char **argv)
{
    const struct image_limits limits = {.pixels_max = IMAGE_PIXELS_MAX_DEFAULT,
                                        .scans_max = IMAGE_SCANS_MAX_DEFAULT,
                                        .level_max =
                                            argc > 2 ? level_named(argv[2]) : KERNEL_AVX512};
    const char *name = argc > 1 ? argv[1] : "";
    int form = strcmp(name, "fast") == 0      ? COEFFICIENTS_FAST
               : strcmp(name, "compact") == 0 ? COEFFICIENTS_COMPACT
                                              : 0;
    struct image_reader *reader = image_reader_create(&limits);
    struct coefficients_encoder *encoder = coefficients_encoder_create(&limits);
    char line[5000];
    while (reader != NULL && encoder != NULL && fgets(line, sizeof line, stdin) != NULL) {
        struct image_rect region;
        uint32_t band_rows = 0;
        char path[4096];
        if (sscanf(line, "%" SCNu32 "%" SCNu32 "%" SCNu32 "%" SCNu32 "%" SCNu32 " %4095[^\n]",
                   &region.x_px, &region.y_px, &region.width_px, &region.height_px, &band_rows,
                   path) != 6) {
            fprintf(stderr, "imagedump: bad line %s", line);
            return 2;
        }
        answer(reader, encoder, form, path, region, band_rows);
    }
    image_reader_destroy(reader);
    coefficients_encoder_destroy(encoder);
    return 0;
}
