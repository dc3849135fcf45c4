/* cuda_transfer.c - one staging buffer: copies into it, and who waits for whom. */
#include <stdlib.h>
#include <unistd.h>

#include "clients/c/cuda_library.h"

struct penstock_transfer {
    struct penstock_cuda *cuda;
    int32_t device;
    pid_t pid; /* who made it: CUDA does not survive a fork */
    /* Recorded on the side stream behind the copies, and on the consumer's behind the reader. An
     * event that was never recorded counts as passed. */
    void *copied, *read;
    bool is_copying; /* copies were started and are not known to be through */
};

static bool is_forked(const struct penstock_transfer *transfer)
{
    return getpid() != transfer->pid;
}

static void *as_stream(uint64_t stream)
{
    return (void *)(uintptr_t)stream;
}

static penstock_status create_events(struct penstock_transfer *transfer)
{
    struct penstock_cuda *cuda = transfer->cuda;
    const unsigned flags = CUDA_EVENT_DISABLE_TIMING | CUDA_EVENT_BLOCKING_SYNC;
    penstock_status status = cuda_enter(cuda, transfer->device);
    if (status != PENSTOCK_OK) {
        return status;
    }
    status = cuda_check(cuda, cuda->runtime.event_create(&transfer->copied, flags));
    if (status == PENSTOCK_OK) {
        status = cuda_check(cuda, cuda->runtime.event_create(&transfer->read, flags));
        if (status != PENSTOCK_OK) {
            cuda->runtime.event_destroy(transfer->copied);
        }
    }
    cuda_leave(cuda);
    return status;
}

penstock_status penstock_transfer_create(penstock_cuda *cuda, int32_t device,
                                         penstock_transfer **result)
{
    if (cuda == NULL || result == NULL || device < 0 || device >= CUDA_DEVICES_MAX) {
        return PENSTOCK_INVALID;
    }
    *result = NULL;
    struct penstock_transfer *transfer = calloc(1, sizeof *transfer);
    if (transfer == NULL) {
        return PENSTOCK_NO_MEMORY;
    }
    *transfer = (struct penstock_transfer){.cuda = cuda, .device = device, .pid = getpid()};
    penstock_status status = create_events(transfer);
    if (status != PENSTOCK_OK) {
        free(transfer);
        return status;
    }
    *result = transfer;
    return PENSTOCK_OK;
}

void penstock_transfer_destroy(penstock_transfer *transfer)
{
    if (transfer == NULL) {
        return;
    }
    struct penstock_cuda *cuda = transfer->cuda;
    if (!is_forked(transfer) && cuda_enter(cuda, transfer->device) == PENSTOCK_OK) {
        if (transfer->is_copying) {
            cuda_check(cuda, cuda->runtime.event_synchronize(transfer->copied));
        }
        cuda_check(cuda, cuda->runtime.event_destroy(transfer->copied));
        cuda_check(cuda, cuda->runtime.event_destroy(transfer->read));
        cuda_leave(cuda);
    }
    free(transfer);
}

static penstock_status start_copies(struct penstock_transfer *transfer, void *stream,
                                    const penstock_copy *copies, uint32_t count)
{
    struct penstock_cuda *cuda = transfer->cuda;
    penstock_status status =
        cuda_check(cuda, cuda->runtime.stream_wait_event(stream, transfer->read, 0));
    for (uint32_t i = 0; i < count && status == PENSTOCK_OK; i++) {
        transfer->is_copying = true;
        status = cuda_check(cuda, cuda->runtime.memcpy_async((void *)(uintptr_t)copies[i].target,
                                                             copies[i].source, copies[i].bytes,
                                                             CUDA_COPY_HOST_TO_DEVICE, stream));
    }
    /* Recorded after a failure too: copies before it are under way. */
    penstock_status recorded =
        cuda_check(cuda, cuda->runtime.event_record(transfer->copied, stream));
    return status == PENSTOCK_OK ? recorded : status;
}

penstock_status penstock_transfer_copy(penstock_transfer *transfer, uint64_t side_stream,
                                       const penstock_copy *copies, uint32_t count)
{
    if (transfer == NULL || (copies == NULL && count > 0)) {
        return PENSTOCK_INVALID;
    }
    if (is_forked(transfer)) {
        return PENSTOCK_FORKED;
    }
    if (transfer->is_copying) {
        return PENSTOCK_INVALID;
    }
    penstock_status status = cuda_enter(transfer->cuda, transfer->device);
    if (status == PENSTOCK_OK) {
        status = start_copies(transfer, as_stream(side_stream), copies, count);
        cuda_leave(transfer->cuda);
    }
    return status;
}

penstock_status penstock_transfer_hand_over(penstock_transfer *transfer, uint64_t stream)
{
    if (transfer == NULL) {
        return PENSTOCK_INVALID;
    }
    if (is_forked(transfer)) {
        return PENSTOCK_FORKED;
    }
    struct penstock_cuda *cuda = transfer->cuda;
    penstock_status status = cuda_enter(cuda, transfer->device);
    if (status == PENSTOCK_OK) {
        status = cuda_check(
            cuda, cuda->runtime.stream_wait_event(as_stream(stream), transfer->copied, 0));
        cuda_leave(cuda);
    }
    return status;
}

penstock_status penstock_transfer_note_read(penstock_transfer *transfer, uint64_t stream)
{
    if (transfer == NULL) {
        return PENSTOCK_INVALID;
    }
    if (is_forked(transfer)) {
        return PENSTOCK_FORKED;
    }
    struct penstock_cuda *cuda = transfer->cuda;
    penstock_status status = cuda_enter(cuda, transfer->device);
    if (status == PENSTOCK_OK) {
        status = cuda_check(cuda, cuda->runtime.event_record(transfer->read, as_stream(stream)));
        cuda_leave(cuda);
    }
    return status;
}

penstock_status penstock_transfer_is_copied(penstock_transfer *transfer, int32_t must_wait)
{
    if (transfer == NULL) {
        return PENSTOCK_INVALID;
    }
    if (is_forked(transfer)) {
        return PENSTOCK_FORKED;
    }
    if (!transfer->is_copying) {
        return PENSTOCK_OK;
    }
    struct penstock_cuda *cuda = transfer->cuda;
    penstock_status status = cuda_enter(cuda, transfer->device);
    if (status != PENSTOCK_OK) {
        return status;
    }
    int error = must_wait != 0 ? cuda->runtime.event_synchronize(transfer->copied)
                               : cuda->runtime.event_query(transfer->copied);
    if (error == CUDA_NOT_READY_CODE) {
        /* No failure, but the runtime may remember it as one. */
        cuda->runtime.get_last_error();
        status = PENSTOCK_TIMED_OUT;
    } else {
        status = cuda_check(cuda, error);
    }
    if (status == PENSTOCK_OK) {
        transfer->is_copying = false;
    }
    cuda_leave(cuda);
    return status;
}
