#include "loader/cache_folder.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

enum { SHARE_OF_FREE_SPACE = 5 }; /* one fifth */

/* File systems whose bytes come over a network, or through somebody's user process. Magic numbers
 * that linux/magic.h lacks are from the statfs(2) manual page and the file systems' sources. */
static bool is_network(const struct statfs *info)
{
    static const unsigned long magics[] = {
        NFS_SUPER_MAGIC,         SMB_SUPER_MAGIC,       0xff534d42 /* CIFS */,
        0xfe534d42 /* SMB2 */,   CODA_SUPER_MAGIC,      AFS_SUPER_MAGIC,
        0x0bd00bd0 /* Lustre */, 0x47504653 /* GPFS */, 0x00c36400 /* Ceph */,
        0x65735546 /* FUSE */,   0x01021997 /* 9P */,   0x19830326 /* BeeGFS */,
        0xaad7aaea /* PanFS */,
    };
    for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++) {
        if ((unsigned long)info->f_type == magics[i]) {
            return true;
        }
    }
    return false;
}

/* Make `path` a folder of ours; an errno, or 0 and its free space. */
static int try_folder(const char *path, struct statfs *info)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return errno;
    }
    struct stat status;
    if (lstat(path, &status) != 0) {
        return errno;
    }
    if (!S_ISDIR(status.st_mode)) {
        return ENOTDIR;
    }
    if (access(path, W_OK | X_OK) != 0 || statfs(path, info) != 0) {
        return errno;
    }
    return 0;
}

static void accept_folder(struct cache_folder *folder, const struct statfs *info,
                          const char *reason)
{
    folder->limit_bytes = (uint64_t)info->f_bavail * (uint64_t)info->f_bsize / SHARE_OF_FREE_SPACE;
    snprintf(folder->reason, sizeof folder->reason, "%s", reason);
}

static void take_configured(const char *configured, struct cache_folder *folder)
{
    struct statfs info;
    snprintf(folder->path, sizeof folder->path, "%s", configured);
    int error = try_folder(folder->path, &info);
    if (error == 0) {
        accept_folder(folder, &info, "as configured");
        return;
    }
    snprintf(folder->reason, sizeof folder->reason, "%.300s, as configured, cannot be used: %s",
             configured, strerror(error));
    folder->path[0] = '\0';
}

/* Is the folder inside the user's home? */
static bool is_at_home(const char *path)
{
    const char *home = getenv("HOME");
    size_t length = home != NULL ? strlen(home) : 0;
    return length > 1 && strncmp(path, home, length) == 0 &&
           (path[length] == '/' || path[length] == '\0');
}

/* Ours alone: not a folder that another user put there before us. */
static bool is_ours(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0 && status.st_uid == geteuid();
}

void cache_folder_choose(const char *configured, struct cache_folder *folder)
{
    memset(folder, 0, sizeof *folder);
    if (strcmp(configured, "none") == 0) {
        snprintf(folder->reason, sizeof folder->reason, "switched off");
        return;
    }
    if (configured[0] != '\0') {
        take_configured(configured, folder);
        return;
    }
    const char *parents[] = {getenv("SLURM_TMPDIR"), "/scratch", "/local", "/var/tmp", "/tmp"};
    for (size_t i = 0; i < sizeof parents / sizeof parents[0]; i++) {
        struct statfs info;
        if (parents[i] == NULL || parents[i][0] != '/' || is_at_home(parents[i]) ||
            statfs(parents[i], &info) != 0 || is_network(&info)) {
            continue;
        }
        snprintf(folder->path, sizeof folder->path, "%.900s/penstock-%u", parents[i],
                 (unsigned)geteuid());
        if (try_folder(folder->path, &info) == 0 && is_ours(folder->path)) {
            accept_folder(folder, &info, "local scratch");
            return;
        }
    }
    folder->path[0] = '\0';
    snprintf(folder->reason, sizeof folder->reason,
             "no local scratch folder can be written; name one with PENSTOCK_CACHE or --cache");
}
