#include "ipc/memory_available.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096, LINE_BYTES = 2 * PATH_BYTES };

/* The two generations of cgroups tell the same facts in files of different names. */
struct cgroup_names {
    const char *limit, *usage, *reclaimable;
};
static const struct cgroup_names cgroup_v2 = {"memory.max", "memory.current", "inactive_file"};
static const struct cgroup_names cgroup_v1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                              "total_inactive_file"};

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static FILE *open_joined(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    return length > 0 && length < (int)sizeof path ? fopen(path, "re") : NULL;
}

/* The number that a file consists of. "max" and a missing file are no number. */
static bool read_number(const char *folder, const char *name, uint64_t *number)
{
    FILE *file = open_joined(folder, name);
    if (file == NULL) {
        return false;
    }
    bool found = fscanf(file, "%" SCNu64, number) == 1;
    fclose(file);
    return found;
}

/* The number after `key` in a file of lines "key number" or "key: number kB". */
static bool read_keyed(const char *folder, const char *name, const char *key, uint64_t *number)
{
    FILE *file = open_joined(folder, name);
    if (file == NULL) {
        return false;
    }
    char line[256];
    bool found = false;
    size_t key_length = strlen(key);
    while (!found && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, key_length) == 0 && strchr(": ", line[key_length]) != NULL) {
            found = sscanf(line + key_length + 1, "%" SCNu64, number) == 1;
        }
    }
    fclose(file);
    return found;
}

/* What one cgroup leaves. */
static uint64_t cgroup_left(const char *folder, const struct cgroup_names *names)
{
    uint64_t limit, usage, reclaimable = 0;
    if (!read_number(folder, names->limit, &limit) || !read_number(folder, names->usage, &usage)) {
        return UINT64_MAX;
    }
    read_keyed(folder, "memory.stat", names->reclaimable, &reclaimable);
    usage -= least(usage, reclaimable);
    return limit > usage ? limit - usage : 0;
}

/* The path of our cgroup as /proc/self/cgroup has it: lines "number:controllers:path", where v2
 * has no controllers. */
static bool find_cgroup_path(const char *root, bool v2, char *path, size_t path_bytes)
{
    FILE *file = open_joined(root, "proc/self/cgroup");
    if (file == NULL) {
        return false;
    }
    char line[LINE_BYTES];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *name = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (name == NULL) {
            continue;
        }
        *name++ = '\0';
        controllers++;
        bool memory = false;
        for (char *rest = controllers, *word; (word = strsep(&rest, ",")) != NULL;) {
            memory = memory || strcmp(word, "memory") == 0;
        }
        found = (v2 ? strncmp(line, "0:", 2) == 0 && *controllers == '\0' : memory) &&
                snprintf(path, path_bytes, "%s", name) < (int)path_bytes;
    }
    fclose(file);
    return found;
}

struct cgroup_mount {
    char root[PATH_BYTES];  /* which cgroup is mounted */
    char point[PATH_BYTES]; /* where */
};

/* Where cgroups are mounted. A line of mountinfo is "id parent device ROOT POINT options...
 * - TYPE source SUPER-OPTIONS"; v1 names its controllers in the last. */
static bool find_mount(const char *root, bool v2, struct cgroup_mount *mount)
{
    FILE *file = open_joined(root, "proc/self/mountinfo");
    if (file == NULL) {
        return false;
    }
    char line[LINE_BYTES];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        char type[32], options[256], *tail = strstr(line, " - ");
        if (tail == NULL || sscanf(tail, " - %31s %*s %255s", type, options) != 2) {
            continue;
        }
        if (v2 ? strcmp(type, "cgroup2") != 0
               : strcmp(type, "cgroup") != 0 || strstr(options, "memory") == NULL) {
            continue;
        }
        found = sscanf(line, "%*s %*s %*s %4095s %4095s", mount->root, mount->point) == 2;
    }
    fclose(file);
    return found;
}

/* The part of a cgroup's path below what is mounted; "" when it is the mounted one itself or
 * lies outside of it (a container that sees only its own cgroup, under the host's name for it). */
static const char *path_below_mount(const struct cgroup_mount *mount, const char *path)
{
    size_t length = strcmp(mount->root, "/") == 0 ? 0 : strlen(mount->root);
    bool inside = strncmp(path, mount->root, length) == 0 && path[length] == '/';
    return inside && strncmp(path, "/..", 3) != 0 ? path + length : "";
}

/* The least that any cgroup from ours up to the mounted one leaves. */
static uint64_t hierarchy_left(const char *root, bool v2)
{
    char path[PATH_BYTES], folder[3 * PATH_BYTES];
    struct cgroup_mount mount;
    if (!find_cgroup_path(root, v2, path, sizeof path) || !find_mount(root, v2, &mount)) {
        return UINT64_MAX;
    }
    size_t top = (size_t)snprintf(folder, sizeof folder, "%s%s", root, mount.point);
    if (top >= sizeof folder || strlen(path) >= sizeof folder - top) {
        return UINT64_MAX;
    }
    strcpy(folder + top, path_below_mount(&mount, path));
    uint64_t left = UINT64_MAX;
    for (;;) {
        left = least(left, cgroup_left(folder, v2 ? &cgroup_v2 : &cgroup_v1));
        char *slash = strrchr(folder + top, '/');
        if (slash == NULL) {
            return left;
        }
        *slash = '\0';
    }
}

uint64_t memory_available_bytes(const char *root)
{
    uint64_t kilobytes, left = UINT64_MAX;
    if (read_keyed(root, "proc/meminfo", "MemAvailable", &kilobytes) &&
        kilobytes <= UINT64_MAX / 1024) {
        left = kilobytes * 1024;
    }
    left = least(left, hierarchy_left(root, true));
    return least(left, hierarchy_left(root, false));
}
