/*
 * jpeg_samples.h - JPEG files of every kind, made with libjpeg for tests and fuzz seeds.
 */
#ifndef PENSTOCK_TESTS_JPEG_SAMPLES_H
#define PENSTOCK_TESTS_JPEG_SAMPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum jpeg_sample_color { SAMPLE_GREY, SAMPLE_YCC, SAMPLE_RGB, SAMPLE_CMYK, SAMPLE_YCCK };

struct jpeg_sample {
    uint32_t width_px, height_px;
    enum jpeg_sample_color color;
    uint8_t sampling[4][2]; /* horizontal and vertical factor of each component; 0: all 1 */
    bool is_progressive;
    bool is_arithmetic;
    bool is_split;             /* sequential, each component in a scan of its own */
    uint32_t restart_interval; /* MCUs; 0: none */
    uint32_t quality;          /* 1 to 100; 0: 90 */
    uint64_t seed;             /* of the picture */
};

/* A noisy picture with edges, compressed as told. *size_bytes long; the caller frees it. */
uint8_t *jpeg_sample_make(const struct jpeg_sample *sample, size_t *size_bytes);

/* The whole picture as RGB by libjpeg's plainest path, CMYK by Pillow's formula; the caller frees
 * it. Aborts on a file that libjpeg refuses. */
uint8_t *jpeg_sample_decode(const uint8_t *bytes, size_t size_bytes);

#endif /* PENSTOCK_TESTS_JPEG_SAMPLES_H */
