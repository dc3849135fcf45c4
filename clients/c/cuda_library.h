/*
 * cuda_library.h - CUDA's runtime and driver, found when the program runs; private to clients/c/.
 *
 * The numbers below are CUDA's own, which its binary interface fixes.
 */
#ifndef PENSTOCK_CUDA_LIBRARY_H
#define PENSTOCK_CUDA_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clients/c/penstock_cuda.h"

enum {
    CUDA_SUCCESS_CODE = 0,
    CUDA_NOT_READY_CODE = 600,
    CUDA_HOST_REGISTER_PORTABLE = 1,
    CUDA_EVENT_BLOCKING_SYNC = 1,
    CUDA_EVENT_DISABLE_TIMING = 2,
    CUDA_COPY_HOST_TO_DEVICE = 1,
    CUDA_ERROR_TEXT_BYTES = 256,
};

/* Functions of the runtime ("libcudart"); all are there. */
struct cuda_runtime {
    int (*get_last_error)(void);
    const char *(*get_error_string)(int error);
    int (*host_register)(void *base, size_t bytes, unsigned flags);
    int (*host_unregister)(void *base);
    int (*memcpy_async)(void *target, const void *source, size_t bytes, int kind, void *stream);
    int (*event_create)(void **event, unsigned flags);
    int (*event_destroy)(void *event);
    int (*event_record)(void *event, void *stream);
    int (*event_query)(void *event);
    int (*event_synchronize)(void *event);
    int (*stream_wait_event)(void *stream, void *event, unsigned flags);
};

/* Functions of the driver ("libcuda"), which know contexts and load code at run time. */
struct cuda_driver {
    int (*init)(unsigned flags);
    int (*get_error_string)(int error, const char **text);
    int (*device_get)(int *device, int ordinal);
    int (*primary_context_retain)(void **context, int device);
    int (*push_context)(void *context);
    int (*pop_context)(void **context);
    int (*module_load_data)(void **module, const void *image);
    int (*module_unload)(void *module);
    int (*module_get_function)(void **function, void *module, const char *name);
    int (*launch_kernel)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                         unsigned block_x, unsigned block_y, unsigned block_z,
                         unsigned shared_bytes, void *stream, void **arguments, void **extra);
};

enum { CUDA_DEVICES_MAX = 64 };

struct penstock_cuda {
    struct cuda_runtime runtime;
    struct cuda_driver driver;
    void *context[CUDA_DEVICES_MAX]; /* the primary ones; NULL where none was needed yet */
    char error[CUDA_ERROR_TEXT_BYTES];
};

/* Turn a return value of the runtime's into a status: note its text, and clear it where it is
 * pending in this thread. */
penstock_status cuda_check(struct penstock_cuda *cuda, int error);

/* The same for the driver, which leaves nothing pending. */
penstock_status cuda_check_driver(struct penstock_cuda *cuda, int error);

/* Make the context of `device` the current one until cuda_leave(), to be called on PENSTOCK_OK
 * only. It is pushed on the thread's contexts: cudaSetDevice() back to a device that was current
 * but never used would make a context there. */
penstock_status cuda_enter(struct penstock_cuda *cuda, int32_t device);
void cuda_leave(struct penstock_cuda *cuda);

#endif /* PENSTOCK_CUDA_LIBRARY_H */
