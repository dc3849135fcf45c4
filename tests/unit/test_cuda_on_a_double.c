/* What libpenstock asks of CUDA, seen by a recording double of it (tests/cuda/cuda_double.h): no
 * GPU is needed, and none is used where there is one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <assert.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/c/penstock_cuda.h"
#include "decode/pack.h"
#include "ipc/layout.h"
#include "ipc/ring.h"

enum { SLOTS = 4, SLOT_BYTES = 3 * LAYOUT_PAGE_BYTES, SIDE = 7, CONSUMER = 9 };

/* The double's own functions. */
struct double_control {
    void (*reset)(int device_count);
    const char *(*log)(void);
    void (*fail_register)(int error);
    int (*pending_error)(void);
    int (*step)(void);
    unsigned long (*registered_bytes)(void);
    int (*pushed_contexts)(void);
};

static struct double_control load_double(void)
{
    void *library = dlopen(CUDA_DOUBLE_PATH, RTLD_NOW);
    assert_non_null(library);
    struct double_control control;
    void *symbols[] = {
        dlsym(library, "cuda_double_reset"),
        dlsym(library, "cuda_double_log"),
        dlsym(library, "cuda_double_fail_register"),
        dlsym(library, "cuda_double_pending_error"),
        dlsym(library, "cuda_double_step"),
        dlsym(library, "cuda_double_registered_bytes"),
        dlsym(library, "cuda_double_pushed_contexts"),
    };
    static_assert(sizeof symbols == sizeof control, "a symbol for each function");
    memcpy(&control, symbols, sizeof control);
    control.reset(2);
    return control;
}

static penstock_cuda *open_cuda(void)
{
    penstock_cuda *cuda;
    assert_int_equal(penstock_cuda_open(&cuda), PENSTOCK_OK);
    return cuda;
}

static penstock_ring *open_ring(struct ring **daemon)
{
    penstock_ring *ring;
    assert_int_equal(ring_create(SLOTS, SLOT_BYTES, daemon), 0);
    assert_int_equal(penstock_ring_open(dup(ring_memory_fd(*daemon)), dup(ring_release_fd(*daemon)),
                                        ring_region_bytes(*daemon), &ring),
                     PENSTOCK_OK);
    return ring;
}

/* `lines` are in the log, in this order, others between them or not. */
static void assert_order(const char *log, const char *const *lines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *found = strstr(log, lines[i]);
        if (found == NULL) {
            fail_msg("no \"%s\" in what is left of the log:\n%s", lines[i], log);
            return;
        }
        log = found + strlen(lines[i]);
    }
}

#define ASSERT_ORDER(log, ...)                                                                     \
    do {                                                                                           \
        const char *const lines[] = {__VA_ARGS__};                                                 \
        assert_order(log, lines, sizeof lines / sizeof lines[0]);                                  \
    } while (0)

static void a_ring_is_registered_whole_until_the_last_lease_goes(void **state)
{
    (void)state;
    struct double_control control = load_double();
    penstock_cuda *cuda = open_cuda();
    struct ring *daemon;
    penstock_ring *ring = open_ring(&daemon);
    assert_int_equal(penstock_ring_pin(ring, cuda, 1), PENSTOCK_OK);
    assert_int_equal(control.registered_bytes(), ring_region_bytes(daemon));
    ASSERT_ORDER(control.log(), "context on device 1", "register");
    assert_null(strstr(control.log(), "device 0"));
    assert_int_equal(control.pushed_contexts(), 0);
    assert_int_equal(penstock_ring_pin(ring, cuda, 1), PENSTOCK_INVALID);
    int slot = ring_claim(daemon);
    *ring_slot_header(daemon, (uint32_t)slot) = (struct slot_header){.place_count = 1};
    ring_publish(daemon, (uint32_t)slot);
    penstock_lease *lease;
    assert_int_equal(penstock_ring_take(ring, &lease), PENSTOCK_OK);
    penstock_ring_close(ring);
    penstock_cuda_close(cuda);
    assert_true(control.registered_bytes() > 0);
    penstock_lease_unref(lease);
    assert_int_equal(control.registered_bytes(), 0);
    assert_int_equal(control.pending_error(), 0);
    ring_destroy(daemon);
}

static void a_refused_registration_leaves_no_error_and_a_ring_that_works(void **state)
{
    (void)state;
    struct double_control control = load_double();
    penstock_cuda *cuda = open_cuda();
    struct ring *daemon;
    penstock_ring *ring = open_ring(&daemon);
    control.fail_register(2);
    assert_int_equal(penstock_ring_pin(ring, cuda, 0), PENSTOCK_SYSTEM);
    assert_int_equal(control.pending_error(), 0);
    assert_non_null(strstr(penstock_cuda_error(cuda), "CUDA error 2"));
    assert_int_equal(penstock_ring_wait(ring, 0, 0), PENSTOCK_TIMED_OUT);
    penstock_ring_close(ring);
    assert_null(strstr(control.log(), "unregister"));
    penstock_cuda_close(cuda);
    ring_destroy(daemon);
}

static void without_a_device_nothing_is_pinned(void **state)
{
    (void)state;
    struct double_control control = load_double();
    control.reset(0);
    penstock_cuda *cuda = open_cuda();
    struct ring *daemon;
    penstock_ring *ring = open_ring(&daemon);
    assert_int_equal(penstock_ring_pin(ring, cuda, 0), PENSTOCK_SYSTEM);
    penstock_transfer *transfer;
    assert_int_equal(penstock_transfer_create(cuda, 0, &transfer), PENSTOCK_SYSTEM);
    penstock_ring_close(ring);
    penstock_cuda_close(cuda);
    ring_destroy(daemon);
}

static void copies_wait_for_the_last_reader_and_the_consumer_for_them(void **state)
{
    (void)state;
    struct double_control control = load_double();
    penstock_cuda *cuda = open_cuda();
    penstock_transfer *transfer;
    assert_int_equal(penstock_transfer_create(cuda, 0, &transfer), PENSTOCK_OK);
    assert_int_equal(penstock_transfer_is_copied(transfer, 0), PENSTOCK_OK);
    uint8_t source[2][8] = {"first", "second"}, staging[16] = {0};
    const penstock_copy copies[] = {{source[0], (uintptr_t)staging, 8},
                                    {source[1], (uintptr_t)staging + 8, 8}};
    assert_int_equal(penstock_transfer_copy(transfer, SIDE, copies, 2), PENSTOCK_OK);
    assert_int_equal(penstock_transfer_hand_over(transfer, CONSUMER), PENSTOCK_OK);
    assert_int_equal(penstock_transfer_note_read(transfer, CONSUMER), PENSTOCK_OK);
    ASSERT_ORDER(control.log(), "create event 0", "create event 1", "stream 7 waits for event 1",
                 "copy 8 on stream 7", "copy 8 on stream 7", "record event 0 on stream 7",
                 "stream 9 waits for event 0", "record event 1 on stream 9");
    /* Under way: the source must stay, and nothing else may be copied over the staging buffer. */
    assert_int_equal(penstock_transfer_is_copied(transfer, 0), PENSTOCK_TIMED_OUT);
    assert_int_equal(control.pending_error(), 0);
    assert_int_equal(penstock_transfer_copy(transfer, SIDE, copies, 2), PENSTOCK_INVALID);
    assert_int_equal(penstock_transfer_is_copied(transfer, 1), PENSTOCK_OK);
    assert_string_equal((char *)staging + 8, "second");
    penstock_transfer_destroy(transfer);
    assert_non_null(strstr(control.log(), "destroy event 1"));
    assert_int_equal(control.pushed_contexts(), 0);
    penstock_cuda_close(cuda);
}

static void a_transfer_that_goes_waits_for_its_copies(void **state)
{
    (void)state;
    struct double_control control = load_double();
    penstock_cuda *cuda = open_cuda();
    penstock_transfer *transfer;
    assert_int_equal(penstock_transfer_create(cuda, 0, &transfer), PENSTOCK_OK);
    uint8_t source[8] = "source", staging[8] = {0};
    const penstock_copy copy = {source, (uintptr_t)staging, 8};
    assert_int_equal(penstock_transfer_copy(transfer, SIDE, &copy, 1), PENSTOCK_OK);
    penstock_transfer_destroy(transfer);
    ASSERT_ORDER(control.log(), "record event 0", "host waits for event 0", "destroy event 0");
    penstock_cuda_close(cuda);
}

/* ---- the kernel's source, compiled for the CPU -------------------------------------------- */

struct picture_size {
    uint32_t width_px, height_px;
};

static void check_kernel(struct double_control control, penstock_packer *packer,
                         struct pack_format format, struct picture_size size)
{
    enum { PICTURES = 3 };
    size_t pixels = (size_t)size.width_px * size.height_px;
    size_t picture_bytes = 3 * pixels * pack_dtype_bytes(format.dtype);
    uint8_t *source = aligned_alloc(64, (3 * pixels * PICTURES + 63) / 64 * 64);
    uint8_t *wanted = calloc(PICTURES, picture_bytes);
    uint8_t *made = aligned_alloc(64, (picture_bytes * PICTURES + 63) / 64 * 64);
    for (size_t i = 0; i < 3 * pixels * PICTURES; i++) {
        source[i] = (uint8_t)(i * 7 + i / 256);
    }
    const uint8_t valid[PICTURES] = {1, 0, 1};
    for (size_t i = 0; i < PICTURES; i += 2) { /* the one between them stays 0 */
        pack_image(kernels_get(KERNEL_SCALAR), &format, source + i * 3 * pixels,
                   3 * (size_t)size.width_px, size.width_px, size.height_px, false, false,
                   wanted + i * picture_bytes);
    }
    penstock_pack pack = {
        .source = (uintptr_t)source,
        .target = (uintptr_t)made,
        .is_valid = (uintptr_t)valid,
        .picture_count = PICTURES,
        .pixel_count = (uint32_t)pixels,
        .dtype = format.dtype,
        .is_planar = format.layout == PACK_NCHW,
        .scale = format.scale,
        .normalize = format.normalize,
    };
    memcpy(pack.mean, format.mean, sizeof pack.mean);
    memcpy(pack.std, format.std, sizeof pack.std);
    assert_int_equal(penstock_packer_launch(packer, CONSUMER, &pack), PENSTOCK_OK);
    while (control.step() != 0) {
    }
    assert_memory_equal(made, wanted, picture_bytes * PICTURES);
    free(source);
    free(wanted);
    free(made);
}

static void the_kernel_source_gives_what_the_cpu_gives(void **state)
{
    (void)state;
    struct double_control control = load_double();
    penstock_cuda *cuda = open_cuda();
    penstock_packer *packer;
    assert_int_equal(penstock_packer_create(cuda, 0, "image", &packer), PENSTOCK_OK);
    static const struct picture_size sizes[] = {{16, 16}, {17, 13}, {1, 1}, {6, 2}};
    for (int dtype = PACK_U8; dtype <= PACK_BF16; dtype++) {
        for (int way = 0; way < 8; way++) {
            const struct pack_format format = {
                .dtype = (enum pack_dtype)dtype,
                .layout = (way & 1) != 0 ? PACK_NCHW : PACK_NHWC,
                .scale = (way & 2) != 0,
                .normalize = (way & 4) != 0,
                .mean = {0.485f, 0.456f, 0.406f},
                .std = {0.229f, 0.224f, 1e-3f},
            };
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
                check_kernel(control, packer, format, sizes[i]);
            }
        }
    }
    assert_int_equal(control.pushed_contexts(), 0);
    penstock_packer_destroy(packer);
    penstock_cuda_close(cuda);
}

static void what_the_kernel_cannot_do_is_refused(void **state)
{
    (void)state;
    load_double();
    penstock_cuda *cuda = open_cuda();
    penstock_packer *packer;
    assert_int_equal(penstock_packer_create(cuda, 0, "old driver", &packer), PENSTOCK_INVALID);
    assert_non_null(strstr(penstock_cuda_error(cuda), "222"));
    assert_int_equal(penstock_packer_create(cuda, 0, "image", &packer), PENSTOCK_OK);
    const penstock_pack good = {
        .source = 64, .target = 64, .picture_count = 1, .pixel_count = 1, .dtype = 2};
    penstock_pack bad[] = {good, good, good, good, good};
    bad[0].source = 2;
    bad[1].target = 8;
    bad[2].picture_count = 0;
    bad[3].dtype = 5;
    bad[4].normalize = 1; /* by a standard deviation of 0 */
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(penstock_packer_launch(packer, CONSUMER, &bad[i]), PENSTOCK_INVALID);
    }
    penstock_packer_destroy(packer);
    penstock_cuda_close(cuda);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_is_registered_whole_until_the_last_lease_goes),
        cmocka_unit_test(a_refused_registration_leaves_no_error_and_a_ring_that_works),
        cmocka_unit_test(without_a_device_nothing_is_pinned),
        cmocka_unit_test(copies_wait_for_the_last_reader_and_the_consumer_for_them),
        cmocka_unit_test(a_transfer_that_goes_waits_for_its_copies),
        cmocka_unit_test(the_kernel_source_gives_what_the_cpu_gives),
        cmocka_unit_test(what_the_kernel_cannot_do_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
