/* How many bytes are asked for at once: more, as long as more comes of it. */
#include "loader/cache/store_private.h"
#include "loader/clock.h"

enum {
    INTERVAL_NS = 250000000,
    HOLD_NS = 2000000000, /* after a step that brought nothing */
};

uint64_t flow_limit(const struct store *store)
{
    return store->flow.limit_bytes;
}

static void judge(struct flow *flow, uint64_t now_ns)
{
    bool is_better = flow->bytes_per_s > flow->best_bytes_per_s / 100 * 105;
    if (is_better) {
        flow->best_bytes_per_s = flow->bytes_per_s;
    } else if (flow->before_limit_bytes != 0) {
        flow->limit_bytes = flow->before_limit_bytes; /* the last step brought nothing */
        flow->before_limit_bytes = 0;
        flow->hold_until_ns = now_ns + HOLD_NS;
        flow->best_bytes_per_s = flow->best_bytes_per_s / 100 * 98; /* the link may change */
        return;
    }
    if (now_ns >= flow->hold_until_ns && flow->limit_bytes < flow->limit_max_bytes) {
        flow->before_limit_bytes = flow->limit_bytes;
        flow->limit_bytes += flow->limit_bytes / 2;
        if (flow->limit_bytes > flow->limit_max_bytes) {
            flow->limit_bytes = flow->limit_max_bytes;
        }
    }
}

void flow_note(struct store *store, uint64_t bytes)
{
    struct flow *flow = &store->flow;
    uint64_t now_ns = clock_now_ns();
    flow->interval_bytes += bytes;
    if (flow->interval_ns == 0 || now_ns - flow->interval_ns > 4 * (uint64_t)INTERVAL_NS) {
        flow->interval_ns = now_ns; /* the first bytes after a pause say nothing */
        flow->interval_bytes = 0;
        flow->was_full = false;
        return;
    }
    if (now_ns - flow->interval_ns < INTERVAL_NS) {
        return;
    }
    flow->bytes_per_s = flow->interval_bytes * 1000 / ((now_ns - flow->interval_ns) / 1000000);
    if (flow->was_full) {
        judge(flow, now_ns);
    }
    flow->interval_ns = now_ns;
    flow->interval_bytes = 0;
    flow->was_full = store->in_flight_bytes >= flow->limit_bytes;
}
