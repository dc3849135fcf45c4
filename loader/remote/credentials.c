#include "loader/remote/credentials.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A variable's value; NULL when it is unset or empty. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

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
    return first_of(variable("AWS_CA_BUNDLE"), variable("SSL_CERT_FILE"),
                    variable("CURL_CA_BUNDLE"));
}

static int find_settings(const struct remote_options *options, struct s3_settings *settings,
                         struct error *error)
{
    const char *endpoint =
        first_of(options->endpoint, variable("AWS_ENDPOINT_URL_S3"), variable("AWS_ENDPOINT_URL"));
    const char *region =
        first_of(options->region, variable("AWS_REGION"), variable("AWS_DEFAULT_REGION"));
    const char *style = first_of(options->addressing, variable("AWS_S3_ADDRESSING_STYLE"), NULL);
    if ((endpoint != NULL && s3_address_set_endpoint(settings, endpoint, error) != 0) ||
        (style != NULL && s3_address_set_addressing(settings, style, error) != 0)) {
        return -1;
    }
    snprintf(settings->region, sizeof settings->region, "%s",
             region != NULL ? region : "us-east-1");
    settings->is_anonymous = options->anonymous || is_true(variable("AWS_NO_SIGN_REQUEST"));
    settings->requester_pays = options->requester_pays;
    return 0;
}

int credentials_find(void *context, const char *profile, struct identity **identity,
                     bool *is_temporary, struct error *error)
{
    (void)profile;
    const struct remote_options *options = context;
    struct identity *found = identity_create();
    *is_temporary = false;
    if (found == NULL) {
        return error_set(error, ERROR_MEMORY, "Out of memory.");
    }
    if (find_settings(options, &found->settings, error) != 0) {
        identity_release(found);
        return -1;
    }
    const char *key = variable("AWS_ACCESS_KEY_ID"), *secret = variable("AWS_SECRET_ACCESS_KEY");
    const char *token = variable("AWS_SESSION_TOKEN");
    if (!found->settings.is_anonymous && key != NULL && secret != NULL) {
        found->access_key = strdup(key);
        found->secret_key = strdup(secret);
        found->session_token = token != NULL ? strdup(token) : NULL;
        snprintf(found->source, sizeof found->source, "the environment (AWS_ACCESS_KEY_ID)");
    }
    *identity = found;
    return 0;
}
