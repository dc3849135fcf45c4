/* cuda_pin.c - a ring's mapping, page-locked for copies to the GPU. */
#include <stdlib.h>

#include "clients/c/cuda_library.h"
#include "clients/c/ring_private.h"

/* CUDA refuses a single call of 512 GiB. */
static const size_t PIECE_BYTES_MAX = (size_t)64 << 30;

/* What was registered; lives until the ring is unmapped, and needs no penstock_cuda. */
struct pinning {
    struct cuda_runtime runtime;
    uint8_t *base;
    size_t registered_bytes;
};

static size_t piece_bytes(size_t left_bytes)
{
    return left_bytes < PIECE_BYTES_MAX ? left_bytes : PIECE_BYTES_MAX;
}

static void unregister(struct pinning *pinning)
{
    for (size_t at = 0; at < pinning->registered_bytes;
         at += piece_bytes(pinning->registered_bytes - at)) {
        /* At the end of the process the runtime may be gone before us; then nothing is left to
         * do, and its error must not stay pending. */
        if (pinning->runtime.host_unregister(pinning->base + at) != CUDA_SUCCESS_CODE) {
            pinning->runtime.get_last_error();
        }
    }
}

/* Every piece or none. */
static penstock_status register_pieces(struct penstock_cuda *cuda, struct pinning *pinning,
                                       size_t bytes)
{
    penstock_status status = PENSTOCK_OK;
    while (pinning->registered_bytes < bytes) {
        size_t piece = piece_bytes(bytes - pinning->registered_bytes);
        status =
            cuda_check(cuda, cuda->runtime.host_register(pinning->base + pinning->registered_bytes,
                                                         piece, CUDA_HOST_REGISTER_PORTABLE));
        if (status != PENSTOCK_OK) {
            unregister(pinning);
            pinning->registered_bytes = 0;
            break;
        }
        pinning->registered_bytes += piece;
    }
    return status;
}

static void before_unmap(void *argument)
{
    unregister(argument);
    free(argument);
}

penstock_status penstock_ring_pin(penstock_ring *ring, penstock_cuda *cuda, int32_t device)
{
    penstock_ring_info info;
    penstock_status status = penstock_ring_describe(ring, &info);
    if (status != PENSTOCK_OK || cuda == NULL || device < 0 || device >= CUDA_DEVICES_MAX) {
        return PENSTOCK_INVALID;
    }
    struct pinning *pinning = malloc(sizeof *pinning);
    if (pinning == NULL) {
        return PENSTOCK_NO_MEMORY;
    }
    *pinning = (struct pinning){.runtime = cuda->runtime, .base = info.base};
    if (!ring_before_unmap(ring, before_unmap, pinning)) {
        free(pinning);
        return PENSTOCK_INVALID;
    }
    status = cuda_enter(cuda, device);
    if (status == PENSTOCK_OK) {
        status = register_pieces(cuda, pinning, info.region_bytes);
        cuda_leave(cuda);
    }
    return status;
}
