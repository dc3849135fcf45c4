/*
 * cuda_double.h - a recording double of CUDA's runtime and driver, for tests without a GPU.
 *
 * A test loads it before libpenstock looks for CUDA, which then takes it for the real thing: its
 * file name begins with "libcudart", its soname is that of the driver. Memory "on the device" is
 * the process's own. What is put on a stream is kept back, in order, until cuda_double_run() or
 * somebody who waits for an event: so reading or freeing memory too early shows. The kernel is the
 * real one, clients/cuda/pack.cu, compiled for the CPU.
 */
#ifndef PENSTOCK_TESTS_CUDA_DOUBLE_H
#define PENSTOCK_TESTS_CUDA_DOUBLE_H

#ifdef __cplusplus
extern "C" {
#endif

/* Forget everything; `device_count` devices are there. */
void cuda_double_reset(int device_count);

/* The calls since the reset, a line each. The text is valid until the next call into CUDA. */
const char *cuda_double_log(void);

/* The next calls of cudaHostRegister give this error (0: none), which stays pending as CUDA's do.
 */
void cuda_double_fail_register(int error);

/* The error that is pending now; cudaGetLastError() would clear it. */
int cuda_double_pending_error(void);

/* Do one thing that some stream may do now; 0 when there is nothing. */
int cuda_double_step(void);

/* Bytes that are registered, and contexts that are pushed and not popped. */
unsigned long cuda_double_registered_bytes(void);
int cuda_double_pushed_contexts(void);

#ifdef __cplusplus
}
#endif
#endif /* PENSTOCK_TESTS_CUDA_DOUBLE_H */
