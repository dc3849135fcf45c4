#include "loader/remote/s3_address.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool s3_address_is_s3(const char *url)
{
    return strncmp(url, "s3://", 5) == 0;
}

static bool is_http(const char *url)
{
    return strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0;
}

static bool is_plain(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text <= 0x20 || *text == 0x7f) {
            return false;
        }
    }
    return true;
}

int s3_address_set_endpoint(struct s3_settings *settings, const char *endpoint, struct error *error)
{
    size_t length = strlen(endpoint);
    while (length > 0 && endpoint[length - 1] == '/') {
        length--;
    }
    if (!is_http(endpoint) || length >= sizeof settings->endpoint || !is_plain(endpoint) ||
        strpbrk(endpoint, "?#@") != NULL || length <= strlen("https://")) {
        char shown[256];
        return error_set(error, ERROR_USAGE,
                         "The S3 endpoint \"%s\" is no URL like https://host:port. Correct "
                         "AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or endpoint_url.",
                         s3_address_public(endpoint, shown, sizeof shown));
    }
    memcpy(settings->endpoint, endpoint, length);
    settings->endpoint[length] = '\0';
    return 0;
}

int s3_address_set_addressing(struct s3_settings *settings, const char *name, struct error *error)
{
    static const char *const names[] = {"auto", "path", "virtual"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            settings->addressing = (enum s3_addressing)i;
            return 0;
        }
    }
    return error_set(error, ERROR_USAGE,
                     "The S3 addressing style \"%.40s\" is not auto, path or virtual. Correct "
                     "AWS_S3_ADDRESSING_STYLE or addressing_style.",
                     name);
}

int s3_address_split(const char *url, char bucket[S3_BUCKET_BYTES], const char **key,
                     struct error *error)
{
    const char *start = url + 5, *end = strchrnul(start, '/');
    size_t length = (size_t)(end - start);
    bool is_good = s3_address_is_s3(url) && length > 0 && length < S3_BUCKET_BYTES;
    for (size_t i = 0; i < length && is_good; i++) {
        is_good = isalnum((unsigned char)start[i]) || (i > 0 && strchr("-._", start[i]) != NULL);
    }
    if (!is_good) {
        return error_set(error, ERROR_USAGE,
                         "%.300s: \"%.*s\" is no bucket's name. Write s3://BUCKET/KEY.", url,
                         length < 80 ? (int)length : 80, start);
    }
    memcpy(bucket, start, length);
    bucket[length] = '\0';
    *key = *end == '/' ? end + 1 : end;
    return 0;
}

char *s3_address_encode(const char *text, bool is_slash_kept)
{
    static const char digits[] = "0123456789ABCDEF";
    char *encoded = malloc(3 * strlen(text) + 1), *place = encoded;
    if (encoded == NULL) {
        return NULL;
    }
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if ((c < 0x80 && isalnum(c)) || strchr("-._~", c) != NULL || (c == '/' && is_slash_kept)) {
            *place++ = (char)c;
        } else {
            *place++ = '%';
            *place++ = digits[c >> 4];
            *place++ = digits[c & 15];
        }
    }
    *place = '\0';
    return encoded;
}

/* A name that can stand before ".s3.amazonaws.com" under its wildcard certificate. */
static bool fits_host(const char *bucket)
{
    size_t length = strlen(bucket);
    for (const char *c = bucket; *c != '\0'; c++) {
        if (!islower((unsigned char)*c) && !isdigit((unsigned char)*c) && *c != '-') {
            return false;
        }
    }
    return length >= 3 && length <= 63 && bucket[0] != '-' && bucket[length - 1] != '-';
}

/* "https://host[/path]" of the endpoint, in two pieces: the scheme's end is where a virtual host
 * puts the bucket. */
static void choose_endpoint(const struct s3_settings *settings, const char *region,
                            char endpoint[S3_ENDPOINT_BYTES])
{
    if (settings->endpoint[0] != '\0') {
        memcpy(endpoint, settings->endpoint, S3_ENDPOINT_BYTES);
    } else {
        snprintf(endpoint, S3_ENDPOINT_BYTES, "https://s3.%s.amazonaws.com%s", region,
                 strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    }
}

static bool is_region(const char *region)
{
    for (const char *c = region; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_') {
            return false;
        }
    }
    return region[0] != '\0' && strlen(region) < S3_REGION_BYTES;
}

static int build_http(const char *url, struct s3_target *target, struct error *error)
{
    char shown[400];
    if (!is_http(url) || !is_plain(url)) {
        return error_set(error, ERROR_USAGE,
                         "%s is no URL that can be read: it has to start with s3://, https:// or "
                         "http://, and blanks in it are written %%20.",
                         s3_address_public(url, shown, sizeof shown));
    }
    target->url = strdup(url);
    return target->url != NULL ? 0 : error_set(error, ERROR_MEMORY, "Out of memory.");
}

int s3_address_build(const struct s3_settings *settings, const char *url, const char *query,
                     const char *region, struct s3_target *target, struct error *error)
{
    *target = (struct s3_target){0};
    if (!s3_address_is_s3(url)) {
        return build_http(url, target, error);
    }
    const char *key;
    char endpoint[S3_ENDPOINT_BYTES];
    if (s3_address_split(url, target->bucket, &key, error) != 0) {
        return -1;
    }
    if (query == NULL && key[0] == '\0') {
        return error_set(error, ERROR_USAGE, "%.300s names a bucket, but no object in it.", url);
    }
    region = region != NULL && region[0] != '\0' ? region : settings->region;
    if (!is_region(region)) {
        return error_set(error, ERROR_USAGE,
                         "\"%.60s\" is no region's name. Correct AWS_REGION or region.", region);
    }
    snprintf(target->region, sizeof target->region, "%s", region);
    choose_endpoint(settings, region, endpoint);
    bool is_virtual = settings->addressing == S3_ADDRESSING_VIRTUAL ||
                      (settings->addressing == S3_ADDRESSING_AUTO &&
                       settings->endpoint[0] == '\0' && fits_host(target->bucket));
    const char *host = strstr(endpoint, "://") + 3;
    char *path = s3_address_encode(query == NULL ? key : "", true);
    bool is_made =
        path != NULL &&
        asprintf(&target->url, "%.*s%s%s%s/%s%s%s%s%s", (int)(host - endpoint), endpoint,
                 is_virtual ? target->bucket : "", is_virtual ? "." : "", host,
                 is_virtual ? "" : target->bucket, is_virtual || query != NULL ? "" : "/", path,
                 query != NULL ? "?" : "", query != NULL ? query : "") >= 0;
    free(path);
    if (!is_made) {
        target->url = NULL;
        return error_set(error, ERROR_MEMORY, "Out of memory.");
    }
    return 0;
}

const char *s3_address_public(const char *url, char *buffer, size_t buffer_bytes)
{
    if (s3_address_is_s3(url)) {
        snprintf(buffer, buffer_bytes, "%s", url);
        return buffer;
    }
    const char *scheme_end = strstr(url, "://");
    const char *host = scheme_end != NULL ? scheme_end + 3 : url;
    size_t authority = strcspn(host, "/?#");
    const char *at = memrchr(host, '@', authority);
    const char *shown = at != NULL ? at + 1 : host;
    snprintf(buffer, buffer_bytes, "%.*s%.*s", (int)(host - url), url, (int)strcspn(shown, "?#"),
             shown);
    return buffer;
}
