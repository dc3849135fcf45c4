#include "loader/cache/crc32c.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#endif

/* The remainder of four bits; the polynomial is 0x1edc6f41, reflected. */
static const uint32_t nibble_remainders[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t crc32c_table(const void *bytes, size_t size_bytes)
{
    const uint8_t *at = bytes;
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size_bytes; i++) {
        crc ^= at[i];
        crc = (crc >> 4) ^ nibble_remainders[crc & 15];
        crc = (crc >> 4) ^ nibble_remainders[crc & 15];
    }
    return ~crc;
}

#if defined(__x86_64__)

/* The instruction takes 3 cycles and may be started each cycle: three stretches of data are summed
 * side by side and joined. Moving a sum over n bytes of zeros is a multiplication by x^(8n - 33),
 * the 33 being what the carry-less product and the reduction by the instruction itself add. */
enum { LANE_WORDS = 2730, LANE_BYTES = 8 * LANE_WORDS }; /* three of them make a 64 KiB block */
static const uint32_t over_one_lane = 0x99ab0371, over_two_lanes = 0x4e9e1255;

static inline uint64_t load64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

__attribute__((target("sse4.2,pclmul"))) static uint64_t move_over(uint64_t crc, uint32_t factor)
{
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128(factor), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t sum_fast(const uint8_t *at, size_t size)
{
    uint64_t crc = 0xffffffff;
    while (size >= 3 * LANE_BYTES) {
        uint64_t second = 0, third = 0;
        for (size_t i = 0; i < LANE_BYTES; i += 8) {
            crc = _mm_crc32_u64(crc, load64(at + i));
            second = _mm_crc32_u64(second, load64(at + LANE_BYTES + i));
            third = _mm_crc32_u64(third, load64(at + 2 * (size_t)LANE_BYTES + i));
        }
        crc = move_over(crc, over_two_lanes) ^ move_over(second, over_one_lane) ^ third;
        at += 3 * LANE_BYTES;
        size -= 3 * LANE_BYTES;
    }
    for (; size >= 8; at += 8, size -= 8) {
        crc = _mm_crc32_u64(crc, load64(at));
    }
    for (; size > 0; at++, size--) {
        crc = _mm_crc32_u8((uint32_t)crc, *at);
    }
    return ~(uint32_t)crc;
}

uint32_t crc32c(const void *bytes, size_t size_bytes)
{
    bool has_instructions = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
    return has_instructions ? sum_fast(bytes, size_bytes) : crc32c_table(bytes, size_bytes);
}

#elif defined(__aarch64__)

__attribute__((target("+crc"))) static uint32_t sum_fast(const uint8_t *at, size_t size)
{
    uint32_t crc = 0xffffffff;
    for (; size >= 8; at += 8, size -= 8) {
        uint64_t value;
        memcpy(&value, at, sizeof value);
        crc = __crc32cd(crc, value);
    }
    for (; size > 0; at++, size--) {
        crc = __crc32cb(crc, *at);
    }
    return ~crc;
}

uint32_t crc32c(const void *bytes, size_t size_bytes)
{
    bool has_instructions = (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
    return has_instructions ? sum_fast(bytes, size_bytes) : crc32c_table(bytes, size_bytes);
}

#else

uint32_t crc32c(const void *bytes, size_t size_bytes)
{
    return crc32c_table(bytes, size_bytes);
}

#endif
