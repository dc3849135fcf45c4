/*
 * dataset.h - from what a user names as a data set to files: one folder, or a list of tar shards.
 *
 * A name is a path, or one of these, alone or in a list of names:
 *     train-{000000..000146}.tar  {train,val}.tar  *.tar      brace lists, shell patterns (sorted)
 *     a.tar::b-{0..9}.tar                                     several names in one
 *     file:///data/a.tar
 * A path that exists is taken as it is, whatever characters it has.
 */
#ifndef PENSTOCK_LOADER_DATASET_H
#define PENSTOCK_LOADER_DATASET_H

#include <stddef.h>

#include "ipc/index_format.h"
#include "loader/error.h"
#include "loader/pattern.h"

struct dataset {
    enum index_kind kind;
    struct text_list paths; /* absolute: the folder's real path, or the shards in order */
};

/* 0, or -1 and *error, which names what is wrong and says what to do. Looks at every file (stat),
 * reads none. Relative paths start at the working directory of this process. */
int dataset_resolve(const char *const *urls, size_t url_count, struct dataset *dataset,
                    struct error *error);
void dataset_clear(struct dataset *dataset);

#endif /* PENSTOCK_LOADER_DATASET_H */
