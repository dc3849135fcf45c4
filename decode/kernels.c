/* kernels.c - which variant of the kernels this processor runs. */
#include "decode/kernels.h"

#include <stddef.h>

#include "decode/kernels_table.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* The compiler's own detection covers the operating system's support of the wide registers; F16C
 * is asked by hand because not every supported compiler knows its name. */
static bool has_avx2_level(void)
{
    unsigned eax, ebx, ecx, edx;
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) &&
           (ecx & bit_F16C);
}

/* VBMI, VBMI2 and VNNI are required as well: the kernels rest on their permutes, expansions and
 * dot products.
 * That leaves Skylake-X and Cascade Lake, which slow their clock for 512-bit work, to AVX2. */
static bool has_avx512_level(void)
{
    return has_avx2_level() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vnni");
}
#endif

enum kernel_level kernels_detect(enum kernel_level level_max)
{
#if defined(__x86_64__)
    if (level_max >= KERNEL_AVX512 && has_avx512_level()) {
        return KERNEL_AVX512;
    }
    if (level_max >= KERNEL_AVX2 && has_avx2_level()) {
        return KERNEL_AVX2;
    }
#elif defined(__aarch64__)
    if (level_max >= KERNEL_NEON) {
        return KERNEL_NEON; /* part of every AArch64 processor */
    }
#else
    (void)level_max;
#endif
    return KERNEL_SCALAR;
}

const struct kernels *kernels_get(enum kernel_level level)
{
    switch (level) {
#if defined(__x86_64__)
    case KERNEL_AVX512: return &kernels_avx512;
    case KERNEL_AVX2: return &kernels_avx2;
    case KERNEL_NEON:
#elif defined(__aarch64__)
    case KERNEL_AVX512:
    case KERNEL_AVX2:
    case KERNEL_NEON: return &kernels_neon;
#else
    case KERNEL_AVX512:
    case KERNEL_AVX2:
    case KERNEL_NEON:
#endif
    case KERNEL_SCALAR: break;
    }
    return &kernels_scalar;
}

const char *kernel_level_name(enum kernel_level level)
{
    switch (level) {
    case KERNEL_SCALAR: return "scalar";
    case KERNEL_NEON: return "neon";
    case KERNEL_AVX2: return "avx2";
    case KERNEL_AVX512: return "avx512";
    }
    return "unknown";
}
