#include "loader/remote/checksum.h"

#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    size_t length;
} kinds[] = {
    [CHECKSUM_NONE] = {"", 0},          [CHECKSUM_SHA1] = {"sha1", 20},
    [CHECKSUM_SHA256] = {"sha256", 32}, [CHECKSUM_CRC64NVME] = {"crc64nvme", 8},
    [CHECKSUM_CRC32] = {"crc32", 4},    [CHECKSUM_CRC32C] = {"crc32c", 4},
};

enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* Reflected polynomials. */
static const uint64_t crc64nvme_polynomial = 0x9a6c9329ac4bc9b5u;
static const uint64_t crc32_polynomial = 0xedb88320u;
static const uint64_t crc32c_polynomial = 0x82f63b78u;

enum checksum_kind checksum_kind_find(const char *name, size_t length)
{
    for (int kind = 1; kind < KINDS; kind++) {
        if (strlen(kinds[kind].name) == length &&
            strncasecmp(kinds[kind].name, name, length) == 0) {
            return (enum checksum_kind)kind;
        }
    }
    return CHECKSUM_NONE;
}

bool checksum_parse(enum checksum_kind kind, const char *text, size_t length,
                    struct checksum *checksum)
{
    /* Base64 of n bytes has 4 * ceil(n / 3) characters; the decoder pads with zeros. */
    unsigned char decoded[36];
    size_t wanted = kinds[kind].length;
    if (kind == CHECKSUM_NONE || length != (wanted + 2) / 3 * 4 ||
        EVP_DecodeBlock(decoded, (const unsigned char *)text, (int)length) < (int)wanted) {
        return false;
    }
    checksum->kind = kind;
    checksum->length = wanted;
    memcpy(checksum->bytes, decoded, wanted);
    return true;
}

/* A reflected CRC with all ones at both ends, eight bytes a step. */
static uint64_t crc(uint64_t polynomial, int bits, const uint8_t *data, size_t size_bytes)
{
    uint64_t tables[8][256];
    for (unsigned i = 0; i < 256; i++) {
        uint64_t value = i;
        for (int bit = 0; bit < 8; bit++) {
            value = value & 1 ? value >> 1 ^ polynomial : value >> 1;
        }
        tables[0][i] = value;
    }
    for (unsigned i = 0; i < 256; i++) {
        for (int t = 1; t < 8; t++) {
            tables[t][i] = tables[t - 1][i] >> 8 ^ tables[0][tables[t - 1][i] & 255];
        }
    }
    uint64_t ones = bits == 64 ? UINT64_MAX : UINT32_MAX;
    uint64_t value = ones;
    for (; size_bytes >= 8; data += 8, size_bytes -= 8) {
        uint64_t next = 0;
        for (int i = 0; i < 8; i++) {
            next ^= tables[7 - i][(value >> 8 * i & 255) ^ data[i]];
        }
        value = next;
    }
    for (; size_bytes > 0; data++, size_bytes--) {
        value = value >> 8 ^ tables[0][(value & 255) ^ *data];
    }
    return value ^ ones;
}

static bool crc_holds(const struct checksum *checksum, uint64_t value)
{
    for (size_t i = 0; i < checksum->length; i++) {
        if (checksum->bytes[i] != (uint8_t)(value >> 8 * (checksum->length - 1 - i))) {
            return false;
        }
    }
    return true;
}

static bool digest_holds(const struct checksum *checksum, const EVP_MD *method, const uint8_t *data,
                         size_t size_bytes)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    return EVP_Digest(data, size_bytes, digest, NULL, method, NULL) == 1 &&
           memcmp(digest, checksum->bytes, checksum->length) == 0;
}

bool checksum_holds(const struct checksum *checksum, const uint8_t *data, size_t size_bytes)
{
    switch (checksum->kind) {
    case CHECKSUM_NONE: return true;
    case CHECKSUM_SHA1: return digest_holds(checksum, EVP_sha1(), data, size_bytes);
    case CHECKSUM_SHA256: return digest_holds(checksum, EVP_sha256(), data, size_bytes);
    case CHECKSUM_CRC64NVME:
        return crc_holds(checksum, crc(crc64nvme_polynomial, 64, data, size_bytes));
    case CHECKSUM_CRC32: return crc_holds(checksum, crc(crc32_polynomial, 32, data, size_bytes));
    case CHECKSUM_CRC32C: return crc_holds(checksum, crc(crc32c_polynomial, 32, data, size_bytes));
    }
    return false;
}
