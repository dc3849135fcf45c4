#include "decode/coefficient_groups.h"

#include <stdlib.h>
#include <string.h>

#include "decode/coefficient_streams.h"

enum {
    ESCAPE_PIECE_BYTES_MAX = 4096, /* an entry of the index says at most 4095 */
    PIECE_BYTES_MAX = ESCAPE_PIECE_BYTES_MAX + GROUP_REACH_BYTES,
    KEPT_BYTES_MAX = 32 << 20, /* of what a rare large image needed */
};

/* Where a block row begins in each stream. */
struct row_start {
    uint32_t offset_bytes[STREAM_COUNT];
};

struct coefficient_groups {
    const struct block_kernels *kernels;
    struct coefficient_view view;
    const uint8_t *record_end;
    struct stream_unpacker *unpacker;
    uint8_t *unpacked; /* the decompressed streams */
    size_t unpacked_bytes;
    const uint8_t *streams[STREAM_COUNT];
    const uint8_t *readable_end[STREAM_COUNT]; /* of the memory that each stream lies in */
    struct row_start *rows;                    /* of all components */
    size_t row_capacity;
    size_t first_row[COMPONENTS_MAX];
    /* Copies of pieces that end too near to the end of memory. */
    uint8_t pieces[STREAM_COUNT][PIECE_BYTES_MAX];
};

struct coefficient_groups *coefficient_groups_create(const struct block_kernels *kernels)
{
    struct coefficient_groups *groups = calloc(1, sizeof *groups);
    if (groups == NULL) {
        return NULL;
    }
    groups->kernels = kernels;
    groups->unpacker = stream_unpacker_create();
    if (groups->unpacker == NULL) {
        free(groups);
        return NULL;
    }
    return groups;
}

void coefficient_groups_destroy(struct coefficient_groups *groups)
{
    if (groups != NULL) {
        stream_unpacker_destroy(groups->unpacker);
        free(groups->unpacked);
        free(groups->rows);
        free(groups);
    }
}

enum decode_status coefficient_groups_open(struct coefficient_groups *groups, const uint8_t *record,
                                           size_t record_bytes, struct decode_error *error)
{
    groups->record_end = record + record_bytes;
    return coefficient_view_open(&groups->view, record, record_bytes, error);
}

const struct coefficient_layout *coefficient_groups_layout(const struct coefficient_groups *groups)
{
    return &groups->view.layout;
}

/* ---- Start -----------------------------------------------------------------------------------
 */

static bool is_packed(const struct coefficient_view *view, int stream)
{
    return view->stored_bytes[stream] < view->stream_bytes[stream];
}

static enum decode_status fail_memory(struct decode_error *error)
{
    return decode_fail(error, DECODE_NO_MEMORY, 0, "no memory to expand coefficients");
}

static bool reserve_unpacked(struct coefficient_groups *groups, size_t need)
{
    if (need > groups->unpacked_bytes || groups->unpacked_bytes > KEPT_BYTES_MAX) {
        free(groups->unpacked);
        groups->unpacked = calloc(1, need);
        groups->unpacked_bytes = groups->unpacked != NULL ? need : 0;
    }
    return groups->unpacked != NULL;
}

static enum decode_status unpack_streams(struct coefficient_groups *groups,
                                         struct decode_error *error)
{
    const struct coefficient_view *view = &groups->view;
    size_t need = 0;
    for (int stream = 0; stream < STREAM_COUNT; stream++) {
        groups->streams[stream] = view->streams[stream];
        groups->readable_end[stream] = groups->record_end;
        need += is_packed(view, stream) ? view->stream_bytes[stream] : 0;
    }
    if (need == 0) {
        return DECODE_OK;
    }
    need += PIECE_BYTES_MAX; /* so that no piece is too near to the end */
    if (!reserve_unpacked(groups, need)) {
        return fail_memory(error);
    }
    uint8_t *at = groups->unpacked;
    for (int stream = 0; stream < STREAM_COUNT; stream++) {
        if (!is_packed(view, stream)) {
            continue;
        }
        if (!stream_unpack(groups->unpacker, view->streams[stream], view->stored_bytes[stream], at,
                           view->stream_bytes[stream])) {
            return decode_fail(error, DECODE_CORRUPT, 0,
                               "a coefficient record with a damaged stream");
        }
        groups->streams[stream] = at;
        groups->readable_end[stream] = groups->unpacked + need;
        at += view->stream_bytes[stream];
    }
    return DECODE_OK;
}

static bool reserve_rows(struct coefficient_groups *groups)
{
    const struct coefficient_layout *layout = &groups->view.layout;
    size_t count = 0;
    for (uint32_t i = 0; i < layout->component_count; i++) {
        groups->first_row[i] = count;
        count += layout->components[i].height_blocks;
    }
    if (count > groups->row_capacity) {
        free(groups->rows);
        groups->rows = calloc(count, sizeof *groups->rows);
        groups->row_capacity = groups->rows != NULL ? count : 0;
    }
    return groups->rows != NULL;
}

static void find_rows(struct coefficient_groups *groups)
{
    const struct coefficient_layout *layout = &groups->view.layout;
    const uint8_t *entry = groups->view.index;
    struct row_start *row_start = groups->rows;
    struct row_start start = {{0}};
    for (uint32_t i = 0; i < layout->component_count; i++) {
        const struct coefficient_component *component = &layout->components[i];
        for (uint32_t row = 0; row < component->height_blocks; row++) {
            *row_start++ = start;
            for (uint32_t group = 0; group < component->row_groups; group++, entry += 4) {
                size_t bytes[STREAM_COUNT];
                coefficient_group_bytes(get_u32(entry), coefficient_group_blocks(component, group),
                                        bytes);
                for (int stream = 0; stream < STREAM_COUNT; stream++) {
                    start.offset_bytes[stream] += (uint32_t)bytes[stream];
                }
            }
        }
    }
}

enum decode_status coefficient_groups_start(struct coefficient_groups *groups,
                                            struct decode_error *error)
{
    enum decode_status status = unpack_streams(groups, error);
    if (status != DECODE_OK) {
        return status;
    }
    if (!reserve_rows(groups)) {
        return fail_memory(error);
    }
    find_rows(groups);
    return DECODE_OK;
}

/* ---- Groups ----------------------------------------------------------------------------------
 */

static void pass_group(const struct coefficient_groups *groups, struct group_cursor *cursor,
                       size_t bytes[STREAM_COUNT])
{
    uint32_t entry = get_u32(groups->view.index + 4 * cursor->index);
    coefficient_group_bytes(entry, coefficient_group_blocks(cursor->component, cursor->group),
                            bytes);
    for (int stream = 0; stream < STREAM_COUNT; stream++) {
        cursor->at[stream] += bytes[stream];
    }
    cursor->group++;
    cursor->index++;
}

struct group_cursor coefficient_groups_find(const struct coefficient_groups *groups,
                                            uint32_t component, uint32_t row, uint32_t group)
{
    const struct coefficient_component *part = &groups->view.layout.components[component];
    const struct row_start *start = &groups->rows[groups->first_row[component] + row];
    struct group_cursor cursor = {
        .component = part,
        .index = part->first_group + (size_t)row * part->row_groups,
    };
    for (int stream = 0; stream < STREAM_COUNT; stream++) {
        cursor.at[stream] = groups->streams[stream] + start->offset_bytes[stream];
    }
    while (cursor.group < group) {
        size_t bytes[STREAM_COUNT];
        pass_group(groups, &cursor, bytes);
    }
    return cursor;
}

static void read_dc(const uint8_t *piece, bool is_wide, uint32_t count, int16_t dc[GROUP_BLOCKS])
{
    uint32_t value = get_u16(piece);
    piece += 2;
    dc[0] = (int16_t)value;
    for (uint32_t i = 1; i < count; i++) {
        value += is_wide ? get_u16(piece) : (uint32_t)(int8_t)*piece;
        piece += is_wide ? 2 : 1;
        dc[i] = (int16_t)value;
    }
}

/* Copy pieces that readers might leave with a foot outside of memory. */
static void secure_pieces(struct coefficient_groups *groups, const size_t bytes[STREAM_COUNT],
                          const uint8_t *at[STREAM_COUNT])
{
    for (int stream = 0; stream < STREAM_COUNT; stream++) {
        if (groups->readable_end[stream] - at[stream] < GROUP_REACH_BYTES) {
            memcpy(groups->pieces[stream], at[stream], bytes[stream]);
            at[stream] = groups->pieces[stream];
        }
    }
}

bool coefficient_groups_read(struct coefficient_groups *groups, struct group_cursor *cursor,
                             const uint16_t quantisation[BLOCK_COEFFICIENTS], int16_t *blocks)
{
    uint32_t count = coefficient_group_blocks(cursor->component, cursor->group);
    bool is_wide = GROUP_IS_WIDE(get_u32(groups->view.index + 4 * cursor->index));
    const uint8_t *at[STREAM_COUNT];
    size_t bytes[STREAM_COUNT];
    int16_t dc[GROUP_BLOCKS];
    memcpy(at, cursor->at, sizeof at);
    pass_group(groups, cursor, bytes);
    secure_pieces(groups, bytes, at);
    read_dc(at[STREAM_DC], is_wide, count, dc);
    struct block_group group = {
        .count = count,
        .dc = dc,
        .masks = at[STREAM_MASKS],
        .nibbles = at[STREAM_NIBBLES],
        .escapes = at[STREAM_ESCAPES],
        .words = at[STREAM_ESCAPES] + bytes[STREAM_ESCAPES],
    };
    for (uint32_t i = 0; i < bytes[STREAM_SIZES]; i++) {
        group.sizes |= (uint64_t)at[STREAM_SIZES][i] << (8 * i);
    }
    return groups->kernels->expand(&group, quantisation, blocks) &&
           group.masks == at[STREAM_MASKS] + bytes[STREAM_MASKS] &&
           group.nibbles == at[STREAM_NIBBLES] + bytes[STREAM_NIBBLES] &&
           group.escapes == group.words;
}
