/*
 * remote_private.h - what the files of loader/remote/ share of struct remote.
 */
#ifndef PENSTOCK_LOADER_REMOTE_REMOTE_PRIVATE_H
#define PENSTOCK_LOADER_REMOTE_REMOTE_PRIVATE_H

#include <pthread.h>

#include "loader/remote/exchange.h"
#include "loader/remote/identity.h"
#include "loader/remote/pace.h"
#include "loader/remote/places.h"
#include "loader/remote/remote.h"
#include "loader/remote/transfer.h"

struct remote {
    struct remote_options options;
    struct transfer_loop *loop;
    struct identities *identities;

    pthread_mutex_t lock; /* of those below */
    struct exchange_list incoming;
    struct remote_part *parts_first, *parts_last; /* linked by next */
    bool are_identities_new;
    struct remote_stats stats;

    atomic_bool is_closing;
    atomic_bool is_cancel_due; /* some exchange's is_cancelled was set */

    /* The network thread's own. */
    struct exchange_list queued, waiting, active, progressed;
    uint32_t active_count; /* attempts in progress */
    uint32_t waiting_count, queued_count;
    uint64_t watched_ns; /* the last look at stalls and slow ones */
    struct pace pace;
    struct places places;
    struct remote_stats counts; /* copied to stats at the end of a turn */
};

#endif /* PENSTOCK_LOADER_REMOTE_REMOTE_PRIVATE_H */
