/*
 * indexdump.c - opens the index of a data set and prints it, for tests that compare it with other
 * listings.
 *
 *     indexdump [--cache FOLDER] [--threads N] [--rebuild] [--quiet] [--field PATTERN]... URL...
 *
 * First line: "built" or "stored", samples, classes, shards, data bytes, milliseconds. Then, unless
 * --quiet, a line for each sample: its id, label, path, and for tars each field's offset in the
 * shard and length ("-" when it is missing). Exit 1 with the error on stderr.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loader/index.h"

struct arguments {
    struct index_options options;
    const char *fields[INDEX_FIELDS_MAX];
    size_t field_count;
    bool is_quiet;
};

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void parse(int argc, char **argv, struct arguments *arguments)
{
    *arguments = (struct arguments){.options.thread_count = 2};
    int i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (strcmp(argv[i], "--rebuild") == 0) {
            arguments->options.rebuild = true;
        } else if (strcmp(argv[i], "--quiet") == 0) {
            arguments->is_quiet = true;
        } else if (strcmp(argv[i], "--cache") == 0 && i + 1 < argc) {
            arguments->options.cache_folder = argv[++i];
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            arguments->options.thread_count = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--field") == 0 && i + 1 < argc &&
                   arguments->field_count < INDEX_FIELDS_MAX) {
            arguments->fields[arguments->field_count++] = argv[++i];
        } else {
            fprintf(stderr, "indexdump: %s is not understood\n", argv[i]);
            exit(2);
        }
    }
    if (arguments->options.thread_count == 0) {
        arguments->options.thread_count = 1;
    }
    arguments->options.urls = (const char *const *)argv + i;
    arguments->options.url_count = (size_t)(argc - i);
}

static int print_samples(const struct index *index, const struct arguments *arguments,
                         struct error *error)
{
    static const char *const image[] = {"jpg;jpeg;png;webp"};
    bool has_fields = arguments->field_count > 0;
    size_t count = has_fields ? arguments->field_count : 1;
    struct index_fields *fields;
    if (index_fields_create(index, has_fields ? arguments->fields : image, count, true, &fields,
                            error) < 0) {
        return -1;
    }
    for (uint64_t i = 0; i < index_sample_count(index); i++) {
        struct sample_place place;
        char buffer[8192], label[8192];
        if (index_sample_place(index, fields, i, &place, buffer, sizeof buffer) < 0) {
            continue;
        }
        index_sample_label(index, i, label, sizeof label);
        printf("%" PRIu64 "\t%" PRId64 "\t%s", index_sample_id(index, i), place.label, label);
        for (size_t f = 0; f < count && place.is_shard; f++) {
            if (place.field[f].length_bytes == UINT64_MAX) {
                printf("\t-");
            } else {
                printf("\t%" PRIu64 "+%" PRIu64, place.offset_bytes + place.field[f].offset_bytes,
                       place.field[f].length_bytes);
            }
        }
        putchar('\n');
    }
    index_fields_destroy(fields);
    return 0;
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    parse(argc, argv, &arguments);
    struct index *index;
    struct error error;
    char warning[ERROR_TEXT_BYTES];
    bool was_built;
    double start_ms = now_ms();
    int result = index_open(&arguments.options, NULL, &index, &was_built, warning, &error);
    if (result == 0) {
        double took_ms = now_ms() - start_ms;
        if (warning[0] != '\0') {
            fprintf(stderr, "warning: %s\n", warning);
        }
        printf("%s\t%" PRIu64 "\t%" PRIu32 "\t%" PRIu32 "\t%" PRIu64 "\t%.3f\n",
               was_built ? "built" : "stored", index_sample_count(index), index_class_count(index),
               index_shard_count(index), index_header(index)->data_bytes, took_ms);
        if (!arguments.is_quiet) {
            result = print_samples(index, &arguments, &error);
        }
        index_unref(index);
    }
    if (result < 0) {
        fprintf(stderr, "error: %s: %s\n", error_kind_name(error.kind), error.text);
    }
    return result < 0 ? 1 : 0;
}
