/*
 * penstock_cuda.h - libpenstock with CUDA: a pinned ring, and batches on their way to a device.
 *
 * libpenstock is not linked to CUDA: the runtime is looked for when penstock_cuda_open() is called.
 * Nothing here makes a CUDA context on another device than the one that is named, and the device
 * that is current in the calling thread stays so. The daemon knows nothing of all this.
 *
 *     penstock_cuda_open -> penstock_ring_pin          once per ring, at attach
 *                        -> penstock_transfer_create   one per staging buffer on the device
 *                             copy -> hand_over -> [pack] -> note_read -> copy ...
 *
 * A transfer is the life of one staging buffer. Its copies run on a side stream of the caller's;
 * what reads the buffer runs on the consumer's stream, which waits on an event, as the next copies
 * into the buffer wait for that reader: the host waits for neither. Host memory that is copied from
 * must stay as it is until penstock_transfer_is_copied() says PENSTOCK_OK.
 *
 * Streams are CUDA's handles as integers (torch.cuda.Stream.cuda_stream), 0 the default stream;
 * addresses on the device are integers too. Handles belong to one thread at a time. After fork()
 * the child must not use them; a child's copies of the Python objects do nothing.
 * Errors: PENSTOCK_SYSTEM is an error of CUDA's, told by penstock_cuda_error(); it is not left
 * pending in the thread, where the next one to ask would take it for its own.
 */
#ifndef PENSTOCK_CUDA_H
#define PENSTOCK_CUDA_H

#include "clients/c/penstock.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* bindings: begin - the Python build reads from here to "end"; plain declarations only. */

typedef struct penstock_cuda penstock_cuda;
typedef struct penstock_transfer penstock_transfer;
typedef struct penstock_packer penstock_packer;

/* Find the CUDA runtime: the copy that this process has loaded already (torch's), else the
 * system's; and the driver. PENSTOCK_INVALID: one is not there, or lacks what is needed; *cuda then
 * only tells which, and is to be closed like any other. No context is made. */
penstock_status penstock_cuda_open(penstock_cuda **cuda);

/* NULL is accepted. Rings that were pinned stay so: the runtime is never unloaded. */
void penstock_cuda_close(penstock_cuda *cuda);

/* What CUDA said when a call gave PENSTOCK_SYSTEM, or what is missing after PENSTOCK_INVALID;
 * "" before. Valid until the next call with `cuda`. */
const char *penstock_cuda_error(const penstock_cuda *cuda);

/* Page-lock the whole ring for every device of this process; makes the context of `device`. Until
 * the last lease is gone, then it is undone. Takes about 0.1 s per GB and touches every page.
 * On failure the ring works on as it is, not pinned. To be tried once per ring. */
penstock_status penstock_ring_pin(penstock_ring *ring, penstock_cuda *cuda, int32_t device);

/* The events of one staging buffer on `device`. `cuda` must outlive it. */
penstock_status penstock_transfer_create(penstock_cuda *cuda, int32_t device,
                                         penstock_transfer **transfer);

/* Waits for copies that are under way. NULL is accepted. */
void penstock_transfer_destroy(penstock_transfer *transfer);

typedef struct penstock_copy {
    const void *source; /* in host memory; only if it is pinned the copy is asynchronous */
    uint64_t target;    /* on the device */
    uint64_t bytes;
} penstock_copy;

/* Put copies on side_stream, behind the last reader of the buffer. PENSTOCK_INVALID while earlier
 * copies of this transfer are not known to be through. */
penstock_status penstock_transfer_copy(penstock_transfer *transfer, uint64_t side_stream,
                                       const penstock_copy *copies, uint32_t count);

/* Make `stream` wait for the copies; what is put on it from now on may read the buffer. */
penstock_status penstock_transfer_hand_over(penstock_transfer *transfer, uint64_t stream);

/* Whoever reads the buffer has been put on `stream`: the next copies wait for that. */
penstock_status penstock_transfer_note_read(penstock_transfer *transfer, uint64_t stream);

/* Whether the memory that was copied from is free: PENSTOCK_OK, or PENSTOCK_TIMED_OUT while copies
 * are under way. With must_wait 1 it waits for them. OK when nothing was ever copied. */
penstock_status penstock_transfer_is_copied(penstock_transfer *transfer, int32_t must_wait);

/* Load the image of clients/cuda/pack.cu (a "fatbin") on `device`. PENSTOCK_INVALID: CUDA's driver
 * cannot run it (it is older than the image, or the GPU is); `cuda` must outlive it. The image may
 * go after the call. */
penstock_status penstock_packer_create(penstock_cuda *cuda, int32_t device, const void *image,
                                       penstock_packer **packer);
void penstock_packer_destroy(penstock_packer *packer);

/* A batch of bytes, NHWC, to finished tensors: clients/cuda/pack_job.h has the arithmetic. */
typedef struct penstock_pack {
    uint64_t source;        /* on the device, a multiple of 4 */
    uint64_t target;        /* on the device, a multiple of 16 */
    uint64_t is_valid;      /* on the device: a byte per picture, or 0 for all */
    uint32_t picture_count; /* at least 1 */
    uint32_t pixel_count;   /* of one picture, at least 1 */
    uint32_t dtype;         /* 1 uint8, 2 float32, 3 float16, 4 bfloat16 */
    uint32_t is_planar;     /* 1: the tensors are NCHW; 0: NHWC */
    uint32_t scale;         /* 1: 0..255 becomes 0..1 */
    uint32_t normalize;     /* 1: subtract mean, divide by std */
    float mean[3];
    float std[3];
} penstock_pack;

penstock_status penstock_packer_launch(penstock_packer *packer, uint64_t stream,
                                       const penstock_pack *pack);

/* bindings: end */

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif /* PENSTOCK_CUDA_H */
