#include "loader/remote/fetch.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t on_write(char *data, size_t size, size_t count, void *context)
{
    struct fetch_answer *answer = context;
    size_t bytes = size * count;
    if (bytes > FETCH_BYTES_MAX - answer->text_bytes) {
        return CURL_WRITEFUNC_ERROR;
    }
    memcpy(answer->text + answer->text_bytes, data, bytes);
    answer->text_bytes += bytes;
    return bytes;
}

static void set_request(CURL *easy, const struct fetch *what)
{
    curl_easy_setopt(easy, CURLOPT_URL, what->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)what->timeout_ms);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)what->timeout_ms);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "penstock/" PENSTOCK_VERSION);
    if (strcmp(what->method, "POST") == 0) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, what->form);
    } else if (strcmp(what->method, "PUT") == 0) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE, 0L);
    }
    if (what->is_direct) {
        curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    }
    if (what->ca_file != NULL) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, what->ca_file);
    }
    if (what->signing != NULL) {
        curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, what->signing);
        curl_easy_setopt(easy, CURLOPT_USERNAME, what->access_key);
        curl_easy_setopt(easy, CURLOPT_PASSWORD, what->secret_key);
    }
}

static size_t read_nothing(char *buffer, size_t size, size_t count, void *context)
{
    (void)buffer, (void)size, (void)count, (void)context;
    return 0;
}

bool fetch(const struct fetch *what, struct fetch_answer *answer)
{
    *answer = (struct fetch_answer){.text = calloc(1, FETCH_BYTES_MAX + 1)};
    CURL *easy = curl_easy_init();
    struct curl_slist *headers = NULL;
    for (int i = 0; i < FETCH_HEADERS && what->headers[i] != NULL; i++) {
        struct curl_slist *longer = curl_slist_append(headers, what->headers[i]);
        headers = longer != NULL ? longer : headers;
    }
    CURLcode code = CURLE_OUT_OF_MEMORY;
    if (easy != NULL && answer->text != NULL) {
        long status = 0;
        set_request(easy, what);
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, read_nothing);
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
        curl_easy_setopt(easy, CURLOPT_WRITEDATA, answer);
        code = curl_easy_perform(easy);
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        answer->status = code == CURLE_OK ? (int)status : 0;
    }
    if (code != CURLE_OK) {
        snprintf(answer->why, sizeof answer->why, "%s", curl_easy_strerror(code));
    } else if (answer->status != 200) {
        snprintf(answer->why, sizeof answer->why, "status %d", answer->status);
    }
    for (struct curl_slist *header = headers; header != NULL; header = header->next) {
        explicit_bzero(header->data, strlen(header->data));
    }
    curl_slist_free_all(headers);
    curl_easy_cleanup(easy);
    return answer->status == 200;
}

void fetch_wipe(struct fetch_answer *answer)
{
    if (answer->text != NULL) {
        explicit_bzero(answer->text, FETCH_BYTES_MAX);
        free(answer->text);
        answer->text = NULL;
    }
}
