#include "decode/decoder.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* resize_columns() may touch this much beyond a row; strides are multiples of it. */
    ROW_SLACK_BYTES = 64,
    BAND_ROWS_MAX = 32,
    /* A buffer that a rare, large image has needed is given back above this. */
    BUFFER_KEPT_BYTES = 32 << 20,
    /* What buffers may exceed 3 * pixels_max by, for the slack of narrow pictures' rows. */
    BUFFER_EXTRA_BYTES = 64 << 20,
};

/* What a buffer holds. */
enum role {
    ROLE_SOURCE,   /* the decoded region, where it cannot be consumed in bands */
    ROLE_BAND,     /* one band, flipped */
    ROLE_ARRANGED, /* a picture after crops, pads and flips */
    ROLE_BETWEEN,  /* between the two passes of a resize */
    ROLE_RESULT,   /* of a resize; two, since one resize may read another's result */
    ROLE_RESULT_2,
    ROLE_COUNT,
};

struct buffer {
    uint8_t *bytes;
    size_t size_bytes;
};

/* Pixels somewhere: in a buffer, in the reader's band, in the target. */
struct picture {
    uint8_t *pixels;
    size_t stride_bytes;
    uint32_t width_px, height_px;
};

/* One axis of a pass: which positions the output needs at each place of it. */
struct pass_axis {
    struct geometry_span source;   /* of the picture that comes in */
    struct geometry_span arranged; /* of the picture after the run of crops, pads and flips */
    struct geometry_span result;   /* of the picture after the resize */
    enum geometry_order order;     /* how arranged follows from source */
    struct resize_axis *weights;   /* made when first needed, then kept */
    int32_t *sources;              /* arranged.count entries, for geometry_gather() */
    size_t sources_capacity;
};

/* A run of steps that move pixels, then a resize; the last pass has none. */
struct pass {
    struct geometry_run run;
    const struct geometry_step *resize; /* NULL: none */
    struct pass_axis axis[2];
};

struct decoder {
    struct image_limits limits;
    struct image_reader *reader;
    const struct kernels *kernels;
    struct geometry geometry;
    struct pass passes[RECIPE_TRANSFORMS_MAX + 1];
    uint32_t pass_count;
    struct buffer buffers[ROLE_COUNT];
    struct decode_error *error; /* of the decoder_run() in progress */
};

struct decoder *decoder_create(const struct decoder_options *options)
{
    struct decoder *decoder = calloc(1, sizeof *decoder);
    if (decoder == NULL) {
        return NULL;
    }
    decoder->limits = options->limits;
    decoder->limits.level_max = options->level_max;
    decoder->kernels = kernels_get(kernels_detect(options->level_max));
    decoder->reader = image_reader_create(&decoder->limits);
    if (decoder->reader == NULL) {
        decoder_destroy(decoder);
        return NULL;
    }
    return decoder;
}

void decoder_destroy(struct decoder *decoder)
{
    if (decoder == NULL) {
        return;
    }
    for (size_t i = 0; i < sizeof decoder->passes / sizeof *decoder->passes; i++) {
        for (int axis = 0; axis < 2; axis++) {
            resize_axis_destroy(decoder->passes[i].axis[axis].weights);
            free(decoder->passes[i].axis[axis].sources);
        }
    }
    for (int role = 0; role < ROLE_COUNT; role++) {
        free(decoder->buffers[role].bytes);
    }
    image_reader_destroy(decoder->reader);
    free(decoder);
}

const struct geometry *decoder_geometry(const struct decoder *decoder)
{
    return &decoder->geometry;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static enum decode_status fail_memory(const struct decoder *decoder)
{
    return decode_fail(decoder->error, DECODE_NO_MEMORY, 0, "no memory to transform the image");
}

/* Room for a picture, its old content lost. */
static enum decode_status take_buffer(struct decoder *decoder, enum role role, uint32_t width_px,
                                      uint32_t height_px, struct picture *picture)
{
    uint64_t pixel_count = (uint64_t)width_px * height_px;
    size_t stride_bytes = (3 * (size_t)width_px / ROW_SLACK_BYTES + 2) * ROW_SLACK_BYTES;
    size_t need_bytes = stride_bytes * height_px + ROW_SLACK_BYTES;
    size_t beyond_bytes = need_bytes > BUFFER_EXTRA_BYTES ? need_bytes - BUFFER_EXTRA_BYTES : 0;
    if (pixel_count > decoder->limits.pixels_max || beyond_bytes / 3 > decoder->limits.pixels_max) {
        return decode_fail(decoder->error, DECODE_TOO_LARGE, 0,
                           "the transforms need a picture of %ux%u px, above the limit of %llu",
                           width_px, height_px, (unsigned long long)decoder->limits.pixels_max);
    }
    struct buffer *buffer = &decoder->buffers[role];
    if (buffer->size_bytes < need_bytes) {
        free(buffer->bytes);
        buffer->size_bytes = 0;
        /* Zeroed, since vector code may load bytes that nobody has written. */
        buffer->bytes = calloc(1, need_bytes);
        if (buffer->bytes == NULL) {
            return fail_memory(decoder);
        }
        buffer->size_bytes = need_bytes;
    }
    *picture = (struct picture){buffer->bytes, stride_bytes, width_px, height_px};
    return DECODE_OK;
}

static void give_back_large_buffers(struct decoder *decoder)
{
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct buffer *buffer = &decoder->buffers[role];
        if (buffer->size_bytes > BUFFER_KEPT_BYTES) {
            free(buffer->bytes);
            *buffer = (struct buffer){0};
        }
    }
}

/* ---- Backwards: what is needed where --------------------------------------------------------- */

static void split_passes(struct decoder *decoder)
{
    const struct geometry *geometry = &decoder->geometry;
    uint32_t begin = 0;
    decoder->pass_count = 0;
    for (uint32_t i = 0; i <= geometry->step_count; i++) {
        bool end = i == geometry->step_count;
        if (end || geometry->steps[i].kind == GEOMETRY_RESIZE) {
            struct pass *pass = &decoder->passes[decoder->pass_count++];
            pass->run = (struct geometry_run){begin, i};
            pass->resize = end ? NULL : &geometry->steps[i];
            begin = i + 1;
        }
    }
}

static bool set_weights(struct pass *pass, enum geometry_axis which)
{
    struct pass_axis *axis = &pass->axis[which];
    const struct geometry_step *resize = pass->resize;
    if (axis->weights == NULL) {
        axis->weights = resize_axis_create();
    }
    if (axis->weights == NULL ||
        !resize_axis_set(axis->weights, resize->filter, resize->in_px[which], resize->out_px[which],
                         axis->result.first, axis->result.count)) {
        return false;
    }
    resize_axis_input(axis->weights, &axis->arranged.first, &axis->arranged.count);
    return true;
}

/* geometry_gather() for what is arranged; false when memory is short. */
static bool gather(const struct decoder *decoder, struct pass *pass, enum geometry_axis which,
                   struct geometry_span *source)
{
    struct pass_axis *axis = &pass->axis[which];
    if (axis->sources_capacity < axis->arranged.count) {
        free(axis->sources);
        axis->sources_capacity = 0;
        axis->sources = calloc(axis->arranged.count, sizeof *axis->sources);
        if (axis->sources == NULL) {
            return false;
        }
        axis->sources_capacity = axis->arranged.count;
    }
    *source = geometry_gather(&decoder->geometry, pass->run, which, axis->arranged, axis->sources);
    return true;
}

/* One axis of a pass of which `result` is needed. */
static bool plan_axis(const struct decoder *decoder, struct pass *pass, enum geometry_axis which,
                      struct geometry_span result)
{
    struct pass_axis *axis = &pass->axis[which];
    axis->result = result;
    axis->arranged = result;
    if (pass->resize != NULL && !set_weights(pass, which)) {
        return false;
    }
    axis->source = axis->arranged;
    axis->order = geometry_span_back(&decoder->geometry, pass->run, which, &axis->source);
    return axis->order != GEOMETRY_GATHER || gather(decoder, pass, which, &axis->source);
}

/* From the whole output back to the part of the image that it needs. */
static enum decode_status plan_passes(struct decoder *decoder, struct recipe_output output)
{
    split_passes(decoder);
    struct geometry_span need[2] = {{0, output.width_px}, {0, output.height_px}};
    for (uint32_t i = decoder->pass_count; i-- > 0;) {
        for (enum geometry_axis axis = GEOMETRY_X; axis <= GEOMETRY_Y; axis++) {
            if (!plan_axis(decoder, &decoder->passes[i], axis, need[axis])) {
                return fail_memory(decoder);
            }
            need[axis] = decoder->passes[i].axis[axis].source;
        }
    }
    return DECODE_OK;
}

/* ---- Moving pixels --------------------------------------------------------------------------- */

static void reverse_row(const uint8_t *source, uint32_t width_px, uint8_t *target)
{
    const uint8_t *from = source + 3 * (size_t)width_px;
    for (uint32_t x = 0; x < width_px; x++) {
        from -= 3;
        memcpy(target + 3 * (size_t)x, from, 3);
    }
}

static bool is_moved(const struct pass *pass)
{
    return pass->axis[GEOMETRY_X].order != GEOMETRY_FORWARD ||
           pass->axis[GEOMETRY_Y].order != GEOMETRY_FORWARD;
}

static bool is_gathered(const struct pass *pass)
{
    return pass->axis[GEOMETRY_X].order == GEOMETRY_GATHER ||
           pass->axis[GEOMETRY_Y].order == GEOMETRY_GATHER;
}

/* One row of an arranged picture. source_y < 0: the row lies in a padding. */
static void arrange_row(const struct decoder *decoder, const struct pass_axis *axis_x,
                        const uint8_t *source, int32_t source_y, uint8_t *target)
{
    const int32_t *sources = axis_x->sources;
    const int32_t first = (int32_t)axis_x->source.first;
    uint32_t count = axis_x->arranged.count;
    for (uint32_t x = 0; x < count;) {
        uint8_t *pixel = target + 3 * (size_t)x;
        if (sources[x] < 0 || source_y < 0) {
            /* The later step is the smaller number, -1 - step; a position is not negative. */
            int32_t filler = sources[x] < source_y ? sources[x] : source_y;
            memcpy(pixel, decoder->geometry.steps[-1 - filler].fill, 3);
            x++;
            continue;
        }
        uint32_t run = 1;
        while (x + run < count && sources[x + run] == sources[x] + (int32_t)run) {
            run++;
        }
        memcpy(pixel, source + 3 * (size_t)(sources[x] - first), 3 * (size_t)run);
        x += run;
    }
}

/* Crops, pads and flips of a pass on a picture that holds exactly the source spans. */
static enum decode_status arrange(struct decoder *decoder, struct pass *pass,
                                  struct picture *picture)
{
    struct pass_axis *axis_x = &pass->axis[GEOMETRY_X], *axis_y = &pass->axis[GEOMETRY_Y];
    struct geometry_span span;
    if (!gather(decoder, pass, GEOMETRY_X, &span) || !gather(decoder, pass, GEOMETRY_Y, &span)) {
        return fail_memory(decoder);
    }
    struct picture arranged;
    enum decode_status status = take_buffer(decoder, ROLE_ARRANGED, axis_x->arranged.count,
                                            axis_y->arranged.count, &arranged);
    if (status != DECODE_OK) {
        return status;
    }
    for (uint32_t y = 0; y < arranged.height_px; y++) {
        int32_t source_y = axis_y->sources[y];
        const uint8_t *source = picture->pixels;
        if (source_y >= 0) {
            source += ((uint32_t)source_y - axis_y->source.first) * picture->stride_bytes;
        }
        arrange_row(decoder, axis_x, source, source_y, arranged.pixels + y * arranged.stride_bytes);
    }
    *picture = arranged;
    return DECODE_OK;
}

/* ---- Reading the image ----------------------------------------------------------------------- */

static enum decode_status read_band(struct decoder *decoder, struct picture *band, uint32_t row_max)
{
    const uint8_t *rows;
    enum decode_status status = image_band(decoder->reader, row_max, &rows, &band->stride_bytes,
                                           &band->height_px, decoder->error);
    assert(status != DECODE_OK || (band->height_px > 0 && band->height_px <= row_max));
    band->pixels = (uint8_t *)rows; /* only read from */
    return status;
}

static struct picture source_size(const struct decoder *decoder)
{
    const struct pass *pass = &decoder->passes[0];
    return (struct picture){.width_px = pass->axis[GEOMETRY_X].source.count,
                            .height_px = pass->axis[GEOMETRY_Y].source.count};
}

/* The whole region at once: borrowed if the reader has it so, else collected in a buffer. */
static enum decode_status read_picture(struct decoder *decoder, struct picture *picture)
{
    *picture = source_size(decoder);
    struct picture band = *picture;
    enum decode_status status = read_band(decoder, &band, picture->height_px);
    if (status != DECODE_OK || band.height_px == picture->height_px) {
        *picture = band;
        return status;
    }
    status = take_buffer(decoder, ROLE_SOURCE, picture->width_px, picture->height_px, picture);
    for (uint32_t y = 0; status == DECODE_OK;) {
        uint8_t *target = picture->pixels + y * picture->stride_bytes;
        for (uint32_t row = 0; row < band.height_px; row++) {
            memcpy(target + row * picture->stride_bytes, band.pixels + row * band.stride_bytes,
                   3 * (size_t)picture->width_px);
        }
        y += band.height_px;
        if (y == picture->height_px) {
            break;
        }
        status = read_band(decoder, &band, picture->height_px - y);
    }
    return status;
}

/* A band with its columns or rows, or both, in reverse order. */
static enum decode_status flip_band(struct decoder *decoder, const struct pass *pass,
                                    struct picture *band)
{
    struct picture flipped;
    enum decode_status status =
        take_buffer(decoder, ROLE_BAND, band->width_px, band->height_px, &flipped);
    if (status != DECODE_OK) {
        return status;
    }
    for (uint32_t y = 0; y < band->height_px; y++) {
        bool reverse = pass->axis[GEOMETRY_Y].order == GEOMETRY_REVERSED;
        uint32_t to = reverse ? band->height_px - 1 - y : y;
        const uint8_t *source = band->pixels + y * band->stride_bytes;
        uint8_t *target = flipped.pixels + to * flipped.stride_bytes;
        if (pass->axis[GEOMETRY_X].order == GEOMETRY_REVERSED) {
            reverse_row(source, band->width_px, target);
        } else {
            memcpy(target, source, 3 * (size_t)band->width_px);
        }
    }
    *band = flipped;
    return DECODE_OK;
}

/* The columns pass of the first resize, band by band while the rows are in the cache. */
static enum decode_status read_columns(struct decoder *decoder, const struct pass *pass,
                                       struct picture *columns)
{
    const struct pass_axis *axis_x = &pass->axis[GEOMETRY_X];
    bool upside_down = pass->axis[GEOMETRY_Y].order == GEOMETRY_REVERSED;
    struct picture source = source_size(decoder);
    enum decode_status status =
        take_buffer(decoder, ROLE_BETWEEN, axis_x->result.count, source.height_px, columns);
    for (uint32_t y = 0; status == DECODE_OK && y < source.height_px;) {
        struct picture band = source;
        uint32_t left = source.height_px - y;
        status = read_band(decoder, &band, left < BAND_ROWS_MAX ? left : BAND_ROWS_MAX);
        if (status == DECODE_OK && is_moved(pass)) {
            status = flip_band(decoder, pass, &band);
        }
        if (status != DECODE_OK) {
            break;
        }
        uint32_t to = upside_down ? left - band.height_px : y;
        resize_columns(decoder->kernels, axis_x->weights, band.pixels, band.stride_bytes,
                       columns->pixels + to * columns->stride_bytes, columns->stride_bytes,
                       band.height_px);
        y += band.height_px;
    }
    return status;
}

/* ---- Passes ---------------------------------------------------------------------------------- */

/* One decoder_run(). */
struct run {
    struct pack_format format;
    struct recipe_output output;
    void *target;
};

static bool rows_come_first(const struct geometry_step *resize)
{
    return resize_rows_first(resize->in_px[GEOMETRY_X], resize->in_px[GEOMETRY_Y],
                             resize->out_px[GEOMETRY_X], resize->out_px[GEOMETRY_Y]);
}

/* Whether the rows of the pass that comes before the last one may be written to the target as
 * they are. */
static bool ends_in_target(const struct decoder *decoder, const struct run *run)
{
    return run->format.dtype == PACK_U8 && run->format.layout == PACK_NHWC &&
           !is_moved(&decoder->passes[decoder->pass_count - 1]);
}

static enum decode_status take_result(struct decoder *decoder, uint32_t index,
                                      const struct run *run, bool rows_last,
                                      struct picture *picture)
{
    const struct pass *pass = &decoder->passes[index];
    uint32_t width_px = pass->axis[GEOMETRY_X].result.count;
    uint32_t height_px = pass->axis[GEOMETRY_Y].result.count;
    /* The columns pass may write beyond its rows, so it never writes to the target. */
    if (rows_last && index + 2 == decoder->pass_count && ends_in_target(decoder, run)) {
        *picture = (struct picture){run->target, 3 * (size_t)width_px, width_px, height_px};
        return DECODE_OK;
    }
    enum role role = index % 2 == 0 ? ROLE_RESULT : ROLE_RESULT_2;
    return take_buffer(decoder, role, width_px, height_px, picture);
}

/* The rows pass of a resize whose columns are done. */
static enum decode_status finish_rows(struct decoder *decoder, uint32_t index,
                                      const struct run *run, struct picture *picture)
{
    struct picture columns = *picture;
    enum decode_status status = take_result(decoder, index, run, true, picture);
    if (status == DECODE_OK) {
        resize_rows(decoder->kernels, decoder->passes[index].axis[GEOMETRY_Y].weights,
                    columns.pixels, columns.stride_bytes, picture->pixels, picture->stride_bytes,
                    3 * columns.width_px);
    }
    return status;
}

/* Both passes of a resize on a picture that holds exactly the arranged spans. */
static enum decode_status resize_picture(struct decoder *decoder, uint32_t index,
                                         const struct run *run, struct picture *picture)
{
    const struct pass *pass = &decoder->passes[index];
    const struct pass_axis *axis_x = &pass->axis[GEOMETRY_X], *axis_y = &pass->axis[GEOMETRY_Y];
    bool rows_first = rows_come_first(pass->resize);
    struct picture source = *picture, between;
    enum decode_status status =
        take_buffer(decoder, ROLE_BETWEEN, rows_first ? source.width_px : axis_x->result.count,
                    rows_first ? axis_y->result.count : source.height_px, &between);
    if (status != DECODE_OK) {
        return status;
    }
    if (!rows_first) {
        resize_columns(decoder->kernels, axis_x->weights, source.pixels, source.stride_bytes,
                       between.pixels, between.stride_bytes, source.height_px);
        *picture = between;
        return finish_rows(decoder, index, run, picture);
    }
    resize_rows(decoder->kernels, axis_y->weights, source.pixels, source.stride_bytes,
                between.pixels, between.stride_bytes, 3 * source.width_px);
    status = take_result(decoder, index, run, false, picture);
    if (status == DECODE_OK) {
        resize_columns(decoder->kernels, axis_x->weights, between.pixels, between.stride_bytes,
                       picture->pixels, picture->stride_bytes, between.height_px);
    }
    return status;
}

/* The first pass reads the image itself. */
static enum decode_status first_pass(struct decoder *decoder, const struct run *run,
                                     struct picture *picture)
{
    struct pass *pass = &decoder->passes[0];
    if (pass->resize != NULL && !rows_come_first(pass->resize) && !is_gathered(pass)) {
        enum decode_status status = read_columns(decoder, pass, picture);
        return status == DECODE_OK ? finish_rows(decoder, 0, run, picture) : status;
    }
    enum decode_status status = read_picture(decoder, picture);
    if (status == DECODE_OK && pass->resize != NULL) {
        if (is_moved(pass)) {
            status = arrange(decoder, pass, picture);
        }
        if (status == DECODE_OK) {
            status = resize_picture(decoder, 0, run, picture);
        }
    }
    return status;
}

static enum decode_status middle_pass(struct decoder *decoder, uint32_t index,
                                      const struct run *run, struct picture *picture)
{
    struct pass *pass = &decoder->passes[index];
    enum decode_status status = DECODE_OK;
    if (is_moved(pass)) {
        status = arrange(decoder, pass, picture);
    }
    return status == DECODE_OK ? resize_picture(decoder, index, run, picture) : status;
}

/* The last pass has no resize: flips are left to pack_image(). */
static enum decode_status last_pass(struct decoder *decoder, const struct run *run,
                                    struct picture *picture)
{
    struct pass *pass = &decoder->passes[decoder->pass_count - 1];
    bool mirror[2] = {false, false};
    if (is_gathered(pass)) {
        enum decode_status status = arrange(decoder, pass, picture);
        if (status != DECODE_OK) {
            return status;
        }
    } else {
        mirror[GEOMETRY_X] = pass->axis[GEOMETRY_X].order == GEOMETRY_REVERSED;
        mirror[GEOMETRY_Y] = pass->axis[GEOMETRY_Y].order == GEOMETRY_REVERSED;
    }
    assert(picture->width_px == run->output.width_px &&
           picture->height_px == run->output.height_px);
    if (picture->pixels != run->target) {
        pack_image(decoder->kernels, &run->format, picture->pixels, picture->stride_bytes,
                   picture->width_px, picture->height_px, mirror[GEOMETRY_X], mirror[GEOMETRY_Y],
                   run->target);
    }
    return DECODE_OK;
}

static enum decode_status run_passes(struct decoder *decoder, const struct run *run)
{
    const struct pass_axis *axes = decoder->passes[0].axis;
    struct image_rect region = {axes[GEOMETRY_X].source.first, axes[GEOMETRY_Y].source.first,
                                axes[GEOMETRY_X].source.count, axes[GEOMETRY_Y].source.count};
    struct picture picture;
    enum decode_status status = image_start(decoder->reader, region, decoder->error);
    if (status == DECODE_OK) {
        status = first_pass(decoder, run, &picture);
    }
    for (uint32_t i = 1; status == DECODE_OK && i + 1 < decoder->pass_count; i++) {
        status = middle_pass(decoder, i, run, &picture);
    }
    if (status == DECODE_OK) {
        status = last_pass(decoder, run, &picture);
    }
    /* Not before: the picture may lie in the reader's memory. */
    return status == DECODE_OK ? image_finish(decoder->reader, decoder->error) : status;
}

enum decode_status decoder_run(struct decoder *decoder, const struct recipe *recipe,
                               struct sample_key key, const uint8_t *bytes, size_t size_bytes,
                               void *target, struct decode_error *error)
{
    const struct run run = {
        .format = recipe_format(recipe), .output = recipe_output(recipe), .target = target};
    struct image_info info;
    decoder->error = error;
    enum decode_status status = image_open(decoder->reader, bytes, size_bytes, &info, error);
    if (status == DECODE_OK) {
        status =
            geometry_draw(recipe, key, info.width_px, info.height_px, &decoder->geometry, error);
    }
    if (status == DECODE_OK) {
        status = plan_passes(decoder, run.output);
    }
    if (status == DECODE_OK) {
        status = run_passes(decoder, &run);
    }
    give_back_large_buffers(decoder);
    decoder->error = NULL;
    return status;
}
