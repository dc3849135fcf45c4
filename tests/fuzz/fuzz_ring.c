/*
 * A ring whose trainer writes anything anywhere: the input is a list of the daemon's calls and of
 * the trainer's stores. After each of them the ring must agree with a model of the slot table
 * that follows the contract of ring.h. In between the trainer's library opens the same scribbled
 * memory, which must not make it read outside of it.
 */
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clients/c/penstock.h"
#include "ipc/ring.h"
#include "tests/fuzz/fuzz.h"

enum { SLOT_BYTES = 2 * LAYOUT_PAGE_BYTES, SLOTS_MAX = 9, OPERATIONS_MAX = 2000 };

enum slot_state { FREE, FILLING, PUBLISHED };

struct model {
    uint32_t slot_count;
    struct {
        enum slot_state state;
        uint32_t generation;
        uint64_t published_as; /* counted over all streams */
    } slots[SLOTS_MAX];
    uint64_t published_count, stream_begin; /* counted over all streams */
    uint32_t stream;
};

struct session {
    struct ring *ring;
    struct model model;
    uint8_t *memory; /* the trainer's mapping */
    size_t memory_bytes;
    const uint8_t *input, *input_end;
};

static uint32_t next_u8(struct session *session)
{
    return session->input < session->input_end ? *session->input++ : 0;
}

static uint32_t next_u32(struct session *session)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        value = value << 8 | next_u8(session);
    }
    return value;
}

static uint32_t next_slot(struct session *session)
{
    return next_u8(session) % session->model.slot_count;
}

static void check_usage(const struct session *session)
{
    uint32_t count[3] = {0};
    for (uint32_t i = 0; i < session->model.slot_count; i++) {
        count[session->model.slots[i].state]++;
    }
    struct ring_usage usage = ring_usage(session->ring);
    assert(usage.free_count == count[FREE]);
    assert(usage.filling_count == count[FILLING]);
    assert(usage.published_count == count[PUBLISHED]);
    assert(usage.stream == session->model.stream);
}

static void do_claim(struct session *session)
{
    int slot = ring_claim(session->ring);
    if (slot < 0) {
        assert(ring_usage(session->ring).free_count == 0);
        return;
    }
    assert(slot < (int)session->model.slot_count && session->model.slots[slot].state == FREE);
    session->model.slots[slot].state = FILLING;
    uint8_t *base = ring_slot_base(session->ring, (uint32_t)slot);
    assert((uintptr_t)base % LAYOUT_PAGE_BYTES == 0);
    base[0] = base[SLOT_BYTES - 1] = (uint8_t)next_u8(session);
}

static void do_publish(struct session *session)
{
    uint32_t slot = next_slot(session);
    struct model *model = &session->model;
    if (model->slots[slot].state != FILLING) {
        return;
    }
    ring_publish(session->ring, slot);
    model->slots[slot].state = PUBLISHED;
    model->slots[slot].generation++;
    model->slots[slot].published_as = model->published_count++;
    const struct ring_header *header = (const struct ring_header *)session->memory;
    uint64_t in_stream = model->published_count - model->stream_begin;
    assert(atomic_load(&header->published_count) == (uint32_t)in_stream);
    assert(atomic_load(&header->entry[(in_stream - 1) % model->slot_count]) == slot);
}

static void do_abandon(struct session *session)
{
    uint32_t slot = next_slot(session);
    if (session->model.slots[slot].state != FILLING) {
        return;
    }
    ring_abandon(session->ring, slot);
    session->model.slots[slot].state = FREE;
}

static void do_collect(struct session *session)
{
    const struct ring_releases *releases =
        (const struct ring_releases *)(session->memory + LAYOUT_PAGE_BYTES);
    uint32_t expected = 0;
    for (uint32_t i = 0; i < session->model.slot_count; i++) {
        if (session->model.slots[i].state == PUBLISHED &&
            session->model.slots[i].generation == atomic_load(&releases->generation[i])) {
            session->model.slots[i].state = FREE;
            expected++;
        }
    }
    assert(ring_collect(session->ring) == expected);
}

static void do_rewind(struct session *session)
{
    struct model *model = &session->model;
    uint64_t in_stream = model->published_count - model->stream_begin;
    uint32_t how = next_u8(session);
    uint32_t taken = how < 128 ? (uint32_t)in_stream - how % 16 : next_u32(session);
    bool valid = taken <= in_stream && in_stream - taken <= model->slot_count;
    assert((ring_rewind(session->ring, taken) == 0) == valid);
    if (!valid) {
        return;
    }
    for (uint32_t i = 0; i < model->slot_count; i++) {
        if (model->slots[i].state == PUBLISHED &&
            model->slots[i].published_as >= model->stream_begin + taken) {
            model->slots[i].state = FREE;
        }
    }
    model->stream_begin = model->published_count;
    model->stream++;
}

static void store_release(struct session *session)
{
    struct ring_releases *releases = (struct ring_releases *)(session->memory + LAYOUT_PAGE_BYTES);
    uint32_t slot = next_slot(session), how = next_u8(session);
    uint32_t value =
        how < 192 ? session->model.slots[slot].generation + how / 96 : next_u32(session);
    atomic_store(&releases->generation[slot], value);
    const uint64_t count = how;
    ssize_t ignored = write(ring_release_fd(session->ring), &count, sizeof count);
    (void)ignored;
}

/* A page of input anywhere, a word of page 0, or one byte all over. */
static void scribble(struct session *session)
{
    uint32_t how = next_u8(session);
    if (how == 0) {
        memset(session->memory, (int)next_u8(session), session->memory_bytes);
        return;
    }
    size_t words = (how % 2 == 0 ? LAYOUT_PAGE_BYTES : session->memory_bytes) / sizeof(uint32_t);
    size_t place = next_u32(session) % words;
    for (uint32_t i = 0; i <= how % 8 && place < words; i++, place++) {
        uint32_t value = next_u32(session);
        memcpy(session->memory + place * sizeof value, &value, sizeof value);
    }
}

static void try_trainer(struct session *session)
{
    int memory_fd = dup(ring_memory_fd(session->ring));
    int release_fd = dup(ring_release_fd(session->ring));
    penstock_ring *trainer;
    if (penstock_ring_open(memory_fd, release_fd, session->memory_bytes, &trainer) != PENSTOCK_OK) {
        close(memory_fd);
        close(release_fd);
        return;
    }
    for (int i = 0; i < 3; i++) {
        penstock_lease *lease;
        penstock_ring_wait(trainer, 0, 0);
        if (penstock_ring_take(trainer, &lease) != PENSTOCK_OK) {
            break;
        }
        penstock_batch_info info;
        penstock_lease_describe(lease, &info);
        assert(info.slot_index < LAYOUT_SLOTS_MAX);
        assert(strlen(info.error_kind) < 32 && strlen(info.error_text) < LAYOUT_ERROR_BYTES);
        penstock_lease_unref(lease);
    }
    penstock_ring_close(trainer);
}

static void do_next(struct session *session)
{
    switch (next_u8(session) % 10) {
    case 0:
    case 1: do_claim(session); break;
    case 2:
    case 3: do_publish(session); break;
    case 4: do_abandon(session); break;
    case 5: do_collect(session); break;
    case 6: do_rewind(session); break;
    case 7: store_release(session); break;
    case 8: scribble(session); break;
    default: try_trainer(session); break;
    }
    check_usage(session);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes)
{
    struct session session = {.input = bytes, .input_end = bytes + size_bytes};
    session.model.slot_count = 2 + next_u8(&session) % (SLOTS_MAX - 1);
    assert(ring_create(session.model.slot_count, SLOT_BYTES, &session.ring) == 0);
    session.memory_bytes = ring_region_bytes(session.ring);
    session.memory = mmap(NULL, session.memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                          ring_memory_fd(session.ring), 0);
    assert(session.memory != MAP_FAILED);
    for (int i = 0; i < OPERATIONS_MAX && session.input < session.input_end; i++) {
        do_next(&session);
    }
    munmap(session.memory, session.memory_bytes);
    ring_destroy(session.ring);
    return 0;
}

size_t fuzz_seed(size_t index, uint8_t *buffer, size_t size_max_bytes)
{
    /* Claim, publish, take, release, collect; with rewinds; with scribbling. */
    static const uint8_t seeds[][24] = {
        {2, 0, 7, 2, 0, 9, 5, 0, 8, 2, 1, 7, 0, 0, 5, 6, 1, 9},
        {7, 0, 1, 0, 1, 0, 1, 2, 0, 2, 1, 2, 2, 6, 2, 5, 0, 1, 4, 3, 2, 0, 9},
        {0, 0, 1, 2, 0, 8, 3, 0, 0, 4, 0, 1, 2, 3, 4, 7, 0, 200, 1, 2, 3, 4, 5, 9},
        {4, 0, 1, 2, 0, 8, 0, 255, 5, 9, 0, 1, 2, 1, 7, 1, 0, 5, 6, 0, 0, 1, 2, 2},
    };
    if (index >= sizeof seeds / sizeof *seeds || size_max_bytes < sizeof *seeds) {
        return 0;
    }
    memcpy(buffer, seeds[index], sizeof *seeds);
    return sizeof *seeds;
}
