/*
 * cache_folder.h - where Penstock keeps what it may lose: indexes now, data later.
 *
 * A configured folder is taken as it is. Without one: local scratch ($SLURM_TMPDIR, /scratch,
 * /local, /var/tmp, /tmp, the first that is writable and on a disk of this machine), never a
 * network file system, never the home folder; else none.
 */
#ifndef PENSTOCK_LOADER_CACHE_FOLDER_H
#define PENSTOCK_LOADER_CACHE_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache_folder {
    char path[1024];      /* "": there is none */
    char reason[512];     /* why this one, or why none */
    uint64_t limit_bytes; /* 20 % of the space that was free when it was chosen */
};

/* `configured`: a path, "" (choose) or "none". Makes the folder, mode 0700. Never fails: without
 * a usable folder the path is empty and the reason says why. */
void cache_folder_choose(const char *configured, struct cache_folder *folder);

#endif /* PENSTOCK_LOADER_CACHE_FOLDER_H */
