/*
 * pattern.h - brace lists: "train-{000000..000146}.tar", "{train,val}/x", nested, several in a row.
 *
 * As in a shell: {a..b} counts up or down, {a..b..step} too, padded with zeros to the wider end
 * if an end starts with a zero ("000", "-05"); {a,b,c} lists; letters count as {a..f}. Braces that
 * are neither stay as they are.
 */
#ifndef PENSTOCK_LOADER_PATTERN_H
#define PENSTOCK_LOADER_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

/* Texts, each malloc'd. Zero is empty. */
struct text_list {
    char **texts;
    size_t count, capacity;
};

/* Copies `length` bytes; false when memory is short. */
bool text_list_add(struct text_list *list, const char *text, size_t length);
void text_list_clear(struct text_list *list);
/* Sort texts[first, count) by their bytes. */
void text_list_sort(struct text_list *list, size_t first);

enum { PATTERN_TEXTS_MAX = 1000000 };

/* Append what `pattern` stands for, in order. 0, -ENOMEM, or -E2BIG: the list would have more than
 * PATTERN_TEXTS_MAX texts, or the pattern nests absurdly. */
int pattern_expand(const char *pattern, struct text_list *list);

#endif /* PENSTOCK_LOADER_PATTERN_H */
