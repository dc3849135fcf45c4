/*
 * s3_xml.h - the XML in answers of S3 and STS. What is malformed, or has a document type, is
 * refused as a whole. No I/O; any thread.
 */
#ifndef PENSTOCK_LOADER_REMOTE_S3_XML_H
#define PENSTOCK_LOADER_REMOTE_S3_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One element to look for, at any depth, and where its text goes: the first one's, cut to fit;
 * "" when there is none. */
struct s3_xml_field {
    const char *name;
    char *text;
    size_t text_bytes;
};

/* False: not well-formed; what was found so far is filled in. */
bool s3_xml_fields(const char *document, size_t document_bytes, struct s3_xml_field *fields,
                   size_t field_count);

enum { S3_XML_KEY_BYTES = 1024 * 4 + 1, S3_XML_TOKEN_BYTES = 4096 };

/* An entry of ListObjectsV2: an object, or a common prefix. Texts live during the call. */
struct s3_xml_entry {
    const char *key;
    bool is_prefix;
    uint64_t size_bytes;
    const char *etag; /* as listed; "": none */
};

struct s3_xml_page {
    bool is_truncated;
    char token[S3_XML_TOKEN_BYTES]; /* NextContinuationToken */
};

/* False: not a well-formed listing, or one that cannot be gone on with; some entries may have been
 * told. `visit` returns false to be told no more of this page. */
bool s3_xml_list(const char *document, size_t document_bytes, struct s3_xml_page *page,
                 bool (*visit)(void *context, const struct s3_xml_entry *entry), void *context);

#endif /* PENSTOCK_LOADER_REMOTE_S3_XML_H */
