/*
 * block_kernels_vector.h - the kernels whose text is the same for both widths of x86's vectors.
 *
 * Included by block_kernels_avx2.c and block_kernels_avx512.c, once each, after they have defined
 * for their width: the type `vec`, VEC_BYTES, the operations V_* below, load_rows(), store_rows(),
 * store_interleaved() and store_rgb(). A vector is 2 or 4 lanes of 128 bits; unpacking and packing
 * stay in the lanes.
 * By itself it is empty.
 */
#ifndef PENSTOCK_DECODE_BLOCK_KERNELS_VECTOR_H
#define PENSTOCK_DECODE_BLOCK_KERNELS_VECTOR_H

#ifdef VEC_BYTES

enum { CONST_BITS = 13, PASS1_BITS = 2, LANES = VEC_BYTES / 16 };

/* ---- idct: a lane is a block, a vector the same row of all ------------------------------------
 */

/* Two numbers of 16 bits, in every element of 32. */
static inline vec pair(int32_t low, int32_t high)
{
    return V_SET1_32((int32_t)((uint32_t)low & 0xffff) | (int32_t)((uint32_t)high << 16));
}

/* The halves of a sum of 32 bits. */
struct wide {
    vec low, high;
};

static inline struct wide wide_add(struct wide a, struct wide b)
{
    return (struct wide){V_ADD32(a.low, b.low), V_ADD32(a.high, b.high)};
}

static inline struct wide wide_sub(struct wide a, struct wide b)
{
    return (struct wide){V_SUB32(a.low, b.low), V_SUB32(a.high, b.high)};
}

/* a * x + b * y */
static inline struct wide rotate(struct wide xy, int32_t a, int32_t b)
{
    return (struct wide){V_MADD(xy.low, pair(a, b)), V_MADD(xy.high, pair(a, b))};
}

static inline struct wide interleave(vec x, vec y)
{
    return (struct wide){V_UNPACKLO16(x, y), V_UNPACKHI16(x, y)};
}

/* (x << CONST_BITS) + what rounds the result */
static inline struct wide scale_up(vec x, int bits)
{
    vec zero = V_ZERO(), half = V_SET1_32(1 << (bits - 1));
    return (struct wide){V_ADD32(V_SRAI32(V_UNPACKLO16(zero, x), 16 - CONST_BITS), half),
                         V_ADD32(V_SRAI32(V_UNPACKHI16(zero, x), 16 - CONST_BITS), half)};
}

static inline vec descale(struct wide sum, int bits)
{
    return V_PACKS32(V_SRAI32(sum.low, bits), V_SRAI32(sum.high, bits));
}

/* See idct_1d() in block_kernels.c; the constants have 13 fractional bits. */
static inline __attribute__((always_inline)) void idct_1d(vec x[8], int bits)
{
    struct wide in26 = interleave(x[2], x[6]);
    struct wide even2 = rotate(in26, 4433, 4433 - 15137), even3 = rotate(in26, 4433 + 6270, 4433);
    struct wide even0 = scale_up(V_ADD16(x[0], x[4]), bits);
    struct wide even1 = scale_up(V_SUB16(x[0], x[4]), bits);
    struct wide even[4] = {wide_add(even0, even3), wide_add(even1, even2), wide_sub(even1, even2),
                           wide_sub(even0, even3)};

    struct wide z34 = interleave(V_ADD16(x[7], x[3]), V_ADD16(x[5], x[1]));
    struct wide w3 = rotate(z34, 9633 - 16069, 9633), w4 = rotate(z34, 9633, 9633 - 3196);
    struct wide in71 = interleave(x[7], x[1]), in53 = interleave(x[5], x[3]);
    struct wide odd[4] = {
        wide_add(w4, rotate(in71, -7373, 12299 - 7373)),
        wide_add(w3, rotate(in53, -20995, 25172 - 20995)),
        wide_add(w4, rotate(in53, 16819 - 20995, -20995)),
        wide_add(w3, rotate(in71, 2446 - 7373, -7373)),
    };
    for (int i = 0; i < 4; i++) {
        x[i] = descale(wide_add(even[i], odd[i]), bits);
        x[7 - i] = descale(wide_sub(even[i], odd[i]), bits);
    }
}

static inline __attribute__((always_inline)) void transpose(vec x[8])
{
    vec a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = V_UNPACKLO16(x[i], x[i + 4]);
        a[2 * i + 1] = V_UNPACKHI16(x[i], x[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        b[2 * i] = V_UNPACKLO16(a[i], a[i + 4]);
        b[2 * i + 1] = V_UNPACKHI16(a[i], a[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        x[2 * i] = V_UNPACKLO16(b[i], b[i + 4]);
        x[2 * i + 1] = V_UNPACKHI16(b[i], b[i + 4]);
    }
}

/* Columns of words to rows of bytes: rows 2i and 2i + 1 of a block in the lanes of x[i]. */
static inline __attribute__((always_inline)) void pack_columns(const vec x[8], vec rows[4])
{
    vec a[4], b[4];
    for (int i = 0; i < 4; i++) { /* columns i and i + 4 */
        a[i] = V_PACKS16(x[i], x[i + 4]);
    }
    for (int step = 0; step < 2; step++) { /* perfect shuffles of the 64 bytes */
        b[0] = V_UNPACKLO8(a[0], a[2]);
        b[1] = V_UNPACKHI8(a[0], a[2]);
        b[2] = V_UNPACKLO8(a[1], a[3]);
        b[3] = V_UNPACKHI8(a[1], a[3]);
        memcpy(a, b, sizeof a);
    }
    for (int i = 0; i < 2; i++) { /* columns 0 to 3 of four rows, and 4 to 7 of them */
        b[2 * i] = V_UNPACKLO32(a[i], a[i + 2]);
        b[2 * i + 1] = V_UNPACKHI32(a[i], a[i + 2]);
    }
    for (int i = 0; i < 4; i++) {
        rows[i] = V_ADD8(b[i], V_SET1_8(-128));
    }
}

static void idct(const int16_t *blocks, uint32_t count, uint8_t *samples, size_t stride_bytes)
{
    for (uint32_t i = 0; i < count; i += LANES) {
        vec x[8], rows[4];
        load_rows(blocks + (size_t)i * BLOCK_COEFFICIENTS, x);
        idct_1d(x, CONST_BITS - PASS1_BITS);
        transpose(x);
        idct_1d(x, CONST_BITS + PASS1_BITS + 3);
        pack_columns(x, rows);
        for (size_t pair_of_rows = 0; pair_of_rows < 4; pair_of_rows++) {
            store_rows(rows[pair_of_rows],
                       samples + 2 * pair_of_rows * stride_bytes + 8 * (size_t)i, stride_bytes);
        }
    }
}

/* ---- rows ------------------------------------------------------------------------------------
 */

/* 3 * a + b of bytes, as words: those of the low and of the high half of each lane. */
static inline struct wide weigh(vec a, vec b)
{
    vec zero = V_ZERO();
    vec a_low = V_UNPACKLO8(a, zero), a_high = V_UNPACKHI8(a, zero);
    return (struct wide){
        V_ADD16(V_ADD16(V_ADD16(a_low, a_low), a_low), V_UNPACKLO8(b, zero)),
        V_ADD16(V_ADD16(V_ADD16(a_high, a_high), a_high), V_UNPACKHI8(b, zero)),
    };
}

/* Words to even places, others to odd ones, all below 256. */
static inline vec merge_bytes(vec even, vec odd)
{
    return V_OR(even, V_SLLI16(odd, 8));
}

static void upsample_h2v1(const uint8_t *samples, uint32_t count, uint8_t *target)
{
    for (uint32_t i = 0; i < count; i += VEC_BYTES) {
        vec here = V_LOAD(samples + i);
        struct wide even = weigh(here, V_LOAD(samples + (ptrdiff_t)i - 1));
        struct wide odd = weigh(here, V_LOAD(samples + i + 1));
        vec one = V_SET1_16(1), two = V_SET1_16(2);
        store_interleaved(
            merge_bytes(V_SRLI16(V_ADD16(even.low, one), 2), V_SRLI16(V_ADD16(odd.low, two), 2)),
            merge_bytes(V_SRLI16(V_ADD16(even.high, one), 2), V_SRLI16(V_ADD16(odd.high, two), 2)),
            target + 2 * (size_t)i);
    }
}

/* 3 * near + far of VEC_BYTES / 2 samples as words, in order. */
static inline vec column_sums(const uint8_t *near, const uint8_t *far)
{
    vec sum = V_LOAD_WORDS(near);
    return V_ADD16(V_ADD16(V_ADD16(sum, sum), sum), V_LOAD_WORDS(far));
}

static void upsample_h2v2(const uint8_t *near, const uint8_t *far, uint32_t count, uint8_t *target)
{
    for (uint32_t i = 0; i < count; i += VEC_BYTES / 2) {
        vec here = column_sums(near + i, far + i);
        vec before = column_sums(near + (ptrdiff_t)i - 1, far + (ptrdiff_t)i - 1);
        vec after = column_sums(near + i + 1, far + i + 1);
        vec three = V_ADD16(V_ADD16(here, here), here);
        vec even = V_SRLI16(V_ADD16(V_ADD16(three, before), V_SET1_16(8)), 4);
        vec odd = V_SRLI16(V_ADD16(V_ADD16(three, after), V_SET1_16(7)), 4);
        V_STORE(target + 2 * (size_t)i, merge_bytes(even, odd));
    }
}

struct rgb_words {
    vec red, green, blue;
};

/* The conversion of words. Products with 16 fractional bits, 2^16 times too large; what is larger
 * than 1/2 in magnitude is added whole. Rounding: (floor(2 x) + 1) / 2, rounded down. */
static inline __attribute__((always_inline)) struct rgb_words convert_words(vec y, vec cb, vec cr)
{
    vec one = V_SET1_16(1), cb2 = V_ADD16(cb, cb), cr2 = V_ADD16(cr, cr);
    vec red = V_SRAI16(V_ADD16(V_MULHI16(cr2, V_SET1_16(91881 - 65536)), one), 1);
    vec blue = V_SRAI16(V_ADD16(V_MULHI16(cb2, V_SET1_16(116130 - 2 * 65536)), one), 1);
    struct wide crcb = interleave(cb, cr);
    vec half = V_SET1_32(1 << 15), green_pair = pair(-22554, 65536 - 46802);
    vec green = V_PACKS32(V_SRAI32(V_ADD32(V_MADD(crcb.low, green_pair), half), 16),
                          V_SRAI32(V_ADD32(V_MADD(crcb.high, green_pair), half), 16));
    return (struct rgb_words){V_ADD16(y, V_ADD16(red, cr)), V_ADD16(y, V_SUB16(green, cr)),
                              V_ADD16(y, V_ADD16(blue, cb2))};
}

static void ycc_to_rgb(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, uint32_t count,
                       uint8_t *rgb)
{
    vec zero = V_ZERO(), middle = V_SET1_16(128);
    for (uint32_t i = 0; i < count; i += VEC_BYTES) {
        vec ys = V_LOAD(y + i), cbs = V_LOAD(cb + i), crs = V_LOAD(cr + i);
        struct rgb_words low =
            convert_words(V_UNPACKLO8(ys, zero), V_SUB16(V_UNPACKLO8(cbs, zero), middle),
                          V_SUB16(V_UNPACKLO8(crs, zero), middle));
        struct rgb_words high =
            convert_words(V_UNPACKHI8(ys, zero), V_SUB16(V_UNPACKHI8(cbs, zero), middle),
                          V_SUB16(V_UNPACKHI8(crs, zero), middle));
        store_rgb(V_PACKUS16(low.red, high.red), V_PACKUS16(low.green, high.green),
                  V_PACKUS16(low.blue, high.blue), rgb + 3 * (size_t)i);
    }
}

static void grey_to_rgb(const uint8_t *y, uint32_t count, uint8_t *rgb)
{
    for (uint32_t i = 0; i < count; i += VEC_BYTES) {
        vec ys = V_LOAD(y + i);
        store_rgb(ys, ys, ys, rgb + 3 * (size_t)i);
    }
}

#endif /* VEC_BYTES */

#endif /* PENSTOCK_DECODE_BLOCK_KERNELS_VECTOR_H */
