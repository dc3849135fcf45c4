#include "loader/remote/aws_config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 20 };

/* All texts point into the file's own bytes. */
struct setting {
    struct setting *next;
    const char *section;
    const char *parent; /* the key of the block that it is in; NULL: none */
    const char *key;
    const char *value;
};

struct aws_file {
    char *text;
    size_t text_bytes;
    struct setting *settings; /* the last one first: a later value of a key counts */
};

struct aws_config {
    struct aws_file config;
    struct aws_file credentials;
};

/* ---- Reading -------------------------------------------------------------------------------- */

static int read_text(const char *path, struct aws_file *file, struct error *error)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        return 0;
    }
    ssize_t bytes = -1;
    file->text = calloc(1, FILE_BYTES_MAX + 1);
    if (descriptor >= 0 && file->text != NULL) {
        bytes = read(descriptor, file->text, FILE_BYTES_MAX);
    }
    int reason = errno;
    if (descriptor >= 0) {
        close(descriptor);
    }
    if (bytes < 0) {
        return error_set(error, ERROR_ACCESS, "%s cannot be read: %s.", path, strerror(reason));
    }
    file->text_bytes = FILE_BYTES_MAX;
    return 0;
}

static char *trim(char *text)
{
    while (isspace((unsigned char)*text)) {
        text++;
    }
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1])) {
        *--end = '\0';
    }
    return text;
}

static int take_setting(struct aws_file *file, char *line, bool is_nested, const char *section,
                        const char **block)
{
    char *equals = strchr(line, '=');
    if (section == NULL || equals == NULL) {
        return 0; /* as the SDKs do: what makes no sense is passed over */
    }
    struct setting *setting = calloc(1, sizeof *setting);
    if (setting == NULL) {
        return -1;
    }
    *equals = '\0';
    setting->section = section;
    setting->key = trim(line);
    setting->parent = is_nested ? *block : NULL;
    char *comment = strstr(equals + 1, " #");
    if (comment != NULL) {
        *comment = '\0';
    }
    setting->value = trim(equals + 1);
    if (!is_nested) {
        *block = setting->value[0] == '\0' ? setting->key : NULL;
    }
    setting->next = file->settings;
    file->settings = setting;
    return 0;
}

static int read_file(const char *path, struct aws_file *file, struct error *error)
{
    if (read_text(path, file, error) != 0) {
        return -1;
    }
    char *rest = file->text, *line;
    const char *section = NULL, *block = NULL;
    while (rest != NULL && (line = strsep(&rest, "\n")) != NULL) {
        bool is_nested = isblank((unsigned char)*line) && block != NULL;
        char *text = trim(line);
        if (text[0] == '\0' || text[0] == '#' || text[0] == ';') {
            continue;
        }
        if (text[0] == '[') {
            text[strcspn(text, "]")] = '\0';
            section = trim(text + 1);
            block = NULL;
        } else if (take_setting(file, text, is_nested, section, &block) != 0) {
            return error_set(error, ERROR_MEMORY, "Out of memory.");
        }
    }
    return 0;
}

static void free_file(struct aws_file *file)
{
    for (struct setting *setting = file->settings, *next; setting != NULL; setting = next) {
        next = setting->next;
        free(setting);
    }
    if (file->text != NULL) {
        explicit_bzero(file->text, file->text_bytes);
        free(file->text);
    }
}

struct aws_config *aws_config_open(const char *config_path, const char *credentials_path,
                                   struct error *error)
{
    struct aws_config *config = calloc(1, sizeof *config);
    if (config == NULL) {
        error_set(error, ERROR_MEMORY, "Out of memory.");
        return NULL;
    }
    if (read_file(config_path, &config->config, error) != 0 ||
        read_file(credentials_path, &config->credentials, error) != 0) {
        aws_config_close(config);
        return NULL;
    }
    return config;
}

void aws_config_close(struct aws_config *config)
{
    if (config != NULL) {
        free_file(&config->config);
        free_file(&config->credentials);
        free(config);
    }
}

/* ---- Asking --------------------------------------------------------------------------------- */

/* "profile NAME" of the config file; "default" stands there without the word, too. */
static bool is_profile(const char *section, const char *profile)
{
    if (strncmp(section, "profile", 7) == 0 && isblank((unsigned char)section[7])) {
        section += 7 + strspn(section + 7, " \t");
        return strcmp(section, profile) == 0;
    }
    return strcmp(profile, "default") == 0 && strcmp(section, "default") == 0;
}

static bool is_section(const char *section, const char *wanted)
{
    return strcmp(section, wanted) == 0;
}

static const char *find(const struct aws_file *file, const char *name,
                        bool (*fits)(const char *section, const char *name), const char *key)
{
    const char *dot = strchr(key, '.');
    for (const struct setting *setting = file->settings; setting != NULL; setting = setting->next) {
        if (!fits(setting->section, name) || (setting->parent != NULL) != (dot != NULL)) {
            continue;
        }
        bool is_key = dot == NULL ? strcmp(setting->key, key) == 0
                                  : strncmp(setting->parent, key, (size_t)(dot - key)) == 0 &&
                                        setting->parent[dot - key] == '\0' &&
                                        strcmp(setting->key, dot + 1) == 0;
        if (is_key) {
            return setting->value[0] != '\0' ? setting->value : NULL;
        }
    }
    return NULL;
}

bool aws_config_has_profile(const struct aws_config *config, const char *profile)
{
    for (const struct setting *setting = config->credentials.settings; setting != NULL;
         setting = setting->next) {
        if (strcmp(setting->section, profile) == 0) {
            return true;
        }
    }
    for (const struct setting *setting = config->config.settings; setting != NULL;
         setting = setting->next) {
        if (is_profile(setting->section, profile)) {
            return true;
        }
    }
    return false;
}

const char *aws_config_get(const struct aws_config *config, const char *profile, const char *key)
{
    const char *value = find(&config->credentials, profile, is_section, key);
    return value != NULL ? value : find(&config->config, profile, is_profile, key);
}

const char *aws_config_get_section(const struct aws_config *config, const char *section,
                                   const char *key)
{
    return find(&config->config, section, is_section, key);
}
