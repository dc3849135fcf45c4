/*
 * coefficients.h - a JPEG's quantised DCT coefficients as a record that is decoded without Huffman.
 *
 * Entropy decoding is four fifths of a JPEG's decode time and has to pass through every bit of the
 * file. A record holds the same coefficients, without loss, so that decoding may be entered at any
 * block row and near any block column. image_open() takes a record wherever it takes a JPEG and
 * gives the same pixels, to the bit, for every region. docs/coefficients.md has the format's
 * reasons and measurements, ARCHITECTURE.md the format.
 *
 * Forms      COEFFICIENTS_FAST is not entropy-coded; about 1.3 times the JPEG's bytes.
 *            COEFFICIENTS_COMPACT is the same with its streams compressed by zstd; about the
 *            JPEG's bytes.
 * What fits  JPEGs of 8 bits, grey or of three components, baseline, extended or progressive,
 *            that libjpeg-turbo decodes whole without an error or a warning. All others (CMYK,
 *            arithmetic, lossless, damaged, cut, incomplete) are refused and stay JPEGs.
 * Trust      A record is hostile until checked: image_open() and coefficients_check() verify its
 *            checksum and that its parts lie within it. What a checksum does not see (a record made
 *            to deceive) gives wrong pixels or DECODE_CORRUPT, never a touch of foreign memory.
 */
#ifndef PENSTOCK_DECODE_COEFFICIENTS_H
#define PENSTOCK_DECODE_COEFFICIENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/image.h"
#include "decode/status.h"

enum coefficients_form { COEFFICIENTS_FAST = 1, COEFFICIENTS_COMPACT = 2 };

/* Changes whenever older readers could not read, or would misread, what is written now. Part of
 * the magic: a record of another version is no record here. */
enum { COEFFICIENTS_VERSION = 1 };

struct coefficients_info {
    enum coefficients_form form;
    uint32_t width_px, height_px;
    uint8_t component_count; /* 1: grey, 3: colour */
};

/* Memory that is reused from image to image; one per thread. */
struct coefficients_encoder;

/* NULL when memory is short. `limits` as for image_reader_create(). */
struct coefficients_encoder *coefficients_encoder_create(const struct image_limits *limits);
void coefficients_encoder_destroy(struct coefficients_encoder *encoder); /* NULL is accepted */

/* Make a record of the JPEG in jpeg[0, jpeg_bytes). *record is borrowed until the encoder's next
 * use. Takes less time than 1.6 full decodes.
 * Errors: DECODE_NO_MEMORY may be tried again; whatever else is returned, the image is not
 * suitable and will not become so: keep the JPEG. Not only JPEGs may be given. */
enum decode_status coefficients_encode(struct coefficients_encoder *encoder, const uint8_t *jpeg,
                                       size_t jpeg_bytes, enum coefficients_form form,
                                       const uint8_t **record, size_t *record_bytes,
                                       struct decode_error *error);

/* Make a record of the other form, or of the same, of a record: exactly what coefficients_encode()
 * makes of the JPEG, in a fraction of the time. *converted is borrowed like *record above. */
enum decode_status coefficients_convert(struct coefficients_encoder *encoder, const uint8_t *record,
                                        size_t record_bytes, enum coefficients_form form,
                                        const uint8_t **converted, size_t *converted_bytes,
                                        struct decode_error *error);

/* Do the bytes begin as a record of this version does? Says nothing about the rest. */
bool coefficients_is_record(const uint8_t *bytes, size_t size_bytes);

/* Header, checksum and extent of every part: some 10 us for 100 KB. image_open() does the same. */
enum decode_status coefficients_check(const uint8_t *record, size_t record_bytes,
                                      struct coefficients_info *info, struct decode_error *error);

#endif /* PENSTOCK_DECODE_COEFFICIENTS_H */
