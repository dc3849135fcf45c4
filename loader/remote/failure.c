#include "loader/remote/failure.h"

#include <stdio.h>
#include <string.h>

#include "loader/remote/s3_xml.h"

struct reason {
    char code[64];
    char message[256];
    char region[S3_REGION_BYTES];
    char shown[300];    /* the user's URL, nothing secret in it */
    char endpoint[300]; /* scheme, host and port that were asked */
};

static void fill_places(const struct failure_scene *scene, struct reason *reason)
{
    s3_address_public(scene->url, reason->shown, sizeof reason->shown);
    const char *url = scene->target->url != NULL ? scene->target->url : scene->url;
    s3_address_public(url, reason->endpoint, sizeof reason->endpoint);
    char *host = strstr(reason->endpoint, "://");
    if (host != NULL) {
        host[3 + strcspn(host + 3, "/")] = '\0';
    }
}

static void make_printable(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            *text = ' ';
        }
    }
}

static void read_body(const char *body, size_t body_bytes, struct reason *reason)
{
    struct s3_xml_field fields[] = {
        {"Code", reason->code, sizeof reason->code},
        {"Message", reason->message, sizeof reason->message},
        {"Region", reason->region, sizeof reason->region},
    };
    if (!s3_xml_fields(body, body_bytes, fields, sizeof fields / sizeof fields[0])) {
        reason->code[0] = reason->message[0] = reason->region[0] = '\0';
    }
    make_printable(reason->code);
    make_printable(reason->message);
    make_printable(reason->region);
}

static const char *source_of(const struct failure_scene *scene)
{
    return scene->identity != NULL && scene->identity->source[0] != '\0' ? scene->identity->source
                                                                         : "an unknown source";
}

static bool is_one_of(const char *code, const char *const *codes)
{
    for (; *codes != NULL; codes++) {
        if (strcmp(code, *codes) == 0) {
            return true;
        }
    }
    return false;
}

static const char *const expired_codes[] = {"ExpiredToken",
                                            "ExpiredTokenException",
                                            "TokenRefreshRequired",
                                            "RequestExpired",
                                            "InvalidToken",
                                            "InvalidAccessKeyId",
                                            NULL};
static const char *const busy_codes[] = {"SlowDown",
                                         "Throttling",
                                         "ThrottlingException",
                                         "RequestLimitExceeded",
                                         "ServiceUnavailable",
                                         "RequestTimeout",
                                         "InternalError",
                                         "TooManyRequests",
                                         "RequestThrottled",
                                         "BandwidthLimitExceeded",
                                         NULL};

/* 401 and 403, and 400 where it is about who asks. */
static bool judge_access(const struct failure_scene *scene, const struct reason *reason,
                         struct failure *failure)
{
    struct error *error = &failure->error;
    const char *code = reason->code;
    if (is_one_of(code, expired_codes)) {
        failure->action = FAILURE_RENEW;
        bool is_unknown = strcmp(code, "InvalidAccessKeyId") == 0;
        error_set(error, ERROR_ACCESS, "%s: %s does not %s from %s (%s). %s", reason->shown,
                  reason->endpoint,
                  is_unknown ? "know the access key" : "take the session token any more",
                  source_of(scene), code,
                  is_unknown ? "Check the access key ID, the profile (AWS_PROFILE) and that the "
                               "endpoint is the one it belongs to."
                             : "Log in again or fetch new temporary credentials.");
    } else if (strcmp(code, "SignatureDoesNotMatch") == 0) {
        error_set(error, ERROR_ACCESS,
                  "%s: %s does not take our signature (SignatureDoesNotMatch): the secret access "
                  "key from %s does not belong to its access key ID. Correct the secret key.",
                  reason->shown, reason->endpoint, source_of(scene));
    } else if (strcmp(code, "RequestTimeTooSkewed") == 0) {
        error_set(error, ERROR_ACCESS,
                  "%s: %s says that this machine's clock is wrong (RequestTimeTooSkewed). Set the "
                  "clock, for instance with: timedatectl set-ntp true.",
                  reason->shown, reason->endpoint);
    } else {
        return false;
    }
    return true;
}

static void say_denied(const struct failure_scene *scene, const struct answer *answer,
                       const struct reason *reason, struct error *error)
{
    const char *code = reason->code[0] != '\0' ? reason->code : "no reason given";
    if (scene->identity == NULL) {
        error_set(error, ERROR_ACCESS,
                  "%s: %s refuses to give it (status %d). Check that the URL may be read without "
                  "logging in.",
                  reason->shown, reason->endpoint, answer->status);
    } else if (scene->identity->access_key == NULL) {
        error_set(error, ERROR_ACCESS,
                  "%s: %s gives no access without credentials (status %d, %s), and there are "
                  "none: %s. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile "
                  "in AWS_PROFILE.",
                  reason->shown, reason->endpoint, answer->status, code, source_of(scene));
    } else {
        error_set(error, ERROR_ACCESS,
                  "%s: %s refuses access (status %d, %s: %s) to the credentials from %s. They "
                  "need the right to %s; check the bucket's policy and the profile.",
                  reason->shown, reason->endpoint, answer->status, code,
                  reason->message[0] != '\0' ? reason->message : "no message", source_of(scene),
                  scene->is_write ? "write (s3:PutObject)"
                                  : "read (s3:GetObject) and list (s3:ListBucket)");
    }
}

static void say_missing(const struct failure_scene *scene, const struct reason *reason,
                        struct error *error)
{
    if (strcmp(reason->code, "NoSuchBucket") == 0) {
        error_set(error, ERROR_MISSING,
                  "%s: there is no bucket \"%s\" at %s (NoSuchBucket). Check its name and the "
                  "endpoint (AWS_ENDPOINT_URL).",
                  reason->shown, scene->target->bucket, reason->endpoint);
    } else {
        error_set(error, ERROR_MISSING, "%s: there is no such object at %s (%s). Check the %s.",
                  reason->shown, reason->endpoint,
                  reason->code[0] != '\0' ? reason->code : "status 404",
                  scene->identity != NULL ? "key, letter by letter" : "URL");
    }
}

/* 301, 307, and 400 with a region other than the one that was signed for. */
static bool judge_region(const struct failure_scene *scene, const struct answer *answer,
                         const struct reason *reason, struct failure *failure)
{
    const char *region = answer->region[0] != '\0' ? answer->region : reason->region;
    bool is_redirect = answer->status >= 300 && answer->status < 400;
    bool is_about = is_redirect || strcmp(reason->code, "AuthorizationHeaderMalformed") == 0 ||
                    strcmp(reason->code, "IllegalLocationConstraintException") == 0 ||
                    (answer->status == 400 && scene->is_head && region[0] != '\0');
    if (scene->identity == NULL || !is_about) {
        return false;
    }
    snprintf(failure->region, sizeof failure->region, "%s", region);
    bool is_news = region[0] != '\0' && strcmp(region, scene->target->region) != 0;
    failure->action = is_news ? FAILURE_MOVED : FAILURE_FINAL;
    error_set(&failure->error, ERROR_ACCESS,
              "%s: %s says that bucket \"%s\" is not in region %s but in %s (status %d, %s). Set "
              "AWS_REGION to the bucket's region and AWS_ENDPOINT_URL to its endpoint.",
              reason->shown, reason->endpoint, scene->target->bucket, scene->target->region,
              region[0] != '\0' ? region : "another one", answer->status,
              reason->code[0] != '\0' ? reason->code : "no reason given");
    return true;
}

static void judge_status(const struct failure_scene *scene, const struct answer *answer,
                         const struct reason *reason, struct failure *failure)
{
    int status = answer->status;
    struct error *error = &failure->error;
    if (status == 412) {
        failure->action = FAILURE_CHANGED;
    } else if (status == 404) {
        say_missing(scene, reason, error);
    } else if (status == 401 || status == 403) {
        say_denied(scene, answer, reason, error);
    } else if (status == 407) {
        error_set(error, ERROR_ACCESS,
                  "%s: the proxy wants a login (status 407). Correct HTTPS_PROXY or HTTP_PROXY.",
                  reason->shown);
    } else if (status == 416) {
        error_set(error, ERROR_IO,
                  "%s: the object ends before the bytes that were asked for (status 416). If it "
                  "is being rewritten, wait until that is done.",
                  reason->shown);
    } else {
        error_set(error, ERROR_IO, "%s: %s answered with status %d (%s: %s). Check the endpoint.",
                  reason->shown, reason->endpoint, status,
                  reason->code[0] != '\0' ? reason->code : "no reason given",
                  reason->message[0] != '\0' ? reason->message : "no message");
    }
}

void failure_judge_answer(const struct failure_scene *scene, const struct answer *answer,
                          const char *body, size_t body_bytes, struct failure *failure)
{
    struct reason reason = {0};
    int status = answer->status;
    *failure = (struct failure){.action = FAILURE_FINAL};
    fill_places(scene, &reason);
    read_body(body, body_bytes, &reason);
    failure->is_busy = status == 408 || status == 429 || status == 503 || status == 509 ||
                       is_one_of(reason.code, busy_codes);
    if (failure->is_busy || (status >= 500 && status != 501 && status != 505)) {
        failure->action = FAILURE_AGAIN;
        error_set(&failure->error, ERROR_IO, "status %d%s%s from %s", status,
                  reason.code[0] != '\0' ? " " : "", reason.code, reason.endpoint);
    } else if (!judge_region(scene, answer, &reason, failure) &&
               !judge_access(scene, &reason, failure)) {
        judge_status(scene, answer, &reason, failure);
        if (scene->is_head && status != 412 && status != 407) {
            failure->action = FAILURE_VAGUE;
        }
    }
}

void failure_judge_transfer(const struct failure_scene *scene, const struct transfer_result *result,
                            struct failure *failure)
{
    struct reason reason = {0};
    fill_places(scene, &reason);
    *failure = (struct failure){.action = FAILURE_AGAIN};
    struct error *error = &failure->error;
    switch (result->end) {
    case TRANSFER_NO_TRUST:
        failure->action = FAILURE_FINAL;
        error_set(error, ERROR_ACCESS,
                  "%s: the TLS certificate of %s cannot be trusted (%s). If it is signed by a CA "
                  "of your own, name that CA's file in AWS_CA_BUNDLE.",
                  reason.shown, reason.endpoint, result->reason);
        break;
    case TRANSFER_UNFIT:
        failure->action = FAILURE_FINAL;
        error_set(error, ERROR_USAGE, "%s: the URL cannot be used (%s). Correct it.", reason.shown,
                  result->reason);
        break;
    case TRANSFER_NO_NAME:
        error_set(error, ERROR_IO, "DNS does not find the host of %s (%s)", reason.endpoint,
                  result->reason);
        break;
    case TRANSFER_NO_CONNECT:
        error_set(error, ERROR_IO, "no connection to %s (%s)", reason.endpoint, result->reason);
        break;
    case TRANSFER_NO_PROXY:
        error_set(error, ERROR_IO, "no connection through the proxy to %s (%s)", reason.endpoint,
                  result->reason);
        break;
    case TRANSFER_COMPLETE:
    case TRANSFER_REFUSED:
    case TRANSFER_BROKEN:
        error_set(error, ERROR_IO, "the answer of %s broke off (%s)", reason.endpoint,
                  result->reason);
        break;
    }
}
