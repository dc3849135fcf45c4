/* coefficient_encoder.c - coefficients.h: from a JPEG's blocks to a record. */
#include <stdlib.h>
#include <string.h>

#include "decode/coefficient_format.h"
#include "decode/coefficient_streams.h"
#include "decode/coefficients.h"
#include "decode/jpeg.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "row_mask() counts from the low bits");

enum {
    INDEX = STREAM_COUNT, /* of the buffers */
    BUFFER_COUNT,
    RECORD_BYTES_MAX = INT32_MAX,
    /* Beyond these, which no picture needs, variants of libjpeg's IDCT differ in how they
     * overflow: such images stay JPEGs. 8 times the one is less than the other. */
    QUANTISATION_MAX = 1023,
    DEQUANTISED_MAX = 8191,
    KEPT_BYTES_MAX = 32 << 20, /* of what a rare large image needed */
};

struct buffer {
    uint8_t *bytes;
    size_t size_bytes, capacity_bytes;
};

struct coefficients_encoder {
    struct jpeg_reader *jpeg;
    struct stream_packer *packer;
    struct stream_unpacker *unpacker;
    enum coefficients_form form;
    struct coefficient_layout layout;
    struct buffer parts[COMPONENTS_MAX][BUFFER_COUNT]; /* of each component */
    struct buffer joined;                              /* a stream of all components */
    struct buffer record;
    /* The zigzag's places of the coefficients of a row that row_mask() tells of, as bits. */
    uint64_t zigzag_bits[8][256];
};

static const struct image_limits default_limits = {.pixels_max = IMAGE_PIXELS_MAX_DEFAULT,
                                                   .scans_max = IMAGE_SCANS_MAX_DEFAULT};

static void fill_zigzag_bits(uint64_t zigzag_bits[8][256])
{
    for (uint32_t k = 0; k < BLOCK_COEFFICIENTS; k++) {
        uint32_t place = coefficient_natural_order[k];
        for (uint32_t mask = 0; mask < 256; mask++) {
            zigzag_bits[place / 8][mask] |= (uint64_t)(mask >> place % 8 & 1) << k;
        }
    }
}

struct coefficients_encoder *coefficients_encoder_create(const struct image_limits *limits)
{
    struct coefficients_encoder *encoder = calloc(1, sizeof *encoder);
    if (encoder == NULL) {
        return NULL;
    }
    encoder->jpeg = jpeg_reader_create(limits != NULL ? limits : &default_limits);
    encoder->packer = stream_packer_create();
    encoder->unpacker = stream_unpacker_create();
    fill_zigzag_bits(encoder->zigzag_bits);
    if (encoder->jpeg == NULL || encoder->packer == NULL || encoder->unpacker == NULL) {
        coefficients_encoder_destroy(encoder);
        return NULL;
    }
    return encoder;
}

void coefficients_encoder_destroy(struct coefficients_encoder *encoder)
{
    if (encoder == NULL) {
        return;
    }
    jpeg_reader_destroy(encoder->jpeg);
    stream_packer_destroy(encoder->packer);
    stream_unpacker_destroy(encoder->unpacker);
    for (int i = 0; i < COMPONENTS_MAX; i++) {
        for (int part = 0; part < BUFFER_COUNT; part++) {
            free(encoder->parts[i][part].bytes);
        }
    }
    free(encoder->joined.bytes);
    free(encoder->record.bytes);
    free(encoder);
}

/* Make room for `more_bytes` behind what is there. */
static bool reserve(struct buffer *buffer, size_t more_bytes)
{
    size_t need = buffer->size_bytes + more_bytes;
    if (need <= buffer->capacity_bytes) {
        return true;
    }
    need += need / 2;
    uint8_t *bytes = realloc(buffer->bytes, need);
    if (bytes == NULL) {
        return false;
    }
    buffer->bytes = bytes;
    buffer->capacity_bytes = need;
    return true;
}

static void give_back(struct buffer *buffer)
{
    buffer->size_bytes = 0;
    if (buffer->capacity_bytes > KEPT_BYTES_MAX) {
        free(buffer->bytes);
        *buffer = (struct buffer){.bytes = NULL};
    }
}

static enum decode_status fail_memory(struct decode_error *error)
{
    return decode_fail(error, DECODE_NO_MEMORY, 0, "no memory for coefficients");
}

/* ---- Blocks to streams -----------------------------------------------------------------------
 */

/* Where the next byte of each stream goes. */
struct cursors {
    uint8_t *at[STREAM_COUNT];
    bool is_hopeless; /* a coefficient is above DEQUANTISED_MAX */
};

/* A bit for each of a block's 8 rows' coefficients that is not zero. Numbers that lie beside each
 * other in memory are looked at four at a time. */
static uint32_t row_mask(const int16_t *row)
{
    const uint64_t low_bits = 0x7fff7fff7fff7fff;
    uint64_t four[2];
    uint32_t mask = 0;
    memcpy(four, row, sizeof four);
    for (int i = 0; i < 2; i++) {
        uint64_t set = (((four[i] & low_bits) + low_bits) | four[i]) & ~low_bits;
        mask |= (uint32_t)((set >> 15) * 0x1000200040008 >> 48 & 15) << (4 * i);
    }
    return mask;
}

/* Bit k - 1: coefficient k of the zigzag is not zero. */
static uint64_t mask_of(const struct coefficients_encoder *encoder, const int16_t *block)
{
    uint64_t mask = 0;
    for (int y = 0; y < 8; y++) {
        mask |= encoder->zigzag_bits[y][row_mask(block + 8 * y)];
    }
    return mask >> 1;
}

/* Nibbles, one a byte, to bytes; up to BLOCK_COEFFICIENTS of them. */
static void pack_nibbles(const uint8_t nibbles[BLOCK_COEFFICIENTS], uint8_t *target)
{
    for (int i = 0; i < BLOCK_COEFFICIENTS / 2; i++) {
        target[i] = (uint8_t)(nibbles[2 * i] | nibbles[2 * i + 1] << 4);
    }
}

/* The block's size nibble is returned; words are appended to words[]. */
static uint32_t put_block(const struct coefficients_encoder *encoder, const int16_t *block,
                          const uint16_t *quantisation, struct cursors *to, int16_t *words,
                          uint32_t *word_count)
{
    uint8_t nibbles[BLOCK_COEFFICIENTS] = {0};
    uint64_t mask = mask_of(encoder, block);
    uint32_t size = mask == 0 ? 0 : (71 - (uint32_t)__builtin_clzll(mask)) / 8;
    uint32_t taken = 0, largest = 0;
    uint8_t *escapes = to->at[STREAM_ESCAPES];
    put_u64(to->at[STREAM_MASKS], mask);
    to->at[STREAM_MASKS] += size;
    for (; mask != 0; mask &= mask - 1) {
        uint32_t place = coefficient_natural_order[1 + __builtin_ctzll(mask)];
        int32_t value = block[place];
        uint32_t is_small = (uint32_t)(value + 8) < 16;
        uint32_t dequantised = (uint32_t)abs(value) * quantisation[place];
        largest = dequantised > largest ? dequantised : largest;
        nibbles[taken++] = (uint8_t)((uint32_t)value & 15 & (0 - is_small));
        *escapes = (uint8_t)value;
        escapes += 1 - is_small;
        if (__builtin_expect((uint32_t)(value + INT8_MAX) > 2 * INT8_MAX, 0)) {
            escapes[-1] = (uint8_t)INT8_MIN;
            words[(*word_count)++] = (int16_t)value;
        }
    }
    pack_nibbles(nibbles, to->at[STREAM_NIBBLES]);
    to->at[STREAM_NIBBLES] += (taken + 1) / 2;
    to->at[STREAM_ESCAPES] = escapes;
    to->is_hopeless |= largest > DEQUANTISED_MAX;
    return size;
}

/* The DC coefficients of a group. True if the differences need words. */
static bool put_dc(const int16_t *blocks, uint32_t count, int quantisation, struct cursors *to)
{
    bool is_wide = false;
    for (uint32_t i = 0; i < count; i++) {
        int value = blocks[i * BLOCK_COEFFICIENTS] * quantisation;
        to->is_hopeless |= abs(value) > DEQUANTISED_MAX;
    }
    for (uint32_t i = 1; i < count; i++) {
        int difference = blocks[i * BLOCK_COEFFICIENTS] - blocks[(i - 1) * BLOCK_COEFFICIENTS];
        is_wide |= difference < INT8_MIN || difference > INT8_MAX;
    }
    put_u16(to->at[STREAM_DC], (uint16_t)blocks[0]);
    to->at[STREAM_DC] += 2;
    for (uint32_t i = 1; i < count; i++) {
        int difference = blocks[i * BLOCK_COEFFICIENTS] - blocks[(i - 1) * BLOCK_COEFFICIENTS];
        if (is_wide) {
            put_u16(to->at[STREAM_DC], (uint16_t)difference);
        } else {
            *to->at[STREAM_DC] = (uint8_t)difference;
        }
        to->at[STREAM_DC] += is_wide ? 2 : 1;
    }
    return is_wide;
}

/* One group; its entry of the index is returned. */
static uint32_t put_group(const struct coefficients_encoder *encoder, const int16_t *blocks,
                          uint32_t count, const uint16_t *quantisation, struct cursors *to)
{
    struct cursors from = *to;
    int16_t words[GROUP_BLOCKS * BLOCK_COEFFICIENTS];
    uint32_t word_count = 0;
    uint64_t sizes = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t size = put_block(encoder, blocks + (size_t)i * BLOCK_COEFFICIENTS, quantisation,
                                  to, words, &word_count);
        sizes |= size << (4 * i);
    }
    for (uint32_t i = 0; i < count; i += 2) {
        *to->at[STREAM_SIZES]++ = (uint8_t)(sizes >> (4 * i));
    }
    while (word_count > 0) {
        put_u16(to->at[STREAM_ESCAPES], (uint16_t)words[--word_count]);
        to->at[STREAM_ESCAPES] += 2;
    }
    bool is_wide = put_dc(blocks, count, quantisation[0], to);
    return GROUP_ENTRY(to->at[STREAM_MASKS] - from.at[STREAM_MASKS],
                       to->at[STREAM_NIBBLES] - from.at[STREAM_NIBBLES],
                       to->at[STREAM_ESCAPES] - from.at[STREAM_ESCAPES], is_wide);
}

static enum decode_status take_row(void *context, uint32_t component, uint32_t row,
                                   const int16_t *blocks, struct decode_error *error)
{
    /* A little more than a group has, since blocks are written whole. */
    static const size_t group_bytes_max[BUFFER_COUNT] = {
        [STREAM_SIZES] = GROUP_BLOCKS / 2,        [STREAM_DC] = 2 * GROUP_BLOCKS,
        [STREAM_MASKS] = 8 * GROUP_BLOCKS,        [STREAM_NIBBLES] = 32 * GROUP_BLOCKS,
        [STREAM_ESCAPES] = 3 * 63 * GROUP_BLOCKS, [INDEX] = 4,
    };
    struct coefficients_encoder *encoder = context;
    const struct coefficient_component *part = &encoder->layout.components[component];
    struct buffer *buffers = encoder->parts[component];
    struct cursors to = {.is_hopeless = false};
    (void)row;
    for (int i = 0; i < BUFFER_COUNT; i++) {
        if (!reserve(&buffers[i], part->row_groups * group_bytes_max[i] + BLOCK_COEFFICIENTS)) {
            return fail_memory(error);
        }
    }
    for (int i = 0; i < STREAM_COUNT; i++) {
        to.at[i] = buffers[i].bytes + buffers[i].size_bytes;
    }
    for (uint32_t group = 0; group < part->row_groups; group++) {
        uint32_t entry =
            put_group(encoder, blocks + (size_t)group * GROUP_BLOCKS * BLOCK_COEFFICIENTS,
                      coefficient_group_blocks(part, group), part->quantisation, &to);
        put_u32(buffers[INDEX].bytes + buffers[INDEX].size_bytes, entry);
        buffers[INDEX].size_bytes += 4;
    }
    for (int i = 0; i < STREAM_COUNT; i++) {
        buffers[i].size_bytes = (size_t)(to.at[i] - buffers[i].bytes);
    }
    if (to.is_hopeless) {
        return decode_fail(error, DECODE_UNSUPPORTED, 0,
                           "a JPEG with coefficients far beyond white is not stored");
    }
    return DECODE_OK;
}

static enum decode_status begin(void *context, const struct coefficient_layout *layout,
                                struct decode_error *error)
{
    struct coefficients_encoder *encoder = context;
    encoder->layout = *layout;
    for (uint32_t i = 0; i < layout->component_count; i++) {
        for (int k = 0; k < BLOCK_COEFFICIENTS; k++) {
            if (layout->components[i].quantisation[k] > QUANTISATION_MAX) {
                return decode_fail(error, DECODE_UNSUPPORTED, 0,
                                   "a JPEG of very coarse quantisation is not stored");
            }
        }
    }
    for (int i = 0; i < COMPONENTS_MAX; i++) {
        for (int part = 0; part < BUFFER_COUNT; part++) {
            give_back(&encoder->parts[i][part]);
        }
    }
    return DECODE_OK;
}

/* ---- Streams to a record ---------------------------------------------------------------------
 */

/* Component i uses table tables[i]; components with equal ones share them. */
static void share_tables(struct coefficient_layout *layout)
{
    layout->table_count = 0;
    for (uint32_t i = 0; i < layout->component_count; i++) {
        struct coefficient_component *component = &layout->components[i];
        component->table = layout->table_count;
        for (uint32_t other = 0; other < i; other++) {
            if (memcmp(layout->components[other].quantisation, component->quantisation,
                       sizeof component->quantisation) == 0) {
                component->table = layout->components[other].table;
                break;
            }
        }
        layout->table_count =
            (uint8_t)(layout->table_count + (component->table == layout->table_count));
    }
}

static void put_header(struct coefficients_encoder *encoder)
{
    const struct coefficient_layout *layout = &encoder->layout;
    uint8_t *header = encoder->record.bytes;
    memset(header, 0, COEFFICIENT_HEADER_BYTES);
    memcpy(header, coefficient_magic, COEFFICIENT_MAGIC_BYTES);
    header[HEADER_FORM] = (uint8_t)encoder->form;
    header[HEADER_COLOR] = (uint8_t)layout->color;
    header[HEADER_COMPONENTS] = layout->component_count;
    header[HEADER_TABLES] = layout->table_count;
    put_u32(header + HEADER_WIDTH, layout->width_px);
    put_u32(header + HEADER_HEIGHT, layout->height_px);
    for (uint32_t i = 0; i < layout->component_count; i++) {
        const struct coefficient_component *component = &layout->components[i];
        uint8_t *at = header + HEADER_SAMPLING + 4 * (size_t)i;
        at[0] = component->h;
        at[1] = component->v;
        at[2] = component->table;
        uint8_t *table =
            header + COEFFICIENT_HEADER_BYTES + (size_t)component->table * 2 * BLOCK_COEFFICIENTS;
        for (int k = 0; k < BLOCK_COEFFICIENTS; k++) {
            put_u16(table + 2 * k, component->quantisation[coefficient_natural_order[k]]);
        }
    }
}

/* Append a buffer of all components. False when memory is short. */
static bool append_parts(struct coefficients_encoder *encoder, struct buffer *to, int part)
{
    for (uint32_t i = 0; i < encoder->layout.component_count; i++) {
        const struct buffer *from = &encoder->parts[i][part];
        if (!reserve(to, from->size_bytes)) {
            return false;
        }
        if (from->size_bytes > 0) {
            memcpy(to->bytes + to->size_bytes, from->bytes, from->size_bytes);
        }
        to->size_bytes += from->size_bytes;
    }
    return true;
}

/* Append encoder->joined to the record, compressed if that makes it shorter. */
static bool append_joined(struct coefficients_encoder *encoder)
{
    struct buffer *record = &encoder->record;
    size_t plain_bytes = encoder->joined.size_bytes;
    if (!reserve(record, plain_bytes)) {
        return false;
    }
    uint8_t *to = record->bytes + record->size_bytes;
    size_t bytes = encoder->form == COEFFICIENTS_COMPACT
                       ? stream_pack(encoder->packer, encoder->joined.bytes, plain_bytes, to)
                       : 0;
    if (bytes == 0 && plain_bytes > 0) {
        bytes = plain_bytes;
        memcpy(to, encoder->joined.bytes, bytes);
    }
    record->size_bytes += bytes;
    return true;
}

static bool append_stream(struct coefficients_encoder *encoder, int stream)
{
    if (encoder->form == COEFFICIENTS_FAST) {
        return append_parts(encoder, &encoder->record, stream);
    }
    give_back(&encoder->joined);
    return append_parts(encoder, &encoder->joined, stream) && append_joined(encoder);
}

/* The last steps: everything else is in its place. */
static void seal(struct coefficients_encoder *encoder)
{
    struct buffer *record = &encoder->record;
    put_u32(record->bytes + HEADER_SIZE, (uint32_t)record->size_bytes);
    put_u64(record->bytes + HEADER_CHECKSUM,
            coefficient_checksum(record->bytes, record->size_bytes));
}

static bool make_record(struct coefficients_encoder *encoder)
{
    struct buffer *record = &encoder->record;
    share_tables(&encoder->layout);
    give_back(record);
    size_t head_bytes =
        COEFFICIENT_HEADER_BYTES + 2 * BLOCK_COEFFICIENTS * (size_t)encoder->layout.table_count;
    if (!reserve(record, head_bytes)) {
        return false;
    }
    put_header(encoder);
    record->size_bytes = head_bytes;
    if (!append_parts(encoder, record, INDEX) || !reserve(record, 4 * STREAM_COUNT)) {
        return false;
    }
    size_t sizes_at = record->size_bytes;
    record->size_bytes += 4 * STREAM_COUNT;
    for (int stream = 0; stream < STREAM_COUNT; stream++) {
        size_t before = record->size_bytes;
        if (!append_stream(encoder, stream)) {
            return false;
        }
        put_u32(record->bytes + sizes_at + 4 * (size_t)stream,
                (uint32_t)(record->size_bytes - before));
    }
    seal(encoder);
    return true;
}

static enum decode_status hand_out(const struct coefficients_encoder *encoder,
                                   const uint8_t **record, size_t *record_bytes,
                                   struct decode_error *error)
{
    *record = encoder->record.bytes;
    *record_bytes = encoder->record.size_bytes;
    return *record_bytes <= RECORD_BYTES_MAX
               ? DECODE_OK
               : decode_fail(error, DECODE_TOO_LARGE, 0, "too many coefficients for a record");
}

enum decode_status coefficients_encode(struct coefficients_encoder *encoder, const uint8_t *jpeg,
                                       size_t jpeg_bytes, enum coefficients_form form,
                                       const uint8_t **record, size_t *record_bytes,
                                       struct decode_error *error)
{
    const struct jpeg_block_sink sink = {.context = encoder, .begin = begin, .row = take_row};
    if (jpeg_bytes < 3 || memcmp(jpeg, "\xff\xd8\xff", 3) != 0) {
        return decode_fail(error, DECODE_UNSUPPORTED, 0, "only JPEGs are stored as coefficients");
    }
    encoder->form = form;
    enum decode_status status =
        jpeg_reader_read_blocks(encoder->jpeg, jpeg, jpeg_bytes, &sink, error);
    if (status == DECODE_OK && !make_record(encoder)) {
        status = fail_memory(error);
    }
    return status == DECODE_OK ? hand_out(encoder, record, record_bytes, error) : status;
}

/* ---- From record to record -------------------------------------------------------------------
 */

/* A stream of the view, as it is when not compressed, to encoder->joined. */
static enum decode_status join_stream(struct coefficients_encoder *encoder,
                                      const struct coefficient_view *view, int stream,
                                      struct decode_error *error)
{
    size_t bytes = view->stream_bytes[stream];
    give_back(&encoder->joined);
    if (!reserve(&encoder->joined, bytes + 1)) {
        return fail_memory(error);
    }
    if (view->stored_bytes[stream] == bytes) {
        memcpy(encoder->joined.bytes, view->streams[stream], bytes);
    } else if (!stream_unpack(encoder->unpacker, view->streams[stream], view->stored_bytes[stream],
                              encoder->joined.bytes, bytes)) {
        return decode_fail(error, DECODE_CORRUPT, 0, "a coefficient record with a damaged stream");
    }
    encoder->joined.size_bytes = bytes;
    return DECODE_OK;
}

enum decode_status coefficients_convert(struct coefficients_encoder *encoder, const uint8_t *record,
                                        size_t record_bytes, enum coefficients_form form,
                                        const uint8_t **converted, size_t *converted_bytes,
                                        struct decode_error *error)
{
    struct coefficient_view view;
    struct buffer *to = &encoder->record;
    enum decode_status status = coefficient_view_open(&view, record, record_bytes, error);
    if (status != DECODE_OK) {
        return status;
    }
    encoder->form = form;
    give_back(to);
    size_t sizes_at = (size_t)(view.index - record) + 4 * (size_t)view.layout.group_count;
    if (!reserve(to, sizes_at + 4 * STREAM_COUNT)) {
        return fail_memory(error);
    }
    memcpy(to->bytes, record, sizes_at);
    to->bytes[HEADER_FORM] = (uint8_t)form;
    to->size_bytes = sizes_at + 4 * STREAM_COUNT;
    for (int stream = 0; stream < STREAM_COUNT; stream++) {
        size_t before = to->size_bytes;
        status = join_stream(encoder, &view, stream, error);
        if (status == DECODE_OK && !append_joined(encoder)) {
            status = fail_memory(error);
        }
        if (status != DECODE_OK) {
            return status;
        }
        put_u32(to->bytes + sizes_at + 4 * (size_t)stream, (uint32_t)(to->size_bytes - before));
    }
    seal(encoder);
    return hand_out(encoder, converted, converted_bytes, error);
}
