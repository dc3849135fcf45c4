#include "loader/wait_window.h"

void wait_window_mark(struct wait_window *window, uint64_t now_ns, uint64_t waited_ns)
{
    uint64_t place = window->mark_count++ % WAIT_WINDOW_MARKS;
    window->marks[place].at_ns = now_ns;
    window->marks[place].waited_ns = waited_ns;
}

double wait_window_ratio(const struct wait_window *window, uint64_t now_ns, uint64_t waited_ns)
{
    uint64_t since_ns = window->opened_ns;
    uint64_t before_ns = 0;
    if (window->mark_count >= WAIT_WINDOW_MARKS) {
        uint64_t oldest = window->mark_count % WAIT_WINDOW_MARKS;
        since_ns = window->marks[oldest].at_ns;
        before_ns = window->marks[oldest].waited_ns;
    }
    if (now_ns <= since_ns || waited_ns <= before_ns) {
        return 0;
    }
    double ratio = (double)(waited_ns - before_ns) / (double)(now_ns - since_ns);
    return ratio < 1 ? ratio : 1;
}
