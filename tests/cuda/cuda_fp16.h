/* cuda_fp16.h - as much of CUDA's header as clients/cuda/pack.cu needs, on the CPU: cuda_double.cc.
 */
#ifndef PENSTOCK_TESTS_CUDA_FP16_H
#define PENSTOCK_TESTS_CUDA_FP16_H

#ifdef __cplusplus

struct __half {
    _Float16 value;
    __half() = default;
    explicit __half(float from) : value(static_cast<_Float16>(from))
    {
    }
};

inline __half __float2half_rn(float value)
{
    return __half(value);
}

#endif /* __cplusplus */
#endif /* PENSTOCK_TESTS_CUDA_FP16_H */
