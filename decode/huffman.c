#include "decode/huffman.h"

#include <string.h>

enum {
    LOOKS = 1 << HUFFMAN_LOOK_BITS,
    BLOCK_COEFFICIENTS = 64,
    RUN_END = 64, /* run of an entry that ends the block */
};

/* The parts of an entry. */
#define ENTRY_BITS(entry)      ((entry)&63)
#define ENTRY_CODE_BITS(entry) ((entry) >> 8 & 15)
#define ENTRY_SIZE(entry)      ((entry) >> 12 & 15)
#define ENTRY_RUN(entry)       ((entry) >> 16)

/* Place of the k-th coefficient of the zigzag in a block of rows. */
static const uint8_t natural_order[BLOCK_COEFFICIENTS] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
};

/* ---- Tables ------------------------------------------------------------------------------------
 */

static uint32_t make_entry(uint32_t symbol, uint32_t code_bits, bool is_ac)
{
    uint32_t size = symbol & 15;
    uint32_t run = is_ac ? symbol >> 4 : 0;
    if (is_ac && size == 0 && run != 15) {
        run = RUN_END;
    }
    return (code_bits + size) | code_bits << 8 | size << 12 | run << 16;
}

/* Fill the look-ups that begin with each code of up to HUFFMAN_LOOK_BITS. */
static void make_looks(struct huffman_table *table, bool is_ac)
{
    uint32_t code = 0;
    uint32_t place = 0;
    memset(table->look, 0, sizeof table->look);
    for (uint32_t length = 1; length <= HUFFMAN_LOOK_BITS; length++) {
        for (uint32_t i = 0; i < table->code.count[length]; i++, place++, code++) {
            uint32_t rest_bits = HUFFMAN_LOOK_BITS - length;
            uint32_t entry = make_entry(table->code.symbol[place], length, is_ac);
            for (uint32_t rest = 0; rest < 1u << rest_bits; rest++) {
                table->look[code << rest_bits | rest] = entry;
            }
        }
        code <<= 1;
    }
}

/* As many coefficients as the bits of one look-up hold the codes of. */
static uint16_t skip_entry(const struct huffman_table *table, uint32_t look)
{
    uint32_t used = 0;
    uint32_t advance = 0;
    while (used < HUFFMAN_LOOK_BITS && advance < BLOCK_COEFFICIENTS) {
        uint32_t entry = table->look[look << used & (LOOKS - 1)];
        if (entry == 0 || used + ENTRY_CODE_BITS(entry) > HUFFMAN_LOOK_BITS) {
            break; /* its code goes beyond the bits that are known here */
        }
        used += ENTRY_BITS(entry);
        if (ENTRY_RUN(entry) == RUN_END) {
            return (uint16_t)(used | advance << 5 | HUFFMAN_SKIP_END);
        }
        advance += ENTRY_RUN(entry) + 1;
    }
    return (uint16_t)(used | advance << 5);
}

/* Coefficients of 8-bit images have at most 10 bits, differences of DC 11; so two symbols never
 * have more than the 56 bits that a refill promises. */
static bool has_ordinary_sizes(const struct huffman_code *code, uint32_t symbol_count, bool is_ac)
{
    for (uint32_t i = 0; i < symbol_count; i++) {
        if ((is_ac ? code->symbol[i] & 15 : code->symbol[i]) > (is_ac ? 10 : 11)) {
            return false;
        }
    }
    return true;
}

/* Limits and offsets of codes by length, and whether they are a code that we take. */
static bool make_limits(struct huffman_table *table, bool is_ac)
{
    uint32_t code = 0;
    uint32_t place = 0;
    for (uint32_t length = 1; length <= HUFFMAN_CODE_BITS_MAX; length++) {
        table->offset[length] = (int32_t)place - (int32_t)code;
        code += table->code.count[length];
        place += table->code.count[length];
        if (code > 1u << length || place > HUFFMAN_SYMBOLS_MAX) {
            return false;
        }
        table->limit[length] = code << (HUFFMAN_CODE_BITS_MAX - length);
        code <<= 1;
    }
    return has_ordinary_sizes(&table->code, place, is_ac);
}

bool huffman_table_make(struct huffman_table *table, const struct huffman_code *code, bool is_ac)
{
    if (table->is_made && memcmp(&table->code, code, sizeof *code) == 0) {
        return true;
    }
    table->code = *code;
    table->is_made = make_limits(table, is_ac);
    if (!table->is_made) {
        return false;
    }
    make_looks(table, is_ac);
    for (uint32_t look = 0; look < LOOKS && is_ac; look++) {
        table->skip[look] = skip_entry(table, look);
    }
    return true;
}

/* ---- Bits --------------------------------------------------------------------------------------
 */

size_t huffman_clean(const uint8_t *bytes, const uint8_t *end, uint8_t *target,
                     const uint8_t **stop)
{
    uint8_t *to = target;
    for (;;) {
        const uint8_t *mark = memchr(bytes, 0xff, (size_t)(end - bytes));
        bool is_data = mark != NULL && end - mark > 1 && mark[1] == 0;
        const uint8_t *until = mark == NULL ? end : mark + is_data;
        memcpy(to, bytes, (size_t)(until - bytes));
        to += until - bytes;
        bytes = until;
        if (!is_data) {
            break;
        }
        bytes++; /* over the zero */
    }
    memset(to, 0, HUFFMAN_TAIL_BYTES);
    *stop = bytes;
    return (size_t)(to - target);
}

struct huffman_bits huffman_bits_begin(const uint8_t *clean, size_t size_bytes)
{
    return (struct huffman_bits){.next = clean, .end = clean + size_bytes};
}

int64_t huffman_bits_left(const struct huffman_bits *bits)
{
    return 8 * (int64_t)(bits->end - bits->next) + bits->count;
}

/* Have at least 56 bits. What is loaded depends on `next` alone, which is known long before: the
 * load waits for nothing. Bits beyond `count` are put there, too; they are the same again when
 * they are loaded the next time. */
static inline __attribute__((always_inline)) void refill(struct huffman_bits *bits)
{
    uint64_t word;
    memcpy(&word, bits->next, sizeof word);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    bits->bits |= word >> bits->count;
    bits->next += (63 - bits->count) >> 3;
    bits->count |= 56;
}

static inline __attribute__((always_inline)) uint32_t look(const struct huffman_bits *bits)
{
    return (uint32_t)(bits->bits >> (64 - HUFFMAN_LOOK_BITS));
}

static inline __attribute__((always_inline)) void drop(struct huffman_bits *bits, uint32_t count)
{
    bits->bits <<= count;
    bits->count -= count;
}

/* ---- Symbols -----------------------------------------------------------------------------------
 */

/* The entry of a symbol whose code is longer than a look-up, made on the spot; 0 if there is no
 * such code. Needs 16 bits. */
static __attribute__((noinline)) uint32_t long_entry(uint64_t bits,
                                                     const struct huffman_table *table, bool is_ac)
{
    uint32_t ahead = (uint32_t)(bits >> (64 - HUFFMAN_CODE_BITS_MAX));
    for (uint32_t length = HUFFMAN_LOOK_BITS + 1; length <= HUFFMAN_CODE_BITS_MAX; length++) {
        if (ahead < table->limit[length]) {
            uint32_t code = ahead >> (HUFFMAN_CODE_BITS_MAX - length);
            uint32_t symbol = table->code.symbol[(int32_t)code + table->offset[length]];
            /* The bits of the code do not fit their field: take_symbol() works them out. */
            return make_entry(symbol, 0, is_ac) + length;
        }
    }
    return 0;
}

/* The value that follows the code at the head of `bits`: those whose first bit is 0 are negative
 * (T.81, figure F.12). */
static inline __attribute__((always_inline)) int32_t value_of(uint64_t bits, uint32_t code_bits,
                                                              uint32_t size)
{
    uint64_t value = bits << code_bits;
    int32_t below = (1 - (1 << size)) & ~(int32_t)((int64_t)value >> 63);
    return (int32_t)((value >> 1) >> (63 - size)) + below;
}

/* The next symbol's entry; its value is in *value and its bits are dropped. 0: there
 * is no such code. */
static inline __attribute__((always_inline)) uint32_t take_symbol(struct huffman_bits *bits,
                                                                  const struct huffman_table *table,
                                                                  bool is_ac, int32_t *value)
{
    uint32_t entry = table->look[look(bits)];
    uint32_t code_bits = ENTRY_CODE_BITS(entry);
    if (__builtin_expect(entry == 0, 0)) {
        entry = long_entry(bits->bits, table, is_ac);
        code_bits = ENTRY_BITS(entry) - ENTRY_SIZE(entry);
    }
    *value = value_of(bits->bits, code_bits, ENTRY_SIZE(entry));
    drop(bits, ENTRY_BITS(entry));
    return entry;
}

static inline __attribute__((always_inline)) bool
decode_dc(struct huffman_bits *bits, const struct huffman_table *table, int32_t *dc)
{
    int32_t difference;
    refill(bits);
    uint32_t entry = take_symbol(bits, table, false, &difference);
    *dc += difference;
    return entry != 0 && *dc >= INT16_MIN && *dc <= INT16_MAX;
}

/* One coefficient; k becomes the place of the next. False at the end of the block, when k is 64,
 * and at something odd. */
static inline __attribute__((always_inline)) bool
decode_ac(struct huffman_bits *bits, const struct huffman_table *table, uint32_t *k, int16_t *block)
{
    int32_t value;
    uint32_t entry = take_symbol(bits, table, true, &value);
    uint32_t place = *k + ENTRY_RUN(entry);
    if (__builtin_expect(place >= BLOCK_COEFFICIENTS || entry == 0, 0)) {
        bool is_end = ENTRY_RUN(entry) == RUN_END;
        *k = is_end ? BLOCK_COEFFICIENTS : BLOCK_COEFFICIENTS + 1;
        return false;
    }
    block[natural_order[place]] = (int16_t)value;
    *k = place + 1;
    return *k < BLOCK_COEFFICIENTS;
}

bool huffman_decode_block(struct huffman_bits *caller_bits, const struct huffman_table *dc_table,
                          const struct huffman_table *ac_table, int32_t *dc, int16_t *block)
{
    struct huffman_bits bits = *caller_bits; /* in registers */
    if (!decode_dc(&bits, dc_table, dc)) {
        return false;
    }
    block[0] = (int16_t)*dc;
    uint32_t k = 1;
    do {
        refill(&bits); /* enough for two symbols of at most 16 + 10 bits */
        if (!decode_ac(&bits, ac_table, &k, block)) {
            break;
        }
    } while (decode_ac(&bits, ac_table, &k, block));
    *caller_bits = bits;
    return k == BLOCK_COEFFICIENTS && huffman_bits_left(&bits) >= 0;
}

/* Pass over one coefficient; false at something odd. */
static bool skip_one(struct huffman_bits *bits, const struct huffman_table *table, uint32_t *k)
{
    int32_t value;
    uint32_t entry = take_symbol(bits, table, true, &value);
    uint32_t run = ENTRY_RUN(entry);
    *k = run == RUN_END ? BLOCK_COEFFICIENTS : *k + run + 1;
    return entry != 0 && *k <= BLOCK_COEFFICIENTS;
}

bool huffman_skip_block(struct huffman_bits *caller_bits, const struct huffman_table *dc_table,
                        const struct huffman_table *ac_table, int32_t *dc)
{
    struct huffman_bits bits = *caller_bits;
    if (!decode_dc(&bits, dc_table, dc)) {
        return false;
    }
    for (uint32_t k = 1; k < BLOCK_COEFFICIENTS;) {
        refill(&bits);
        uint32_t entry = ac_table->skip[look(&bits)];
        uint32_t after = k + (entry >> 5 & 127);
        /* An entry may hold more than is left of this block. */
        if (__builtin_expect((entry & 31) != 0 && after < BLOCK_COEFFICIENTS, 1)) {
            drop(&bits, entry & 31);
            k = entry & HUFFMAN_SKIP_END ? BLOCK_COEFFICIENTS : after;
        } else if (!skip_one(&bits, ac_table, &k)) {
            return false;
        }
    }
    *caller_bits = bits;
    return huffman_bits_left(&bits) >= 0;
}
