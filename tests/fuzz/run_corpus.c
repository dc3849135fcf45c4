/*
 * run_corpus.c - runs a fuzz target without libFuzzer.
 *
 *     fuzz_NAME [-runs=N] [-seed=S] [-first=K] [-dump=FOLDER] [FILE | FOLDER]...
 *
 * Every file given, every file of a folder given and every built-in seed of the target is run
 * once as it is; then N inputs are made from them by small random changes. An input is a pure
 * function of (seeds, S, its number): when one fails, its number is printed, and
 * -first=NUMBER -runs=1 runs it again. -dump writes the built-in seeds to FOLDER, as a corpus for
 * libFuzzer. Exit 0: nothing found.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#pragma weak fuzz_seed

enum { SEEDS_MAX = 4096, SEED_BYTES_MAX = 1 << 20, CHANGES_MAX = 8 };

struct seed {
    uint8_t *bytes;
    size_t size_bytes;
};

struct corpus {
    struct seed seeds[SEEDS_MAX];
    size_t seed_count;
};

struct options {
    uint64_t run_count, seed, first_run;
    const char *dump_folder;
};

/* The number of the input in work; a handler reads it, so it cannot be an argument. */
static volatile uint64_t current_run;

static void print_current_run(void)
{
    char line[80];
    int length = snprintf(line, sizeof line, "\nrun_corpus: failed in run %" PRIu64 "\n",
                          (uint64_t)current_run);
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)length);
    (void)ignored;
}

static void on_signal(int number)
{
    print_current_run();
    signal(number, SIG_DFL);
    raise(number);
}

/* Present only in sanitizer builds, which end the program on their own. */
void __sanitizer_set_death_callback(void (*callback)(void));
#pragma weak __sanitizer_set_death_callback

static void report_crashes(void)
{
    signal(SIGABRT, on_signal);
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(print_current_run);
        return;
    }
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
    signal(SIGFPE, on_signal);
}

static void *allocate(size_t size_bytes)
{
    void *memory = malloc(size_bytes > 0 ? size_bytes : 1);
    if (memory == NULL) {
        fprintf(stderr, "run_corpus: out of memory\n");
        exit(2);
    }
    return memory;
}

static void corpus_add(struct corpus *corpus, const uint8_t *bytes, size_t size_bytes)
{
    if (corpus->seed_count == SEEDS_MAX) {
        return;
    }
    uint8_t *copy = allocate(size_bytes);
    memcpy(copy, bytes, size_bytes);
    corpus->seeds[corpus->seed_count++] = (struct seed){copy, size_bytes};
}

static void corpus_add_file(struct corpus *corpus, const char *path, uint8_t *buffer)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    size_t size_bytes = fread(buffer, 1, SEED_BYTES_MAX, file);
    fclose(file);
    corpus_add(corpus, buffer, size_bytes);
}

static void corpus_add_path(struct corpus *corpus, const char *path, uint8_t *buffer)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        corpus_add_file(corpus, path, buffer);
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char name[4096];
        struct stat status;
        int length = snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (length < (int)sizeof name && stat(name, &status) == 0 && S_ISREG(status.st_mode)) {
            corpus_add_file(corpus, name, buffer);
        }
    }
    closedir(folder);
}

static void corpus_add_built_in(struct corpus *corpus, uint8_t *buffer)
{
    if (fuzz_seed == NULL) {
        return;
    }
    for (size_t i = 0, size; (size = fuzz_seed(i, buffer, SEED_BYTES_MAX)) > 0; i++) {
        corpus_add(corpus, buffer, size);
    }
}

static uint64_t random_next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t random_below(uint64_t *state, size_t limit)
{
    return limit == 0 ? 0 : (size_t)(random_next(state) % limit);
}

/* A place in the input: half of the time in its head, where the structure is. */
static size_t random_place(uint64_t *state, size_t size)
{
    size_t head = size < 512 ? size : 512;
    return random_below(state, random_next(state) & 1 ? head : size);
}

static const uint8_t edge_bytes[] = {0x00, 0xff, 0x7f, 0x80, 0x01, 0xfe, 0xd8, 0x20};

/* One change of bytes[0, size), which has room for size_max bytes; returns the new size. */
static size_t change_once(const struct corpus *corpus, uint64_t *state, uint8_t *bytes, size_t size,
                          size_t size_max)
{
    size_t at = random_place(state, size);
    size_t run = 1 + random_below(state, size - at < 64 ? size - at : 64);
    if (size == 0 || at + run > size) {
        run = size - at;
    }
    switch (random_next(state) % 8) {
    case 0: /* cut the end */ return random_below(state, size + 1);
    case 1: /* remove a run */
        memmove(bytes + at, bytes + at + run, size - at - run);
        return size - run;
    case 2: /* double a run */
        run = run < size_max - size ? run : size_max - size;
        memmove(bytes + at + run, bytes + at, size - at);
        return size + run;
    case 3: { /* a piece of another seed over this place */
        const struct seed *other = &corpus->seeds[random_below(state, corpus->seed_count)];
        size_t from = random_place(state, other->size_bytes);
        run = run < other->size_bytes - from ? run : other->size_bytes - from;
        memcpy(bytes + at, other->bytes + from, run);
        return size;
    }
    case 4: /* edge values, as lengths and counts like them */
        memset(bytes + at, edge_bytes[random_below(state, sizeof edge_bytes)], run & 7);
        return size;
    default: /* bits and bytes */
        if (size > 0 && (random_next(state) & 1) != 0) {
            bytes[at] ^= (uint8_t)(1u << random_below(state, 8));
        } else if (size > 0) {
            bytes[at] = (uint8_t)random_next(state);
        }
        return size;
    }
}

/* Run a copy of exactly its size, so that a sanitizer sees a read past the end. */
static void run_exact(const uint8_t *bytes, size_t size_bytes)
{
    uint8_t *copy = allocate(size_bytes);
    memcpy(copy, bytes, size_bytes);
    LLVMFuzzerTestOneInput(copy, size_bytes);
    free(copy);
}

static void run_changed(const struct corpus *corpus, uint64_t seed, uint64_t number,
                        uint8_t *buffer)
{
    uint64_t state = seed * 0x2545f4914f6cdd1du + number;
    const struct seed *from = &corpus->seeds[random_below(&state, corpus->seed_count)];
    size_t size = from->size_bytes;
    memcpy(buffer, from->bytes, size);
    size_t change_count = 1 + random_below(&state, 1 + random_below(&state, CHANGES_MAX));
    for (size_t i = 0; i < change_count; i++) {
        size = change_once(corpus, &state, buffer, size, SEED_BYTES_MAX);
    }
    run_exact(buffer, size);
}

static void corpus_dump(const struct corpus *corpus, const char *folder)
{
    for (size_t i = 0; i < corpus->seed_count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/seed-%04zu", folder, i);
        FILE *file = fopen(path, "wb");
        const struct seed *seed = &corpus->seeds[i];
        if (file == NULL || fwrite(seed->bytes, 1, seed->size_bytes, file) != seed->size_bytes ||
            fclose(file) != 0) {
            perror(path);
            exit(2);
        }
    }
}

/* True when `argument` is -name=value. */
static bool option(const char *argument, const char *name, const char **value)
{
    size_t length = strlen(name);
    if (strncmp(argument, name, length) != 0 || argument[length] != '=') {
        return false;
    }
    *value = argument + length + 1;
    return true;
}

static void parse(int argc, char **argv, struct options *options, struct corpus *corpus,
                  uint8_t *buffer)
{
    for (int i = 1; i < argc; i++) {
        const char *value = NULL;
        if (option(argv[i], "-runs", &value)) {
            options->run_count = strtoull(value, NULL, 10);
        } else if (option(argv[i], "-seed", &value)) {
            options->seed = strtoull(value, NULL, 10);
        } else if (option(argv[i], "-first", &value)) {
            options->first_run = strtoull(value, NULL, 10);
        } else if (option(argv[i], "-dump", &value)) {
            options->dump_folder = value;
        } else if (argv[i][0] == '-') {
            fprintf(stderr, "run_corpus: %s is libFuzzer's, ignored\n", argv[i]);
        } else {
            corpus_add_path(corpus, argv[i], buffer);
        }
    }
}

int main(int argc, char **argv)
{
    struct options options = {0};
    struct corpus *corpus = allocate(sizeof *corpus);
    uint8_t *buffer = allocate(SEED_BYTES_MAX);
    corpus->seed_count = 0;
    corpus_add_built_in(corpus, buffer);
    if (corpus->seed_count == 0) {
        corpus_add(corpus, buffer, 0);
    }
    parse(argc, argv, &options, corpus, buffer);
    report_crashes();
    if (options.dump_folder != NULL) {
        corpus_dump(corpus, options.dump_folder);
    }
    for (size_t i = 0; i < corpus->seed_count && options.first_run == 0; i++) {
        run_exact(corpus->seeds[i].bytes, corpus->seeds[i].size_bytes);
    }
    for (uint64_t i = 0; i < options.run_count; i++) {
        current_run = options.first_run + i;
        run_changed(corpus, options.seed, current_run, buffer);
    }
    printf("run_corpus: %zu seeds and %" PRIu64 " changed inputs, nothing found\n",
           corpus->seed_count, options.run_count);
    for (size_t i = 0; i < corpus->seed_count; i++) {
        free(corpus->seeds[i].bytes);
    }
    free(corpus);
    free(buffer);
    return 0;
}
