#include "decode/huffman.h"

#include <string.h>

enum {
    LOOKS = 1 << HUFFMAN_LOOK_BITS,
    BLOCK_COEFFICIENTS = 64,
    SYMBOL_BITS_MAX = 32, /* a code of 16 and a value of 15, rounded up */
    RUN_END = 15,         /* run of an entry that ends the block; its size and value are 0 */
};

#define ENTRY_END 0x80u /* flag in the byte of bits to drop */

/* Place of the k-th coefficient of the zigzag in a block of rows. */
static const uint8_t natural_order[BLOCK_COEFFICIENTS] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
};

/* ---- Tables ------------------------------------------------------------------------------------
 */

/* The value that `size` bits stand for: those below half are negative. */
static int32_t extend(uint32_t bits, uint32_t size)
{
    int32_t value = (int32_t)bits;
    return size > 0 && value < 1 << (size - 1) ? value - (1 << size) + 1 : value;
}

/* The entry of a symbol whose code has `length` bits, when the look-up's bits begin with it and go
 * on with `rest` (rest_bits of them). */
static uint32_t look_entry(uint32_t symbol, uint32_t length, uint32_t rest, uint32_t rest_bits,
                           bool is_ac)
{
    uint32_t run = is_ac ? symbol >> 4 : 0;
    uint32_t size = symbol & 15;
    if (is_ac && size == 0 && run != 15) {
        return length | ENTRY_END | RUN_END << 8;
    }
    if (size <= rest_bits) {
        int32_t value = extend(rest >> (rest_bits - size), size);
        return (length + size) | run << 8 | (uint32_t)value << 16;
    }
    return length | run << 8 | size << 12;
}

/* Fill the look-ups that begin with each code of up to HUFFMAN_LOOK_BITS; code_bits[] receives the
 * length of that code, 0 where it is longer. */
static void make_looks(struct huffman_table *table, bool is_ac, uint8_t code_bits[LOOKS])
{
    uint32_t code = 0;
    uint32_t place = 0;
    memset(table->look, 0, sizeof table->look);
    memset(code_bits, 0, LOOKS);
    for (uint32_t length = 1; length <= HUFFMAN_LOOK_BITS; length++) {
        for (uint32_t i = 0; i < table->code.count[length]; i++, place++, code++) {
            uint32_t rest_bits = HUFFMAN_LOOK_BITS - length;
            for (uint32_t rest = 0; rest < 1u << rest_bits; rest++) {
                uint32_t look = code << rest_bits | rest;
                table->look[look] =
                    look_entry(table->code.symbol[place], length, rest, rest_bits, is_ac);
                code_bits[look] = (uint8_t)length;
            }
        }
        code <<= 1;
    }
}

/* As many coefficients as the bits of one look-up hold the codes of. */
static uint16_t skip_entry(const struct huffman_table *table, const uint8_t code_bits[LOOKS],
                           uint32_t look)
{
    enum { ADVANCE_MAX = 64 }; /* a block has no more */
    uint32_t used = 0;
    uint32_t advance = 0;
    while (used < HUFFMAN_LOOK_BITS && advance < ADVANCE_MAX) {
        uint32_t ahead = look << used & (LOOKS - 1);
        uint32_t entry = table->look[ahead];
        if (code_bits[ahead] == 0 || used + code_bits[ahead] > HUFFMAN_LOOK_BITS) {
            break; /* its code goes beyond the bits that are known here */
        }
        if (entry & ENTRY_END) {
            return (uint16_t)((used + code_bits[ahead]) | advance << 5 | HUFFMAN_SKIP_END);
        }
        used += (entry & 0x7f) + (entry >> 12 & 15);
        advance += (entry >> 8 & 15) + 1;
    }
    return (uint16_t)(used | advance << 5);
}

/* Limits and offsets of codes by length, and whether they are a code at all. */
static bool make_limits(struct huffman_table *table)
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
    return true;
}

bool huffman_table_make(struct huffman_table *table, const struct huffman_code *code, bool is_ac)
{
    if (table->is_made && memcmp(&table->code, code, sizeof *code) == 0) {
        return true;
    }
    uint8_t code_bits[LOOKS];
    table->code = *code;
    table->is_made = make_limits(table);
    if (!table->is_made) {
        return false;
    }
    make_looks(table, is_ac, code_bits);
    for (uint32_t look = 0; look < LOOKS && is_ac; look++) {
        table->skip[look] = skip_entry(table, code_bits, look);
    }
    return true;
}

/* ---- Bits --------------------------------------------------------------------------------------
 */

struct huffman_bits huffman_bits_begin(const uint8_t *bytes, const uint8_t *end)
{
    return (struct huffman_bits){.next = bytes, .end = end};
}

/* Byte by byte, where 0xff is near: 0xff00 stands for 0xff, anything else is a marker. */
static void refill_slowly(struct huffman_bits *bits)
{
    while (bits->count <= 56) {
        uint64_t byte = 0;
        bool is_data = bits->next < bits->end && bits->made_up == 0;
        if (is_data) {
            byte = *bits->next;
            if (byte == 0xff) {
                is_data = bits->end - bits->next > 1 && bits->next[1] == 0;
                bits->next += is_data; /* over the zero, too */
            }
        }
        if (is_data) {
            bits->next++;
        } else {
            byte = 0;
            bits->made_up += 8;
        }
        bits->bits |= byte << (56 - bits->count);
        bits->count += 8;
    }
}

/* Have at least 56 bits ready. */
static inline __attribute__((always_inline)) void refill(struct huffman_bits *bits)
{
    if (__builtin_expect(bits->end - bits->next >= 8, 1)) {
        uint64_t word;
        memcpy(&word, bits->next, sizeof word);
        uint64_t inverse = ~word;
        bool has_ff = (inverse - 0x0101010101010101u) & ~inverse & 0x8080808080808080u;
        if (__builtin_expect(!has_ff && bits->made_up == 0, 1)) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            word = __builtin_bswap64(word);
#endif
            int32_t bytes = (63 - bits->count) >> 3;
            bits->bits |= word >> bits->count;
            bits->count += 8 * bytes;
            /* Bits beyond `count` were put there, too: they are the same when they come again. */
            bits->next += bytes;
            return;
        }
    }
    bits->bits &= bits->count == 0 ? 0 : ~(uint64_t)0 << (64 - bits->count);
    refill_slowly(bits);
}

static inline __attribute__((always_inline)) uint32_t peek(const struct huffman_bits *bits,
                                                           uint32_t count)
{
    return (uint32_t)(bits->bits >> (64 - count));
}

static inline __attribute__((always_inline)) void drop(struct huffman_bits *bits, uint32_t count)
{
    bits->bits <<= count;
    bits->count -= (int32_t)count;
}

bool huffman_bits_restart(struct huffman_bits *bits, unsigned number)
{
    int32_t padding = bits->count - bits->made_up;
    if (padding < 0 || padding >= 8 || bits->end - bits->next < 2 || bits->next[0] != 0xff ||
        bits->next[1] != 0xd0 + number) {
        return false;
    }
    *bits = huffman_bits_begin(bits->next + 2, bits->end);
    return true;
}

/* ---- Symbols -----------------------------------------------------------------------------------
 */

/* A symbol whose code is longer than a look-up; -1 if there is none. */
static int32_t long_symbol(struct huffman_bits *bits, const struct huffman_table *table)
{
    uint32_t ahead = peek(bits, HUFFMAN_CODE_BITS_MAX);
    for (uint32_t length = HUFFMAN_LOOK_BITS + 1; length <= HUFFMAN_CODE_BITS_MAX; length++) {
        if (ahead < table->limit[length]) {
            uint32_t code = ahead >> (HUFFMAN_CODE_BITS_MAX - length);
            drop(bits, length);
            return table->code.symbol[(int32_t)code + table->offset[length]];
        }
    }
    return -1;
}

/* The value of an entry, its bits dropped. */
static inline __attribute__((always_inline)) int32_t take_value(struct huffman_bits *bits,
                                                                uint32_t entry)
{
    uint32_t size = entry >> 12 & 15;
    drop(bits, entry & 0x7f);
    if (__builtin_expect(size == 0, 1)) {
        return (int16_t)(entry >> 16);
    }
    int32_t value = extend(peek(bits, size), size);
    drop(bits, size);
    return value;
}

static inline __attribute__((always_inline)) bool
decode_dc(struct huffman_bits *bits, const struct huffman_table *table, int32_t *dc)
{
    if (bits->count < SYMBOL_BITS_MAX) {
        refill(bits);
    }
    uint32_t entry = table->look[peek(bits, HUFFMAN_LOOK_BITS)];
    int32_t difference;
    if (__builtin_expect(entry != 0, 1)) {
        difference = take_value(bits, entry);
    } else {
        int32_t size = long_symbol(bits, table);
        if (size < 0 || size > 15) {
            return false;
        }
        difference = size == 0 ? 0 : extend(peek(bits, (uint32_t)size), (uint32_t)size);
        drop(bits, (uint32_t)size);
    }
    *dc += difference;
    return *dc >= INT16_MIN && *dc <= INT16_MAX;
}

/* Were only bits used that were there? */
static inline bool is_honest(const struct huffman_bits *bits)
{
    return bits->count >= bits->made_up;
}

bool huffman_decode_block(struct huffman_bits *caller_bits, const struct huffman_table *dc_table,
                          const struct huffman_table *ac_table, int32_t *dc, int16_t *block)
{
    struct huffman_bits bits = *caller_bits; /* in registers */
    if (!decode_dc(&bits, dc_table, dc)) {
        return false;
    }
    block[0] = (int16_t)*dc;
    for (uint32_t k = 1; k < BLOCK_COEFFICIENTS; k++) {
        if (bits.count < SYMBOL_BITS_MAX) {
            refill(&bits);
        }
        uint32_t entry = ac_table->look[peek(&bits, HUFFMAN_LOOK_BITS)];
        uint32_t size = entry >> 12 & 15;
        uint32_t run = entry >> 8 & 15;
        int32_t value = (int16_t)(entry >> 16);
        if (__builtin_expect(entry == 0, 0)) {
            int32_t symbol = long_symbol(&bits, ac_table);
            if (symbol < 0) {
                return false;
            }
            run = (uint32_t)symbol >> 4;
            size = (uint32_t)symbol & 15;
            if (size == 0 && run != 15) {
                break;
            }
            value = 0;
        } else {
            drop(&bits, entry & 0x7f);
            if (entry & ENTRY_END) {
                break;
            }
        }
        if (size != 0) {
            value = extend(peek(&bits, size), size);
            drop(&bits, size);
        }
        k += run;
        if (__builtin_expect(k >= BLOCK_COEFFICIENTS, 0)) {
            return false;
        }
        block[natural_order[k]] = (int16_t)value;
    }
    *caller_bits = bits;
    return is_honest(&bits);
}

/* Pass over one coefficient; k becomes that of the next, 64 at the block's end. */
static bool skip_one(struct huffman_bits *bits, const struct huffman_table *table, uint32_t *k)
{
    uint32_t entry = table->look[peek(bits, HUFFMAN_LOOK_BITS)];
    uint32_t run = entry >> 8 & 15;
    uint32_t size = entry >> 12 & 15;
    bool is_end = (entry & ENTRY_END) != 0;
    if (entry == 0) {
        int32_t symbol = long_symbol(bits, table);
        if (symbol < 0) {
            return false;
        }
        run = (uint32_t)symbol >> 4;
        size = (uint32_t)symbol & 15;
        is_end = size == 0 && run != 15;
        entry = 0;
    }
    drop(bits, (entry & 0x7f) + (is_end ? 0 : size));
    *k = is_end ? BLOCK_COEFFICIENTS : *k + run + 1;
    return *k <= BLOCK_COEFFICIENTS;
}

bool huffman_skip_block(struct huffman_bits *caller_bits, const struct huffman_table *dc_table,
                        const struct huffman_table *ac_table, int32_t *dc)
{
    struct huffman_bits bits = *caller_bits;
    if (!decode_dc(&bits, dc_table, dc)) {
        return false;
    }
    for (uint32_t k = 1; k < BLOCK_COEFFICIENTS;) {
        if (bits.count < SYMBOL_BITS_MAX) {
            refill(&bits);
        }
        uint32_t entry = ac_table->skip[peek(&bits, HUFFMAN_LOOK_BITS)];
        uint32_t after = k + (entry >> 5 & 127);
        /* An entry may hold more than is left of this block. */
        if (__builtin_expect((entry & 31) != 0 && after < BLOCK_COEFFICIENTS, 1)) {
            drop(&bits, entry & 31);
            if (entry & HUFFMAN_SKIP_END) {
                break;
            }
            k = after;
        } else if (!skip_one(&bits, ac_table, &k)) {
            return false;
        }
    }
    *caller_bits = bits;
    return is_honest(&bits);
}
