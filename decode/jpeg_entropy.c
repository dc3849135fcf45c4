#include "decode/jpeg_entropy.h"

#include <stdlib.h>
#include <string.h>

#define JPEG_INTERNALS /* the prototypes of jpegint.h want it in jpeglib.h */
#include <jpegint.h>

#include "decode/huffman.h"

enum { TABLES = 4 /* of each kind */, KEPT_BYTES_MAX = 4 << 20 };

/* One block of an MCU. */
struct mcu_block {
    const struct huffman_table *dc_table, *ac_table;
    int component; /* of the scan: whose prediction */
};

struct jpeg_entropy {
    struct jpeg_entropy_decoder interface; /* first: libjpeg knows only this */
    void (*give_up)(j_decompress_ptr codec);
    struct huffman_bits bits;
    uint8_t *clean; /* the data up to the next marker, which is at `stop` */
    size_t clean_bytes;
    const uint8_t *stop, *end; /* in the source */
    int32_t dc[MAX_COMPS_IN_SCAN];
    struct mcu_block blocks[D_MAX_BLOCKS_IN_MCU];
    int block_count;
    JDIMENSION column, row;                   /* of the next MCU */
    JDIMENSION columns, rows;                 /* MCUs of the scan */
    JDIMENSION wanted_first, wanted_last;     /* columns whose coefficients are looked at */
    unsigned restart_interval, restarts_left; /* MCUs */
    unsigned restart_number;                  /* of the next marker, 0 to 7 */
    struct huffman_table dc_tables[TABLES], ac_tables[TABLES];
};

struct jpeg_entropy *jpeg_entropy_create(void)
{
    return calloc(1, sizeof(struct jpeg_entropy));
}

void jpeg_entropy_destroy(struct jpeg_entropy *entropy)
{
    if (entropy != NULL) {
        free(entropy->clean);
        free(entropy);
    }
}

/* ---- MCUs --------------------------------------------------------------------------------------
 */

/* Go on with the data that begins at `bytes`. False if no marker follows it: the file is cut, and
 * where exactly that hurts is for libjpeg to say. */
static bool begin_data(struct jpeg_entropy *entropy, const uint8_t *bytes)
{
    size_t size_bytes = huffman_clean(bytes, entropy->end, entropy->clean, &entropy->stop);
    entropy->bits = huffman_bits_begin(entropy->clean, size_bytes);
    memset(entropy->dc, 0, sizeof entropy->dc);
    entropy->restarts_left = entropy->restart_interval;
    return entropy->end - entropy->stop >= 2;
}

/* Expect the next restart marker here, with less than a byte of padding before it. */
static bool pass_restart(struct jpeg_entropy *entropy)
{
    const uint8_t *marker = entropy->stop;
    if (huffman_bits_left(&entropy->bits) >= 8 ||
        marker[1] != JPEG_RST0 + entropy->restart_number) {
        return false;
    }
    entropy->restart_number = (entropy->restart_number + 1) & 7;
    return begin_data(entropy, marker + 2);
}

/* libjpeg reads on behind the scan from its own source: let that stand at the marker. */
static void leave_scan(struct jpeg_entropy *entropy, struct jpeg_source_mgr *source)
{
    source->bytes_in_buffer = (size_t)(entropy->end - entropy->stop);
    source->next_input_byte = entropy->stop;
}

static bool decode_blocks(struct jpeg_entropy *entropy, JBLOCKROW *target)
{
    bool is_good = true;
    for (int i = 0; i < entropy->block_count && is_good; i++) {
        const struct mcu_block *block = &entropy->blocks[i];
        is_good = huffman_decode_block(&entropy->bits, block->dc_table, block->ac_table,
                                       &entropy->dc[block->component], *target[i]);
    }
    return is_good;
}

static bool skip_blocks(struct jpeg_entropy *entropy)
{
    bool is_good = true;
    for (int i = 0; i < entropy->block_count && is_good; i++) {
        const struct mcu_block *block = &entropy->blocks[i];
        is_good = huffman_skip_block(&entropy->bits, block->dc_table, block->ac_table,
                                     &entropy->dc[block->component]);
    }
    return is_good;
}

/* What libjpeg calls: the next MCU into target[], all zeros before; NULL: nobody wants it. */
static boolean decode_mcu(j_decompress_ptr codec, JBLOCKROW *target)
{
    struct jpeg_entropy *entropy = (struct jpeg_entropy *)codec->entropy;
    bool is_wanted = target != NULL && entropy->column >= entropy->wanted_first &&
                     entropy->column <= entropy->wanted_last;
    bool is_restart = entropy->restart_interval > 0 && entropy->restarts_left == 0;
    if (entropy->row >= entropy->rows || (is_restart && !pass_restart(entropy)) ||
        !(is_wanted ? decode_blocks(entropy, target) : skip_blocks(entropy))) {
        entropy->give_up(codec);
    }
    entropy->restarts_left--;
    if (++entropy->column == entropy->columns) {
        entropy->column = 0;
        if (++entropy->row == entropy->rows) {
            leave_scan(entropy, codec->src);
        }
    }
    return TRUE;
}

/* libjpeg begins another scan, which our kind of image has not. */
static void start_pass(j_decompress_ptr codec)
{
    ((struct jpeg_entropy *)codec->entropy)->give_up(codec);
}

/* ---- Taking over -------------------------------------------------------------------------------
 */

static bool is_ours(j_decompress_ptr codec)
{
    return !codec->progressive_mode && !codec->arith_code && codec->data_precision == 8 &&
           codec->comps_in_scan == codec->num_components && !codec->buffered_image &&
           !codec->inputctl->has_multiple_scans && codec->Ss == 0 && codec->Se == DCTSIZE2 - 1 &&
           codec->Ah == 0 && codec->Al == 0 && codec->unread_marker == 0 &&
           codec->blocks_in_MCU <= D_MAX_BLOCKS_IN_MCU;
}

static const struct huffman_table *make_table(struct huffman_table *tables, int number,
                                              JHUFF_TBL *const *sources, bool is_ac)
{
    struct huffman_code code = {.count = {0}};
    if (number < 0 || number >= TABLES || sources[number] == NULL) {
        return NULL;
    }
    memcpy(code.count + 1, sources[number]->bits + 1, HUFFMAN_CODE_BITS_MAX);
    memcpy(code.symbol, sources[number]->huffval, HUFFMAN_SYMBOLS_MAX);
    return huffman_table_make(&tables[number], &code, is_ac) ? &tables[number] : NULL;
}

static bool find_tables(struct jpeg_entropy *entropy, j_decompress_ptr codec)
{
    for (int i = 0; i < codec->blocks_in_MCU; i++) {
        int component = codec->MCU_membership[i];
        const jpeg_component_info *info = codec->cur_comp_info[component];
        entropy->blocks[i] = (struct mcu_block){
            .dc_table =
                make_table(entropy->dc_tables, info->dc_tbl_no, codec->dc_huff_tbl_ptrs, false),
            .ac_table =
                make_table(entropy->ac_tables, info->ac_tbl_no, codec->ac_huff_tbl_ptrs, true),
            .component = component,
        };
        if (entropy->blocks[i].dc_table == NULL || entropy->blocks[i].ac_table == NULL) {
            return false;
        }
    }
    entropy->block_count = codec->blocks_in_MCU;
    return true;
}

static bool reserve_clean(struct jpeg_entropy *entropy, size_t size_bytes)
{
    size_t need = size_bytes + HUFFMAN_TAIL_BYTES;
    if (need > entropy->clean_bytes || entropy->clean_bytes > KEPT_BYTES_MAX) {
        free(entropy->clean);
        entropy->clean = malloc(need);
        entropy->clean_bytes = entropy->clean != NULL ? need : 0;
    }
    return entropy->clean != NULL;
}

bool jpeg_entropy_attach(struct jpeg_entropy *entropy, j_decompress_ptr codec,
                         void (*give_up)(j_decompress_ptr codec))
{
    const uint8_t *next = codec->src->next_input_byte;
    if (!is_ours(codec) || !find_tables(entropy, codec) ||
        !reserve_clean(entropy, codec->src->bytes_in_buffer)) {
        return false;
    }
    entropy->interface = (struct jpeg_entropy_decoder){
        .start_pass = start_pass,
        .decode_mcu = decode_mcu,
    };
    entropy->give_up = give_up;
    entropy->end = next + codec->src->bytes_in_buffer;
    entropy->column = 0;
    entropy->row = 0;
    entropy->columns = codec->MCUs_per_row;
    entropy->rows = codec->MCU_rows_in_scan;
    entropy->wanted_first = codec->master->first_iMCU_col;
    entropy->wanted_last = codec->master->last_iMCU_col;
    entropy->restart_interval = codec->restart_interval;
    entropy->restart_number = 0;
    if (!begin_data(entropy, next)) {
        return false;
    }
    codec->entropy = &entropy->interface;
    return true;
}

void jpeg_entropy_next(j_decompress_ptr codec, JBLOCKROW *target)
{
    codec->entropy->decode_mcu(codec, target);
}

bool jpeg_entropy_is_used_up(const struct jpeg_entropy *entropy)
{
    return entropy->row == entropy->rows && huffman_bits_left(&entropy->bits) < 8;
}
