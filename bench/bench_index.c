/*
 * bench_index.c - how fast a folder of images is indexed, and how fast its index is opened again.
 *
 *     bench_index [--files N] [--classes N] [--threads N] [--repeat N] [--folder FOLDER]
 *
 * Without --folder, N empty files (100,000) in N classes (1,000) are made below $TMPDIR or /tmp,
 * and removed at the end; with it, that folder is used as it is. Prints one line of JSON; times are
 * the best of --repeat (3). Nothing drops the page cache: for a cold listing do that before, with
 * --repeat 1. bench_index.py sets the same beside os.walk.
 */
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "loader/index.h"

struct bench {
    uint64_t file_count, class_count, repeat_count;
    uint32_t thread_count;
    const char *folder; /* NULL: make one */
};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

/* Names as ImageNet's: n00000042/n00000042_1234.JPEG. Directories get an old time, so that the
 * index of them is trusted at once. */
static void make_tree(const struct bench *bench, const char *root)
{
    char path[4096];
    for (uint64_t class = 0; class < bench->class_count; class ++) {
        snprintf(path, sizeof path, "%s/n%08" PRIu64, root, class);
        if (mkdir(path, 0700) != 0) {
            fail(path);
        }
        size_t length = strlen(path);
        for (uint64_t i = class; i < bench->file_count; i += bench->class_count) {
            snprintf(path + length, sizeof path - length, "/n%08" PRIu64 "_%" PRIu64 ".JPEG", class,
                     i);
            if (mknod(path, S_IFREG | 0600, 0) != 0) {
                fail(path);
            }
        }
        path[length] = '\0';
        const struct timespec old[2] = {{1500000000, 0}, {1500000000, 0}};
        utimensat(0, path, old, 0);
    }
    const struct timespec old[2] = {{1500000000, 0}, {1500000000, 0}};
    utimensat(0, root, old, 0);
}

/* The time of one index_open(), which must have built it or not. */
static double open_once(const struct bench *bench, const char *root, const char *cache,
                        bool rebuild, uint64_t *sample_count, uint64_t *file_bytes)
{
    const char *urls[] = {root};
    struct index_options options = {.urls = urls,
                                    .url_count = 1,
                                    .cache_folder = cache,
                                    .thread_count = bench->thread_count,
                                    .rebuild = rebuild};
    struct index *index;
    struct error error;
    bool was_built;
    double start_s = now_s();
    if (index_open(&options, NULL, &index, &was_built, NULL, &error) < 0) {
        fprintf(stderr, "bench_index: %s\n", error.text);
        exit(1);
    }
    double took_s = now_s() - start_s;
    if (was_built != rebuild) {
        fprintf(stderr, "bench_index: the folder changed less than 2 s ago; try again\n");
        exit(1);
    }
    *sample_count = index_sample_count(index);
    *file_bytes = index_header(index)->file_bytes;
    index_unref(index);
    return took_s;
}

static void measure(const struct bench *bench, const char *root, const char *cache)
{
    double build_s = 1e9, stored_s = 1e9;
    uint64_t sample_count = 0, file_bytes = 0;
    for (uint64_t i = 0; i < bench->repeat_count; i++) {
        double took_s = open_once(bench, root, cache, true, &sample_count, &file_bytes);
        build_s = took_s < build_s ? took_s : build_s;
        took_s = open_once(bench, root, cache, false, &sample_count, &file_bytes);
        stored_s = took_s < stored_s ? took_s : stored_s;
    }
    printf("{\"folder\": \"%s\", \"files\": %" PRIu64 ", \"threads\": %" PRIu32
           ", \"index_s\": %.4f, \"index_files_per_s\": %.0f, \"stored_open_ms\": %.3f, "
           "\"index_bytes\": %" PRIu64 "}\n",
           root, sample_count, bench->thread_count, build_s, (double)sample_count / build_s,
           stored_s * 1e3, file_bytes);
}

static struct bench parse(int argc, char **argv)
{
    struct bench bench = {
        .file_count = 100000, .class_count = 1000, .repeat_count = 3, .thread_count = 2};
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        uint64_t number = strtoull(value, NULL, 10);
        if (strcmp(argv[i], "--folder") == 0 && value[0] != '\0') {
            bench.folder = value;
        } else if (strcmp(argv[i], "--files") == 0 && number > 0) {
            bench.file_count = number;
        } else if (strcmp(argv[i], "--classes") == 0 && number > 0) {
            bench.class_count = number;
        } else if (strcmp(argv[i], "--repeat") == 0 && number > 0) {
            bench.repeat_count = number;
        } else if (strcmp(argv[i], "--threads") == 0 && number > 0) {
            bench.thread_count = (uint32_t)number;
        } else {
            fprintf(stderr, "bench_index: %s %s is not understood\n", argv[i], value);
            exit(2);
        }
    }
    return bench;
}

int main(int argc, char **argv)
{
    struct bench bench = parse(argc, argv);
    const char *above = getenv("TMPDIR");
    char ground[512], cache[600], made[600];
    snprintf(ground, sizeof ground, "%.400s/penstock-bench-XXXXXX", above != NULL ? above : "/tmp");
    if (mkdtemp(ground) == NULL) {
        fail(ground);
    }
    snprintf(cache, sizeof cache, "%s/cache", ground);
    snprintf(made, sizeof made, "%s/images", ground);
    if (bench.folder == NULL) {
        if (mkdir(made, 0700) != 0) {
            fail(made);
        }
        make_tree(&bench, made);
    }
    measure(&bench, bench.folder != NULL ? bench.folder : made, cache);
    remove_tree(ground);
    return 0;
}
