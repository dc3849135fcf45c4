/*
 * bench_coefficients.c - what coefficient records cost and save, on real files, on one thread.
 *
 *   bench_coefficients [--rounds N] [--kernels scalar|avx2|avx512] < list of JPEG files, one a line
 *
 * Prints bytes relative to the JPEGs', and microseconds of CPU time an image: the mean over the
 * files, of that the median, least and greatest of N rounds (default 5). Within a round all
 * stages of an image run one after another. Crops are those of RandomResizedCrop(224), other ones
 * every round. Files that are not suitable for records are left out and counted.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "decode/coefficients.h"
#include "decode/decoder.h"
#include "decode/geometry.h"
#include "decode/image.h"
#include "decode/recipe.h"

enum { OUT_PX = 224, RESIZE_PX = 256, ROUNDS_MAX = 1000 };

/* How an image is kept. */
enum kept { KEPT_JPEG, KEPT_FAST, KEPT_COMPACT, KEPT_COUNT };

enum stage {
    STAGE_ENCODE, /* a JPEG: full decode, for comparison */
    STAGE_CHECK,  /* image_open() */
    STAGE_WHOLE,
    STAGE_CROP,
    STAGE_TRAIN,
    STAGE_EVAL,
    STAGE_COUNT,
};

static const char *const kept_names[KEPT_COUNT] = {"JPEG", "fast", "compact"};
static const char *const stage_names[STAGE_COUNT] = {
    [STAGE_ENCODE] = "making it from the JPEG",     [STAGE_CHECK] = "opening: header, checksum",
    [STAGE_WHOLE] = "decode of the whole",          [STAGE_CROP] = "decode of the crop",
    [STAGE_TRAIN] = "all: RandomResizedCrop, flip", [STAGE_EVAL] = "all: Resize, CenterCrop",
};

struct item {
    uint8_t *bytes[KEPT_COUNT];
    size_t size_bytes[KEPT_COUNT];
};

struct bench {
    struct item *items;
    size_t count, left_out;
    struct coefficients_encoder *encoder;
    struct image_reader *reader;
    struct decoder *decoder;
    struct recipe *train, *eval;
    uint8_t *target;
    double seconds[KEPT_COUNT][STAGE_COUNT]; /* of the round in progress */
};

static void fail(const char *what, const char *detail)
{
    fprintf(stderr, "bench_coefficients: %s: %s\n", what, detail);
    exit(1);
}

static void *need(void *memory)
{
    if (memory == NULL) {
        fail("out of memory", "stopped");
    }
    return memory;
}

static void check(enum decode_status status, const struct decode_error *error)
{
    if (status != DECODE_OK) {
        fail("an image that was decoded before", error->reason);
    }
}

static double cpu_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- files ------------------------------------------------------------------------------------
 */

static uint8_t *read_file(const char *path, size_t *size_bytes)
{
    struct stat facts;
    FILE *stream = fopen(path, "rb");
    if (stream == NULL || fstat(fileno(stream), &facts) != 0) {
        fail(path, strerror(errno));
    }
    *size_bytes = (size_t)facts.st_size;
    uint8_t *bytes = need(malloc(*size_bytes + 1));
    if (fread(bytes, 1, *size_bytes, stream) != *size_bytes) {
        fail(path, "read error");
    }
    fclose(stream);
    return bytes;
}

/* A record's copy, so that every image lies somewhere else in memory, as in use. */
static bool encode(struct bench *b, struct item *item, enum kept kept)
{
    const uint8_t *record = NULL;
    struct decode_error error;
    enum coefficients_form form = kept == KEPT_FAST ? COEFFICIENTS_FAST : COEFFICIENTS_COMPACT;
    if (coefficients_encode(b->encoder, item->bytes[KEPT_JPEG], item->size_bytes[KEPT_JPEG], form,
                            &record, &item->size_bytes[kept], &error) != DECODE_OK) {
        return false;
    }
    if (item->bytes[kept] == NULL) {
        item->bytes[kept] = need(malloc(item->size_bytes[kept]));
        memcpy(item->bytes[kept], record, item->size_bytes[kept]);
    }
    return true;
}

static void read_list(struct bench *b)
{
    char *line = NULL;
    size_t line_capacity = 0, capacity = 0;
    while (getline(&line, &line_capacity, stdin) > 0) {
        struct item item = {.bytes = {NULL}};
        line[strcspn(line, "\n")] = '\0';
        item.bytes[KEPT_JPEG] = read_file(line, &item.size_bytes[KEPT_JPEG]);
        if (!encode(b, &item, KEPT_FAST) || !encode(b, &item, KEPT_COMPACT)) {
            free(item.bytes[KEPT_JPEG]);
            b->left_out++;
            continue;
        }
        if (b->count == capacity) {
            capacity = capacity ? 2 * capacity : 256;
            b->items = need(realloc(b->items, capacity * sizeof *b->items));
        }
        b->items[b->count++] = item;
    }
    free(line);
    if (b->count == 0) {
        fail("no suitable files", "give their names on standard input, one a line");
    }
}

/* ---- stages -----------------------------------------------------------------------------------
 */

static void decode_region(struct bench *b, const uint8_t *bytes, size_t size_bytes,
                          const struct image_rect *region)
{
    struct image_info info;
    struct decode_error error;
    const uint8_t *rows = NULL;
    size_t stride_bytes = 0;
    uint32_t row_count = 0;
    check(image_open(b->reader, bytes, size_bytes, &info, &error), &error);
    struct image_rect whole = {0, 0, info.width_px, info.height_px};
    check(image_start(b->reader, region != NULL ? *region : whole, &error), &error);
    do {
        check(image_band(b->reader, 32, &rows, &stride_bytes, &row_count, &error), &error);
    } while (row_count > 0);
    check(image_finish(b->reader, &error), &error);
}

/* The rectangle that RandomResizedCrop draws for this sample. */
static struct image_rect draw_region(struct bench *b, const struct item *item,
                                     struct sample_key key)
{
    struct geometry geometry;
    struct decode_error error;
    struct image_info info;
    check(image_open(b->reader, item->bytes[KEPT_JPEG], item->size_bytes[KEPT_JPEG], &info, &error),
          &error);
    check(geometry_draw(b->train, key, info.width_px, info.height_px, &geometry, &error), &error);
    if (geometry.step_count == 0 || geometry.steps[0].kind != GEOMETRY_CROP) {
        return (struct image_rect){0, 0, info.width_px, info.height_px};
    }
    const struct geometry_step *crop = &geometry.steps[0];
    return (struct image_rect){crop->first_px[GEOMETRY_X], crop->first_px[GEOMETRY_Y],
                               crop->out_px[GEOMETRY_X], crop->out_px[GEOMETRY_Y]};
}

static void run_stage(struct bench *b, struct item *item, enum kept kept, enum stage stage,
                      const struct image_rect *region, struct sample_key key)
{
    struct decode_error error;
    struct image_info info;
    const uint8_t *bytes = item->bytes[kept];
    size_t size_bytes = item->size_bytes[kept];
    switch (stage) {
    case STAGE_ENCODE:
        if (kept != KEPT_JPEG) {
            encode(b, item, kept);
        }
        break;
    case STAGE_CHECK: check(image_open(b->reader, bytes, size_bytes, &info, &error), &error); break;
    case STAGE_WHOLE: decode_region(b, bytes, size_bytes, NULL); break;
    case STAGE_CROP: decode_region(b, bytes, size_bytes, region); break;
    case STAGE_TRAIN:
    case STAGE_EVAL:
        check(decoder_run(b->decoder, stage == STAGE_TRAIN ? b->train : b->eval, key, bytes,
                          size_bytes, b->target, &error),
              &error);
        break;
    case STAGE_COUNT: break;
    }
}

static void run_image(struct bench *b, struct item *item, struct sample_key key)
{
    struct image_rect region = draw_region(b, item, key);
    for (int kept = 0; kept < KEPT_COUNT; kept++) {
        for (int stage = 0; stage < STAGE_COUNT; stage++) {
            double since = cpu_seconds();
            run_stage(b, item, (enum kept)kept, (enum stage)stage, &region, key);
            b->seconds[kept][stage] += cpu_seconds() - since;
        }
    }
}

/* ---- set-up and output ------------------------------------------------------------------------
 */

static struct recipe *make_recipe(const struct transform *transforms, size_t count)
{
    struct recipe *recipe = NULL;
    struct decode_error error;
    if (recipe_create(transforms, count, PACK_NHWC, &recipe, &error) != DECODE_OK) {
        fail("recipe", error.reason);
    }
    return recipe;
}

static void setup(struct bench *b, enum kernel_level level_max)
{
    const struct transform train[] = {
        {.kind = TRANSFORM_RANDOM_RESIZED_CROP,
         .height_px = OUT_PX,
         .width_px = OUT_PX,
         .filter = RESIZE_BILINEAR,
         .scale_min = 0.08,
         .scale_max = 1.0,
         .ratio_min = 3.0 / 4.0,
         .ratio_max = 4.0 / 3.0},
        {.kind = TRANSFORM_RANDOM_HORIZONTAL_FLIP, .probability = 0.5},
    };
    const struct transform eval[] = {
        {.kind = TRANSFORM_RESIZE, .shorter_px = RESIZE_PX, .filter = RESIZE_BILINEAR},
        {.kind = TRANSFORM_CENTER_CROP, .height_px = OUT_PX, .width_px = OUT_PX},
    };
    const struct decoder_options options = {.limits = {.pixels_max = IMAGE_PIXELS_MAX_DEFAULT,
                                                       .scans_max = IMAGE_SCANS_MAX_DEFAULT,
                                                       .level_max = level_max},
                                            .level_max = level_max};
    b->train = make_recipe(train, 2);
    b->eval = make_recipe(eval, 2);
    b->encoder = need(coefficients_encoder_create(&options.limits));
    b->reader = need(image_reader_create(&options.limits));
    b->decoder = need(decoder_create(&options));
    b->target = need(malloc(3 * OUT_PX * OUT_PX));
}

static void teardown(struct bench *b)
{
    for (size_t i = 0; i < b->count; i++) {
        for (int kept = 0; kept < KEPT_COUNT; kept++) {
            free(b->items[i].bytes[kept]);
        }
    }
    free(b->items);
    recipe_destroy(b->train);
    recipe_destroy(b->eval);
    coefficients_encoder_destroy(b->encoder);
    image_reader_destroy(b->reader);
    decoder_destroy(b->decoder);
    free(b->target);
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static void print_results(const struct bench *b, int round_count, const char *level,
                          double us[KEPT_COUNT][STAGE_COUNT][ROUNDS_MAX])
{
    double bytes[KEPT_COUNT] = {0};
    for (size_t i = 0; i < b->count; i++) {
        for (int kept = 0; kept < KEPT_COUNT; kept++) {
            bytes[kept] += (double)b->items[i].size_bytes[kept];
        }
    }
    printf("%zu images (%zu not suitable), %d rounds, kernels: %s\n", b->count, b->left_out,
           round_count, level);
    for (int kept = 0; kept < KEPT_COUNT; kept++) {
        printf("%s: %.0f bytes an image, %.4f of the JPEG's\n", kept_names[kept],
               bytes[kept] / (double)b->count, bytes[kept] / bytes[KEPT_JPEG]);
    }
    printf("microseconds of CPU an image           median    least greatest\n");
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        for (int kept = stage == STAGE_ENCODE; kept < KEPT_COUNT; kept++) {
            double *values = us[kept][stage];
            qsort(values, (size_t)round_count, sizeof *values, compare_doubles);
            printf("%-29s %-7s %8.1f %8.1f %8.1f\n", stage_names[stage], kept_names[kept],
                   values[round_count / 2], values[0], values[round_count - 1]);
        }
    }
}

int main(int argc, char **argv)
{
    static double us[KEPT_COUNT][STAGE_COUNT][ROUNDS_MAX];
    struct bench b = {.items = NULL};
    int round_count = 5;
    enum kernel_level level = KERNEL_AVX512;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--rounds") == 0) {
            round_count = atoi(argv[i + 1]);
        } else if (strcmp(argv[i], "--kernels") == 0) {
            for (level = KERNEL_AVX512; level > KERNEL_SCALAR; level--) {
                if (strcmp(argv[i + 1], kernel_level_name(level)) == 0) {
                    break;
                }
            }
        }
    }
    if (argc % 2 == 0 || round_count < 1 || round_count > ROUNDS_MAX) {
        fail("usage", "bench_coefficients [--rounds N] [--kernels NAME] < list of files");
    }
    setup(&b, level);
    read_list(&b);
    /* Round -1 is not counted: it brings buffers and caches to size. */
    for (int round = -1; round < round_count; round++) {
        memset(b.seconds, 0, sizeof b.seconds);
        for (size_t i = 0; i < b.count; i++) {
            struct sample_key key = {.epoch = (uint64_t)(round + 1), .sample_id = i};
            run_image(&b, &b.items[i], key);
        }
        for (int kept = 0; kept < KEPT_COUNT && round >= 0; kept++) {
            for (int stage = 0; stage < STAGE_COUNT; stage++) {
                us[kept][stage][round] = b.seconds[kept][stage] * 1e6 / (double)b.count;
            }
        }
    }
    print_results(&b, round_count, kernel_level_name(kernels_detect(level)), us);
    teardown(&b);
    return 0;
}
