#include "loader/remote/s3_xml.h"

#include <expat.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 16, NAME_BYTES = 48 };

/* The text of the element that is open, and the names of those around it. */
struct reader {
    XML_Parser parser;
    int depth;
    char names[DEPTH_MAX][NAME_BYTES];
    char text[S3_XML_KEY_BYTES];
    size_t text_bytes;
    bool is_text_cut;
    bool is_refused;
    void (*on_start)(struct reader *reader, const char *name);
    /* names[depth - 1] ends, with reader->text. */
    void (*on_end)(struct reader *reader);
    void *owner;
};

static void refuse(struct reader *reader)
{
    reader->is_refused = true;
    XML_StopParser(reader->parser, XML_FALSE);
}

static void on_doctype(void *context, const char *name, const char *system, const char *public,
                       int has_internal)
{
    (void)name, (void)system, (void)public, (void)has_internal;
    refuse(context);
}

static void on_start(void *context, const char *name, const char **attributes)
{
    (void)attributes;
    struct reader *reader = context;
    if (reader->depth == DEPTH_MAX || strlen(name) >= NAME_BYTES) {
        refuse(reader);
        return;
    }
    memcpy(reader->names[reader->depth++], name, strlen(name) + 1);
    reader->text_bytes = 0;
    reader->text[0] = '\0';
    reader->is_text_cut = false;
    if (reader->on_start != NULL) {
        reader->on_start(reader, name);
    }
}

static void on_text(void *context, const char *text, int length)
{
    struct reader *reader = context;
    size_t room = sizeof reader->text - 1 - reader->text_bytes;
    size_t bytes = (size_t)length < room ? (size_t)length : room;
    reader->is_text_cut |= bytes < (size_t)length;
    memcpy(reader->text + reader->text_bytes, text, bytes);
    reader->text_bytes += bytes;
    reader->text[reader->text_bytes] = '\0';
}

static void on_end(void *context, const char *name)
{
    (void)name;
    struct reader *reader = context;
    reader->on_end(reader);
    reader->depth--;
    reader->text_bytes = 0;
    reader->text[0] = '\0';
}

static bool parse(struct reader *reader, const char *document, size_t document_bytes)
{
    if (document_bytes > INT_MAX) {
        return false;
    }
    reader->parser = XML_ParserCreate("UTF-8");
    if (reader->parser == NULL) {
        return false;
    }
    XML_SetUserData(reader->parser, reader);
    XML_SetElementHandler(reader->parser, on_start, on_end);
    XML_SetCharacterDataHandler(reader->parser, on_text);
    XML_SetStartDoctypeDeclHandler(reader->parser, on_doctype);
    bool is_good = XML_Parse(reader->parser, document, (int)document_bytes, 1) == XML_STATUS_OK &&
                   !reader->is_refused;
    XML_ParserFree(reader->parser);
    explicit_bzero(reader->text, sizeof reader->text); /* STS answers hold secrets */
    return is_good;
}

/* ---- Fields --------------------------------------------------------------------------------- */

struct fields {
    struct s3_xml_field *fields;
    size_t count;
};

static void end_field(struct reader *reader)
{
    struct fields *wanted = reader->owner;
    for (size_t i = 0; i < wanted->count; i++) {
        struct s3_xml_field *field = &wanted->fields[i];
        if (field->text[0] == '\0' && strcmp(field->name, reader->names[reader->depth - 1]) == 0) {
            size_t bytes = reader->text_bytes < field->text_bytes - 1 ? reader->text_bytes
                                                                      : field->text_bytes - 1;
            memcpy(field->text, reader->text, bytes);
            field->text[bytes] = '\0';
        }
    }
}

bool s3_xml_fields(const char *document, size_t document_bytes, struct s3_xml_field *fields,
                   size_t field_count)
{
    struct fields wanted = {.fields = fields, .count = field_count};
    struct reader *reader = calloc(1, sizeof *reader);
    for (size_t i = 0; i < field_count; i++) {
        fields[i].text[0] = '\0';
    }
    if (reader == NULL) {
        return false;
    }
    reader->on_end = end_field;
    reader->owner = &wanted;
    bool is_good = parse(reader, document, document_bytes);
    free(reader);
    return is_good;
}

/* ---- Listings ------------------------------------------------------------------------------- */

struct listing {
    struct s3_xml_page *page;
    bool (*visit)(void *context, const struct s3_xml_entry *entry);
    void *context;
    bool is_listing;
    bool is_over; /* the visitor wants no more */
    char key[S3_XML_KEY_BYTES];
    char etag[256];
    bool has_size;
    uint64_t size_bytes;
};

static void start_entry(struct reader *reader, const char *name)
{
    struct listing *listing = reader->owner;
    listing->is_listing |= reader->depth == 1 && strcmp(name, "ListBucketResult") == 0;
    if (reader->depth == 2) {
        listing->key[0] = listing->etag[0] = '\0';
        listing->has_size = false;
        listing->size_bytes = 0;
    }
}

static void take_entry_field(struct reader *reader, struct listing *listing, const char *name)
{
    if (strcmp(name, "Key") == 0 || strcmp(name, "Prefix") == 0) {
        if (reader->is_text_cut) {
            refuse(reader);
            return;
        }
        memcpy(listing->key, reader->text, reader->text_bytes + 1);
    } else if (strcmp(name, "ETag") == 0 && reader->text_bytes < sizeof listing->etag) {
        memcpy(listing->etag, reader->text, reader->text_bytes + 1);
    } else if (strcmp(name, "Size") == 0 && reader->text[0] >= '0' && reader->text[0] <= '9') {
        char *end = NULL;
        listing->size_bytes = strtoull(reader->text, &end, 10);
        listing->has_size = *end == '\0' && listing->size_bytes <= INT64_MAX;
    }
}

static void tell_entry(struct reader *reader, struct listing *listing, bool is_prefix)
{
    if (listing->key[0] == '\0' || (!is_prefix && !listing->has_size)) {
        refuse(reader);
    } else if (!listing->is_over) {
        struct s3_xml_entry entry = {.key = listing->key,
                                     .is_prefix = is_prefix,
                                     .size_bytes = listing->size_bytes,
                                     .etag = listing->etag};
        listing->is_over = !listing->visit(listing->context, &entry);
    }
}

static void end_entry(struct reader *reader)
{
    struct listing *listing = reader->owner;
    const char *name = reader->names[reader->depth - 1];
    if (reader->depth == 3) {
        take_entry_field(reader, listing, name);
    } else if (reader->depth == 2) {
        if (strcmp(name, "Contents") == 0 || strcmp(name, "CommonPrefixes") == 0) {
            tell_entry(reader, listing, name[1] == 'o' && name[2] == 'm');
        } else if (strcmp(name, "IsTruncated") == 0) {
            listing->page->is_truncated = strcmp(reader->text, "true") == 0;
        } else if (strcmp(name, "NextContinuationToken") == 0) {
            if (reader->is_text_cut || reader->text_bytes >= S3_XML_TOKEN_BYTES) {
                refuse(reader);
                return;
            }
            memcpy(listing->page->token, reader->text, reader->text_bytes + 1);
        }
    }
}

bool s3_xml_list(const char *document, size_t document_bytes, struct s3_xml_page *page,
                 bool (*visit)(void *context, const struct s3_xml_entry *entry), void *context)
{
    struct listing *listing = calloc(1, sizeof *listing);
    struct reader *reader = calloc(1, sizeof *reader);
    bool is_good = false;
    *page = (struct s3_xml_page){0};
    if (listing != NULL && reader != NULL) {
        listing->page = page;
        listing->visit = visit;
        listing->context = context;
        reader->on_start = start_entry;
        reader->on_end = end_entry;
        reader->owner = listing;
        is_good = parse(reader, document, document_bytes) && listing->is_listing &&
                  (!page->is_truncated || page->token[0] != '\0');
    }
    free(reader);
    free(listing);
    return is_good;
}
