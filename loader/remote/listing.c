/* The calls that wait: heads, listings, small objects. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader/remote/call.h"
#include "loader/remote/remote_private.h"
#include "loader/remote/s3_xml.h"

enum { PAGE_BYTES_MAX = 32 * 1024 * 1024 };

int remote_head(struct remote *remote, const char *url, const struct remote_call *call,
                struct remote_version *version, struct error *error)
{
    struct call head = {.method = "HEAD", .url = url};
    struct call_answer answer;
    if (call_make(remote, &head, call, &answer, error) != 0) {
        return -1;
    }
    free(answer.content);
    *version = answer.version;
    return 0;
}

int remote_read(struct remote *remote, const char *url, uint64_t limit_bytes,
                const struct remote_call *call, void **content, size_t *size_bytes,
                struct remote_version *version, struct error *error)
{
    struct call read = {.method = "GET", .url = url, .limit_bytes = limit_bytes};
    struct call_answer answer;
    if (call_make(remote, &read, call, &answer, error) != 0) {
        return -1;
    }
    if (answer.content == NULL && (answer.content = calloc(1, 1)) == NULL) {
        return error_set(error, ERROR_MEMORY, "Out of memory.");
    }
    *content = answer.content;
    *size_bytes = answer.content_bytes;
    if (version != NULL) {
        *version = answer.version;
    }
    return 0;
}

int remote_write(struct remote *remote, const char *url, const void *content, size_t size_bytes,
                 const struct remote_call *call, struct error *error)
{
    if (!s3_address_is_s3(url)) {
        char shown[300];
        return error_set(error, ERROR_USAGE, "%s: only s3:// URLs can be written to.",
                         s3_address_public(url, shown, sizeof shown));
    }
    struct call write = {.method = "PUT",
                         .url = url,
                         .body = content,
                         .body_bytes = size_bytes,
                         .limit_bytes = FAILURE_BODY_BYTES};
    struct call_answer answer;
    if (call_make(remote, &write, call, &answer, error) != 0) {
        return -1;
    }
    free(answer.content);
    return 0;
}

/* ---- Listings ------------------------------------------------------------------------------- */

struct listing {
    const char *bucket;
    const char *prefix;
    remote_visitor visit;
    void *context;
    bool is_over;
    bool is_strange; /* an entry that is not below the prefix */
    char url[REMOTE_URL_BYTES + S3_XML_KEY_BYTES];
};

static bool take_entry(void *context, const struct s3_xml_entry *listed)
{
    struct listing *listing = context;
    if (strncmp(listed->key, listing->prefix, strlen(listing->prefix)) != 0) {
        listing->is_strange = true;
        return false;
    }
    snprintf(listing->url, sizeof listing->url, "s3://%s/%s", listing->bucket, listed->key);
    struct remote_entry entry = {.url = listing->url, .is_prefix = listed->is_prefix};
    if (!listed->is_prefix) {
        entry.version.size_bytes = listed->size_bytes;
        answer_tag_copy(entry.version.tag, listed->etag, strlen(listed->etag));
    }
    listing->is_over = !listing->visit(listing->context, &entry);
    return !listing->is_over;
}

/* The parameters in the order of their names, encoded: this is how they have to be signed. */
static char *page_query(const char *prefix, bool is_deep, const char *token)
{
    char *encoded_prefix = s3_address_encode(prefix, false);
    char *encoded_token = s3_address_encode(token, false);
    char *query = NULL;
    if (encoded_prefix != NULL && encoded_token != NULL &&
        asprintf(&query, "%s%s%slist-type=2&prefix=%s",
                 token[0] != '\0' ? "continuation-token=" : "", encoded_token,
                 token[0] != '\0' ? (is_deep ? "&" : "&delimiter=%2F&")
                                  : (is_deep ? "" : "delimiter=%2F&"),
                 encoded_prefix) < 0) {
        query = NULL;
    }
    free(encoded_prefix);
    free(encoded_token);
    return query;
}

static int list_page(struct remote *remote, const char *url, const char *query,
                     const struct remote_call *call, struct listing *listing,
                     struct s3_xml_page *page, struct error *error)
{
    struct call get = {.method = "GET", .url = url, .query = query, .limit_bytes = PAGE_BYTES_MAX};
    struct call_answer answer;
    if (call_make(remote, &get, call, &answer, error) != 0) {
        return -1;
    }
    bool is_good = s3_xml_list(answer.content != NULL ? answer.content : "", answer.content_bytes,
                               page, take_entry, listing);
    free(answer.content);
    if (!is_good || listing->is_strange) {
        return error_set(error, ERROR_IO,
                         "%.300s: the server's listing is not one of ListObjectsV2%s. Check "
                         "that the endpoint (AWS_ENDPOINT_URL) is an S3 server.",
                         url, listing->is_strange ? " (keys of another prefix)" : "");
    }
    return 0;
}

int remote_list(struct remote *remote, const char *url, bool is_deep,
                const struct remote_call *call, remote_visitor visit, void *context,
                struct error *error)
{
    char bucket[S3_BUCKET_BYTES], shown[300];
    const char *prefix;
    if (!s3_address_is_s3(url)) {
        return error_set(error, ERROR_USAGE,
                         "%s: a web server's files cannot be listed. Name each one, or write "
                         "braces: part-{000..099}.tar.",
                         s3_address_public(url, shown, sizeof shown));
    }
    if (s3_address_split(url, bucket, &prefix, error) != 0) {
        return -1;
    }
    struct listing *listing = calloc(1, sizeof *listing);
    struct s3_xml_page *page = calloc(1, sizeof *page);
    int status = listing != NULL && page != NULL ? 0 : -1;
    if (status == 0) {
        listing->bucket = bucket;
        listing->prefix = prefix;
        listing->visit = visit;
        listing->context = context;
        do {
            char *query = page_query(prefix, is_deep, page->token);
            status = query == NULL ? error_set(error, ERROR_MEMORY, "Out of memory.")
                                   : list_page(remote, url, query, call, listing, page, error);
            free(query);
        } while (status == 0 && page->is_truncated && !listing->is_over);
    } else {
        error_set(error, ERROR_MEMORY, "Out of memory.");
    }
    free(listing);
    free(page);
    return status;
}
