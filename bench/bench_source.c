/*
 * bench_source.c - times reading of whole files by both engines of loader/source.h.
 *
 *   bench_source [--json] [--rounds N] [--depth N] < list of files, one a line
 *
 * For each engine, from the page cache, from the disk (pages dropped before), and by O_DIRECT:
 * microseconds of CPU time (user and system, all threads) and of wall time a file, the median,
 * least and greatest of N rounds (default 5). The engines take turns within a round.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "loader/source.h"

enum { ROUNDS_MAX = 1000, DEPTH_MAX = 1024 };

enum pages { PAGES_CACHED, PAGES_DROPPED, PAGES_DIRECT, PAGES_KINDS };
static const char *const pages_names[] = {"page cache", "disk, buffered", "disk, O_DIRECT"};

static const enum source_engine engines[] = {SOURCE_URING, SOURCE_PREAD};
enum { ENGINES = 2, CASES = PAGES_KINDS * ENGINES };

struct file_list {
    char **paths;
    size_t count;
};

struct figures {
    double cpu_us[ROUNDS_MAX], wall_us[ROUNDS_MAX];
    double mebibytes_per_second[ROUNDS_MAX];
};

struct bench {
    struct file_list files;
    uint32_t depth, rounds;
    bool json;
    uint64_t bytes_read, errors;
    struct figures figures[CASES];
};

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static double cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void drop_pages(const struct file_list *files)
{
    for (size_t i = 0; i < files->count; i++) {
        int fd = open(files->paths[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            continue;
        }
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
}

/* Read all files once, `depth` at a time. */
static void read_all(struct bench *bench, struct source *source, struct read_request *requests,
                     bool direct)
{
    struct read_request *free_requests[DEPTH_MAX];
    size_t free_count = bench->depth, next = 0, done_count = 0;
    for (size_t i = 0; i < bench->depth; i++) {
        free_requests[i] = &requests[i];
    }
    while (done_count < bench->files.count) {
        struct read_request *group[DEPTH_MAX];
        size_t group_count = 0;
        while (free_count > 0 && next < bench->files.count) {
            struct read_request *request = free_requests[--free_count];
            request->path = bench->files.paths[next++];
            request->direct = direct;
            group[group_count++] = request;
        }
        source_submit(source, group, group_count);
        size_t count = source_reap(source, free_requests + free_count, 8, 1000);
        for (size_t i = 0; i < count; i++) {
            bench->bytes_read += free_requests[free_count + i]->size_bytes;
            bench->errors += free_requests[free_count + i]->error != 0;
        }
        free_count += count;
        done_count += count;
    }
}

static void measure(struct bench *bench, enum pages pages, uint32_t engine, uint32_t round)
{
    struct source *source = source_create(&(struct source_options){
        .engine = engines[engine], .depth = bench->depth + 8, .file_bytes_max = 1u << 30});
    struct read_request *requests = calloc(bench->depth, sizeof *requests);
    if (source == NULL || requests == NULL) {
        fprintf(stderr, "bench_source: out of memory\n");
        exit(1);
    }
    read_all(bench, source, requests, false); /* into the cache; and buffers grow */
    if (pages != PAGES_CACHED) {
        drop_pages(&bench->files);
    }
    bench->bytes_read = 0;
    double cpu = cpu_us(), wall = now_us();
    read_all(bench, source, requests, pages == PAGES_DIRECT);
    cpu = cpu_us() - cpu;
    wall = now_us() - wall;
    struct figures *figures = &bench->figures[pages * ENGINES + engine];
    figures->cpu_us[round] = cpu / (double)bench->files.count;
    figures->wall_us[round] = wall / (double)bench->files.count;
    figures->mebibytes_per_second[round] = (double)bench->bytes_read / 1.048576 / wall;
    if (engines[engine] != source_engine(source) && round == 0) {
        fprintf(stderr, "bench_source: %s\n", source_engine_reason(source));
    }
    for (size_t i = 0; i < bench->depth; i++) {
        read_request_clear(&requests[i]);
    }
    free(requests);
    source_destroy(source);
}

static int compare_doubles(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

static void print_spread(const struct bench *bench, const char *name, double *values)
{
    qsort(values, bench->rounds, sizeof *values, compare_doubles);
    double median = values[bench->rounds / 2], least = values[0];
    double greatest = values[bench->rounds - 1];
    if (bench->json) {
        printf(", \"%s\": {\"median\": %.2f, \"least\": %.2f, \"greatest\": %.2f}", name, median,
               least, greatest);
    } else {
        printf("  %9.1f (%.1f .. %.1f)", median, least, greatest);
    }
}

static void print_all(struct bench *bench)
{
    double mean_bytes = (double)bench->bytes_read / (double)bench->files.count;
    if (bench->json) {
        printf("{\"files\": %zu, \"mean_bytes\": %.0f, \"depth\": %u, \"errors\": %llu, "
               "\"cases\": [",
               bench->files.count, mean_bytes, bench->depth, (unsigned long long)bench->errors);
    } else {
        printf("%zu files of %.0f bytes, %u at a time, %llu errors\n"
               "%-28s  CPU us/file            wall us/file           MiB/s\n",
               bench->files.count, mean_bytes, bench->depth, (unsigned long long)bench->errors, "");
    }
    for (int i = 0; i < CASES; i++) {
        const char *engine = engines[i % ENGINES] == SOURCE_URING ? "io_uring" : "pread";
        const char *pages = pages_names[i / ENGINES];
        if (bench->json) {
            printf("%s{\"engine\": \"%s\", \"from\": \"%s\"", i > 0 ? ", " : "", engine, pages);
        } else {
            printf("%-16s %-10s", pages, engine);
        }
        print_spread(bench, "cpu_us", bench->figures[i].cpu_us);
        print_spread(bench, "wall_us", bench->figures[i].wall_us);
        print_spread(bench, "mebibytes_per_second", bench->figures[i].mebibytes_per_second);
        printf("%s", bench->json ? "}" : "\n");
    }
    printf("%s", bench->json ? "]}\n" : "");
}

static void read_list(struct file_list *files)
{
    char *line = NULL;
    size_t line_bytes = 0, capacity = 0;
    for (ssize_t length; (length = getline(&line, &line_bytes, stdin)) > 0;) {
        line[strcspn(line, "\n")] = '\0';
        if (files->count == capacity) {
            capacity = capacity * 2 + 64;
            files->paths = realloc(files->paths, capacity * sizeof *files->paths);
        }
        char *path = strdup(line);
        if (files->paths == NULL || path == NULL) {
            fprintf(stderr, "bench_source: out of memory\n");
            exit(1);
        }
        files->paths[files->count++] = path;
    }
    free(line);
}

static bool parse(struct bench *bench, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            bench->json = true;
        } else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
            bench->rounds = (uint32_t)atoi(argv[++i]);
        } else if (strcmp(argv[i], "--depth") == 0 && i + 1 < argc) {
            bench->depth = (uint32_t)atoi(argv[++i]);
        } else {
            return false;
        }
    }
    return bench->rounds >= 1 && bench->rounds <= ROUNDS_MAX && bench->depth >= 1 &&
           bench->depth <= DEPTH_MAX - 8;
}

int main(int argc, char **argv)
{
    struct bench *bench = calloc(1, sizeof *bench);
    if (bench == NULL) {
        return 1;
    }
    bench->depth = 32;
    bench->rounds = 5;
    if (!parse(bench, argc, argv)) {
        fprintf(stderr, "usage: bench_source [--json] [--rounds N] [--depth N] < list of files\n");
        return 2;
    }
    read_list(&bench->files);
    if (bench->files.count == 0) {
        fprintf(stderr, "bench_source: no files listed on standard input\n");
        return 2;
    }
    for (uint32_t round = 0; round < bench->rounds; round++) {
        for (int i = 0; i < CASES; i++) {
            measure(bench, (enum pages)(i / ENGINES), (uint32_t)(i % ENGINES), round);
        }
    }
    print_all(bench);
    for (size_t i = 0; i < bench->files.count; i++) {
        free(bench->files.paths[i]);
    }
    free(bench->files.paths);
    free(bench);
    return 0;
}
