#include "loader/remote/places.h"

#include <stdlib.h>
#include <string.h>

/* "s3://bucket" or "https://host:port" of a URL. */
static size_t name_length(const char *url)
{
    const char *host = strstr(url, "://");
    return host == NULL ? strlen(url) : (size_t)(host + 3 - url) + strcspn(host + 3, "/?#");
}

struct place *places_find(struct places *places, const char *url)
{
    size_t length = name_length(url);
    for (struct place *place = places->first; place != NULL; place = place->next) {
        if (strncmp(place->name, url, length) == 0 && place->name[length] == '\0') {
            return place;
        }
    }
    struct place *place = calloc(1, sizeof *place);
    if (place == NULL || (place->name = strndup(url, length)) == NULL) {
        free(place);
        return NULL;
    }
    place->next = places->first;
    places->first = place;
    return place;
}

void places_free(struct places *places)
{
    for (struct place *place = places->first, *next; place != NULL; place = next) {
        next = place->next;
        free(place->name);
        free(place);
    }
    places->first = NULL;
}
