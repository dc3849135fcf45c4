/*
 * made_origin.h - an origin inside the test: the interface of loader/remote/remote.h on one thread
 * that makes up the bytes of any object, so that what the store asks for can be counted, held back
 * and refused at will. (Real servers: tests/integration.)
 *
 * Byte i of an object is made_byte(url, i). Include it in one C file of a test.
 */
#ifndef PENSTOCK_TESTS_MADE_ORIGIN_H
#define PENSTOCK_TESTS_MADE_ORIGIN_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loader/remote/remote.h"

struct remote {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool is_stopping;
    bool is_held;              /* parts wait until it is false */
    uint64_t held_beyond;      /* parts stop after so many bytes while is_held; 0: at once */
    enum error_kind fail_next; /* the next part that ends fails so */
    uint32_t delay_us;         /* per part */
    struct remote_part *first, *last;
    uint64_t part_count, byte_count; /* of parts that succeeded */
    uint32_t waiting_count, waiting_max;
};

static inline uint8_t made_byte(const char *url, uint64_t offset)
{
    uint64_t seed = 1469598103934665603u;
    for (; *url != '\0'; url++) {
        seed = (seed ^ (uint8_t)*url) * 1099511628211u;
    }
    uint64_t word = (seed + offset / 8) * 0x9e3779b97f4a7c15u;
    word ^= word >> 29;
    return (uint8_t)(word >> 8 * (offset % 8));
}

static inline void made_bytes(const char *url, uint64_t offset, uint64_t length, uint8_t *to)
{
    uint64_t seed = 1469598103934665603u;
    for (; *url != '\0'; url++) {
        seed = (seed ^ (uint8_t)*url) * 1099511628211u;
    }
    for (uint64_t i = 0; i < length; i++) {
        uint64_t word = (seed + (offset + i) / 8) * 0x9e3779b97f4a7c15u;
        word ^= word >> 29;
        to[i] = (uint8_t)(word >> 8 * ((offset + i) % 8));
    }
}

static void made_serve(struct remote *remote, struct remote_part *part)
{
    uint64_t step = (part->length_bytes + 3) / 4;
    uint64_t done = 0;
    bool is_cancelled = false;
    if (remote->delay_us > 0) {
        nanosleep(&(struct timespec){.tv_nsec = (long)remote->delay_us * 1000}, NULL);
    }
    while (done < part->length_bytes && !is_cancelled) {
        pthread_mutex_lock(&remote->lock);
        while (remote->is_held && done >= remote->held_beyond && !remote->is_stopping &&
               !atomic_load(&part->is_cancelled)) {
            pthread_cond_wait(&remote->changed, &remote->lock);
        }
        is_cancelled = atomic_load(&part->is_cancelled) || remote->is_stopping;
        pthread_mutex_unlock(&remote->lock);
        uint64_t more = part->length_bytes - done < step ? part->length_bytes - done : step;
        made_bytes(part->url, part->offset_bytes + done, more, part->buffer + done);
        done += more;
        if (!is_cancelled && done < part->length_bytes && part->on_progress != NULL) {
            part->on_progress(part, done);
        }
    }
    pthread_mutex_lock(&remote->lock);
    enum error_kind kind = is_cancelled ? ERROR_CANCELLED : remote->fail_next;
    remote->fail_next = is_cancelled ? remote->fail_next : ERROR_NONE;
    part->received_bytes = kind == ERROR_NONE ? part->length_bytes : 0;
    if (kind != ERROR_NONE) {
        error_set(&part->error, kind, "%s: made to fail.", part->url);
    } else {
        remote->part_count++;
        remote->byte_count += part->length_bytes;
    }
    part->seen = part->version;
    pthread_mutex_unlock(&remote->lock);
    part->on_done(part);
}

static void *made_run(void *argument)
{
    struct remote *remote = argument;
    pthread_mutex_lock(&remote->lock);
    while (!remote->is_stopping || remote->first != NULL) {
        struct remote_part *part = remote->first;
        if (part == NULL) {
            pthread_cond_wait(&remote->changed, &remote->lock);
            continue;
        }
        remote->first = part->next;
        remote->waiting_count--;
        pthread_mutex_unlock(&remote->lock);
        made_serve(remote, part);
        pthread_mutex_lock(&remote->lock);
    }
    pthread_mutex_unlock(&remote->lock);
    return NULL;
}

struct remote *remote_create(const struct remote_options *options, struct error *error)
{
    (void)options, (void)error;
    struct remote *remote = calloc(1, sizeof *remote);
    pthread_mutex_init(&remote->lock, NULL);
    pthread_cond_init(&remote->changed, NULL);
    pthread_create(&remote->thread, NULL, made_run, remote);
    return remote;
}

void remote_destroy(struct remote *remote)
{
    pthread_mutex_lock(&remote->lock);
    remote->is_stopping = true;
    pthread_cond_broadcast(&remote->changed);
    pthread_mutex_unlock(&remote->lock);
    pthread_join(remote->thread, NULL);
    pthread_cond_destroy(&remote->changed);
    pthread_mutex_destroy(&remote->lock);
    free(remote);
}

void remote_part_start(struct remote *remote, struct remote_part *part)
{
    pthread_mutex_lock(&remote->lock);
    part->next = NULL;
    if (remote->first == NULL) {
        remote->first = part;
    } else {
        remote->last->next = part;
    }
    remote->last = part;
    remote->waiting_count++;
    if (remote->waiting_count > remote->waiting_max) {
        remote->waiting_max = remote->waiting_count;
    }
    pthread_cond_broadcast(&remote->changed);
    pthread_mutex_unlock(&remote->lock);
}

void remote_part_cancel(struct remote *remote, struct remote_part *part)
{
    pthread_mutex_lock(&remote->lock);
    atomic_store(&part->is_cancelled, true);
    pthread_cond_broadcast(&remote->changed);
    pthread_mutex_unlock(&remote->lock);
}

static inline void made_hold(struct remote *remote, bool is_held, uint64_t beyond)
{
    pthread_mutex_lock(&remote->lock);
    remote->is_held = is_held;
    remote->held_beyond = beyond;
    pthread_cond_broadcast(&remote->changed);
    pthread_mutex_unlock(&remote->lock);
}

static inline void made_fail(struct remote *remote, enum error_kind kind)
{
    pthread_mutex_lock(&remote->lock);
    remote->fail_next = kind;
    pthread_mutex_unlock(&remote->lock);
}

static inline uint64_t made_byte_count(struct remote *remote)
{
    pthread_mutex_lock(&remote->lock);
    uint64_t count = remote->byte_count;
    pthread_mutex_unlock(&remote->lock);
    return count;
}

static inline uint64_t made_part_count(struct remote *remote)
{
    pthread_mutex_lock(&remote->lock);
    uint64_t count = remote->part_count;
    pthread_mutex_unlock(&remote->lock);
    return count;
}

#endif /* PENSTOCK_TESTS_MADE_ORIGIN_H */
