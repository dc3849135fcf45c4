/*
 * ring_private.h - what the other files of clients/c/ need of a ring beyond penstock.h.
 */
#ifndef PENSTOCK_RING_PRIVATE_H
#define PENSTOCK_RING_PRIVATE_H

#include <stdbool.h>

#include "clients/c/penstock.h"

/* Have `function(argument)` called before the mapping goes: in whichever thread drops the last
 * reference, never in a forked child. Once per ring: false when there is one already. */
bool ring_before_unmap(penstock_ring *ring, void (*function)(void *argument), void *argument);

#endif /* PENSTOCK_RING_PRIVATE_H */
