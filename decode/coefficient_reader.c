#include "decode/coefficient_reader.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "decode/block_kernels.h"
#include "decode/coefficient_format.h"
#include "decode/coefficient_groups.h"
#include "decode/kernels.h"

enum {
    BAND_ROWS_MAX = 32,
    BAND_BYTES_MAX = 1 << 18, /* about, so that a band stays in the cache */
    ALIGN_BYTES = 64,
    RING_ROWS = 4, /* block rows that a plane holds; rows of pixels need at most two at a time */
    HEADER_BYTES_MAX = 640,
    NO_ROW = UINT32_MAX,
};

/* How a component comes to full size. */
enum upsampling { UPSAMPLE_NONE, UPSAMPLE_H2V1, UPSAMPLE_H2V2, UPSAMPLE_OTHER };

/* The samples of a component that the region needs, some block rows of them. */
struct plane {
    const struct coefficient_component *component;
    enum upsampling upsampling;
    uint32_t first_sample;             /* that the region's first pixel lies in */
    uint32_t sample_count;             /* that its pixels lie in */
    uint32_t first_block, block_count; /* with their neighbours */
    uint8_t *samples;                  /* of block first_block, first row of the ring */
    size_t stride_bytes;
    uint32_t rows[RING_ROWS]; /* which block rows are there, or NO_ROW */
    uint8_t *upsampled;       /* one row */
};

struct coefficient_reader {
    struct image_limits limits;
    const struct block_kernels *kernels;
    struct coefficient_groups *groups;
    struct jpeg_reader *jpeg;
    bool is_fed;                           /* this image goes through libjpeg */
    uint8_t jpeg_header[HEADER_BYTES_MAX]; /* what it is told then */
    struct image_rect region;
    uint32_t row_next; /* of the region */
    struct plane planes[COMPONENTS_MAX];
    uint8_t *memory; /* planes, upsampled rows and the band */
    size_t memory_bytes;
    uint8_t *band;
    size_t stride_bytes;
    uint32_t band_rows;
    _Alignas(ALIGN_BYTES) int16_t blocks[(GROUP_BLOCKS + BLOCKS_BEYOND) * BLOCK_COEFFICIENTS];
};

struct coefficient_reader *coefficient_reader_create(const struct image_limits *limits,
                                                     struct jpeg_reader *jpeg)
{
    size_t size_bytes =
        (sizeof(struct coefficient_reader) + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    struct coefficient_reader *reader = aligned_alloc(ALIGN_BYTES, size_bytes);
    if (reader == NULL) {
        return NULL;
    }
    memset(reader, 0, size_bytes);
    reader->limits = *limits;
    reader->jpeg = jpeg;
    reader->kernels = block_kernels_get(kernels_detect(limits->level_max));
    reader->groups = coefficient_groups_create(reader->kernels);
    if (reader->groups == NULL) {
        coefficient_reader_destroy(reader);
        return NULL;
    }
    return reader;
}

void coefficient_reader_destroy(struct coefficient_reader *reader)
{
    if (reader != NULL) {
        coefficient_groups_destroy(reader->groups);
        free(reader->memory);
        free(reader);
    }
}

enum decode_status coefficient_reader_open(struct coefficient_reader *reader, const uint8_t *bytes,
                                           size_t size_bytes, struct image_info *info,
                                           struct decode_error *error)
{
    enum decode_status status = coefficient_groups_open(reader->groups, bytes, size_bytes, error);
    if (status != DECODE_OK) {
        return status;
    }
    const struct coefficient_layout *layout = coefficient_groups_layout(reader->groups);
    info->width_px = layout->width_px;
    info->height_px = layout->height_px;
    if ((uint64_t)layout->width_px * layout->height_px > reader->limits.pixels_max) {
        return decode_fail(error, DECODE_TOO_LARGE, 0,
                           "%u x %u pixels are more than the limit of %llu",
                           (unsigned)layout->width_px, (unsigned)layout->height_px,
                           (unsigned long long)reader->limits.pixels_max);
    }
    return DECODE_OK;
}

/* ---- The way through libjpeg -----------------------------------------------------------------
 */

static uint8_t *put_segment(uint8_t *at, uint8_t marker, size_t content_bytes)
{
    *at++ = 0xff;
    *at++ = marker;
    *at++ = (uint8_t)((content_bytes + 2) >> 8);
    *at++ = (uint8_t)(content_bytes + 2);
    return at;
}

static uint8_t *put_big_u16(uint8_t *at, uint32_t value)
{
    *at++ = (uint8_t)(value >> 8);
    *at++ = (uint8_t)value;
    return at;
}

static uint8_t *put_tables(uint8_t *at, const struct coefficient_layout *layout)
{
    for (uint32_t i = 0; i < layout->component_count; i++) {
        at = put_segment(at, 0xdb, 1 + 2 * BLOCK_COEFFICIENTS); /* DQT */
        *at++ = (uint8_t)(0x10 | i);                            /* 16 bits */
        for (int k = 0; k < BLOCK_COEFFICIENTS; k++) {
            at = put_big_u16(at, layout->components[i].quantisation[coefficient_natural_order[k]]);
        }
    }
    return at;
}

/* A JPEG without entropy-coded data, to tell libjpeg what the image is like: an Adobe segment for
 * the colours, quantisation tables, frame, scan. */
static size_t make_header(const struct coefficient_layout *layout, uint8_t *header)
{
    uint8_t count = layout->component_count;
    uint8_t *at = header;
    at = put_big_u16(at, 0xffd8);
    at = put_segment(at, 0xee, 12); /* APP14 */
    memcpy(at, "Adobe\0\x64\0\0\0\0", 11);
    at[11] = layout->color == COEFFICIENT_YCC; /* 0: colours as they are */
    at = put_tables(at + 12, layout);
    at = put_segment(at, 0xc0, 6 + 3 * (size_t)count); /* SOF0 */
    *at++ = 8;
    at = put_big_u16(at, layout->height_px);
    at = put_big_u16(at, layout->width_px);
    *at++ = count;
    for (uint8_t i = 0; i < count; i++) {
        *at++ = (uint8_t)(i + 1);
        *at++ = (uint8_t)(layout->components[i].h << 4 | layout->components[i].v);
        *at++ = i;
    }
    at = put_segment(at, 0xda, 4 + 2 * (size_t)count); /* SOS */
    *at++ = count;
    for (uint8_t i = 0; i < count; i++) {
        *at++ = (uint8_t)(i + 1);
        *at++ = 0;
    }
    memcpy(at, "\0\x3f\0\xff\xd9", 5);
    assert(at + 5 - header <= HEADER_BYTES_MAX);
    return (size_t)(at + 5 - header);
}

static bool read_group(void *context, uint32_t component, uint32_t row, uint32_t group,
                       int16_t *blocks)
{
    static const uint16_t ones[BLOCK_COEFFICIENTS] = {
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    struct coefficient_reader *reader = context;
    struct group_cursor cursor = coefficient_groups_find(reader->groups, component, row, group);
    return coefficient_groups_read(reader->groups, &cursor, ones, blocks);
}

static enum decode_status start_fed(struct coefficient_reader *reader, struct image_rect region,
                                    struct decode_error *error)
{
    const struct jpeg_block_source source = {.context = reader, .read_group = read_group};
    size_t bytes = make_header(coefficient_groups_layout(reader->groups), reader->jpeg_header);
    enum decode_status status =
        jpeg_reader_open_blocks(reader->jpeg, reader->jpeg_header, bytes, &source, error);
    return status == DECODE_OK ? jpeg_reader_start(reader->jpeg, region, error) : status;
}

/* ---- Our way: plans --------------------------------------------------------------------------
 */

/* libjpeg interpolates only what is at least three samples wide. */
static enum upsampling find_upsampling(const struct coefficient_layout *layout,
                                       const struct coefficient_component *component)
{
    bool is_half_wide = 2 * component->h == layout->h_max && component->width_samples > 2;
    if (component->h == layout->h_max && component->v == layout->v_max) {
        return UPSAMPLE_NONE;
    }
    if (is_half_wide && component->v == layout->v_max) {
        return UPSAMPLE_H2V1;
    }
    return is_half_wide && 2 * component->v == layout->v_max ? UPSAMPLE_H2V2 : UPSAMPLE_OTHER;
}

static bool is_usual(const struct coefficient_layout *layout)
{
    bool is_good = layout->color != COEFFICIENT_RGB;
    for (uint32_t i = 0; i < layout->component_count; i++) {
        is_good = is_good && find_upsampling(layout, &layout->components[i]) != UPSAMPLE_OTHER;
    }
    return is_good;
}

static size_t align_up(size_t bytes)
{
    return (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

/* Which samples and blocks of a component the region needs. */
static void plan_plane(struct coefficient_reader *reader, uint32_t i)
{
    const struct coefficient_layout *layout = coefficient_groups_layout(reader->groups);
    struct plane *plane = &reader->planes[i];
    plane->component = &layout->components[i];
    plane->upsampling = find_upsampling(layout, plane->component);
    bool is_half = plane->upsampling != UPSAMPLE_NONE;
    uint32_t first = reader->region.x_px >> is_half;
    uint32_t last = (reader->region.x_px + reader->region.width_px - 1) >> is_half;
    plane->first_sample = first;
    plane->sample_count = last - first + 1;
    if (is_half) { /* interpolation looks at the neighbours */
        first -= first > 0;
        last += last + 1 < plane->component->width_samples;
    }
    plane->first_block = first / 8;
    plane->block_count = last / 8 - first / 8 + 1;
    for (uint32_t row = 0; row < RING_ROWS; row++) {
        plane->rows[row] = NO_ROW;
    }
    plane->stride_bytes = align_up(ALIGN_BYTES + 8 * (size_t)plane->block_count + ROW_BEYOND_BYTES);
}

/* One piece of memory, cut up. The first vector before each plane is for sample -1. */
static enum decode_status reserve_memory(struct coefficient_reader *reader, uint32_t plane_count,
                                         struct decode_error *error)
{
    size_t upsampled_bytes = align_up(2 * (size_t)reader->region.width_px + 4 * ROW_BEYOND_BYTES);
    reader->stride_bytes = align_up(3 * (size_t)reader->region.width_px);
    size_t rows = BAND_BYTES_MAX / reader->stride_bytes;
    reader->band_rows = rows < 1 ? 1 : rows > BAND_ROWS_MAX ? BAND_ROWS_MAX : (uint32_t)rows;
    size_t band_bytes = reader->band_rows * reader->stride_bytes + ROW_BEYOND_BYTES;
    size_t need = align_up(band_bytes);
    for (uint32_t i = 0; i < plane_count; i++) {
        need += 8 * RING_ROWS * reader->planes[i].stride_bytes + upsampled_bytes;
    }
    if (need > reader->memory_bytes) {
        free(reader->memory);
        reader->memory_bytes = 0;
        reader->memory = calloc(1, need); /* zeroed, since vectors load beyond what is written */
        if (reader->memory == NULL) {
            return decode_fail(error, DECODE_NO_MEMORY, 0, "no memory for rows of pixels");
        }
        reader->memory_bytes = need;
    }
    reader->band = reader->memory;
    uint8_t *at = reader->memory + align_up(band_bytes);
    for (uint32_t i = 0; i < plane_count; i++) {
        reader->planes[i].samples = at + ALIGN_BYTES;
        at += 8 * RING_ROWS * reader->planes[i].stride_bytes;
        reader->planes[i].upsampled = at;
        at += upsampled_bytes;
    }
    return DECODE_OK;
}

enum decode_status coefficient_reader_start(struct coefficient_reader *reader,
                                            struct image_rect region, struct decode_error *error)
{
    const struct coefficient_layout *layout = coefficient_groups_layout(reader->groups);
    enum decode_status status = coefficient_groups_start(reader->groups, error);
    reader->is_fed = reader->kernels == &block_kernels_scalar || !is_usual(layout);
    if (status != DECODE_OK) {
        return status;
    }
    if (reader->is_fed) {
        return start_fed(reader, region, error);
    }
    reader->region = region;
    reader->row_next = 0;
    for (uint32_t i = 0; i < layout->component_count; i++) {
        plan_plane(reader, i);
    }
    return reserve_memory(reader, layout->component_count, error);
}

/* ---- Our way: rows ---------------------------------------------------------------------------
 */

/* Beyond the image's edges the outermost sample is its own neighbour. */
static void extend_edges(const struct plane *plane, uint8_t *samples)
{
    uint32_t end = plane->component->width_samples - 8 * plane->first_block;
    for (int y = 0; y < 8; y++, samples += plane->stride_bytes) {
        if (plane->first_block == 0) {
            samples[-1] = samples[0];
        }
        if (end <= 8 * plane->block_count) {
            samples[end] = samples[end - 1];
        }
    }
}

/* Make the samples of a block row; false: the record's content is impossible. */
static bool decode_block_row(struct coefficient_reader *reader, struct plane *plane, uint32_t row)
{
    const struct coefficient_layout *layout = coefficient_groups_layout(reader->groups);
    uint32_t component = (uint32_t)(plane->component - layout->components);
    uint8_t *samples = plane->samples + row % RING_ROWS * 8 * plane->stride_bytes;
    uint32_t block = plane->first_block, end = plane->first_block + plane->block_count;
    struct group_cursor cursor =
        coefficient_groups_find(reader->groups, component, row, block / GROUP_BLOCKS);
    while (block < end) {
        uint32_t inside = block % GROUP_BLOCKS;
        uint32_t count = GROUP_BLOCKS - inside < end - block ? GROUP_BLOCKS - inside : end - block;
        if (!coefficient_groups_read(reader->groups, &cursor, plane->component->quantisation,
                                     reader->blocks)) {
            return false;
        }
        reader->kernels->idct(reader->blocks + (size_t)inside * BLOCK_COEFFICIENTS, count,
                              samples + 8 * (size_t)(block - plane->first_block),
                              plane->stride_bytes);
        block += count;
    }
    if (plane->upsampling != UPSAMPLE_NONE) {
        extend_edges(plane, samples);
    }
    plane->rows[row % RING_ROWS] = row;
    return true;
}

/* The samples from first_sample on of a row; above and below the image: of its outermost row. NULL:
 * the record's content is impossible. */
static const uint8_t *find_row(struct coefficient_reader *reader, struct plane *plane, int64_t y)
{
    uint32_t last = plane->component->height_samples - 1;
    uint32_t row = y < 0 ? 0 : y > last ? last : (uint32_t)y;
    uint32_t slot = row / 8 % RING_ROWS;
    if (plane->rows[slot] != row / 8 && !decode_block_row(reader, plane, row / 8)) {
        return NULL;
    }
    return plane->samples + (8 * slot + row % 8) * plane->stride_bytes +
           (plane->first_sample - 8 * plane->first_block);
}

/* A row of the image, of full size; NULL: impossible content. */
static const uint8_t *upsampled_row(struct coefficient_reader *reader, struct plane *plane,
                                    uint32_t y)
{
    if (plane->upsampling == UPSAMPLE_NONE) {
        return find_row(reader, plane, y);
    }
    if (plane->upsampling == UPSAMPLE_H2V1) {
        const uint8_t *row = find_row(reader, plane, y);
        if (row == NULL) {
            return NULL;
        }
        reader->kernels->upsample_h2v1(row, plane->sample_count, plane->upsampled);
    } else {
        const uint8_t *near = find_row(reader, plane, y / 2);
        const uint8_t *far = find_row(reader, plane, (int64_t)(y / 2) + (y % 2 == 0 ? -1 : 1));
        if (near == NULL || far == NULL) {
            return NULL;
        }
        reader->kernels->upsample_h2v2(near, far, plane->sample_count, plane->upsampled);
    }
    return plane->upsampled + (reader->region.x_px & 1);
}

static bool make_row(struct coefficient_reader *reader, uint32_t y, uint8_t *rgb)
{
    uint32_t count = coefficient_groups_layout(reader->groups)->component_count;
    const uint8_t *rows[COMPONENTS_MAX];
    for (uint32_t i = 0; i < count; i++) {
        rows[i] = upsampled_row(reader, &reader->planes[i], y);
        if (rows[i] == NULL) {
            return false;
        }
    }
    if (count == 1) {
        reader->kernels->grey_to_rgb(rows[0], reader->region.width_px, rgb);
    } else {
        reader->kernels->ycc_to_rgb(rows[0], rows[1], rows[2], reader->region.width_px, rgb);
    }
    return true;
}

enum decode_status coefficient_reader_band(struct coefficient_reader *reader,
                                           uint32_t row_count_max, const uint8_t **rows,
                                           size_t *stride_bytes, uint32_t *row_count,
                                           struct decode_error *error)
{
    if (reader->is_fed) {
        return jpeg_reader_band(reader->jpeg, row_count_max, rows, stride_bytes, row_count, error);
    }
    uint32_t count = reader->region.height_px - reader->row_next;
    count = count < row_count_max ? count : row_count_max;
    count = count < reader->band_rows ? count : reader->band_rows;
    for (uint32_t i = 0; i < count; i++, reader->row_next++) {
        if (!make_row(reader, reader->region.y_px + reader->row_next,
                      reader->band + i * reader->stride_bytes)) {
            return decode_fail(error, DECODE_CORRUPT, 0,
                               "a coefficient record with impossible content");
        }
    }
    *rows = reader->band;
    *stride_bytes = reader->stride_bytes;
    *row_count = count;
    return DECODE_OK;
}

enum decode_status coefficient_reader_finish(struct coefficient_reader *reader,
                                             struct decode_error *error)
{
    return reader->is_fed ? jpeg_reader_finish(reader->jpeg, error) : DECODE_OK;
}
