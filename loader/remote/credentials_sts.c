/* Roles: temporary credentials from AWS's Security Token Service. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "loader/remote/credentials_private.h"
#include "loader/remote/s3_xml.h"

enum { STS_TIMEOUT_MS = 10000, KEY_BYTES = 256, TOKEN_BYTES = 8192 };

static void choose_endpoint(const struct search *search, char *url, size_t url_bytes)
{
    const char *named = search_variable("AWS_ENDPOINT_URL_STS");
    named = named != NULL ? named : search_variable("AWS_ENDPOINT_URL");
    const char *region = search->identity->settings.region;
    if (named != NULL) {
        snprintf(url, url_bytes, "%s", named);
    } else {
        snprintf(url, url_bytes, "https://sts.%s.amazonaws.com%s/", region,
                 strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    }
}

/* What STS says about a failure, without anything that could be secret. */
static enum finding fail(struct search *search, const struct fetch_answer *answer, const char *role)
{
    char code[64] = "", message[256] = "";
    struct s3_xml_field fields[] = {{"Code", code, sizeof code},
                                    {"Message", message, sizeof message}};
    s3_xml_fields(answer->text != NULL ? answer->text : "", answer->text_bytes, fields, 2);
    bool is_temporary = answer->status == 0 || answer->status >= 500 || answer->status == 429;
    return search_fail(search, is_temporary, "STS does not give the role %.200s: %s %s. %s", role,
                       code[0] != '\0' ? code : answer->why, message,
                       "Check the role's name and who may take it.");
}

static enum finding take(struct search *search, const struct fetch_answer *answer, const char *role)
{
    struct keys {
        char access_key[KEY_BYTES], secret_key[KEY_BYTES], token[TOKEN_BYTES], until[64];
    } *keys = calloc(1, sizeof *keys);
    enum finding finding = FINDING_FAILED;
    if (keys == NULL) {
        return search_fail(search, true, "Out of memory.");
    }
    struct s3_xml_field fields[] = {
        {"AccessKeyId", keys->access_key, KEY_BYTES},
        {"SecretAccessKey", keys->secret_key, KEY_BYTES},
        {"SessionToken", keys->token, TOKEN_BYTES},
        {"Expiration", keys->until, sizeof keys->until},
    };
    if (s3_xml_fields(answer->text, answer->text_bytes, fields, 4) && keys->access_key[0] != '\0' &&
        keys->secret_key[0] != '\0' && keys->token[0] != '\0') {
        finding = search_keep(search, keys->access_key, keys->secret_key, keys->token,
                              "the role %.100s", role);
        search->identity->expires_s = search_parse_time(keys->until);
    } else {
        search_fail(search, true, "STS answers with something else than credentials.");
    }
    explicit_bzero(keys, sizeof *keys);
    free(keys);
    return finding;
}

static enum finding ask(struct search *search, const char *form, const char *role, bool is_signed)
{
    char url[512], signing[S3_REGION_BYTES + 16];
    char *token_header = NULL;
    struct identity *identity = search->identity;
    choose_endpoint(search, url, sizeof url);
    snprintf(signing, sizeof signing, "aws:amz:%s:sts", identity->settings.region);
    if (is_signed && identity->session_token != NULL &&
        asprintf(&token_header, "x-amz-security-token: %s", identity->session_token) < 0) {
        token_header = NULL;
    }
    struct fetch what = {
        .method = "POST",
        .url = url,
        .headers = {"Content-Type: application/x-www-form-urlencoded", token_header},
        .form = form,
        .signing = is_signed ? signing : NULL,
        .access_key = identity->access_key,
        .secret_key = identity->secret_key,
        .ca_file = search->options->ca_file,
        .timeout_ms = STS_TIMEOUT_MS,
    };
    struct fetch_answer answer;
    enum finding finding =
        fetch(&what, &answer) ? take(search, &answer, role) : fail(search, &answer, role);
    fetch_wipe(&answer);
    search_wipe(token_header);
    return finding;
}

/* "penstock-1763908315": who the role's log says it was. */
static char *encoded_session_name(const char *name)
{
    char made[64];
    snprintf(made, sizeof made, "penstock-%lld", (long long)time(NULL));
    return s3_address_encode(name != NULL ? name : made, false);
}

enum finding search_assume_role(struct search *search, const char *role, const char *profile)
{
    const char *external = aws_config_get(search->config, profile, "external_id");
    char *role_part = s3_address_encode(role, false);
    char *name_part =
        encoded_session_name(aws_config_get(search->config, profile, "role_session_name"));
    char *external_part = s3_address_encode(external != NULL ? external : "", false);
    char *form = NULL;
    enum finding finding = FINDING_FAILED;
    if (role_part != NULL && name_part != NULL && external_part != NULL &&
        asprintf(&form, "Action=AssumeRole&Version=2011-06-15&RoleArn=%s&RoleSessionName=%s%s%s",
                 role_part, name_part, external != NULL ? "&ExternalId=" : "",
                 external_part) >= 0) {
        finding = ask(search, form, role, true);
    } else {
        search_fail(search, true, "Out of memory.");
    }
    free(role_part);
    free(name_part);
    free(external_part);
    search_wipe(form);
    return finding;
}

enum finding search_web_identity(struct search *search, const char *role, const char *token_file,
                                 const char *session_name)
{
    char *token = search_read_file(token_file);
    if (token == NULL) {
        return search_fail(search, true, "The web identity token %.200s cannot be read: %s.",
                           token_file, strerror(errno));
    }
    char *role_part = s3_address_encode(role, false);
    char *name_part = encoded_session_name(session_name);
    char *token_part = s3_address_encode(token, false);
    char *form = NULL;
    enum finding finding = FINDING_FAILED;
    if (role_part != NULL && name_part != NULL && token_part != NULL &&
        asprintf(&form,
                 "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=%s"
                 "&RoleSessionName=%s&WebIdentityToken=%s",
                 role_part, name_part, token_part) >= 0) {
        finding = ask(search, form, role, false);
    } else {
        search_fail(search, true, "Out of memory.");
    }
    free(role_part);
    free(name_part);
    search_wipe(token_part);
    search_wipe(token);
    search_wipe(form);
    return finding;
}
