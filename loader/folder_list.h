/*
 * folder_list.h - lists a tree of images with several threads: which directories there are, and
 * the names of the images in each.
 *
 * The tree is a class per folder: directories directly under the root are classes; images may lie
 * at any depth below. Symbolic links are followed, to files and directories; a directory that
 * leads back to one it lies in is left out. No file is opened or measured.
 */
#ifndef PENSTOCK_LOADER_FOLDER_LIST_H
#define PENSTOCK_LOADER_FOLDER_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "loader/error.h"
#include "loader/index.h"

/* One directory; all members are the list's. */
struct folder_directory {
    struct folder_directory *parent; /* NULL: the root */
    struct folder_directory *next;   /* in the queue */
    bool is_left_out;                /* while listing: it leads back up */
    dev_t device;
    ino_t inode;
    int64_t mtime_ns;  /* see index_build_mtime_ns() */
    char *names;       /* of its images, sorted by bytes, each with its NUL */
    size_t name_bytes; /* of names */
    size_t name_count;
    size_t class_length; /* of the first component of path, the class; 0: the root */
    size_t path_length;
    char path[]; /* relative to the root, "" for the root */
};

struct folder_list {
    int root_fd;
    /* The root, then class by class in order of their names; within a class in order of the
     * directories' paths. */
    struct folder_directory **directories;
    size_t count, capacity;
};

/* 0, or -1 and *error. */
int folder_list_open(const char *root, uint32_t thread_count, struct index_progress *progress,
                     struct folder_list *list, struct error *error);
void folder_list_close(struct folder_list *list);

/* Whether a file of this name is an image, by its extension. */
bool folder_list_is_image(const char *name);

#endif /* PENSTOCK_LOADER_FOLDER_LIST_H */
