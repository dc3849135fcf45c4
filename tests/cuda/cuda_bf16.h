/* cuda_bf16.h - as much of CUDA's header as clients/cuda/pack.cu needs, on the CPU: cuda_double.cc.
 */
#ifndef PENSTOCK_TESTS_CUDA_BF16_H
#define PENSTOCK_TESTS_CUDA_BF16_H

#ifdef __cplusplus

#include <cstdint>
#include <cstring>

/* To nearest, ties to even; not for NaN, which no pixel gives. */
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    explicit __nv_bfloat16(float value)
    {
        uint32_t all;
        std::memcpy(&all, &value, sizeof all);
        uint32_t rest = all & 0xffff;
        uint32_t kept = all >> 16;
        bool is_up = rest > 0x8000 || (rest == 0x8000 && kept % 2 == 1);
        bits = static_cast<uint16_t>(kept + (is_up ? 1 : 0));
    }
};

inline __nv_bfloat16 __float2bfloat16_rn(float value)
{
    return __nv_bfloat16(value);
}

#endif /* __cplusplus */
#endif /* PENSTOCK_TESTS_CUDA_BF16_H */
