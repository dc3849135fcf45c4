/*
 * The pipeline on a real folder of JPEGs, driven as the daemon drives it, with libpenstock as the
 * trainer: order, policies, seeks, two jobs at once, and trainers that leave in the middle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "clients/c/penstock.h"
#include "loader/pipeline.h"
#include "tests/tools/jpeg_samples.h"
#include "tests/tools/temporary_folder.h"

enum { CLASSES = 3, PER_CLASS = 11, SAMPLES = CLASSES * PER_CLASS, SIDE_PX = 24 };

struct rig {
    struct temporary_folder folder;
    struct index *index;
    struct bad_samples *bad_samples;
    struct pipeline *pipeline;
};

/* One trainer: its session in the pipeline and its end of the ring. */
struct trainer {
    struct rig *rig;
    struct session *session;
    penstock_ring *ring;
    struct batch_layout layout;
};

static void write_jpeg(const struct temporary_folder *folder, uint32_t number, size_t cut_bytes)
{
    char name[64];
    snprintf(name, sizeof name, "class%u/%02u.jpg", number / PER_CLASS, number % PER_CLASS);
    temporary_file(folder, name, "");
    const struct jpeg_sample sample = {.width_px = 60 + number,
                                       .height_px = 50,
                                       .color = SAMPLE_YCC,
                                       .sampling = {{2, 2}, {1, 1}, {1, 1}},
                                       .seed = number};
    size_t size_bytes;
    uint8_t *bytes = jpeg_sample_make(&sample, &size_bytes);
    FILE *file = fopen(temporary_path(folder, "%s", name), "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size_bytes - cut_bytes, file), size_bytes - cut_bytes);
    fclose(file);
    free(bytes);
}

/* Sample 5 is cut short when `with_bad`. */
static void rig_open(struct rig *rig, uint32_t threads, bool with_bad)
{
    struct error error = {.text = ""};
    temporary_folder_create(&rig->folder);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        write_jpeg(&rig->folder, i, with_bad && i == 5 ? 400 : 0);
    }
    const char *url = rig->folder.path;
    const struct index_options options = {.urls = &url, .url_count = 1, .thread_count = 2};
    assert_int_equal(index_open(&options, NULL, &rig->index, NULL, NULL, &error), 0);
    assert_int_equal(index_sample_count(rig->index), SAMPLES);
    rig->bad_samples = bad_samples_create();
    const struct pipeline_options pipeline = {.threads = threads, .level_max = KERNEL_AVX512};
    rig->pipeline = pipeline_create(&pipeline, &error);
    assert_non_null(rig->pipeline);
}

static void rig_close(struct rig *rig)
{
    pipeline_destroy(rig->pipeline);
    bad_samples_destroy(rig->bad_samples);
    index_unref(rig->index);
    temporary_folder_destroy(&rig->folder);
}

static struct session_spec default_spec(void)
{
    struct session_spec spec = {
        .order = PLAN_FULL,
        .window_shards = 16,
        .seed = 1,
        .batch = 8,
        .world = 1,
        .tail = PLAN_EVEN,
        .transform_count = 1,
        .layout = PACK_NCHW,
        .field_count = 2,
        .side_bytes = 64,
        .slots = 3,
        .weight = 1,
    };
    spec.transforms[0] = (struct transform){.kind = TRANSFORM_RANDOM_RESIZED_CROP,
                                            .height_px = SIDE_PX,
                                            .width_px = SIDE_PX,
                                            .filter = RESIZE_BILINEAR,
                                            .scale_min = 0.08,
                                            .scale_max = 1,
                                            .ratio_min = 0.75,
                                            .ratio_max = 4.0 / 3};
    spec.fields[0] = (struct field_spec){.name = "image", .kind = FIELD_IMAGE, .pattern = "jpg"};
    spec.fields[1] = (struct field_spec){.name = "label", .kind = FIELD_LABEL, .pattern = "cls"};
    return spec;
}

static void trainer_open(struct trainer *trainer, struct rig *rig, const struct session_spec *spec)
{
    struct error error = {.text = ""};
    trainer->rig = rig;
    struct session_data data = {.index = rig->index, .bad_samples = rig->bad_samples};
    if (session_create(1, spec, &data, &trainer->session, &error) != 0) {
        fail_msg("%s", error.text);
    }
    trainer->layout = *session_layout(trainer->session);
    struct ring *ring = session_ring(trainer->session);
    assert_int_equal(penstock_ring_open(dup(ring_memory_fd(ring)), dup(ring_release_fd(ring)),
                                        ring_region_bytes(ring), &trainer->ring),
                     PENSTOCK_OK);
    assert_int_equal(pipeline_add(rig->pipeline, trainer->session, &error), 0);
}

static void trainer_close(struct trainer *trainer)
{
    pipeline_remove(trainer->rig->pipeline, trainer->session);
    penstock_ring_close(trainer->ring);
}

static penstock_lease *next_batch(struct trainer *trainer, penstock_batch_info *info)
{
    penstock_lease *lease = NULL;
    assert_int_equal(penstock_ring_wait(trainer->ring, 0, 20000), PENSTOCK_OK);
    assert_int_equal(penstock_ring_take(trainer->ring, &lease), PENSTOCK_OK);
    penstock_lease_describe(lease, info);
    return lease;
}

static void give_back(struct trainer *trainer, penstock_lease *lease)
{
    penstock_lease_unref(lease);
    pipeline_collect(trainer->rig->pipeline, trainer->session);
}

/* A running hash over ids, labels and pixels (FNV-1a). */
static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++) {
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * 1099511628211u;
    }
    return hash;
}

static uint64_t hash_batch(const struct trainer *trainer, const penstock_batch_info *info,
                           uint64_t hash)
{
    const struct batch_layout *layout = &trainer->layout;
    hash = hash_bytes(hash, info->base + layout->id_offset_bytes, 8 * info->place_count);
    for (size_t i = 0; i < 2; i++) {
        hash = hash_bytes(hash, info->base + layout->field_offset_bytes[i],
                          layout->row_bytes[i] * info->place_count);
    }
    return hash;
}

/* Batches from where the trainer stands until the end of `epochs` epochs. */
static uint64_t hash_epochs(struct trainer *trainer, uint32_t epochs)
{
    uint64_t hash = 14695981039346656037u;
    while (epochs > 0) {
        penstock_batch_info info;
        penstock_lease *lease = next_batch(trainer, &info);
        assert_int_equal(info.kind, 0);
        hash = hash_batch(trainer, &info, hash);
        epochs -= info.is_last;
        give_back(trainer, lease);
    }
    return hash;
}

static uint64_t hash_run(uint32_t threads, enum source_engine engine, uint32_t slots)
{
    struct rig rig;
    rig_open(&rig, threads, false);
    pipeline_destroy(rig.pipeline);
    struct error error;
    const struct pipeline_options options = {
        .threads = threads, .engine = engine, .level_max = KERNEL_AVX512};
    rig.pipeline = pipeline_create(&options, &error);
    struct session_spec spec = default_spec();
    spec.slots = slots;
    struct trainer trainer;
    trainer_open(&trainer, &rig, &spec);
    uint64_t hash = hash_epochs(&trainer, 3);
    trainer_close(&trainer);
    rig_close(&rig);
    return hash;
}

static void threads_engine_and_slots_do_not_matter(void **state)
{
    (void)state;
    uint64_t expected = hash_run(1, SOURCE_AUTO, 3);
    assert_true(hash_run(4, SOURCE_AUTO, 2) == expected);
    assert_true(hash_run(3, SOURCE_PREAD, 5) == expected);
}

static void an_epoch_gives_each_sample_once(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 2, false);
    struct session_spec spec = default_spec();
    struct trainer trainer;
    trainer_open(&trainer, &rig, &spec);
    uint32_t seen[SAMPLES] = {0};
    for (uint32_t batch = 0; batch < 5; batch++) {
        penstock_batch_info info;
        penstock_lease *lease = next_batch(&trainer, &info);
        assert_int_equal(info.place_count, batch < 4 ? 8 : 1);
        assert_int_equal(info.is_last, batch == 4);
        const uint64_t *ids = (const uint64_t *)(info.base + trainer.layout.id_offset_bytes);
        const int64_t *labels = (const int64_t *)(info.base + trainer.layout.field_offset_bytes[1]);
        for (uint32_t i = 0; i < info.place_count; i++) {
            assert_in_range(ids[i], 0, SAMPLES - 1);
            seen[ids[i]]++;
            assert_int_equal(labels[i], ids[i] / PER_CLASS);
        }
        give_back(&trainer, lease);
    }
    for (uint32_t i = 0; i < SAMPLES; i++) {
        assert_int_equal(seen[i], 1);
    }
    trainer_close(&trainer);
    rig_close(&rig);
}

/* All batches of one epoch under a policy; how many places and bad ones there were. */
static void run_policy(enum bad_policy policy, uint32_t *places, uint32_t *bad, uint32_t *errors)
{
    struct rig rig;
    rig_open(&rig, 2, true);
    struct session_spec spec = default_spec();
    spec.on_error = policy;
    spec.order = PLAN_SEQUENTIAL;
    struct trainer trainer;
    trainer_open(&trainer, &rig, &spec);
    *places = *bad = *errors = 0;
    for (bool is_over = false; !is_over;) {
        penstock_batch_info info;
        penstock_lease *lease = next_batch(&trainer, &info);
        if (info.kind == 1) {
            ++*errors;
            assert_string_equal(info.error_kind, "sample");
            assert_non_null(strstr(info.error_text, "class0/05.jpg"));
            assert_non_null(strstr(info.error_text, "truncated"));
        } else {
            *places += info.place_count;
            *bad += info.bad_count;
        }
        is_over = info.kind == 1 || info.is_last;
        if (policy == BAD_ZERO && info.step == 0) {
            int64_t label;
            memcpy(&label, info.base + trainer.layout.field_offset_bytes[1] + 8 * 5, 8);
            assert_int_equal(label, BATCH_LABEL_NONE);
            assert_int_equal(info.valid_count, 7);
        }
        give_back(&trainer, lease);
    }
    assert_in_range(bad_samples_total(rig.bad_samples), 1, 2); /* the next epoch may be ahead */
    trainer_close(&trainer);
    rig_close(&rig);
}

static void each_policy_does_its_part(void **state)
{
    (void)state;
    uint32_t places;
    uint32_t bad;
    uint32_t errors;
    run_policy(BAD_RAISE, &places, &bad, &errors);
    assert_int_equal(errors, 1);
    assert_int_equal(places, 0);
    run_policy(BAD_SKIP, &places, &bad, &errors);
    assert_int_equal(places, SAMPLES - 1);
    assert_int_equal(bad, 1);
    run_policy(BAD_ZERO, &places, &bad, &errors);
    assert_int_equal(places, SAMPLES);
    assert_int_equal(bad, 1);
    run_policy(BAD_REPLACE, &places, &bad, &errors);
    assert_int_equal(places, SAMPLES);
    assert_int_equal(errors, 0);
}

static void a_seek_goes_on_as_if_never_elsewhere(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 2, false);
    struct session_spec spec = default_spec();
    spec.epoch = 2;
    spec.position = 16;
    struct trainer straight;
    trainer_open(&straight, &rig, &spec);
    uint64_t expected = hash_epochs(&straight, 2);
    trainer_close(&straight);

    spec = default_spec();
    struct trainer trainer;
    trainer_open(&trainer, &rig, &spec);
    for (uint32_t round = 0; round < 20; round++) {
        penstock_lease *held[3] = {NULL};
        uint32_t taken = round % 3;
        penstock_batch_info info;
        for (uint32_t i = 0; i < taken; i++) {
            held[i] = next_batch(&trainer, &info);
        }
        penstock_ring_info ring;
        penstock_ring_describe(trainer.ring, &ring);
        struct error error = {.text = ""};
        struct session_place place = {.epoch = 2, .position = 16};
        uint64_t left;
        assert_int_equal(
            pipeline_seek(rig.pipeline, trainer.session, &place, ring.taken_count, &left, &error),
            0);
        penstock_ring_rewind(trainer.ring);
        for (uint32_t i = 0; i < taken; i++) {
            give_back(&trainer, held[i]); /* after the seek: another stream's slots */
        }
        if (round % 5 == 0) {
            assert_true(hash_epochs(&trainer, 2) == expected);
        }
    }
    trainer_close(&trainer);
    rig_close(&rig);
}

static void trainers_come_and_go_beside_each_other(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 3, false);
    struct session_spec spec = default_spec();
    struct trainer steady;
    trainer_open(&steady, &rig, &spec);
    uint64_t expected = hash_run(1, SOURCE_AUTO, 3);
    for (uint32_t i = 0; i < 30; i++) {
        struct trainer other;
        spec.seed = i;
        snprintf(spec.job, sizeof spec.job, "job%u", i % 2);
        trainer_open(&other, &rig, &spec);
        if (i % 3 == 0) {
            penstock_batch_info info;
            penstock_lease_unref(next_batch(&other, &info));
        }
        trainer_close(&other); /* with batches under way */
    }
    assert_true(hash_epochs(&steady, 3) == expected);
    trainer_close(&steady);
    rig_close(&rig);
}

static void a_missing_file_is_an_io_error_under_every_policy(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 2, false);
    unlink(temporary_path(&rig.folder, "class1/03.jpg"));
    struct session_spec spec = default_spec();
    spec.on_error = BAD_SKIP;
    struct trainer trainer;
    trainer_open(&trainer, &rig, &spec);
    for (;;) {
        penstock_batch_info info;
        penstock_lease *lease = next_batch(&trainer, &info);
        if (info.kind == 1) {
            assert_string_equal(info.error_kind, "io");
            assert_non_null(strstr(info.error_text, "class1/03.jpg"));
            give_back(&trainer, lease);
            break;
        }
        assert_int_equal(info.is_last, 0);
        give_back(&trainer, lease);
    }
    trainer_close(&trainer);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_epoch_gives_each_sample_once),
        cmocka_unit_test(threads_engine_and_slots_do_not_matter),
        cmocka_unit_test(each_policy_does_its_part),
        cmocka_unit_test(a_seek_goes_on_as_if_never_elsewhere),
        cmocka_unit_test(trainers_come_and_go_beside_each_other),
        cmocka_unit_test(a_missing_file_is_an_io_error_under_every_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
