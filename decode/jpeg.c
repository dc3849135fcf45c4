#include "decode/jpeg.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode/jpeg_blocks.h"
#include "decode/jpeg_entropy.h"
#include "decode/jpeg_internal.h"

/* After jpeglib.h: the numbers of the errors depend on its JPEG_LIB_VERSION. */
#include <jerror.h>

/* A band is at most this many rows and about this many bytes, so that it stays in the cache. */
enum { BAND_ROWS_MAX = 32, BAND_BYTES_MAX = 1 << 18, ROW_ALIGN_BYTES = 64, TAIL_BYTES = 64 };

static size_t offset_now(const struct jpeg_reader *reader)
{
    return reader->size_bytes - reader->source.bytes_in_buffer;
}

static _Noreturn void escape(struct jpeg_reader *reader, enum decode_status status)
{
    reader->status = status;
    longjmp(reader->escape, 1);
}

static enum decode_status status_of_message(int code)
{
    switch (code) {
    case JERR_OUT_OF_MEMORY: return DECODE_NO_MEMORY;
#if JPEG_LIB_VERSION < 70 /* later ones have no such error */
    case JERR_ARITH_NOTIMPL:
#endif
    case JERR_BAD_PRECISION:
    case JERR_CCIR601_NOTIMPL:
    case JERR_COMPONENT_COUNT:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
    case JERR_NOTIMPL:
    case JERR_SOF_UNSUPPORTED: return DECODE_UNSUPPORTED;
    case JERR_IMAGE_TOO_BIG: return DECODE_TOO_LARGE;
    default: return DECODE_CORRUPT;
    }
}

static _Noreturn void on_error(j_common_ptr codec)
{
    struct jpeg_reader *reader = codec->client_data;
    char message[JMSG_LENGTH_MAX];
    codec->err->format_message(codec, message);
    enum decode_status status = status_of_message(codec->err->msg_code);
    decode_fail(reader->error, status, offset_now(reader), "libjpeg: %s", message);
    escape(reader, status);
}

/* Warnings tell of damage that Pillow lives with, unless it also fails in the file's tail; the
 * pixels are libjpeg's best guess for both. But in the header Pillow does not know marker 01. */
static void on_message(j_common_ptr codec, int level)
{
    struct jpeg_reader *reader = codec->client_data;
    if (level < 0) {
        codec->err->num_warnings++;
    }
    if (codec->err->msg_code == JTRC_PARMLESS_MARKER && codec->err->msg_parm.i[0] == 0x01 &&
        reader->scan_offset_bytes == 0) {
        decode_fail(reader->error, DECODE_CORRUPT, offset_now(reader), "a JPEG with marker 01");
        escape(reader, DECODE_CORRUPT);
    }
}

static void on_source_begin_or_end(j_decompress_ptr codec)
{
    (void)codec;
}

/* libjpeg asks for more only when all bytes are used up. */
static boolean on_source_empty(j_decompress_ptr codec)
{
    struct jpeg_reader *reader = codec->client_data;
    decode_fail(reader->error, DECODE_TRUNCATED, reader->size_bytes,
                "the JPEG data ends too early");
    escape(reader, DECODE_TRUNCATED);
}

static void on_source_skip(j_decompress_ptr codec, long count_bytes)
{
    struct jpeg_source_mgr *source = codec->src;
    if (count_bytes <= 0) {
        return;
    }
    size_t skip = (size_t)count_bytes;
    if (skip > source->bytes_in_buffer) {
        skip = source->bytes_in_buffer; /* what follows finds the source empty */
    }
    source->next_input_byte += skip;
    source->bytes_in_buffer -= skip;
}

/* Called again and again while the scans of a progressive image are read. */
void jpeg_on_progress(j_common_ptr common)
{
    struct jpeg_reader *reader = common->client_data;
    if ((uint32_t)reader->codec.input_scan_number <= reader->limits.scans_max) {
        return;
    }
    decode_fail(reader->error, DECODE_TOO_LARGE, offset_now(reader),
                "more than %u scans in a progressive JPEG", (unsigned)reader->limits.scans_max);
    escape(reader, DECODE_TOO_LARGE);
}

/* Our entropy decoder met something that libjpeg has to judge. */
void jpeg_on_odd(j_decompress_ptr codec)
{
    struct jpeg_reader *reader = codec->client_data;
    reader->is_odd = true;
    escape(reader, DECODE_CORRUPT);
}

/* Coefficients that are not a JPEG's were asked for and cannot be had. */
static void on_bad_blocks(j_decompress_ptr codec)
{
    struct jpeg_reader *reader = codec->client_data;
    decode_fail(reader->error, DECODE_CORRUPT, 0, "a coefficient record with impossible content");
    escape(reader, DECODE_CORRUPT);
}

struct jpeg_reader *jpeg_reader_create(const struct image_limits *limits)
{
    struct jpeg_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        return NULL;
    }
    reader->limits = *limits;
    reader->entropy = jpeg_entropy_create();
    reader->blocks = jpeg_blocks_create();
    if (reader->entropy == NULL || reader->blocks == NULL) {
        jpeg_reader_destroy(reader);
        return NULL;
    }
    return reader;
}

void jpeg_reader_destroy(struct jpeg_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    jpeg_reader_close(reader);
    jpeg_entropy_destroy(reader->entropy);
    jpeg_blocks_destroy(reader->blocks);
    free(reader->band);
    free(reader);
}

void jpeg_reader_close(struct jpeg_reader *reader)
{
    if (reader->is_created) {
        jpeg_destroy_decompress(&reader->codec);
    }
    reader->is_created = false;
}

/* The codec is made anew for each image, which takes some 2 us: a codec used again keeps the
 * tables of the image before, and an image that lacks a table would be decoded with them. */
static void codec_begin(struct jpeg_reader *reader)
{
    reader->codec.err = jpeg_std_error(&reader->errors);
    reader->errors.error_exit = on_error;
    reader->errors.emit_message = on_message;
    reader->codec.client_data = reader;
    reader->is_created = true; /* destroying a half-made codec is harmless: it is zeroed first */
    jpeg_create_decompress(&reader->codec);
    reader->source = (struct jpeg_source_mgr){
        .next_input_byte = reader->bytes,
        .bytes_in_buffer = reader->size_bytes,
        .init_source = on_source_begin_or_end,
        .fill_input_buffer = on_source_empty,
        .skip_input_data = on_source_skip,
        .resync_to_restart = jpeg_resync_to_restart,
        .term_source = on_source_begin_or_end,
    };
    reader->codec.src = &reader->source;
}

static enum decode_status check_header(struct jpeg_reader *reader)
{
    const struct jpeg_decompress_struct *codec = &reader->codec;
    uint64_t pixels = (uint64_t)codec->image_width * codec->image_height;
    if (pixels > reader->limits.pixels_max) {
        return decode_fail(reader->error, DECODE_TOO_LARGE, offset_now(reader),
                           "%u x %u pixels are more than the limit of %llu",
                           (unsigned)codec->image_width, (unsigned)codec->image_height,
                           (unsigned long long)reader->limits.pixels_max);
    }
    int count = codec->num_components;
    if (count != 1 && count != 3 && count != 4) {
        return decode_fail(reader->error, DECODE_UNSUPPORTED, offset_now(reader),
                           "a JPEG of %d colour components", count);
    }
    return DECODE_OK;
}

/* Read the header; may escape. */
void jpeg_begin_image(struct jpeg_reader *reader)
{
    jpeg_reader_close(reader);
    reader->source.bytes_in_buffer = reader->size_bytes;
    reader->scan_offset_bytes = 0;
    memset(&reader->codec, 0, sizeof reader->codec);
    codec_begin(reader);
    jpeg_read_header(&reader->codec, TRUE);
    reader->scan_offset_bytes = offset_now(reader);
}

enum decode_status jpeg_reader_open(struct jpeg_reader *reader, const uint8_t *bytes,
                                    size_t size_bytes, struct image_info *info,
                                    struct decode_error *error)
{
    reader->bytes = bytes;
    reader->size_bytes = size_bytes;
    reader->error = error;
    reader->is_plain = reader->limits.plain_huffman;
    reader->is_odd = false;
    reader->block_source = (struct jpeg_block_source){.read_group = NULL};
    if (setjmp(reader->escape) != 0) {
        return reader->status;
    }
    jpeg_begin_image(reader);
    info->width_px = reader->codec.image_width;
    info->height_px = reader->codec.image_height;
    return check_header(reader);
}

enum decode_status jpeg_reader_open_blocks(struct jpeg_reader *reader, const uint8_t *header,
                                           size_t header_bytes,
                                           const struct jpeg_block_source *source,
                                           struct decode_error *error)
{
    struct image_info info;
    enum decode_status status = jpeg_reader_open(reader, header, header_bytes, &info, error);
    reader->block_source = *source;
    return status;
}

/* How many columns beside the region its pixels depend on. Upsampled chroma is interpolated from
 * the neighbouring samples, of which each spans at most max_h_samp_factor columns, and libjpeg
 * treats the edge of a crop as the edge of the image. Rows need no such margin: libjpeg decodes
 * the row group above the first row itself. */
static uint32_t margin_of(const struct jpeg_decompress_struct *codec)
{
    return codec->max_h_samp_factor == 1 ? 0 : (uint32_t)codec->max_h_samp_factor;
}

bool jpeg_is_smoothed(const struct jpeg_decompress_struct *codec)
{
    if (!codec->progressive_mode || codec->coef_bits == NULL) {
        return false;
    }
    for (int i = 0; i < codec->num_components; i++) {
        for (int k = 1; k < 10; k++) {
            if (codec->coef_bits[i][k] != 0) {
                return true;
            }
        }
    }
    return false;
}

/* Before 3.0.1 libjpeg-turbo smoothed two sorts of images wrongly at the edges of blocks, those
 * with vertical subsampling and those of a component two blocks wide, and so gives other pixels
 * than the newer one in Pillow. */
static bool is_smoothed_wrongly(const struct jpeg_decompress_struct *codec)
{
    bool is_affected = codec->max_v_samp_factor > 1;
    for (int i = 0; i < codec->num_components; i++) {
        is_affected = is_affected || codec->comp_info[i].width_in_blocks == 2;
    }
    return is_affected && LIBJPEG_TURBO_VERSION_NUMBER < 3000001 && jpeg_is_smoothed(codec);
}

/* Tell libjpeg the columns; *left becomes the first column that rows will hold. */
static void crop_columns(struct jpeg_reader *reader, JDIMENSION *left)
{
    struct jpeg_decompress_struct *codec = &reader->codec;
    uint32_t margin = margin_of(codec);
    uint32_t begin = reader->region.x_px > margin ? reader->region.x_px - margin : 0;
    uint32_t end = reader->region.x_px + reader->region.width_px;
    end = codec->output_width - end > margin ? end + margin : codec->output_width;
    JDIMENSION width = end - begin;
    *left = begin;
    if (width < codec->output_width) {
        jpeg_crop_scanline(codec, left, &width);
    }
}

static enum decode_status reserve_band(struct jpeg_reader *reader)
{
    size_t row_bytes = (size_t)reader->codec.output_width * (size_t)reader->codec.output_components;
    reader->stride_bytes = (row_bytes + ROW_ALIGN_BYTES - 1) / ROW_ALIGN_BYTES * ROW_ALIGN_BYTES;
    size_t rows = BAND_BYTES_MAX / reader->stride_bytes;
    reader->band_rows = rows < 1 ? 1 : rows > BAND_ROWS_MAX ? BAND_ROWS_MAX : (uint32_t)rows;
    size_t need = reader->band_rows * reader->stride_bytes + TAIL_BYTES;
    if (need <= reader->band_bytes) {
        return DECODE_OK;
    }
    free(reader->band);
    reader->band_bytes = 0;
    reader->band = calloc(1, need);
    if (reader->band == NULL) {
        return decode_fail(reader->error, DECODE_NO_MEMORY, 0, "no memory for rows of pixels");
    }
    reader->band_bytes = need;
    return DECODE_OK;
}

static void skip_rows(struct jpeg_reader *reader, uint32_t count)
{
    uint32_t skipped = 0;
    while (skipped < count) {
        JDIMENSION step = jpeg_skip_scanlines(&reader->codec, count - skipped);
        assert(step > 0);
        skipped += step;
    }
}

/* Begin decoding and stand behind the region's first `rows_done` rows; may escape. */
static enum decode_status begin_rows(struct jpeg_reader *reader, uint32_t rows_done)
{
    struct jpeg_decompress_struct *codec = &reader->codec;
    reader->errors.num_warnings = 0; /* those of the header do no harm */
    codec->out_color_space = codec->num_components == 4 ? JCS_CMYK : JCS_RGB;
    reader->progress.progress_monitor = jpeg_on_progress;
    codec->progress = &reader->progress;
    jpeg_start_decompress(codec);
    codec->progress = NULL;
    if (is_smoothed_wrongly(codec)) {
        return decode_fail(reader->error, DECODE_UNSUPPORTED, offset_now(reader),
                           "an incomplete progressive JPEG, which libjpeg-turbo before 3.0.1 "
                           "does not smooth exactly");
    }
    JDIMENSION left = 0;
    if (!jpeg_is_smoothed(codec)) {
        crop_columns(reader, &left);
    }
    reader->lead_bytes = (size_t)(reader->region.x_px - left) * (size_t)codec->output_components;
    enum decode_status status = reserve_band(reader);
    if (status == DECODE_OK) {
        if (reader->block_source.read_group != NULL) {
            jpeg_blocks_attach(reader->blocks, codec, &reader->block_source, on_bad_blocks);
        } else if (!reader->is_plain) {
            jpeg_entropy_attach(reader->entropy, codec, jpeg_on_odd);
        }
        skip_rows(reader, reader->region.y_px);
        for (uint32_t row = 0; row < rows_done; row++) {
            jpeg_read_scanlines(codec, &reader->band, 1);
        }
    }
    return status;
}

/* After an escape: if it was ours, start the image again with libjpeg's own entropy decoder, to
 * stand where it was. True if that was done, and the step that escaped is to be done again. */
static bool start_plainly(struct jpeg_reader *reader)
{
    if (!reader->is_odd) {
        return false;
    }
    reader->is_odd = false;
    reader->is_plain = true;
    if (setjmp(reader->escape) != 0) {
        return false;
    }
    jpeg_begin_image(reader);
    reader->status = begin_rows(reader, reader->region.height_px - reader->rows_left);
    return reader->status == DECODE_OK;
}

enum decode_status jpeg_reader_start(struct jpeg_reader *reader, struct image_rect region,
                                     struct decode_error *error)
{
    reader->error = error;
    reader->region = region;
    reader->rows_left = region.height_px;
    reader->has_all_rows = false;
    if (setjmp(reader->escape) != 0) {
        return start_plainly(reader) ? DECODE_OK : reader->status;
    }
    return begin_rows(reader, 0);
}

/* C,M,Y,K as Adobe stores it (255 = no ink) to R,G,B by Pillow's formula, in place. */
static void cmyk_to_rgb(uint8_t *row, uint32_t width_px)
{
    const uint8_t *cmyk = row;
    for (uint32_t x = 0; x < width_px; x++, cmyk += 4, row += 3) {
        unsigned black = cmyk[3];
        for (int c = 0; c < 3; c++) {
            unsigned product = (255u - cmyk[c]) * black + 128;
            row[c] = (uint8_t)(black - (((product >> 8) + product) >> 8));
        }
    }
}

static void read_rows(struct jpeg_reader *reader, uint32_t count)
{
    JSAMPROW rows[BAND_ROWS_MAX];
    for (uint32_t i = 0; i < count; i++) {
        rows[i] = reader->band + i * reader->stride_bytes;
    }
    uint32_t done = 0;
    while (done < count) {
        done += jpeg_read_scanlines(&reader->codec, rows + done, count - done);
    }
    if (reader->codec.output_components == 4) {
        for (uint32_t i = 0; i < count; i++) {
            cmyk_to_rgb(rows[i] + reader->lead_bytes, reader->region.width_px);
        }
    }
}

enum decode_status jpeg_reader_band(struct jpeg_reader *reader, uint32_t row_count_max,
                                    const uint8_t **rows, size_t *stride_bytes, uint32_t *row_count,
                                    struct decode_error *error)
{
    uint32_t count = reader->rows_left;
    count = count < row_count_max ? count : row_count_max;
    count = count < reader->band_rows ? count : reader->band_rows;
    reader->error = error;
    if (setjmp(reader->escape) != 0) {
        return start_plainly(reader)
                   ? jpeg_reader_band(reader, row_count_max, rows, stride_bytes, row_count, error)
                   : reader->status;
    }
    read_rows(reader, count);
    reader->rows_left -= count;
    *rows = reader->band + reader->lead_bytes;
    *stride_bytes = reader->stride_bytes;
    *row_count = count;
    return DECODE_OK;
}

bool jpeg_has_end_marker(const struct jpeg_reader *reader)
{
    const uint8_t *first = reader->bytes + reader->scan_offset_bytes;
    size_t length = reader->size_bytes - reader->scan_offset_bytes;
    while (length > 0) {
        const uint8_t *mark = memrchr(first, 0xd9, length);
        if (mark == NULL) {
            return false;
        }
        if (mark > first && mark[-1] == 0xff) {
            return true;
        }
        length = (size_t)(mark - first);
    }
    return false;
}

/* Pillow decodes every row and reads on to the end-of-image marker. Here the rows below the region
 * are only decoded when something is odd; damage down there that leaves the marker is not seen. */
static bool is_suspect(const struct jpeg_reader *reader)
{
    bool has_all_rows = reader->codec.output_scanline == reader->codec.output_height;
    return has_all_rows || reader->errors.num_warnings > 0 || !jpeg_has_end_marker(reader);
}

enum decode_status jpeg_reader_finish(struct jpeg_reader *reader, struct decode_error *error)
{
    reader->error = error;
    if (is_suspect(reader)) {
        /* With all rows there it is no error when the bytes end before a marker comes. */
        if (setjmp(reader->escape) != 0) {
            if (start_plainly(reader)) {
                return jpeg_reader_finish(reader, error);
            }
            return reader->has_all_rows && reader->status == DECODE_TRUNCATED ? DECODE_OK
                                                                              : reader->status;
        }
        while (reader->codec.output_scanline < reader->codec.output_height) {
            jpeg_read_scanlines(&reader->codec, &reader->band, 1);
        }
        reader->has_all_rows = true;
        jpeg_finish_decompress(&reader->codec);
    }
    jpeg_reader_close(reader);
    return DECODE_OK;
}
