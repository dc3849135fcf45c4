#include "tests/tools/jpeg_samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

static uint32_t random_next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static void *allocate(size_t size_bytes)
{
    void *memory = malloc(size_bytes);
    if (memory == NULL) {
        abort();
    }
    return memory;
}

/* Blocks of flat colour with noise on some of them: sharp edges show any wrong neighbour. */
static void fill_row(uint8_t *row, const struct jpeg_sample *sample, uint32_t y, int channels,
                     uint64_t *state)
{
    for (uint32_t x = 0; x < sample->width_px; x++) {
        uint64_t cell = sample->seed * 31 + (x / 7) * 977 + (y / 5) * 131071;
        uint32_t color = random_next(&cell);
        uint32_t noise = (color >> 28 & 1) != 0 ? random_next(state) & 63 : 0;
        for (int c = 0; c < channels; c++) {
            *row++ = (uint8_t)((color >> (8 * c)) + noise);
        }
    }
}

static void set_sampling(struct jpeg_compress_struct *codec, const struct jpeg_sample *sample)
{
    for (int i = 0; i < codec->num_components; i++) {
        uint8_t h = sample->sampling[i][0], v = sample->sampling[i][1];
        codec->comp_info[i].h_samp_factor = h != 0 ? h : 1;
        codec->comp_info[i].v_samp_factor = v != 0 ? v : 1;
    }
}

static void set_colors(struct jpeg_compress_struct *codec, enum jpeg_sample_color color)
{
    static const struct {
        int channels;
        J_COLOR_SPACE input, stored;
    } spaces[] = {
        [SAMPLE_GREY] = {1, JCS_GRAYSCALE, JCS_GRAYSCALE},
        [SAMPLE_YCC] = {3, JCS_RGB, JCS_YCbCr},
        [SAMPLE_RGB] = {3, JCS_RGB, JCS_RGB},
        [SAMPLE_CMYK] = {4, JCS_CMYK, JCS_CMYK},
        [SAMPLE_YCCK] = {4, JCS_CMYK, JCS_YCCK},
    };
    codec->input_components = spaces[color].channels;
    codec->in_color_space = spaces[color].input;
    jpeg_set_defaults(codec);
    jpeg_set_colorspace(codec, spaces[color].stored);
}

uint8_t *jpeg_sample_make(const struct jpeg_sample *sample, size_t *size_bytes)
{
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long size = 0;
    jpeg_scan_info scans[4];
    codec.err = jpeg_std_error(&errors);
    jpeg_create_compress(&codec);
    jpeg_mem_dest(&codec, &bytes, &size);
    codec.image_width = sample->width_px;
    codec.image_height = sample->height_px;
    set_colors(&codec, sample->color);
    jpeg_set_quality(&codec, sample->quality != 0 ? (int)sample->quality : 90, TRUE);
    set_sampling(&codec, sample);
    codec.arith_code = sample->is_arithmetic;
    codec.restart_interval = sample->restart_interval;
    if (sample->is_progressive) {
        jpeg_simple_progression(&codec);
    }
    if (sample->is_split) {
        for (int i = 0; i < codec.num_components; i++) {
            scans[i] = (jpeg_scan_info){
                .comps_in_scan = 1, .component_index = {i}, .Ss = 0, .Se = 63, .Ah = 0, .Al = 0};
        }
        codec.scan_info = scans;
        codec.num_scans = codec.num_components;
    }
    jpeg_start_compress(&codec, TRUE);
    uint8_t *row = allocate((size_t)sample->width_px * 4);
    uint64_t state = sample->seed;
    while (codec.next_scanline < codec.image_height) {
        fill_row(row, sample, codec.next_scanline, codec.input_components, &state);
        jpeg_write_scanlines(&codec, &row, 1);
    }
    jpeg_finish_compress(&codec);
    jpeg_destroy_compress(&codec);
    free(row);
    *size_bytes = size;
    return bytes;
}

uint8_t *jpeg_sample_decode(const uint8_t *bytes, size_t size_bytes)
{
    struct jpeg_decompress_struct codec;
    struct jpeg_error_mgr errors;
    codec.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&codec);
    jpeg_mem_src(&codec, bytes, size_bytes);
    jpeg_read_header(&codec, TRUE);
    codec.out_color_space = codec.num_components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(&codec);
    size_t width = codec.output_width, channels = (size_t)codec.output_components;
    uint8_t *pixels = allocate(width * codec.output_height * 3);
    uint8_t *row = allocate(width * channels);
    for (uint8_t *out = pixels; codec.output_scanline < codec.output_height;) {
        jpeg_read_scanlines(&codec, &row, 1);
        for (size_t x = 0; x < width; x++) {
            for (size_t c = 0; c < 3; c++) {
                const uint8_t *in = row + x * channels;
                double ink = channels == 4 ? (255 - in[c]) * (double)in[3] / 255 : 0;
                *out++ = channels == 4 ? (uint8_t)(in[3] - (int)(ink + 0.5)) : in[c];
            }
        }
    }
    jpeg_finish_decompress(&codec);
    jpeg_destroy_decompress(&codec);
    free(row);
    return pixels;
}
