/* cuda_pack.c - the kernel of clients/cuda/pack.cu: loaded and launched. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/c/cuda_library.h"
#include "clients/cuda/pack_job.h"

struct penstock_packer {
    struct penstock_cuda *cuda;
    int32_t device;
    pid_t pid;
    void *module, *kernel;
};

static penstock_status load_kernel(struct penstock_packer *packer, const void *image)
{
    struct penstock_cuda *cuda = packer->cuda;
    penstock_status status =
        cuda_check_driver(cuda, cuda->driver.module_load_data(&packer->module, image));
    if (status != PENSTOCK_OK) {
        return PENSTOCK_INVALID;
    }
    status = cuda_check_driver(
        cuda, cuda->driver.module_get_function(&packer->kernel, packer->module, "penstock_pack"));
    if (status != PENSTOCK_OK) {
        cuda->driver.module_unload(packer->module);
        return PENSTOCK_INVALID;
    }
    return PENSTOCK_OK;
}

penstock_status penstock_packer_create(penstock_cuda *cuda, int32_t device, const void *image,
                                       penstock_packer **result)
{
    if (cuda == NULL || image == NULL || result == NULL || device < 0 ||
        device >= CUDA_DEVICES_MAX) {
        return PENSTOCK_INVALID;
    }
    *result = NULL;
    struct penstock_packer *packer = calloc(1, sizeof *packer);
    if (packer == NULL) {
        return PENSTOCK_NO_MEMORY;
    }
    *packer = (struct penstock_packer){.cuda = cuda, .device = device, .pid = getpid()};
    penstock_status status = cuda_enter(cuda, device);
    if (status == PENSTOCK_OK) {
        status = load_kernel(packer, image);
        cuda_leave(cuda);
    }
    if (status != PENSTOCK_OK) {
        free(packer);
        return status;
    }
    *result = packer;
    return PENSTOCK_OK;
}

void penstock_packer_destroy(penstock_packer *packer)
{
    if (packer == NULL) {
        return;
    }
    if (getpid() == packer->pid && cuda_enter(packer->cuda, packer->device) == PENSTOCK_OK) {
        packer->cuda->driver.module_unload(packer->module);
        cuda_leave(packer->cuda);
    }
    free(packer);
}

static bool is_valid(const penstock_pack *pack)
{
    if (pack->picture_count == 0 || pack->pixel_count == 0 || pack->source % 4 != 0 ||
        pack->target % 16 != 0 || pack->dtype < PACK_JOB_U8 || pack->dtype > PACK_JOB_BF16) {
        return false;
    }
    for (int channel = 0; channel < 3 && pack->normalize != 0; channel++) {
        if (!isfinite(pack->mean[channel]) || !isfinite(pack->std[channel]) ||
            pack->std[channel] == 0) {
            return false;
        }
    }
    return true;
}

penstock_status penstock_packer_launch(penstock_packer *packer, uint64_t stream,
                                       const penstock_pack *pack)
{
    if (packer == NULL || pack == NULL || !is_valid(pack)) {
        return PENSTOCK_INVALID;
    }
    if (getpid() != packer->pid) {
        return PENSTOCK_FORKED;
    }
    struct pack_job job = {
        .source = pack->source,
        .target = pack->target,
        .is_valid = pack->is_valid,
        .picture_count = pack->picture_count,
        .pixel_count = pack->pixel_count,
        .dtype = pack->dtype,
        .is_planar = pack->is_planar,
        .scale = pack->scale != 0 ? (float)(1.0 / 255.0) : 1.0f,
        .normalize = pack->normalize,
    };
    memcpy(job.mean, pack->mean, sizeof job.mean);
    memcpy(job.std, pack->std, sizeof job.std);
    uint64_t blocks = pack_job_blocks(&job);
    if (blocks > INT32_MAX) { /* the grid's limit: 2 TB of pixels */
        return PENSTOCK_INVALID;
    }
    struct penstock_cuda *cuda = packer->cuda;
    penstock_status status = cuda_enter(cuda, packer->device);
    if (status == PENSTOCK_OK) {
        void *arguments[] = {&job};
        status = cuda_check_driver(
            cuda,
            cuda->driver.launch_kernel(packer->kernel, (unsigned)blocks, 1, 1, PACK_JOB_THREADS, 1,
                                       1, 0, (void *)(uintptr_t)stream, arguments, NULL));
        cuda_leave(cuda);
    }
    return status;
}
