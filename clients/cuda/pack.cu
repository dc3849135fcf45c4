/*
 * pack.cu - bytes, red-green-blue by pixel, to finished tensors, on the device (pack_job.h).
 *
 * Memory-bound: a thread reads four pixels as three words and writes each channel's four values
 * at once. Built into an image of machine code for several generations of GPU, which the client
 * loads at run time; so nothing here depends on a version of the CUDA runtime.
 */
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "clients/cuda/pack_job.h"

namespace
{

/* The intrinsics round each step: nothing is contracted to a fused multiply-add. */
__device__ float pack_value(const pack_job &job, uint32_t pixel, int channel)
{
    float value = __fmul_rn(static_cast<float>(pixel), job.scale);
    if (job.normalize != 0) {
        value = __fdiv_rn(__fsub_rn(value, job.mean[channel]), job.std[channel]);
    }
    return value;
}

template <typename Value> __device__ Value rounded(float value);

template <> __device__ float rounded<float>(float value)
{
    return value;
}

template <> __device__ __half rounded<__half>(float value)
{
    return __float2half_rn(value);
}

template <> __device__ __nv_bfloat16 rounded<__nv_bfloat16>(float value)
{
    return __float2bfloat16_rn(value);
}

template <typename Value> __device__ Value packed(const pack_job &job, uint32_t pixel, int channel)
{
    return rounded<Value>(pack_value(job, pixel, channel));
}

template <> __device__ uint8_t packed<uint8_t>(const pack_job &, uint32_t pixel, int)
{
    return static_cast<uint8_t>(pixel);
}

/* Values that are stored at once, where their address is a multiple of their size. */
template <typename Value, int COUNT> struct alignas(sizeof(Value) * COUNT) run {
    Value value[COUNT];
};

/* `PIXELS` pixels of picture `picture` from pixel `first` on. */
template <typename Value, int PIXELS>
__device__ void pack_run(const pack_job &job, uint64_t picture, uint32_t first)
{
    const uint64_t begin = picture * job.pixel_count;
    const bool is_valid =
        job.is_valid == 0 || reinterpret_cast<const uint8_t *>(job.is_valid)[picture] != 0;
    alignas(4) uint8_t pixel[3 * PIXELS];
    const uint8_t *source = reinterpret_cast<const uint8_t *>(job.source) + 3 * (begin + first);
    if (PIXELS % 4 == 0) {
        for (int i = 0; i < 3 * PIXELS / 4; i++) {
            reinterpret_cast<uint32_t *>(pixel)[i] = reinterpret_cast<const uint32_t *>(source)[i];
        }
    } else {
        for (int i = 0; i < 3 * PIXELS; i++) {
            pixel[i] = source[i];
        }
    }
    Value *target = reinterpret_cast<Value *>(job.target) + 3 * begin;
    const Value zero = static_cast<Value>(0.0f);
    if (job.is_planar != 0) {
#pragma unroll
        for (int channel = 0; channel < 3; channel++) {
            run<Value, PIXELS> plane;
#pragma unroll
            for (int i = 0; i < PIXELS; i++) {
                plane.value[i] =
                    is_valid ? packed<Value>(job, pixel[3 * i + channel], channel) : zero;
            }
            Value *at = target + static_cast<uint64_t>(channel) * job.pixel_count + first;
            *reinterpret_cast<run<Value, PIXELS> *>(at) = plane;
        }
        return;
    }
#pragma unroll
    for (int part = 0; part < 3; part++) {
        run<Value, PIXELS> values;
#pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            const int at = part * PIXELS + i;
            values.value[i] = is_valid ? packed<Value>(job, pixel[at], at % 3) : zero;
        }
        *reinterpret_cast<run<Value, PIXELS> *>(target + 3 * static_cast<uint64_t>(first) +
                                                part * PIXELS) = values;
    }
}

template <typename Value> __device__ void pack(const pack_job &job)
{
    const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * PACK_JOB_THREADS + threadIdx.x;
    const bool is_whole = job.pixel_count % PACK_JOB_RUN_PIXELS == 0;
    const uint32_t runs = is_whole ? job.pixel_count / PACK_JOB_RUN_PIXELS : job.pixel_count;
    const uint64_t picture = thread / runs;
    if (picture >= job.picture_count) {
        return;
    }
    const uint32_t place = static_cast<uint32_t>(thread % runs);
    if (is_whole) {
        pack_run<Value, PACK_JOB_RUN_PIXELS>(job, picture, place * PACK_JOB_RUN_PIXELS);
    } else {
        pack_run<Value, 1>(job, picture, place);
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(PACK_JOB_THREADS) penstock_pack(const pack_job job)
{
    switch (job.dtype) {
    case PACK_JOB_U8: pack<uint8_t>(job); return;
    case PACK_JOB_F32: pack<float>(job); return;
    case PACK_JOB_F16: pack<__half>(job); return;
    case PACK_JOB_BF16: pack<__nv_bfloat16>(job); return;
    }
}
