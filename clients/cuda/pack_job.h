/*
 * pack_job.h - what the kernel of pack.cu is given: a batch of bytes and what to make of it.
 *
 * Arithmetic, in this order, in IEEE single precision without fused multiply-add, as decode/pack.h
 * has it for batches that are made on the CPU; the results are the same to the bit:
 *     value = pixel * (1/255)              [scale]
 *     value = (value - mean[c]) / std[c]   [normalize]
 * then one rounding, to nearest even, to the target type. A picture that is not valid becomes 0.
 */
#ifndef PENSTOCK_CUDA_PACK_JOB_H
#define PENSTOCK_CUDA_PACK_JOB_H

#include <stdint.h>

enum pack_job_dtype { PACK_JOB_U8 = 1, PACK_JOB_F32, PACK_JOB_F16, PACK_JOB_BF16 };

struct pack_job {
    uint64_t source;   /* device address: picture_count * pixel_count times red, green, blue */
    uint64_t target;   /* device address: as many values of dtype, planar or interleaved */
    uint64_t is_valid; /* device address: a byte per picture; 0: all are valid */
    uint32_t picture_count;
    uint32_t pixel_count; /* of one picture */
    uint32_t dtype;       /* enum pack_job_dtype */
    uint32_t is_planar;   /* 1: NCHW, 0: NHWC */
    float scale;          /* 1/255 or 1 */
    uint32_t normalize;   /* 1: mean and std apply; else the value is only scaled */
    float mean[3];
    float std[3]; /* no zeros */
};

/* Pixels that one thread of the kernel makes, where pixel_count is a multiple of it; else 1. */
enum { PACK_JOB_RUN_PIXELS = 4, PACK_JOB_THREADS = 256 };

/* Blocks of PACK_JOB_THREADS threads that a job takes. */
static inline uint64_t pack_job_blocks(const struct pack_job *job)
{
    uint64_t run = job->pixel_count % PACK_JOB_RUN_PIXELS == 0 ? PACK_JOB_RUN_PIXELS : 1;
    uint64_t threads = (uint64_t)job->picture_count * job->pixel_count / run;
    return (threads + PACK_JOB_THREADS - 1) / PACK_JOB_THREADS;
}

#endif /* PENSTOCK_CUDA_PACK_JOB_H */
