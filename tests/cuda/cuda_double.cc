/* cuda_double.cc - the recording double of cuda_double.h. */
#include "tests/cuda/cuda_double.h"

#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>

/* The kernel, for the CPU: every thread of the grid after the other. */
#define __device__
#define __global__
#define __launch_bounds__(threads)
struct coordinates {
    unsigned x;
};
static thread_local coordinates blockIdx, threadIdx;
static float __fmul_rn(float a, float b)
{
    return a * b;
}
static float __fsub_rn(float a, float b)
{
    return a - b;
}
static float __fdiv_rn(float a, float b)
{
    return a / b;
}
#include "clients/cuda/pack.cu"

namespace
{

enum { NO_DEVICE = 100, NOT_READY = 600, INVALID_VALUE = 1, NOT_REGISTERED = 713 };

struct event {
    int number;
    uint64_t recorded = 0, passed = 0; /* how often it was put on a stream, and came up there */
};

struct operation {
    std::function<bool()> may_run;
    std::function<void()> run;
};

struct machine {
    std::recursive_mutex mutex;
    int device_count = 1, failing_register = 0, pending_error = 0, event_count = 0, pushed = 0;
    std::string log;
    std::map<uintptr_t, std::deque<operation>> streams;
    std::map<uintptr_t, size_t> registered;
    int contexts[64];
};

machine &the_machine()
{
    static machine *one = new machine; /* never destroyed: calls come at the process's end */
    return *one;
}

using lock = std::lock_guard<std::recursive_mutex>;

void note(const std::string &line)
{
    the_machine().log += line + "\n";
}

int failed(int error)
{
    the_machine().pending_error = error;
    return error;
}

std::string name_of(void *stream)
{
    return "stream " + std::to_string(reinterpret_cast<uintptr_t>(stream));
}

std::string name_of(const event *which)
{
    return "event " + std::to_string(which->number);
}

void put(void *stream, std::function<void()> run, std::function<bool()> may_run = nullptr)
{
    the_machine().streams[reinterpret_cast<uintptr_t>(stream)].push_back({may_run, run});
}

} // namespace

#pragma GCC visibility push(default)
extern "C" {

void cuda_double_reset(int device_count)
{
    machine &m = the_machine();
    lock guard(m.mutex);
    m.device_count = device_count;
    m.failing_register = m.pending_error = m.event_count = m.pushed = 0;
    m.log.clear();
    m.streams.clear();
    m.registered.clear();
}

const char *cuda_double_log(void)
{
    return the_machine().log.c_str();
}

void cuda_double_fail_register(int error)
{
    the_machine().failing_register = error;
}

int cuda_double_pending_error(void)
{
    return the_machine().pending_error;
}

int cuda_double_step(void)
{
    machine &m = the_machine();
    lock guard(m.mutex);
    for (auto &[number, queue] : m.streams) {
        if (!queue.empty() && (!queue.front().may_run || queue.front().may_run())) {
            operation next = queue.front();
            queue.pop_front();
            next.run();
            return 1;
        }
    }
    return 0;
}

unsigned long cuda_double_registered_bytes(void)
{
    unsigned long bytes = 0;
    for (auto &[base, size] : the_machine().registered) {
        bytes += size;
    }
    return bytes;
}

int cuda_double_pushed_contexts(void)
{
    return the_machine().pushed;
}

/* ---- the runtime ------------------------------------------------------------------------- */

int cudaGetLastError(void)
{
    int error = the_machine().pending_error;
    the_machine().pending_error = 0;
    return error;
}

const char *cudaGetErrorString(int)
{
    return "an error that the test asked for";
}

int cudaHostRegister(void *base, size_t bytes, unsigned)
{
    machine &m = the_machine();
    lock guard(m.mutex);
    note("register " + std::to_string(bytes));
    if (m.failing_register != 0) {
        return failed(m.failing_register);
    }
    m.registered[reinterpret_cast<uintptr_t>(base)] = bytes;
    return 0;
}

int cudaHostUnregister(void *base)
{
    machine &m = the_machine();
    lock guard(m.mutex);
    note("unregister");
    return m.registered.erase(reinterpret_cast<uintptr_t>(base)) == 1 ? 0 : failed(NOT_REGISTERED);
}

int cudaMemcpyAsync(void *target, const void *source, size_t bytes, int, void *stream)
{
    lock guard(the_machine().mutex);
    note("copy " + std::to_string(bytes) + " on " + name_of(stream));
    put(stream, [=] { std::memcpy(target, source, bytes); });
    return 0;
}

int cudaEventCreateWithFlags(void **result, unsigned)
{
    lock guard(the_machine().mutex);
    event *made = new event;
    made->number = the_machine().event_count++;
    note("create " + name_of(made));
    *result = made;
    return 0;
}

int cudaEventRecord(void *which, void *stream)
{
    lock guard(the_machine().mutex);
    event *recorded = static_cast<event *>(which);
    uint64_t version = ++recorded->recorded;
    note("record " + name_of(recorded) + " on " + name_of(stream));
    put(stream, [=] { recorded->passed = version; });
    return 0;
}

int cudaStreamWaitEvent(void *stream, void *which, unsigned)
{
    lock guard(the_machine().mutex);
    event *awaited = static_cast<event *>(which);
    uint64_t version = awaited->recorded;
    note(name_of(stream) + " waits for " + name_of(awaited));
    put(
        stream, [] {}, [=] { return awaited->passed >= version; });
    return 0;
}

int cudaEventQuery(void *which)
{
    lock guard(the_machine().mutex);
    const event *asked = static_cast<event *>(which);
    return asked->passed == asked->recorded ? 0 : failed(NOT_READY);
}

int cudaEventSynchronize(void *which)
{
    lock guard(the_machine().mutex);
    const event *awaited = static_cast<event *>(which);
    note("host waits for " + name_of(awaited));
    while (awaited->passed != awaited->recorded) {
        if (cuda_double_step() == 0) {
            return failed(INVALID_VALUE); /* nobody will ever record it: a deadlock */
        }
    }
    return 0;
}

int cudaEventDestroy(void *which)
{
    lock guard(the_machine().mutex);
    note("destroy " + name_of(static_cast<event *>(which)));
    while (cuda_double_step() != 0) { /* nothing refers to it any more after this */
    }
    delete static_cast<event *>(which);
    return 0;
}

/* ---- the driver -------------------------------------------------------------------------- */

int cuInit(unsigned)
{
    return the_machine().device_count > 0 ? 0 : NO_DEVICE;
}

int cuGetErrorString(int, const char **text)
{
    *text = "a driver's error that the test asked for";
    return 0;
}

int cuDeviceGet(int *device, int ordinal)
{
    *device = ordinal;
    return ordinal < the_machine().device_count ? 0 : 101;
}

int cuDevicePrimaryCtxRetain(void **context, int device)
{
    note("context on device " + std::to_string(device));
    *context = &the_machine().contexts[device];
    return 0;
}

int cuCtxPushCurrent_v2(void *)
{
    the_machine().pushed++;
    return 0;
}

int cuCtxPopCurrent_v2(void **)
{
    the_machine().pushed--;
    return 0;
}

int cuModuleLoadData(void **module, const void *image)
{
    *module = &the_machine();
    return std::memcmp(image, "old", 3) == 0 ? 222 : 0;
}

int cuModuleUnload(void *)
{
    return 0;
}

int cuModuleGetFunction(void **function, void *, const char *name)
{
    *function = reinterpret_cast<void *>(penstock_pack);
    return std::strcmp(name, "penstock_pack") == 0 ? 0 : 500;
}

int cuLaunchKernel(void *, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned,
                   unsigned, unsigned, void *stream, void **arguments, void **)
{
    lock guard(the_machine().mutex);
    note("pack on " + name_of(stream));
    const pack_job job = *static_cast<const pack_job *>(arguments[0]);
    put(stream, [=] {
        for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
            for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) {
                penstock_pack(job);
            }
        }
    });
    return 0;
}

} // extern "C"
#pragma GCC visibility pop
