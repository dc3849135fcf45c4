/*
 * What S3 servers send: the lines of a head, the checks on it, and XML. The input is taken as all
 * of these in turn.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "loader/remote/answer.h"
#include "loader/remote/s3_xml.h"
#include "tests/fuzz/fuzz.h"

static bool look_at(void *context, const struct s3_xml_entry *entry)
{
    size_t *bytes = context;
    *bytes += strlen(entry->key) + strlen(entry->etag);
    return *bytes < 100000;
}

static void check_head(const char *text, size_t size)
{
    static const struct remote_version unknown;
    struct answer answer = {0};
    struct remote_version version;
    char why[ANSWER_WHY_BYTES];
    while (size > 0) {
        const char *end = memchr(text, '\n', size);
        size_t length = end != NULL ? (size_t)(end - text) + 1 : size;
        answer_take_line(&answer, text, length);
        text += length;
        size -= length;
    }
    if (answer_version(&answer, &version) && version.tag[0] != '\0') {
        assert(answer_tag_is_usable(version.tag));
    }
    if (answer_check(&answer, &unknown, 100, 100, why) == ANSWER_GOOD) {
        assert(answer.range_first == 100 && answer.range_last == 199);
    }
    uint8_t data[8] = {0};
    (void)checksum_holds(&answer.checksum, data, sizeof data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char code[16], message[32];
    struct s3_xml_field fields[] = {{"Code", code, sizeof code},
                                    {"Message", message, sizeof message}};
    struct s3_xml_page page;
    size_t bytes = 0;
    check_head((const char *)data, size);
    (void)s3_xml_fields((const char *)data, size, fields, 2);
    if (s3_xml_list((const char *)data, size, &page, look_at, &bytes)) {
        assert(!page.is_truncated || page.token[0] != '\0');
    }
    return 0;
}

size_t fuzz_seed(size_t index, uint8_t *buffer, size_t size_max_bytes)
{
    static const char *const seeds[] = {
        "HTTP/1.1 206 Partial Content\r\nETag: \"t\"\r\nContent-Range: bytes 100-199/1000\r\n"
        "Content-Length: 100\r\nLast-Modified: Mon, 23 Nov 2026 14:00:00 GMT\r\n"
        "x-amz-checksum-crc32c: 4waSgw==\r\nx-amz-checksum-type: FULL_OBJECT\r\n"
        "Retry-After: 3\r\nx-amz-bucket-region: eu-west-1\r\n\r\n",
        "<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>m</Message></Error>",
        "<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a&amp;b</Key>"
        "<Size>7</Size><ETag>&quot;t&quot;</ETag></Contents><CommonPrefixes><Prefix>c</Prefix>"
        "</CommonPrefixes><NextContinuationToken>n</NextContinuationToken></ListBucketResult>",
    };
    if (index >= sizeof seeds / sizeof seeds[0]) {
        return 0;
    }
    size_t size = strlen(seeds[index]) < size_max_bytes ? strlen(seeds[index]) : size_max_bytes;
    memcpy(buffer, seeds[index], size);
    return size;
}
