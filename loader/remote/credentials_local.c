/* The container endpoint (ECS, EKS) and the instance metadata service (EC2). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "loader/remote/credentials_private.h"

enum { CONTAINER_TIMEOUT_MS = 2000, INSTANCE_TIMEOUT_MS = 1000, URL_BYTES = 1024 };

/* ---- Container ------------------------------------------------------------------------------ */

/* Plain HTTP only to where nobody listens in. */
static bool is_url_safe(const char *url)
{
    static const char *const hosts[] = {
        "localhost", "127.0.0.1", "[::1]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]",
    };
    if (strncasecmp(url, "https://", 8) == 0) {
        return true;
    }
    if (strncasecmp(url, "http://", 7) != 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        size_t length = strlen(hosts[i]);
        if (strncasecmp(url + 7, hosts[i], length) == 0 && strchr(":/?", url[7 + length]) != NULL) {
            return true;
        }
    }
    return false;
}

/* "Authorization: ..." in memory that the caller wipes and frees; "" when there is none. NULL:
 * the file cannot be read. */
static char *authorization(void)
{
    const char *path = search_variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *plain = search_variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    char *read = path != NULL ? search_read_file(path) : NULL;
    const char *token = path != NULL ? read : plain;
    char *header = NULL;
    if (path != NULL && read == NULL) {
        return NULL;
    }
    if (token == NULL || strpbrk(token, "\r\n") != NULL) {
        header = strdup("");
    } else if (asprintf(&header, "Authorization: %s", token) < 0) {
        header = NULL;
    }
    search_wipe(read);
    return header;
}

enum finding search_container(struct search *search)
{
    const char *relative = search_variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = search_variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    char url[URL_BYTES];
    if (relative == NULL && full == NULL) {
        return FINDING_NOTHING;
    }
    snprintf(url, sizeof url, "%s%s", relative != NULL ? "http://169.254.170.2" : "",
             relative != NULL ? relative : full);
    if (!is_url_safe(url)) {
        return search_fail(search, false,
                           "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https://, or http:// to "
                           "this machine or the container service's address.");
    }
    char *header = authorization();
    if (header == NULL) {
        return search_fail(search, true,
                           "The file that AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names cannot be "
                           "read.");
    }
    struct fetch what = {.method = "GET",
                         .url = url,
                         .headers = {header[0] != '\0' ? header : NULL},
                         .ca_file = search->options->ca_file,
                         .timeout_ms = CONTAINER_TIMEOUT_MS,
                         .is_direct = true};
    struct fetch_answer answer;
    enum finding finding;
    if (fetch(&what, &answer)) {
        finding = search_take_json(search, answer.text, answer.text_bytes, "Token",
                                   "the container's credentials endpoint");
    } else {
        finding = search_fail(search, true,
                              "The container's credentials endpoint "
                              "(AWS_CONTAINER_CREDENTIALS_*_URI) gives none: %s.",
                              answer.why);
    }
    fetch_wipe(&answer);
    search_wipe(header);
    return finding;
}

/* ---- Instance ------------------------------------------------------------------------------- */

static bool ask_instance(const char *base, const char *method, const char *path, const char *header,
                         struct fetch_answer *answer)
{
    char url[URL_BYTES];
    snprintf(url, sizeof url, "%s%s", base, path);
    struct fetch what = {.method = method,
                         .url = url,
                         .headers = {header},
                         .timeout_ms = INSTANCE_TIMEOUT_MS,
                         .is_direct = true};
    return fetch(&what, answer);
}

/* With the session's token in hand. */
static enum finding ask_role(struct search *search, const char *base, const char *header)
{
    static const char folder[] = "/latest/meta-data/iam/security-credentials/";
    struct fetch_answer name, keys;
    char path[URL_BYTES];
    enum finding finding;
    if (!ask_instance(base, "GET", folder, header, &name)) {
        bool has_role = name.status != 404;
        fetch_wipe(&name);
        return has_role ? search_fail(search, true, "The instance metadata service names no role.")
                        : FINDING_NOTHING;
    }
    name.text[strcspn(name.text, "\r\n")] = '\0';
    snprintf(path, sizeof path, "%s%s", folder, name.text);
    fetch_wipe(&name);
    if (ask_instance(base, "GET", path, header, &keys)) {
        finding = search_take_json(search, keys.text, keys.text_bytes, "Token",
                                   "the instance metadata service (the machine's role)");
    } else {
        finding = search_fail(search, true,
                              "The instance metadata service gives no credentials: %s.", keys.why);
    }
    fetch_wipe(&keys);
    return finding;
}

enum finding search_instance(struct search *search)
{
    const char *disabled = search_variable("AWS_EC2_METADATA_DISABLED");
    const char *base = search_variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    if (disabled != NULL && strcasecmp(disabled, "true") == 0) {
        return FINDING_NOTHING;
    }
    char trimmed[512];
    snprintf(trimmed, sizeof trimmed, "%s", base != NULL ? base : "http://169.254.169.254");
    if (trimmed[strlen(trimmed) - 1] == '/') {
        trimmed[strlen(trimmed) - 1] = '\0';
    }
    struct fetch_answer token;
    if (!ask_instance(trimmed, "PUT", "/latest/api/token",
                      "X-aws-ec2-metadata-token-ttl-seconds: 21600", &token)) {
        fetch_wipe(&token);
        return FINDING_NOTHING; /* not on EC2 */
    }
    char *header = NULL;
    token.text[strcspn(token.text, "\r\n")] = '\0';
    enum finding finding = FINDING_NOTHING;
    if (asprintf(&header, "X-aws-ec2-metadata-token: %s", token.text) >= 0) {
        finding = ask_role(search, trimmed, header);
        search_wipe(header);
    }
    fetch_wipe(&token);
    return finding;
}
