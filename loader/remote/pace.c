#include "loader/remote/pace.h"

#include <stdlib.h>
#include <string.h>

enum {
    SAMPLES_MIN = 16,
    RATE_BYTES_MIN = 256 * 1024, /* shorter bodies say little about a rate */
    SLOW_FACTOR = 3,
    SLOW_MIN_MS = 500,
    DELAY_MIN_MS = 50,
    MEDIAN_EVERY = 8,
};

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static uint64_t median(const uint64_t *samples, uint32_t noted)
{
    uint64_t sorted[PACE_SAMPLES];
    uint32_t count = noted < PACE_SAMPLES ? noted : PACE_SAMPLES;
    memcpy(sorted, samples, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare);
    return sorted[count / 2];
}

void pace_note(struct pace *pace, uint64_t first_byte_ns, uint64_t body_bytes, uint64_t body_ns)
{
    if (first_byte_ns != 0) {
        pace->first_byte_ns[pace->first_byte_count++ % PACE_SAMPLES] = first_byte_ns;
        if (pace->first_byte_count >= SAMPLES_MIN && pace->first_byte_count % MEDIAN_EVERY == 0) {
            pace->median_first_byte_ns = median(pace->first_byte_ns, pace->first_byte_count);
        }
    }
    if (body_bytes >= RATE_BYTES_MIN && body_ns != 0) {
        uint64_t rate = (uint64_t)((double)body_bytes * 1e9 / (double)body_ns);
        pace->bytes_per_second[pace->rate_count++ % PACE_SAMPLES] = rate != 0 ? rate : 1;
        if (pace->rate_count >= SAMPLES_MIN && pace->rate_count % MEDIAN_EVERY == 0) {
            pace->median_bytes_per_second = median(pace->bytes_per_second, pace->rate_count);
        }
    }
}

static double expected_ns(const struct pace *pace, uint64_t bytes)
{
    double expected = (double)pace->median_first_byte_ns;
    if (pace->median_bytes_per_second != 0) {
        expected += (double)bytes * 1e9 / (double)pace->median_bytes_per_second;
    }
    return expected;
}

bool pace_is_slow(const struct pace *pace, uint64_t received_bytes, uint64_t left_bytes,
                  uint64_t elapsed_ns)
{
    bool is_rate_needed = received_bytes + left_bytes >= RATE_BYTES_MIN;
    double elapsed = (double)elapsed_ns;
    if (pace->median_first_byte_ns == 0 || (is_rate_needed && pace->median_bytes_per_second == 0) ||
        elapsed_ns <= SLOW_MIN_MS * (uint64_t)1000000 ||
        elapsed <= SLOW_FACTOR * expected_ns(pace, received_bytes + left_bytes)) {
        return false;
    }
    /* At its own pace so far, the rest will take: */
    double rest_ns = elapsed * (double)left_bytes / (double)(received_bytes + 1);
    return received_bytes == 0 || rest_ns > 2 * expected_ns(pace, left_bytes);
}

bool pace_may_hedge(const struct pace *pace, uint32_t percent_max)
{
    uint64_t vain = pace->hedges - pace->hedges_won;
    return percent_max <= 100 && (pace->hedges + 1) * 100 <= pace->requests * percent_max &&
           vain * 100 <= pace->requests;
}

static uint64_t next_random(struct pace *pace)
{
    pace->random ^= pace->random << 13; /* xorshift64: enough to keep clients apart */
    pace->random ^= pace->random >> 7;
    pace->random ^= pace->random << 17;
    return pace->random;
}

uint64_t pace_delay_ns(struct pace *pace, uint32_t failures, uint32_t delay_max_ms)
{
    uint32_t doublings = failures > 0 && failures < 16 ? failures : 16;
    uint64_t ceiling_ms = (uint64_t)DELAY_MIN_MS << doublings;
    ceiling_ms = ceiling_ms < delay_max_ms ? ceiling_ms : delay_max_ms;
    uint64_t floor_ms = ceiling_ms / 4;
    return (floor_ms + next_random(pace) % (ceiling_ms - floor_ms + 1)) * 1000000u;
}
