#include "clients/c/cuda_library.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct function {
    const char *name;
    void *place; /* of the pointer */
};

/* Every function of the table, or false with the name of the first that is missing. */
static bool load_functions(void *library, const struct function *functions, size_t count,
                           char *error)
{
    for (size_t i = 0; i < count; i++) {
        void *symbol = dlsym(library, functions[i].name);
        if (symbol == NULL) {
            snprintf(error, CUDA_ERROR_TEXT_BYTES, "CUDA's library has no %s", functions[i].name);
            return false;
        }
        memcpy(functions[i].place, &symbol, sizeof symbol);
    }
    return true;
}

/* dl_iterate_phdr(): the path of the first loaded object that is a CUDA runtime. */
static int note_runtime(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    const char *slash = strrchr(info->dlpi_name, '/');
    const char *name = slash == NULL ? info->dlpi_name : slash + 1;
    if (strncmp(name, "libcudart", strlen("libcudart")) != 0) {
        return 0;
    }
    *(char **)argument = strdup(info->dlpi_name);
    return 1;
}

static void *open_runtime(void)
{
    /* Two runtimes in one process work, but each has errors and a current device of its own. */
    char *loaded = NULL;
    dl_iterate_phdr(note_runtime, &loaded);
    void *library = loaded == NULL ? NULL : dlopen(loaded, RTLD_NOW | RTLD_NOLOAD);
    free(loaded);
    static const char *const names[] = {"libcudart.so.13", "libcudart.so.12", "libcudart.so"};
    for (size_t i = 0; i < sizeof names / sizeof names[0] && library == NULL; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    }
    return library;
}

static bool find_runtime(struct cuda_runtime *runtime, char *error)
{
    void *library = open_runtime();
    if (library == NULL) {
        snprintf(error, CUDA_ERROR_TEXT_BYTES, "there is no CUDA runtime (libcudart)");
        return false;
    }
    const struct function functions[] = {
        {"cudaGetLastError", &runtime->get_last_error},
        {"cudaGetErrorString", &runtime->get_error_string},
        {"cudaHostRegister", &runtime->host_register},
        {"cudaHostUnregister", &runtime->host_unregister},
        {"cudaMemcpyAsync", &runtime->memcpy_async},
        {"cudaEventCreateWithFlags", &runtime->event_create},
        {"cudaEventDestroy", &runtime->event_destroy},
        {"cudaEventRecord", &runtime->event_record},
        {"cudaEventQuery", &runtime->event_query},
        {"cudaEventSynchronize", &runtime->event_synchronize},
        {"cudaStreamWaitEvent", &runtime->stream_wait_event},
    };
    return load_functions(library, functions, sizeof functions / sizeof functions[0], error);
}

static bool find_driver(struct cuda_driver *driver, char *error)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        snprintf(error, CUDA_ERROR_TEXT_BYTES, "there is no CUDA driver (libcuda)");
        return false;
    }
    const struct function functions[] = {
        {"cuInit", &driver->init},
        {"cuGetErrorString", &driver->get_error_string},
        {"cuDeviceGet", &driver->device_get},
        {"cuDevicePrimaryCtxRetain", &driver->primary_context_retain},
        {"cuCtxPushCurrent_v2", &driver->push_context},
        {"cuCtxPopCurrent_v2", &driver->pop_context},
        {"cuModuleLoadData", &driver->module_load_data},
        {"cuModuleUnload", &driver->module_unload},
        {"cuModuleGetFunction", &driver->module_get_function},
        {"cuLaunchKernel", &driver->launch_kernel},
    };
    return load_functions(library, functions, sizeof functions / sizeof functions[0], error);
}

penstock_status cuda_check(struct penstock_cuda *cuda, int error)
{
    if (error == CUDA_SUCCESS_CODE) {
        return PENSTOCK_OK;
    }
    snprintf(cuda->error, sizeof cuda->error, "%s (CUDA error %d)",
             cuda->runtime.get_error_string(error), error);
    cuda->runtime.get_last_error();
    return PENSTOCK_SYSTEM;
}

penstock_status cuda_check_driver(struct penstock_cuda *cuda, int error)
{
    if (error == CUDA_SUCCESS_CODE) {
        return PENSTOCK_OK;
    }
    const char *text = NULL;
    cuda->driver.get_error_string(error, &text);
    snprintf(cuda->error, sizeof cuda->error, "%s (CUDA driver error %d)",
             text == NULL ? "unknown error" : text, error);
    return PENSTOCK_SYSTEM;
}

/* The primary context, which torch and the runtime use too; kept until the process ends, as rings
 * that are pinned in it may outlive every handle. */
static penstock_status retain_context(struct penstock_cuda *cuda, int32_t device)
{
    int handle;
    penstock_status status = cuda_check_driver(cuda, cuda->driver.init(0));
    if (status == PENSTOCK_OK) {
        status = cuda_check_driver(cuda, cuda->driver.device_get(&handle, device));
    }
    if (status == PENSTOCK_OK) {
        status = cuda_check_driver(
            cuda, cuda->driver.primary_context_retain(&cuda->context[device], handle));
    }
    return status;
}

penstock_status cuda_enter(struct penstock_cuda *cuda, int32_t device)
{
    penstock_status status = PENSTOCK_OK;
    if (cuda->context[device] == NULL) {
        status = retain_context(cuda, device);
    }
    if (status == PENSTOCK_OK) {
        status = cuda_check_driver(cuda, cuda->driver.push_context(cuda->context[device]));
    }
    return status;
}

void cuda_leave(struct penstock_cuda *cuda)
{
    void *context;
    cuda->driver.pop_context(&context);
}

penstock_status penstock_cuda_open(penstock_cuda **result)
{
    if (result == NULL) {
        return PENSTOCK_INVALID;
    }
    *result = NULL;
    struct penstock_cuda *cuda = calloc(1, sizeof *cuda);
    if (cuda == NULL) {
        return PENSTOCK_NO_MEMORY;
    }
    *result = cuda;
    bool found =
        find_driver(&cuda->driver, cuda->error) && find_runtime(&cuda->runtime, cuda->error);
    return found ? PENSTOCK_OK : PENSTOCK_INVALID;
}

void penstock_cuda_close(penstock_cuda *cuda)
{
    free(cuda);
}

const char *penstock_cuda_error(const penstock_cuda *cuda)
{
    return cuda == NULL ? "" : cuda->error;
}
