#include "decode/coefficient_format.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(COEFFICIENTS_VERSION == 1, "the magic ends with the version");
const uint8_t coefficient_magic[COEFFICIENT_MAGIC_BYTES] = {0x89, 'P', 'S', 'D', 'C', 'T', 0x0a, 1};

const uint8_t coefficient_natural_order[BLOCK_COEFFICIENTS] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
};

enum {
    SIDE_PX_MAX = 65500, /* libjpeg's own limit */
    MCU_BLOCKS_MAX = 10, /* of a scan with several components */
    TABLE_BYTES = 2 * BLOCK_COEFFICIENTS,
    STREAM_BYTES_MAX = INT32_MAX,
};

bool coefficients_is_record(const uint8_t *bytes, size_t size_bytes)
{
    return size_bytes >= COEFFICIENT_MAGIC_BYTES &&
           memcmp(bytes, coefficient_magic, COEFFICIENT_MAGIC_BYTES) == 0;
}

uint64_t coefficient_checksum(const uint8_t *record, size_t record_bytes)
{
    return XXH3_64bits(record + HEADER_SIZE, record_bytes - HEADER_SIZE);
}

void coefficient_group_bytes(uint32_t entry, uint32_t block_count, size_t bytes[STREAM_COUNT])
{
    bytes[STREAM_SIZES] = (block_count + 1) / 2;
    bytes[STREAM_DC] = 2 + (block_count - 1) * (GROUP_IS_WIDE(entry) ? 2 : 1);
    bytes[STREAM_MASKS] = GROUP_MASK_BYTES(entry);
    bytes[STREAM_NIBBLES] = GROUP_NIBBLE_BYTES(entry);
    bytes[STREAM_ESCAPES] = GROUP_ESCAPE_BYTES(entry);
}

static uint32_t divide_up(uint32_t value, uint32_t by)
{
    return (value + by - 1) / by;
}

/* Sampling factors as libjpeg takes them; *mcu_blocks is their product, summed up. */
static bool has_sampling(struct coefficient_layout *layout)
{
    uint32_t mcu_blocks = 0;
    layout->h_max = layout->v_max = 1;
    for (uint32_t i = 0; i < layout->component_count; i++) {
        const struct coefficient_component *component = &layout->components[i];
        if (component->h < 1 || component->h > SAMPLING_MAX || component->v < 1 ||
            component->v > SAMPLING_MAX) {
            return false;
        }
        layout->h_max = component->h > layout->h_max ? component->h : layout->h_max;
        layout->v_max = component->v > layout->v_max ? component->v : layout->v_max;
        mcu_blocks += (uint32_t)component->h * component->v;
    }
    return layout->component_count == 1 ? mcu_blocks == 1 : mcu_blocks <= MCU_BLOCKS_MAX;
}

bool coefficient_layout_complete(struct coefficient_layout *layout)
{
    uint8_t expected = layout->color == COEFFICIENT_GREY ? 1 : 3;
    if (layout->width_px < 1 || layout->width_px > SIDE_PX_MAX || layout->height_px < 1 ||
        layout->height_px > SIDE_PX_MAX || layout->component_count != expected ||
        !has_sampling(layout)) {
        return false;
    }
    layout->group_count = 0;
    for (uint32_t i = 0; i < layout->component_count; i++) {
        struct coefficient_component *component = &layout->components[i];
        component->width_samples = divide_up(layout->width_px * component->h, layout->h_max);
        component->height_samples = divide_up(layout->height_px * component->v, layout->v_max);
        component->width_blocks = divide_up(component->width_samples, 8);
        component->height_blocks = divide_up(component->height_samples, 8);
        component->row_groups = divide_up(component->width_blocks, GROUP_BLOCKS);
        component->first_group = layout->group_count;
        layout->group_count += component->row_groups * component->height_blocks;
    }
    return true;
}

static enum decode_status fail_corrupt(struct decode_error *error, uint64_t offset_bytes,
                                       const char *what)
{
    return decode_fail(error, DECODE_CORRUPT, offset_bytes, "a coefficient record with %s", what);
}

/* The header's words, of which none was checked. */
static void read_layout(struct coefficient_layout *layout, const uint8_t *record)
{
    layout->form = record[HEADER_FORM];
    layout->color = record[HEADER_COLOR];
    layout->component_count = record[HEADER_COMPONENTS];
    layout->table_count = record[HEADER_TABLES];
    layout->width_px = get_u32(record + HEADER_WIDTH);
    layout->height_px = get_u32(record + HEADER_HEIGHT);
    for (int i = 0; i < COMPONENTS_MAX; i++) {
        const uint8_t *at = record + HEADER_SAMPLING + 4 * i;
        layout->components[i].h = at[0];
        layout->components[i].v = at[1];
        layout->components[i].table = at[2];
    }
}

static bool is_layout_known(const struct coefficient_layout *layout)
{
    return (layout->form == COEFFICIENTS_FAST || layout->form == COEFFICIENTS_COMPACT) &&
           layout->color >= COEFFICIENT_GREY && layout->color <= COEFFICIENT_RGB &&
           layout->table_count >= 1 && layout->table_count <= COMPONENTS_MAX;
}

static bool read_tables(struct coefficient_layout *layout, const uint8_t *tables)
{
    for (uint32_t i = 0; i < layout->component_count; i++) {
        struct coefficient_component *component = &layout->components[i];
        if (component->table >= layout->table_count) {
            return false;
        }
        const uint8_t *table = tables + (size_t)component->table * TABLE_BYTES;
        for (int k = 0; k < BLOCK_COEFFICIENTS; k++) {
            component->quantisation[coefficient_natural_order[k]] = get_u16(table + 2 * k);
        }
    }
    return true;
}

/* The bytes of all streams by the index. */
static void sum_streams(struct coefficient_view *view)
{
    const struct coefficient_layout *layout = &view->layout;
    size_t sums[STREAM_COUNT] = {0};
    const uint8_t *at = view->index;
    for (uint32_t i = 0; i < layout->component_count; i++) {
        const struct coefficient_component *component = &layout->components[i];
        for (uint32_t row = 0; row < component->height_blocks; row++) {
            for (uint32_t group = 0; group < component->row_groups; group++, at += 4) {
                size_t bytes[STREAM_COUNT];
                coefficient_group_bytes(get_u32(at), coefficient_group_blocks(component, group),
                                        bytes);
                for (int stream = 0; stream < STREAM_COUNT; stream++) {
                    sums[stream] += bytes[stream];
                }
            }
        }
    }
    memcpy(view->stream_bytes, sums, sizeof sums);
}

/* Lay the streams out from `at` to the record's end. */
static bool find_streams(struct coefficient_view *view, const uint8_t *sizes, const uint8_t *end)
{
    const uint8_t *at = sizes + 4 * STREAM_COUNT;
    for (int stream = 0; stream < STREAM_COUNT; stream++) {
        size_t stored = get_u32(sizes + 4 * stream);
        size_t bytes = view->stream_bytes[stream];
        bool is_possible =
            view->layout.form == COEFFICIENTS_FAST ? stored == bytes : stored <= bytes;
        if (!is_possible || bytes > STREAM_BYTES_MAX || stored > (size_t)(end - at)) {
            return false;
        }
        view->streams[stream] = at;
        view->stored_bytes[stream] = stored;
        at += stored;
    }
    return at == end;
}

enum decode_status coefficient_view_open(struct coefficient_view *view, const uint8_t *record,
                                         size_t record_bytes, struct decode_error *error)
{
    if (record_bytes < COEFFICIENT_HEADER_BYTES || !coefficients_is_record(record, record_bytes)) {
        return fail_corrupt(error, 0, "no header");
    }
    if (get_u32(record + HEADER_SIZE) != record_bytes) {
        return decode_fail(error, DECODE_TRUNCATED, record_bytes,
                           "a coefficient record of %llu bytes that should have %lu",
                           (unsigned long long)record_bytes,
                           (unsigned long)get_u32(record + HEADER_SIZE));
    }
    if (get_u64(record + HEADER_CHECKSUM) != coefficient_checksum(record, record_bytes)) {
        return fail_corrupt(error, HEADER_CHECKSUM, "a wrong checksum");
    }
    struct coefficient_layout *layout = &view->layout;
    read_layout(layout, record);
    if (!is_layout_known(layout) || !coefficient_layout_complete(layout)) {
        return fail_corrupt(error, HEADER_FORM, "an impossible header");
    }
    size_t left = record_bytes - COEFFICIENT_HEADER_BYTES;
    size_t tables_bytes = (size_t)layout->table_count * TABLE_BYTES;
    size_t index_bytes = 4 * (size_t)layout->group_count;
    if (left < tables_bytes + index_bytes + 4 * STREAM_COUNT) {
        return fail_corrupt(error, record_bytes, "no room for its index");
    }
    view->tables = record + COEFFICIENT_HEADER_BYTES;
    view->index = view->tables + tables_bytes;
    if (!read_tables(layout, view->tables)) {
        return fail_corrupt(error, HEADER_SAMPLING, "no such quantisation table");
    }
    sum_streams(view);
    if (!find_streams(view, view->index + index_bytes, record + record_bytes)) {
        return fail_corrupt(error, (uint64_t)(view->index + index_bytes - record),
                            "streams of wrong sizes");
    }
    return DECODE_OK;
}

enum decode_status coefficients_check(const uint8_t *record, size_t record_bytes,
                                      struct coefficients_info *info, struct decode_error *error)
{
    struct coefficient_view view;
    enum decode_status status = coefficient_view_open(&view, record, record_bytes, error);
    if (status == DECODE_OK) {
        *info = (struct coefficients_info){.form = view.layout.form,
                                           .width_px = view.layout.width_px,
                                           .height_px = view.layout.height_px,
                                           .component_count = view.layout.component_count};
    }
    return status;
}
