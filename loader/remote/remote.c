#include "loader/remote/remote.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "loader/clock.h"
#include "loader/remote/credentials.h"
#include "loader/remote/remote_private.h"

bool remote_is_url(const char *path)
{
    return s3_address_is_s3(path) || strncasecmp(path, "http://", 7) == 0 ||
           strncasecmp(path, "https://", 8) == 0;
}

static void set_default(uint32_t *value, uint32_t standard)
{
    *value = *value != 0 ? *value : standard;
}

/* False: out of memory. */
static bool copy_text(const char **text)
{
    if (*text == NULL) {
        return true;
    }
    *text = strdup(*text);
    return *text != NULL;
}

static bool copy_options(struct remote_options *copy, const struct remote_options *options)
{
    *copy = *options;
    set_default(&copy->connections_max, 64);
    set_default(&copy->connect_timeout_ms, 5000);
    set_default(&copy->stall_timeout_ms, 5000);
    set_default(&copy->give_up_ms, 120000);
    set_default(&copy->retry_delay_max_ms, 2500);
    set_default(&copy->hedge_percent, 5);
    if (copy->ca_file == NULL) {
        copy->ca_file = credentials_ca_file();
    }
    bool is_endpoint = copy_text(&copy->endpoint), is_region = copy_text(&copy->region);
    bool is_addressing = copy_text(&copy->addressing), is_ca_file = copy_text(&copy->ca_file);
    return is_endpoint && is_region && is_addressing && is_ca_file;
}

static void free_remote(struct remote *remote)
{
    free((char *)remote->options.endpoint);
    free((char *)remote->options.region);
    free((char *)remote->options.addressing);
    free((char *)remote->options.ca_file);
    places_free(&remote->places);
    pthread_mutex_destroy(&remote->lock);
    free(remote);
}

static void on_identities(void *context)
{
    struct remote *remote = context;
    pthread_mutex_lock(&remote->lock);
    remote->are_identities_new = true;
    pthread_mutex_unlock(&remote->lock);
    transfer_loop_wake(remote->loop);
}

struct remote *remote_create(const struct remote_options *options, struct error *error)
{
    struct remote *remote = calloc(1, sizeof *remote);
    if (remote == NULL) {
        error_set(error, ERROR_MEMORY, "Out of memory.");
        return NULL;
    }
    pthread_mutex_init(&remote->lock, NULL);
    TAILQ_INIT(&remote->incoming);
    TAILQ_INIT(&remote->queued);
    TAILQ_INIT(&remote->waiting);
    TAILQ_INIT(&remote->active);
    TAILQ_INIT(&remote->progressed);
    remote->pace.random = clock_now_ns() | 1;
    if (!copy_options(&remote->options, options)) {
        error_set(error, ERROR_MEMORY, "Out of memory.");
        free_remote(remote);
        return NULL;
    }
    struct transfer_loop_options loop = {
        .connections_max = remote->options.connections_max,
        .connect_timeout_ms = remote->options.connect_timeout_ms,
        .ca_file = remote->options.ca_file,
        .on_turn = exchange_turn,
        .context = remote,
    };
    remote->loop = transfer_loop_create(&loop, error);
    if (remote->loop != NULL) {
        remote->identities = identities_create(credentials_find, on_identities, remote, error);
    }
    if (remote->identities == NULL) {
        if (remote->loop != NULL) {
            transfer_loop_stop(remote->loop);
        }
        transfer_loop_destroy(remote->loop);
        free_remote(remote);
        return NULL;
    }
    return remote;
}

void remote_destroy(struct remote *remote)
{
    if (remote == NULL) {
        return;
    }
    atomic_store(&remote->is_closing, true);
    transfer_loop_stop(remote->loop); /* its last turn ends what is in progress */
    identities_destroy(remote->identities);
    transfer_loop_destroy(remote->loop);
    free_remote(remote);
}

void remote_stats_get(struct remote *remote, struct remote_stats *stats)
{
    pthread_mutex_lock(&remote->lock);
    *stats = remote->stats;
    pthread_mutex_unlock(&remote->lock);
}
