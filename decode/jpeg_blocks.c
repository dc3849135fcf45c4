#include "decode/jpeg_blocks.h"

#include <stdlib.h>
#include <string.h>

#define JPEG_INTERNALS /* the prototypes of jpegint.h want it in jpeglib.h */
#include <jpegint.h>

/* The last group that was read of a block row. */
struct row_cache {
    uint32_t row, group;
    bool is_filled;
    int16_t *blocks; /* GROUP_BLOCKS */
};

struct jpeg_blocks {
    struct jpeg_entropy_decoder interface; /* first: libjpeg knows only this */
    struct jpeg_block_source source;
    void (*give_up)(j_decompress_ptr codec);
    JDIMENSION column, row;               /* of the next MCU */
    JDIMENSION wanted_first, wanted_last; /* columns whose coefficients are looked at */
    struct row_cache rows[COMPONENTS_MAX][SAMPLING_MAX];
    _Alignas(64) int16_t
        coefficients[COMPONENTS_MAX][SAMPLING_MAX][GROUP_BLOCKS * BLOCK_COEFFICIENTS];
};

struct jpeg_blocks *jpeg_blocks_create(void)
{
    size_t size_bytes = (sizeof(struct jpeg_blocks) + 63) / 64 * 64;
    struct jpeg_blocks *blocks = aligned_alloc(64, size_bytes);
    if (blocks != NULL) {
        memset(blocks, 0, size_bytes);
    }
    return blocks;
}

void jpeg_blocks_destroy(struct jpeg_blocks *blocks)
{
    free(blocks);
}

/* One block; those beyond the component's last are filling that nobody looks at. */
static bool read_block(struct jpeg_blocks *blocks, const jpeg_component_info *info, int y,
                       uint32_t row, uint32_t column, JBLOCK *target)
{
    struct row_cache *cache = &blocks->rows[info->component_index][y];
    uint32_t group = column / GROUP_BLOCKS;
    if (row >= info->height_in_blocks || column >= info->width_in_blocks) {
        return true;
    }
    if (!cache->is_filled || cache->row != row || cache->group != group) {
        cache->row = row;
        cache->group = group;
        cache->is_filled = blocks->source.read_group(
            blocks->source.context, (uint32_t)info->component_index, row, group, cache->blocks);
        if (!cache->is_filled) {
            return false;
        }
    }
    memcpy(*target, cache->blocks + (size_t)(column % GROUP_BLOCKS) * BLOCK_COEFFICIENTS,
           sizeof(JBLOCK));
    return true;
}

/* A single component has MCUs of one block, whatever its sampling factors. */
static bool read_mcu(struct jpeg_blocks *blocks, j_decompress_ptr codec, JBLOCKROW *target)
{
    bool is_good = true;
    int next = 0;
    for (int i = 0; i < codec->comps_in_scan && is_good; i++) {
        const jpeg_component_info *info = codec->cur_comp_info[i];
        for (int y = 0; y < info->MCU_height && is_good; y++) {
            for (int x = 0; x < info->MCU_width && is_good; x++, next++) {
                is_good = read_block(
                    blocks, info, y, blocks->row * (uint32_t)info->MCU_height + (uint32_t)y,
                    blocks->column * (uint32_t)info->MCU_width + (uint32_t)x, target[next]);
            }
        }
    }
    return is_good;
}

/* What libjpeg calls: the next MCU into target[], all zeros before; NULL: nobody wants it. */
static boolean decode_mcu(j_decompress_ptr codec, JBLOCKROW *target)
{
    struct jpeg_blocks *blocks = (struct jpeg_blocks *)codec->entropy;
    bool is_wanted = target != NULL && blocks->column >= blocks->wanted_first &&
                     blocks->column <= blocks->wanted_last;
    if (is_wanted && !read_mcu(blocks, codec, target)) {
        blocks->give_up(codec);
    }
    if (++blocks->column == codec->MCUs_per_row) {
        blocks->column = 0;
        blocks->row++;
    }
    return TRUE;
}

/* libjpeg begins another scan, which is not in what we gave it. */
static void start_pass(j_decompress_ptr codec)
{
    ((struct jpeg_blocks *)codec->entropy)->give_up(codec);
}

void jpeg_blocks_attach(struct jpeg_blocks *blocks, j_decompress_ptr codec,
                        const struct jpeg_block_source *source,
                        void (*give_up)(j_decompress_ptr codec))
{
    blocks->interface = (struct jpeg_entropy_decoder){
        .start_pass = start_pass,
        .decode_mcu = decode_mcu,
    };
    blocks->source = *source;
    blocks->give_up = give_up;
    blocks->column = 0;
    blocks->row = 0;
    blocks->wanted_first = codec->master->first_iMCU_col;
    blocks->wanted_last = codec->master->last_iMCU_col;
    for (int i = 0; i < COMPONENTS_MAX; i++) {
        for (int y = 0; y < SAMPLING_MAX; y++) {
            blocks->rows[i][y] = (struct row_cache){.blocks = blocks->coefficients[i][y]};
        }
    }
    codec->entropy = &blocks->interface;
}
