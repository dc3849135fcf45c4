#include "loader/bad_samples.h"

#include <pthread.h>
#include <stdlib.h>

struct bad_samples {
    pthread_mutex_t lock; /* guards everything below */
    uint64_t total_count;
    struct bad_sample kept[BAD_SAMPLES_KEPT];
};

struct bad_samples *bad_samples_create(void)
{
    struct bad_samples *list = calloc(1, sizeof *list);
    if (list != NULL) {
        pthread_mutex_init(&list->lock, NULL);
    }
    return list;
}

void bad_samples_destroy(struct bad_samples *list)
{
    if (list != NULL) {
        pthread_mutex_destroy(&list->lock);
        free(list);
    }
}

void bad_samples_add(struct bad_samples *list, const struct bad_sample *sample)
{
    pthread_mutex_lock(&list->lock);
    list->kept[list->total_count++ % BAD_SAMPLES_KEPT] = *sample;
    pthread_mutex_unlock(&list->lock);
}

uint64_t bad_samples_total(struct bad_samples *list)
{
    pthread_mutex_lock(&list->lock);
    uint64_t total = list->total_count;
    pthread_mutex_unlock(&list->lock);
    return total;
}

void bad_samples_recent(struct bad_samples *list, size_t count,
                        void (*take)(void *context, const struct bad_sample *sample), void *context)
{
    pthread_mutex_lock(&list->lock);
    uint64_t kept = list->total_count < BAD_SAMPLES_KEPT ? list->total_count : BAD_SAMPLES_KEPT;
    uint64_t wanted = count < kept ? count : kept;
    for (uint64_t i = list->total_count - wanted; i < list->total_count; i++) {
        take(context, &list->kept[i % BAD_SAMPLES_KEPT]);
    }
    pthread_mutex_unlock(&list->lock);
}
