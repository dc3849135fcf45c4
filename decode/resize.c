/* resize.c - weights of a resize axis, and the calls into the kernels that apply them. */
#include "decode/resize.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "decode/kernels_table.h"

struct resize_axis {
    enum resize_filter filter;
    bool pick; /* each output is one input unchanged: no weights, only first[] */
    struct resize_taps taps;
    uint32_t in_first;

    uint32_t *first; /* out_count + RESIZE_PADDING */
    size_t first_capacity;
    int32_t *weights; /* group_count * out_stride * TAP_GROUP, see struct resize_taps */
    size_t weights_capacity;
    uint32_t *tap_count; /* out_count: how many weights of each output matter */
    size_t tap_count_capacity;
    double *raw; /* weights of one output before rounding */
    size_t raw_capacity;
    int32_t *rounded; /* out_count * raw_max weights as computed, before they are grouped */
    size_t rounded_capacity;
};

/* The filter of a resize: how far an output's support reaches, in input positions. */
struct support {
    enum resize_filter filter;
    uint32_t in_size;
    double scale;        /* input positions per output position */
    double filter_scale; /* the filter is widened by this when shrinking, never narrowed */
    double radius;
    uint32_t count_max; /* no output has more weights than this */
};

struct resize_axis *resize_axis_create(void)
{
    return calloc(1, sizeof(struct resize_axis));
}

void resize_axis_destroy(struct resize_axis *axis)
{
    if (!axis) {
        return;
    }
    free(axis->first);
    free(axis->weights);
    free(axis->tap_count);
    free(axis->raw);
    free(axis->rounded);
    free(axis);
}

/* Make room for `count` elements; the content is lost. False when memory is short. */
static bool reserve(void **memory, size_t *capacity, size_t count, size_t element_bytes)
{
    if (count <= *capacity) {
        return true;
    }
    if (count > SIZE_MAX / 2 / element_bytes) {
        return false;
    }
    void *larger = malloc(count * element_bytes);
    if (!larger) {
        return false;
    }
    free(*memory);
    *memory = larger;
    *capacity = count;
    return true;
}

/* Catmull-Rom's relative with a = -0.5, as Pillow has it. The order of operations is Pillow's too:
 * another order rounds differently now and then. */
static double bicubic(double x)
{
    x = fabs(x);
    if (x < 1.0) {
        return (1.5 * x - 2.5) * x * x + 1;
    }
    if (x < 2.0) {
        return (((x - 5) * x + 8) * x - 4) * -0.5;
    }
    return 0.0;
}

static double bilinear(double x)
{
    double weight = 1.0 - fabs(x);
    return weight > 0.0 ? weight : 0.0;
}

static struct support support_of(enum resize_filter filter, uint32_t in_size, uint32_t out_size)
{
    struct support support = {.filter = filter, .in_size = in_size};
    support.scale = (double)in_size / out_size;
    support.filter_scale = support.scale < 1.0 ? 1.0 : support.scale;
    support.radius = (filter == RESIZE_BICUBIC ? 2.0 : 1.0) * support.filter_scale;
    support.count_max = (uint32_t)(2.0 * support.radius) + 2;
    return support;
}

/* Weights of output position x into raw[0 .. return value), for inputs from *first on. */
static uint32_t raw_weights(const struct support *support, uint32_t x, double *raw, uint32_t *first)
{
    double center = (x + 0.5) * support->scale;
    double step = 1.0 / support->filter_scale;
    double low = center - support->radius + 0.5;
    double high = center + support->radius + 0.5;
    uint32_t begin = low < 0.0 ? 0 : (uint32_t)low;
    uint32_t end = high > support->in_size ? support->in_size : (uint32_t)high;
    uint32_t count = end - begin;
    double sum = 0.0;
    assert(begin < end && count <= support->count_max);
    for (uint32_t i = 0; i < count; i++) {
        double distance = ((double)(begin + i) - center + 0.5) * step;
        raw[i] = support->filter == RESIZE_BICUBIC ? bicubic(distance) : bilinear(distance);
        sum += raw[i];
    }
    for (uint32_t i = 0; i < count && sum != 0.0; i++) {
        raw[i] /= sum;
    }
    *first = begin;
    return count;
}

/* Round to fixed point and drop weights that became 0 at either end: they cost time and change
 * nothing. Returns the number of weights left, at least 1; *first moves with the first one. */
static uint32_t round_weights(const double *raw, uint32_t count, int32_t *rounded, uint32_t *first)
{
    uint32_t begin = 0;
    uint32_t end = 0;
    for (uint32_t i = 0; i < count; i++) {
        double fixed = raw[i] * (1 << WEIGHT_BITS);
        int32_t weight = (int32_t)(fixed + copysign(0.5, fixed));
        assert(weight < 1 << (WEIGHT_BITS + 1) && weight > -(1 << (WEIGHT_BITS + 1)));
        if (weight == 0 && end == 0) {
            begin = i + 1;
        }
        if (weight != 0) {
            end = i + 1;
        }
        rounded[i] = weight;
    }
    if (end == 0) {
        begin = 0, end = 1;
    }
    if (begin > 0) {
        memmove(rounded, rounded + begin, (end - begin) * sizeof(*rounded));
    }
    *first += begin;
    return end - begin;
}

/* Where zeros were dropped, an output may now begin after its successor (the bicubic crosses zero
 * at distance 1, which is the first weight at a border). Kernels want first[] to never decrease:
 * put such zeros back. */
static void make_monotonic(struct resize_axis *axis, uint32_t out_count, uint32_t count_max)
{
    for (size_t x = out_count - 1; x-- > 0;) {
        if (axis->first[x] <= axis->first[x + 1]) {
            continue;
        }
        uint32_t zeros = axis->first[x] - axis->first[x + 1];
        int32_t *rounded = axis->rounded + x * count_max;
        assert(axis->tap_count[x] + zeros <= count_max);
        memmove(rounded + zeros, rounded, axis->tap_count[x] * sizeof(*rounded));
        memset(rounded, 0, zeros * sizeof(*rounded));
        axis->tap_count[x] += zeros;
        axis->first[x] -= zeros;
    }
}

static bool compute_weights(struct resize_axis *axis, const struct support *support,
                            uint32_t out_first, uint32_t out_count, uint32_t *tap_max)
{
    size_t count = out_count;
    if (!reserve((void **)&axis->raw, &axis->raw_capacity, support->count_max, sizeof(double)) ||
        !reserve((void **)&axis->tap_count, &axis->tap_count_capacity, count, sizeof(uint32_t)) ||
        !reserve((void **)&axis->rounded, &axis->rounded_capacity, count * support->count_max,
                 sizeof(int32_t))) {
        return false;
    }
    for (size_t x = 0; x < count; x++) {
        int32_t *rounded = axis->rounded + x * support->count_max;
        uint32_t taps = raw_weights(support, out_first + (uint32_t)x, axis->raw, &axis->first[x]);
        taps = round_weights(axis->raw, taps, rounded, &axis->first[x]);
        axis->tap_count[x] = taps;
    }
    make_monotonic(axis, out_count, support->count_max);
    *tap_max = 1;
    for (size_t x = 0; x < count; x++) {
        *tap_max = axis->tap_count[x] > *tap_max ? axis->tap_count[x] : *tap_max;
    }
    return true;
}

/* The weights into groups. Where the groups of an output would reach past the input, its first
 * position moves down and leading weights are 0, so that kernels may read whole groups. */
static bool group_weights(struct resize_axis *axis, const struct support *support, uint32_t tap_max)
{
    struct resize_taps *taps = &axis->taps;
    uint32_t group_taps = (tap_max + TAP_GROUP - 1) / TAP_GROUP * TAP_GROUP;
    size_t weight_count = (size_t)group_taps * taps->out_stride;
    if (!reserve((void **)&axis->weights, &axis->weights_capacity, weight_count, sizeof(int32_t))) {
        return false;
    }
    memset(axis->weights, 0, weight_count * sizeof(int32_t));
    uint32_t first_max = taps->in_count > group_taps ? taps->in_count - group_taps : 0;
    for (size_t x = 0; x < taps->out_count; x++) {
        const int32_t *rounded = axis->rounded + x * support->count_max;
        uint32_t skipped = axis->first[x] > first_max ? axis->first[x] - first_max : 0;
        axis->first[x] -= skipped;
        for (uint32_t i = 0; i < axis->tap_count[x]; i++) {
            uint32_t tap = i + skipped;
            size_t group = tap / TAP_GROUP;
            axis->weights[(group * taps->out_stride + x) * TAP_GROUP + tap % TAP_GROUP] =
                rounded[i];
        }
    }
    taps->group_count = group_taps / TAP_GROUP;
    taps->weights = axis->weights;
    return true;
}

/* first[] counted from the first input that any output needs, and what follows from it. */
static void finish_first(struct resize_axis *axis)
{
    struct resize_taps *taps = &axis->taps;
    uint32_t last = axis->first[taps->out_count - 1];
    for (uint32_t i = 0; i < RESIZE_PADDING; i++) {
        axis->first[taps->out_count + i] = last;
    }
    taps->reach = 0;
    for (uint32_t x = 0; x < taps->out_count; x++) {
        uint32_t reach = axis->first[x + 5] - axis->first[x];
        taps->reach = reach > taps->reach ? reach : taps->reach;
    }
}

/* Positions as Pillow's nearest resize takes them: the source coordinate is a running sum, whose
 * rounding errors a product would not repeat. */
static void pick_nearest(struct resize_axis *axis, uint32_t in_size, uint32_t out_size,
                         uint32_t out_first)
{
    double scale = (double)in_size / out_size;
    double position = scale * 0.5;
    for (uint32_t x = 0; x < out_first; x++) {
        position += scale;
    }
    for (uint32_t x = 0; x < axis->taps.out_count; x++) {
        uint32_t whole = (uint32_t)position;
        axis->first[x] = whole < in_size ? whole : in_size - 1;
        position += scale;
    }
}

/* Make the input begin at the first position that any output needs. */
static void rebase(struct resize_axis *axis)
{
    axis->in_first = axis->first[0]; /* first[] never decreases */
    for (uint32_t x = 0; x < axis->taps.out_count; x++) {
        axis->first[x] -= axis->in_first;
    }
}

bool resize_axis_set(struct resize_axis *axis, enum resize_filter filter, uint32_t in_size,
                     uint32_t out_size, uint32_t out_first, uint32_t out_count)
{
    struct resize_taps *taps = &axis->taps;
    assert(in_size >= 1 && out_count >= 1 && out_first < out_size);
    assert(out_count <= out_size - out_first);
    if (!reserve((void **)&axis->first, &axis->first_capacity, (size_t)out_count + RESIZE_PADDING,
                 sizeof(uint32_t))) {
        return false;
    }
    *taps = (struct resize_taps){
        .first = axis->first, .out_count = out_count, .out_stride = out_count + RESIZE_PADDING};
    /* Equal sizes: every filter here weighs the one position with 1 and all others with 0. */
    axis->pick = filter == RESIZE_NEAREST || in_size == out_size;
    if (axis->pick) {
        pick_nearest(axis, in_size, out_size, out_first);
        rebase(axis);
        taps->in_count = axis->first[out_count - 1] + 1;
        return true;
    }
    struct support support = support_of(filter, in_size, out_size);
    uint32_t tap_max;
    if (!compute_weights(axis, &support, out_first, out_count, &tap_max)) {
        return false;
    }
    rebase(axis);
    for (uint32_t x = 0; x < out_count; x++) {
        uint32_t end = axis->first[x] + axis->tap_count[x];
        taps->in_count = end > taps->in_count ? end : taps->in_count;
    }
    if (!group_weights(axis, &support, tap_max)) {
        return false;
    }
    finish_first(axis);
    return true;
}

void resize_axis_input(const struct resize_axis *axis, uint32_t *in_first, uint32_t *in_count)
{
    *in_first = axis->in_first;
    *in_count = axis->taps.in_count;
}

bool resize_rows_first(uint32_t in_width_px, uint32_t in_height_px, uint32_t out_width_px,
                       uint32_t out_height_px)
{
    int64_t rows_lost = (int64_t)in_height_px - out_height_px;
    int64_t columns_lost = (int64_t)in_width_px - out_width_px;
    return rows_lost > 0 && rows_lost > 2 * columns_lost;
}

void resize_columns(const struct kernels *kernels, const struct resize_axis *axis,
                    const uint8_t *source, size_t source_stride_bytes, uint8_t *target,
                    size_t target_stride_bytes, uint32_t row_count)
{
    const struct resize_taps *taps = &axis->taps;
    if (!axis->pick) {
        kernels->resize_columns(taps, source, source_stride_bytes, target, target_stride_bytes,
                                row_count);
        return;
    }
    for (size_t y = 0; y < row_count; y++) {
        const uint8_t *in = source + y * source_stride_bytes;
        uint8_t *out = target + y * target_stride_bytes;
        if (taps->in_count == taps->out_count) { /* nothing skipped, nothing repeated */
            memcpy(out, in, 3 * (size_t)taps->out_count);
            continue;
        }
        for (size_t x = 0; x < taps->out_count; x++) {
            memcpy(out + 3 * x, in + 3 * (size_t)taps->first[x], 3);
        }
    }
}

void resize_rows(const struct kernels *kernels, const struct resize_axis *axis,
                 const uint8_t *source, size_t source_stride_bytes, uint8_t *target,
                 size_t target_stride_bytes, uint32_t row_bytes)
{
    const struct resize_taps *taps = &axis->taps;
    if (!axis->pick) {
        kernels->resize_rows(taps, source, source_stride_bytes, target, target_stride_bytes,
                             row_bytes);
        return;
    }
    for (size_t y = 0; y < taps->out_count; y++) {
        memcpy(target + y * target_stride_bytes, source + taps->first[y] * source_stride_bytes,
               row_bytes);
    }
}
