/*
 * temporary_folder.h - a folder of a test's own, with files, links and old modification times.
 */
#ifndef PENSTOCK_TESTS_TEMPORARY_FOLDER_H
#define PENSTOCK_TESTS_TEMPORARY_FOLDER_H

#include <assert.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct temporary_folder {
    char path[64];
};

static inline void temporary_folder_create(struct temporary_folder *folder)
{
    strcpy(folder->path, "/tmp/penstock-test-XXXXXX");
    char *made = mkdtemp(folder->path);
    assert(made != NULL);
}

static inline int temporary_folder_remove_one(const char *path, const struct stat *status, int kind,
                                              struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

static inline void temporary_folder_destroy(struct temporary_folder *folder)
{
    nftw(folder->path, temporary_folder_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The folder's path and a name made as printf() would; holds until the fourth call after. */
__attribute__((format(printf, 2, 3))) static inline const char *
temporary_path(const struct temporary_folder *folder, const char *format, ...)
{
    static char paths[4][512];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    char name[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    snprintf(path, sizeof paths[0], "%s/%s", folder->path, name);
    return path;
}

/* A file with this text, and the folders above it. */
static inline void temporary_file(const struct temporary_folder *folder, const char *name,
                                  const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    for (char *slash = strchr(path + strlen(folder->path) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    if (path[strlen(path) - 1] == '/') {
        return; /* only folders were wanted */
    }
    FILE *file = fopen(path, "w");
    assert(file != NULL);
    fputs(text, file);
    fclose(file);
}

static inline int temporary_age_one(const char *path, const struct stat *status, int kind,
                                    struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    /* Later calls give other times, so that what changed in between differs. */
    static int64_t turn;
    const struct timespec times[2] = {{1500000000, turn}, {1500000000, turn}};
    turn++;
    utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
    return 0;
}

/* Give everything in a folder old modification times. */
static inline void temporary_age(const char *path)
{
    nftw(path, temporary_age_one, 16, FTW_PHYS);
}

#endif /* PENSTOCK_TESTS_TEMPORARY_FOLDER_H */
