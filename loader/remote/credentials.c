#include "loader/remote/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "loader/remote/credentials_private.h"

enum { SMALL_FILE_BYTES = 64 * 1024, ROLES_DEPTH_MAX = 4 };

/* ---- What the places share ------------------------------------------------------------------ */

const char *search_variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

void search_wipe(char *secret)
{
    if (secret != NULL) {
        explicit_bzero(secret, strlen(secret));
        free(secret);
    }
}

/* A copy without a line break, which would start a header of its own. */
static void replace(char **place, const char *text)
{
    search_wipe(*place);
    *place = text != NULL && strpbrk(text, "\r\n") == NULL ? strdup(text) : NULL;
}

enum finding search_keep(struct search *search, const char *access_key, const char *secret_key,
                         const char *token, const char *format, ...)
{
    struct identity *identity = search->identity;
    replace(&identity->access_key, access_key);
    replace(&identity->secret_key, secret_key);
    replace(&identity->session_token, token);
    identity->expires_s = 0;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(identity->source, sizeof identity->source, format, arguments);
    va_end(arguments);
    if (identity->access_key == NULL || identity->secret_key == NULL) {
        return search_fail(search, false, "The credentials from %s are malformed.",
                           identity->source);
    }
    return FINDING_KEYS;
}

enum finding search_fail(struct search *search, bool is_temporary, const char *format, ...)
{
    char text[ERROR_TEXT_BYTES / 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    search->is_temporary = is_temporary;
    error_set(&search->error, ERROR_ACCESS, "%s", text);
    return FINDING_FAILED;
}

int64_t search_parse_time(const char *text)
{
    struct tm moment = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &moment);
    if (rest == NULL) {
        return 0;
    }
    if (*rest == '.') {
        rest++;
        rest += strspn(rest, "0123456789");
    }
    int hours = 0, minutes = 0;
    int64_t seconds = (int64_t)timegm(&moment);
    if ((*rest == '+' || *rest == '-') && sscanf(rest + 1, "%2d:%2d", &hours, &minutes) == 2) {
        seconds += (*rest == '+' ? -1 : 1) * (hours * 3600 + minutes * 60);
    }
    return seconds;
}

enum finding search_take_json(struct search *search, const char *text, size_t text_bytes,
                              const char *token_name, const char *source)
{
    json_t *root = json_loadb(text, text_bytes, 0, NULL);
    const char *key = json_string_value(json_object_get(root, "AccessKeyId"));
    const char *secret = json_string_value(json_object_get(root, "SecretAccessKey"));
    const char *token = json_string_value(json_object_get(root, token_name));
    const char *until = json_string_value(json_object_get(root, "Expiration"));
    enum finding finding;
    if (key == NULL || secret == NULL) {
        finding = search_fail(search, true,
                              "What came from %s is no JSON with AccessKeyId and SecretAccessKey.",
                              source);
    } else {
        finding = search_keep(search, key, secret, token, "%s", source);
        search->identity->expires_s = until != NULL ? search_parse_time(until) : 0;
    }
    json_decref(root);
    return finding;
}

char *search_read_file(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    char *text = file >= 0 ? calloc(1, SMALL_FILE_BYTES + 1) : NULL;
    ssize_t bytes = text != NULL ? read(file, text, SMALL_FILE_BYTES) : -1;
    int reason = errno;
    if (file >= 0) {
        close(file);
    }
    if (bytes < 0) {
        free(text);
        errno = reason;
        return NULL;
    }
    while (bytes > 0 && strchr(" \t\r\n", text[bytes - 1]) != NULL) {
        text[--bytes] = '\0';
    }
    return text;
}

/* ---- Settings ------------------------------------------------------------------------------- */

static const char *first_of(const char *a, const char *b, const char *c)
{
    return a != NULL ? a : b != NULL ? b : c;
}

static bool is_true(const char *value)
{
    return value != NULL && (strcasecmp(value, "true") == 0 || strcmp(value, "1") == 0 ||
                             strcasecmp(value, "yes") == 0);
}

const char *credentials_ca_file(void)
{
    return first_of(search_variable("AWS_CA_BUNDLE"), search_variable("SSL_CERT_FILE"),
                    search_variable("CURL_CA_BUNDLE"));
}

static const char *of_profile(const struct search *search, const char *key)
{
    return aws_config_get(search->config, search->profile, key);
}

/* The profile's own endpoint: of S3 in its services section, or of everything. */
static const char *profile_endpoint(const struct search *search)
{
    const char *services = of_profile(search, "services");
    const char *found = NULL;
    char section[256];
    if (services != NULL) {
        snprintf(section, sizeof section, "services %s", services);
        found = aws_config_get_section(search->config, section, "s3.endpoint_url");
    }
    return first_of(found, of_profile(search, "s3.endpoint_url"),
                    of_profile(search, "endpoint_url"));
}

static int find_settings(struct search *search)
{
    const struct remote_options *options = search->options;
    struct s3_settings *settings = &search->identity->settings;
    bool is_ignored = is_true(search_variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"));
    const char *named = first_of(search_variable("AWS_ENDPOINT_URL_S3"),
                                 search_variable("AWS_ENDPOINT_URL"), profile_endpoint(search));
    const char *endpoint = first_of(options->endpoint, is_ignored ? NULL : named, NULL);
    const char *region =
        first_of(options->region,
                 first_of(search_variable("AWS_REGION"), search_variable("AWS_DEFAULT_REGION"),
                          of_profile(search, "region")),
                 "us-east-1");
    const char *style = first_of(options->addressing, search_variable("AWS_S3_ADDRESSING_STYLE"),
                                 first_of(of_profile(search, "s3.addressing_style"),
                                          of_profile(search, "addressing_style"), NULL));
    const char *payer = search_variable("AWS_REQUEST_PAYER");
    if ((endpoint != NULL && s3_address_set_endpoint(settings, endpoint, &search->error) != 0) ||
        (style != NULL && s3_address_set_addressing(settings, style, &search->error) != 0)) {
        return -1;
    }
    snprintf(settings->region, sizeof settings->region, "%s", region);
    settings->is_anonymous = options->anonymous || is_true(search_variable("AWS_NO_SIGN_REQUEST"));
    settings->requester_pays =
        options->requester_pays || (payer != NULL && strcasecmp(payer, "requester") == 0);
    return 0;
}

/* ---- The places, in their order ------------------------------------------------------------- */

static enum finding search_environment(struct search *search)
{
    const char *key = search_variable("AWS_ACCESS_KEY_ID");
    const char *secret = search_variable("AWS_SECRET_ACCESS_KEY");
    if (key == NULL || search->is_profile_named) {
        return FINDING_NOTHING;
    }
    if (secret == NULL) {
        return search_fail(search, false,
                           "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not. Set both.");
    }
    return search_keep(search, key, secret, search_variable("AWS_SESSION_TOKEN"),
                       "the environment (AWS_ACCESS_KEY_ID)");
}

static enum finding search_keys(struct search *search, const char *profile)
{
    const char *key = aws_config_get(search->config, profile, "aws_access_key_id");
    const char *secret = aws_config_get(search->config, profile, "aws_secret_access_key");
    return key == NULL || secret == NULL
               ? FINDING_NOTHING
               : search_keep(search, key, secret,
                             aws_config_get(search->config, profile, "aws_session_token"),
                             "profile \"%.100s\" of the shared files", profile);
}

static enum finding search_profile(struct search *search, const char *profile, int depth);

/* Keys that may take the role of a profile. */
static enum finding search_role_source(struct search *search, const char *profile, int depth)
{
    const char *source = aws_config_get(search->config, profile, "source_profile");
    const char *where = aws_config_get(search->config, profile, "credential_source");
    if (source != NULL && strcmp(source, profile) == 0) {
        return search_keys(search, profile);
    }
    if (source != NULL) {
        return search_profile(search, source, depth + 1);
    }
    if (where == NULL) {
        return FINDING_NOTHING;
    }
    if (strcmp(where, "Environment") == 0) {
        search->is_profile_named = false;
        return search_environment(search);
    }
    return strcmp(where, "EcsContainer") == 0 ? search_container(search) : search_instance(search);
}

static enum finding search_role(struct search *search, const char *profile, int depth)
{
    const char *role = aws_config_get(search->config, profile, "role_arn");
    const char *token = aws_config_get(search->config, profile, "web_identity_token_file");
    if (role == NULL) {
        return FINDING_NOTHING;
    }
    if (token != NULL) {
        return search_web_identity(search, role, token,
                                   aws_config_get(search->config, profile, "role_session_name"));
    }
    enum finding finding = search_role_source(search, profile, depth);
    if (finding == FINDING_NOTHING) {
        return search_fail(search, false,
                           "Profile \"%.100s\" has a role_arn, but nothing to take the role with. "
                           "Set source_profile, credential_source or web_identity_token_file.",
                           profile);
    }
    return finding == FINDING_KEYS ? search_assume_role(search, role, profile) : finding;
}

/* What a profile of the shared files says. */
static enum finding search_profile(struct search *search, const char *profile, int depth)
{
    if (depth > ROLES_DEPTH_MAX) {
        return search_fail(search, false,
                           "The source_profile of profile \"%.100s\" leads in a "
                           "circle.",
                           profile);
    }
    enum finding finding = search_role(search, profile, depth);
    if (finding == FINDING_NOTHING) {
        finding = search_keys(search, profile);
    }
    const char *command = aws_config_get(search->config, profile, "credential_process");
    if (finding == FINDING_NOTHING && command != NULL) {
        finding = search_process(search, command);
    }
    if (finding == FINDING_NOTHING &&
        (aws_config_get(search->config, profile, "sso_session") != NULL ||
         aws_config_get(search->config, profile, "sso_start_url") != NULL)) {
        finding = search_fail(search, false,
                              "Profile \"%.100s\" uses SSO. Add to it: credential_process = aws "
                              "configure export-credentials --profile %.100s --format process.",
                              profile, profile);
    }
    return finding;
}

static enum finding search_web_environment(struct search *search)
{
    const char *token = search_variable("AWS_WEB_IDENTITY_TOKEN_FILE");
    const char *role = search_variable("AWS_ROLE_ARN");
    return token == NULL || role == NULL || search->is_profile_named
               ? FINDING_NOTHING
               : search_web_identity(search, role, token, search_variable("AWS_ROLE_SESSION_NAME"));
}

static enum finding search_all(struct search *search)
{
    enum finding finding = search_environment(search);
    if (finding == FINDING_NOTHING) {
        finding = search_web_environment(search);
    }
    if (finding == FINDING_NOTHING) {
        finding = search_profile(search, search->profile, 0);
    }
    if (finding == FINDING_NOTHING) {
        finding = search_container(search);
    }
    return finding != FINDING_NOTHING ? finding : search_instance(search);
}

/* ---- All together --------------------------------------------------------------------------- */

/* Where a shared file is: as its variable says, or in the home folder. */
static void shared_path(const char *name, const char *file, char *path, size_t path_bytes)
{
    const char *named = search_variable(name), *home = search_variable("HOME");
    if (named != NULL && strncmp(named, "~/", 2) != 0) {
        snprintf(path, path_bytes, "%s", named);
    } else {
        snprintf(path, path_bytes, "%s/%s", home != NULL ? home : "",
                 named != NULL ? named + 2 : file);
    }
}

/* A profile that the client names explicitly goes before keys in the environment, unless it is the
 * one of our own environment. */
static void choose_profile(struct search *search, const char *profile)
{
    const char *own = search_variable("AWS_PROFILE");
    own = own != NULL ? own : search_variable("AWS_DEFAULT_PROFILE");
    bool is_given = profile != NULL && profile[0] != '\0';
    search->profile = is_given ? profile : own != NULL ? own : "default";
    search->is_profile_named = is_given && (own == NULL || strcmp(own, profile) != 0);
}

static int search_here(struct search *search)
{
    if (find_settings(search) != 0) {
        return -1;
    }
    if (search->identity->settings.is_anonymous) {
        snprintf(search->identity->source, IDENTITY_SOURCE_BYTES,
                 "requests are unsigned on demand (AWS_NO_SIGN_REQUEST)");
        return 0;
    }
    if (strcmp(search->profile, "default") != 0 &&
        !aws_config_has_profile(search->config, search->profile)) {
        search_fail(search, false,
                    "There is no profile \"%.100s\" in %.300s or the credentials file beside it. "
                    "Check AWS_PROFILE.",
                    search->profile, search->config_path);
        return -1;
    }
    switch (search_all(search)) {
    case FINDING_KEYS: return 0;
    case FINDING_FAILED: return -1;
    case FINDING_NOTHING: break;
    }
    snprintf(search->identity->source, IDENTITY_SOURCE_BYTES,
             "neither environment, shared files (profile \"%.40s\"), container nor instance "
             "has any",
             search->profile);
    return 0;
}

int credentials_find(void *options, const char *profile, struct identity **identity,
                     bool *is_temporary, struct error *error)
{
    char config_path[1024], credentials_path[1024];
    shared_path("AWS_CONFIG_FILE", ".aws/config", config_path, sizeof config_path);
    shared_path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", credentials_path,
                sizeof credentials_path);
    struct search search = {.options = options, .config_path = config_path};
    choose_profile(&search, profile);
    int status = -1;
    search.identity = identity_create();
    if (search.identity == NULL) {
        error_set(&search.error, ERROR_MEMORY, "Out of memory.");
    } else if ((search.config = aws_config_open(config_path, credentials_path, &search.error)) !=
               NULL) {
        status = search_here(&search);
    }
    aws_config_close(search.config);
    *is_temporary = search.is_temporary;
    if (status == 0) {
        *identity = search.identity;
        return 0;
    }
    identity_release(search.identity);
    if (error != NULL) {
        *error = search.error;
    }
    return -1;
}
