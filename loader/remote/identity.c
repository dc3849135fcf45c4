#include "loader/remote/identity.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loader/clock.h"
#include "loader/log.h"

enum {
    /* An identity is found anew this long before it expires, or at a quarter of its life. */
    EARLY_S = 600,
    /* From here on nothing is signed with it. */
    TOO_LATE_S = 10,
    /* How long a failure is the answer, and how often an early renewal is tried. */
    FAILURE_S = 5,
    RENEWAL_S = 30,
};

struct entry {
    struct entry *next;
    char *profile;
    struct identity *identity; /* the last one found; NULL: none yet */
    int64_t found_s;
    int64_t tried_s; /* the last time that finding failed; 0: it did not */
    bool is_wanted;  /* the thread has to find it */
    bool is_refused; /* by a server: not handed out any more */
    bool is_same;    /* the last finding brought what had been refused */
    struct error error;
};

struct identities {
    identity_finder find;
    void (*on_change)(void *context);
    void *context;
    pthread_t thread;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t work;
    struct entry *entries;
    bool is_ending;
};

/* ---- One ------------------------------------------------------------------------------------ */

struct identity *identity_create(void)
{
    struct identity *identity = calloc(1, sizeof *identity);
    if (identity != NULL) {
        atomic_init(&identity->references, 1);
    }
    return identity;
}

struct identity *identity_acquire(struct identity *identity)
{
    atomic_fetch_add(&identity->references, 1);
    return identity;
}

static void wipe(char *secret)
{
    if (secret != NULL) {
        explicit_bzero(secret, strlen(secret));
        free(secret);
    }
}

void identity_release(struct identity *identity)
{
    if (identity != NULL && atomic_fetch_sub(&identity->references, 1) == 1) {
        wipe(identity->access_key);
        wipe(identity->secret_key);
        wipe(identity->session_token);
        free(identity);
    }
}

static bool same_text(const char *left, const char *right)
{
    return left == right || (left != NULL && right != NULL && strcmp(left, right) == 0);
}

bool identity_equals(const struct identity *left, const struct identity *right)
{
    return same_text(left->access_key, right->access_key) &&
           same_text(left->secret_key, right->secret_key) &&
           same_text(left->session_token, right->session_token);
}

/* ---- The thread ----------------------------------------------------------------------------- */

static struct entry *find_wanted(struct identities *identities)
{
    struct entry *entry = identities->entries;
    while (entry != NULL && !entry->is_wanted) {
        entry = entry->next;
    }
    return entry;
}

/* Called with the lock held; it is released while the finder works. */
static void renew(struct identities *identities, struct entry *entry)
{
    struct identity *found = NULL;
    struct error error = {0};
    bool is_temporary = false;
    pthread_mutex_unlock(&identities->lock);
    int status =
        identities->find(identities->context, entry->profile, &found, &is_temporary, &error);
    pthread_mutex_lock(&identities->lock);
    int64_t now_s = (int64_t)time(NULL);
    entry->is_wanted = false;
    if (status == 0) {
        entry->is_same =
            entry->is_refused && entry->identity != NULL && identity_equals(entry->identity, found);
        identity_release(entry->identity);
        entry->identity = found;
        entry->found_s = now_s;
        entry->tried_s = 0;
        entry->is_refused = false;
        return;
    }
    entry->tried_s = now_s;
    entry->error = error;
    char text[400];
    log_warn("credentials_failed", "profile=%s temporary=%d error=%s",
             entry->profile[0] != '\0' ? entry->profile : "default", is_temporary,
             log_quote(error.text, text, sizeof text));
}

static void *run(void *context)
{
    struct identities *identities = context;
    pthread_setname_np(pthread_self(), "penstock-creds");
    pthread_mutex_lock(&identities->lock);
    while (!identities->is_ending) {
        struct entry *entry = find_wanted(identities);
        if (entry == NULL) {
            pthread_cond_wait(&identities->work, &identities->lock);
            continue;
        }
        renew(identities, entry);
        pthread_mutex_unlock(&identities->lock);
        identities->on_change(identities->context);
        pthread_mutex_lock(&identities->lock);
    }
    pthread_mutex_unlock(&identities->lock);
    return NULL;
}

struct identities *identities_create(identity_finder find, void (*on_change)(void *context),
                                     void *context, struct error *error)
{
    struct identities *identities = calloc(1, sizeof *identities);
    if (identities == NULL) {
        error_set(error, ERROR_MEMORY, "Out of memory.");
        return NULL;
    }
    identities->find = find;
    identities->on_change = on_change;
    identities->context = context;
    pthread_mutex_init(&identities->lock, NULL);
    pthread_cond_init(&identities->work, NULL);
    int status = pthread_create(&identities->thread, NULL, run, identities);
    if (status != 0) {
        error_set(error, ERROR_INTERNAL, "The thread for credentials cannot be started: %s.",
                  strerror(status));
        pthread_cond_destroy(&identities->work);
        pthread_mutex_destroy(&identities->lock);
        free(identities);
        return NULL;
    }
    return identities;
}

void identities_destroy(struct identities *identities)
{
    if (identities == NULL) {
        return;
    }
    pthread_mutex_lock(&identities->lock);
    identities->is_ending = true;
    pthread_cond_signal(&identities->work);
    pthread_mutex_unlock(&identities->lock);
    pthread_join(identities->thread, NULL);
    for (struct entry *entry = identities->entries, *next; entry != NULL; entry = next) {
        next = entry->next;
        identity_release(entry->identity);
        free(entry->profile);
        free(entry);
    }
    pthread_cond_destroy(&identities->work);
    pthread_mutex_destroy(&identities->lock);
    free(identities);
}

/* ---- Asking --------------------------------------------------------------------------------- */

static struct entry *find_entry(struct identities *identities, const char *profile)
{
    for (struct entry *entry = identities->entries; entry != NULL; entry = entry->next) {
        if (strcmp(entry->profile, profile) == 0) {
            return entry;
        }
    }
    struct entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL || (entry->profile = strdup(profile)) == NULL) {
        free(entry);
        return NULL;
    }
    entry->next = identities->entries;
    identities->entries = entry;
    return entry;
}

static void want(struct identities *identities, struct entry *entry)
{
    if (!entry->is_wanted) {
        entry->is_wanted = true;
        pthread_cond_signal(&identities->work);
    }
}

/* Seconds of use that are left in what was found. */
static int64_t seconds_left(const struct entry *entry, int64_t now_s)
{
    if (entry->identity == NULL || entry->is_refused) {
        return 0;
    }
    return entry->identity->expires_s == 0 ? INT64_MAX : entry->identity->expires_s - now_s;
}

static enum identity_state look(struct identities *identities, struct entry *entry,
                                struct identity **identity, struct error *error)
{
    int64_t now_s = (int64_t)time(NULL), left_s = seconds_left(entry, now_s);
    if (left_s > TOO_LATE_S) {
        int64_t life_s =
            left_s == INT64_MAX ? INT64_MAX : entry->identity->expires_s - entry->found_s;
        int64_t early_s = life_s / 4 < EARLY_S ? life_s / 4 : EARLY_S;
        if (left_s < early_s && now_s - entry->tried_s >= RENEWAL_S) {
            want(identities, entry);
        }
        *identity = identity_acquire(entry->identity);
        return IDENTITY_READY;
    }
    if (!entry->is_wanted && entry->tried_s != 0 && now_s - entry->tried_s < FAILURE_S) {
        *error = entry->error;
        return IDENTITY_FAILED;
    }
    want(identities, entry);
    return IDENTITY_PENDING;
}

enum identity_state identities_get(struct identities *identities, const char *profile,
                                   struct identity **identity, struct error *error)
{
    pthread_mutex_lock(&identities->lock);
    struct entry *entry = find_entry(identities, profile != NULL ? profile : "");
    enum identity_state state = IDENTITY_FAILED;
    if (entry == NULL) {
        error_set(error, ERROR_MEMORY, "Out of memory.");
    } else {
        state = look(identities, entry, identity, error);
    }
    pthread_mutex_unlock(&identities->lock);
    return state;
}

bool identities_refused(struct identities *identities, const char *profile,
                        const struct identity *identity)
{
    pthread_mutex_lock(&identities->lock);
    struct entry *entry = find_entry(identities, profile != NULL ? profile : "");
    bool is_hopeful = entry != NULL;
    if (entry != NULL && entry->identity == identity && !entry->is_refused) {
        int64_t age_s = (int64_t)time(NULL) - entry->found_s;
        is_hopeful = !(entry->is_same && age_s < FAILURE_S);
        entry->is_refused = is_hopeful;
    }
    pthread_mutex_unlock(&identities->lock);
    return is_hopeful;
}
