/* jpeg_coefficients.c - jpeg_reader_read_blocks(): a JPEG's coefficients instead of its pixels. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "decode/coefficient_format.h"
#include "decode/jpeg_entropy.h"
#include "decode/jpeg_internal.h"

/* A block row of each MCU row of each component. */
struct mcu_rows {
    JBLOCK *blocks[COMPONENTS_MAX][SAMPLING_MAX];
    JBLOCK *memory;
    size_t count;
};

static enum decode_status fail_unsuitable(struct jpeg_reader *reader, const char *what)
{
    return decode_fail(reader->error, DECODE_UNSUPPORTED, 0, "%s is not stored as coefficients",
                       what);
}

static enum decode_status describe(struct jpeg_reader *reader, struct coefficient_layout *layout)
{
    const struct jpeg_decompress_struct *codec = &reader->codec;
    memset(layout, 0, sizeof *layout);
    switch ((int)codec->jpeg_color_space) {
    case JCS_GRAYSCALE: layout->color = COEFFICIENT_GREY; break;
    case JCS_YCbCr: layout->color = COEFFICIENT_YCC; break;
    case JCS_RGB: layout->color = COEFFICIENT_RGB; break;
    default: return fail_unsuitable(reader, "a JPEG of other colours than grey, YCbCr and RGB");
    }
    if (codec->arith_code || codec->data_precision != 8) {
        return fail_unsuitable(reader, "a JPEG with arithmetic coding or not of 8 bits");
    }
    layout->width_px = codec->image_width;
    layout->height_px = codec->image_height;
    layout->component_count = (uint8_t)codec->num_components;
    for (int i = 0; i < codec->num_components; i++) {
        bool is_single = codec->num_components == 1; /* its factors have no meaning */
        layout->components[i].h = is_single ? 1 : (uint8_t)codec->comp_info[i].h_samp_factor;
        layout->components[i].v = is_single ? 1 : (uint8_t)codec->comp_info[i].v_samp_factor;
    }
    return coefficient_layout_complete(layout)
               ? DECODE_OK
               : fail_unsuitable(reader, "a JPEG with these sampling factors");
}

/* Known when a component's first scan begins. */
static bool copy_tables(const struct jpeg_decompress_struct *codec,
                        struct coefficient_layout *layout)
{
    for (int i = 0; i < codec->num_components; i++) {
        const JQUANT_TBL *table = codec->comp_info[i].quant_table;
        if (table == NULL) {
            return false;
        }
        memcpy(layout->components[i].quantisation, table->quantval,
               sizeof layout->components[i].quantisation);
    }
    return true;
}

/* ---- Ordinary images: MCU by MCU -------------------------------------------------------------
 */

static bool reserve_rows(struct mcu_rows *rows, const struct jpeg_decompress_struct *codec)
{
    size_t offsets[COMPONENTS_MAX][SAMPLING_MAX] = {{0}};
    rows->count = 0;
    for (int i = 0; i < codec->comps_in_scan; i++) {
        const jpeg_component_info *info = codec->cur_comp_info[i];
        for (int y = 0; y < info->MCU_height; y++) {
            offsets[i][y] = rows->count;
            rows->count += (size_t)codec->MCUs_per_row * (size_t)info->MCU_width;
        }
    }
    rows->memory = calloc(rows->count, sizeof(JBLOCK));
    for (int i = 0; i < COMPONENTS_MAX && rows->memory != NULL; i++) {
        for (int y = 0; y < SAMPLING_MAX; y++) {
            rows->blocks[i][y] = rows->memory + offsets[i][y];
        }
    }
    return rows->memory != NULL;
}

/* Decode a row of MCUs; may escape. */
static void decode_mcu_row(struct mcu_rows *rows, j_decompress_ptr codec)
{
    memset(rows->memory, 0, rows->count * sizeof(JBLOCK));
    for (JDIMENSION column = 0; column < codec->MCUs_per_row; column++) {
        JBLOCKROW targets[D_MAX_BLOCKS_IN_MCU];
        int next = 0;
        for (int i = 0; i < codec->comps_in_scan; i++) {
            const jpeg_component_info *info = codec->cur_comp_info[i];
            for (int y = 0; y < info->MCU_height; y++) {
                for (int x = 0; x < info->MCU_width; x++) {
                    targets[next++] =
                        rows->blocks[i][y] + column * (size_t)info->MCU_width + (size_t)x;
                }
            }
        }
        jpeg_entropy_next(codec, targets);
    }
}

static enum decode_status deliver_mcu_row(struct jpeg_reader *reader, const struct mcu_rows *rows,
                                          JDIMENSION mcu_row, const struct jpeg_block_sink *sink)
{
    const struct jpeg_decompress_struct *codec = &reader->codec;
    enum decode_status status = DECODE_OK;
    for (int i = 0; i < codec->comps_in_scan; i++) {
        const jpeg_component_info *info = codec->cur_comp_info[i];
        for (int y = 0; y < info->MCU_height && status == DECODE_OK; y++) {
            uint32_t row = mcu_row * (uint32_t)info->MCU_height + (uint32_t)y;
            if (row < info->height_in_blocks) {
                status = sink->row(sink->context, (uint32_t)info->component_index, row,
                                   rows->blocks[i][y][0], reader->error);
            }
        }
    }
    return status;
}

/* With our own Huffman decoder. *is_done: false if the image is not of its kind, or odd. */
static enum decode_status read_ordinary(struct jpeg_reader *reader, struct mcu_rows *rows,
                                        struct coefficient_layout *layout,
                                        const struct jpeg_block_sink *sink, bool *is_done)
{
    struct jpeg_decompress_struct *codec = &reader->codec;
    *is_done = false;
    if (reader->is_plain || jpeg_has_multiple_scans(codec)) {
        return DECODE_OK;
    }
    jpeg_start_decompress(codec);
    if (!jpeg_entropy_attach(reader->entropy, codec, jpeg_on_odd) || !copy_tables(codec, layout)) {
        return DECODE_OK;
    }
    if (!reserve_rows(rows, codec)) {
        return decode_fail(reader->error, DECODE_NO_MEMORY, 0, "no memory for coefficients");
    }
    enum decode_status status = sink->begin(sink->context, layout, reader->error);
    for (JDIMENSION row = 0; row < codec->MCU_rows_in_scan && status == DECODE_OK; row++) {
        decode_mcu_row(rows, codec);
        status = deliver_mcu_row(reader, rows, row, sink);
    }
    const uint8_t *marker = reader->source.next_input_byte;
    *is_done = status != DECODE_OK ||
               (jpeg_entropy_is_used_up(reader->entropy) && reader->source.bytes_in_buffer >= 2 &&
                marker[0] == 0xff && marker[1] == JPEG_EOI);
    return status;
}

/* ---- All others: libjpeg reads the whole file ------------------------------------------------
 */

static enum decode_status deliver_arrays(struct jpeg_reader *reader, jvirt_barray_ptr *arrays,
                                         const struct coefficient_layout *layout,
                                         const struct jpeg_block_sink *sink)
{
    struct jpeg_decompress_struct *codec = &reader->codec;
    enum decode_status status = sink->begin(sink->context, layout, reader->error);
    for (int i = 0; i < codec->num_components; i++) {
        const struct coefficient_component *component = &layout->components[i];
        for (uint32_t row = 0; row < component->height_blocks && status == DECODE_OK; row++) {
            JBLOCKARRAY blocks =
                codec->mem->access_virt_barray((j_common_ptr)codec, arrays[i], row, 1, FALSE);
            status = sink->row(sink->context, (uint32_t)i, row, blocks[0][0], reader->error);
        }
    }
    return status;
}

static enum decode_status read_plainly(struct jpeg_reader *reader,
                                       struct coefficient_layout *layout,
                                       const struct jpeg_block_sink *sink)
{
    struct jpeg_decompress_struct *codec = &reader->codec;
    jpeg_begin_image(reader);
    reader->progress.progress_monitor = jpeg_on_progress;
    codec->progress = &reader->progress;
    jvirt_barray_ptr *arrays = jpeg_read_coefficients(codec);
    codec->progress = NULL;
    if (reader->errors.num_warnings > 0 || !jpeg_has_end_marker(reader)) {
        return fail_unsuitable(reader, "a damaged JPEG");
    }
    if (jpeg_is_smoothed(codec) || !copy_tables(codec, layout)) {
        return fail_unsuitable(reader, "an incomplete JPEG");
    }
    return deliver_arrays(reader, arrays, layout, sink);
}

static enum decode_status read_header(struct jpeg_reader *reader, const uint8_t *bytes,
                                      size_t size_bytes, struct coefficient_layout *layout,
                                      struct decode_error *error)
{
    struct image_info info;
    enum decode_status status = jpeg_reader_open(reader, bytes, size_bytes, &info, error);
    if (status == DECODE_OK && reader->errors.num_warnings > 0) {
        return fail_unsuitable(reader, "a damaged JPEG");
    }
    return status == DECODE_OK ? describe(reader, layout) : status;
}

enum decode_status jpeg_reader_read_blocks(struct jpeg_reader *reader, const uint8_t *bytes,
                                           size_t size_bytes, const struct jpeg_block_sink *sink,
                                           struct decode_error *error)
{
    struct coefficient_layout layout;
    struct mcu_rows rows = {.memory = NULL};
    struct mcu_rows *volatile kept = &rows; /* freed after an escape, too */
    volatile bool is_done = false;
    enum decode_status status = read_header(reader, bytes, size_bytes, &layout, error);
    if (status != DECODE_OK) {
        return status;
    }
    if (setjmp(reader->escape) == 0) {
        bool is_read;
        status = read_ordinary(reader, &rows, &layout, sink, &is_read);
        is_done = is_read || status != DECODE_OK;
        reader->status = status;
    } else {
        is_done = !reader->is_odd;
    }
    free(kept->memory);
    reader->is_odd = false;
    if (!is_done) {
        if (setjmp(reader->escape) == 0) {
            reader->status = read_plainly(reader, &layout, sink);
        }
    }
    jpeg_reader_close(reader);
    return reader->status;
}
