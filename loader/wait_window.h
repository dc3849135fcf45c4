/*
 * wait_window.h - which share of the last seconds a trainer waited for its batches.
 *
 * The trainer tells its total waiting time in a word of shared memory; here are kept its values at
 * up to WAIT_WINDOW_MARKS times, so that the share is that of the last seconds and not of a life.
 *
 * Threads: the owner's. Never fails, whatever the trainer tells.
 */
#ifndef PENSTOCK_LOADER_WAIT_WINDOW_H
#define PENSTOCK_LOADER_WAIT_WINDOW_H

#include <stdint.h>

enum { WAIT_WINDOW_MARKS = 10 }; /* made about a second apart: so many seconds */

struct wait_window {
    uint64_t opened_ns; /* set by the owner: no wait before */
    struct {
        uint64_t at_ns, waited_ns;
    } marks[WAIT_WINDOW_MARKS]; /* used in turn */
    uint64_t mark_count;        /* made, ever */
};

/* Now the total is waited_ns. Times do not go backwards; the total may. */
void wait_window_mark(struct wait_window *window, uint64_t now_ns, uint64_t waited_ns);

/* The share of the time since the oldest mark, or since the beginning: 0 to 1. */
double wait_window_ratio(const struct wait_window *window, uint64_t now_ns, uint64_t waited_ns);

#endif /* PENSTOCK_LOADER_WAIT_WINDOW_H */
