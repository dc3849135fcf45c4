/* Tar headers from any bytes: every range that is wanted lies inside the archive, every member
 * that is reported too, and reading ends. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "loader/tar.h"
#include "tests/fuzz/fuzz.h"
#include "tests/tools/tar_maker.h"

/* Mutations break checksums; with the last byte odd they are mended, so that the fields behind
 * them are reached. */
static void mend_checksum(uint8_t *block)
{
    struct tar_maker maker = {.bytes = block, .size_bytes = TAR_BLOCK_BYTES};
    maker_sum(&maker, 0);
}

static void check_member(const struct tar_member *member, uint64_t archive_bytes)
{
    assert(memchr(member->name, '\0', sizeof member->name) != NULL);
    assert(member->data_offset_bytes <= archive_bytes);
    assert(member->size_bytes <= archive_bytes - member->data_offset_bytes);
    assert(member->header_offset_bytes + TAR_BLOCK_BYTES <= member->data_offset_bytes);
    assert(!member->is_file || (member->name[0] != '\0' && member->name[0] != '/'));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes)
{
    bool is_mended = size_bytes > 0 && (bytes[size_bytes - 1] & 1) != 0;
    struct tar *tar = malloc(sizeof *tar);
    struct tar_member *member = malloc(sizeof *member);
    assert(tar != NULL && member != NULL);
    tar_init(tar, size_bytes);
    uint64_t at, last = 0;
    size_t length;
    while (tar_want(tar, &at, &length)) {
        assert(at >= last && length >= 1 && at <= size_bytes && length <= size_bytes - at);
        last = at;
        uint8_t *piece = malloc(length);
        assert(piece != NULL);
        memcpy(piece, bytes + at, length);
        if (is_mended && length == TAR_BLOCK_BYTES && piece[0] != 0) {
            mend_checksum(piece);
        }
        struct tar_problem problem = {0};
        enum tar_result result = tar_feed(tar, piece, member, &problem);
        free(piece);
        if (result == TAR_MEMBER) {
            check_member(member, size_bytes);
        }
        if (result == TAR_BAD) {
            assert(problem.text != NULL && problem.offset_bytes <= size_bytes);
            assert(!tar_want(tar, &at, &length));
        }
    }
    free(tar);
    free(member);
    return 0;
}

static void make_seed(size_t index, struct tar_maker *maker)
{
    char record[200];
    switch (index) {
    case 0:
        maker_file(maker, "d/0.jpg", "0123456789");
        maker_file(maker, "d/0.cls", "7");
        break;
    case 1: {
        size_t length = maker_pax_record(record, sizeof record, "path", "some/longer/name.jpg");
        length += maker_pax_record(record + length, sizeof record - length, "size", "3");
        maker_extended(maker, 'x', record, length);
        maker_file(maker, "short", "abc");
        break;
    }
    case 2:
        maker_extended(maker, 'L', "a/very/long/name.jpg", 21);
        maker_file(maker, "short", "abc");
        break;
    case 3: {
        size_t at = maker_header(maker, "big.jpg", '0', 0);
        memcpy(maker->bytes + at + 124, "\x80\0\0\0\0\0\0\0\0\0\0\x03", 12);
        maker_sum(maker, at);
        maker_data(maker, "abc", 3);
        break;
    }
    default: {
        size_t length = maker_pax_record(record, sizeof record, "comment", "for all");
        maker_extended(maker, 'g', record, length);
        maker_header(maker, "d/", '5', 0);
        maker_header(maker, "link", '2', 0);
        maker_file(maker, "x.jpg", "x");
    }
    }
    maker_end(maker);
}

size_t fuzz_seed(size_t index, uint8_t *buffer, size_t size_max_bytes)
{
    enum { SEEDS = 5 };
    if (index >= 2 * SEEDS) {
        return 0;
    }
    struct tar_maker maker = {0};
    make_seed(index / 2, &maker);
    size_t size = maker.size_bytes < size_max_bytes ? maker.size_bytes : size_max_bytes;
    memcpy(buffer, maker.bytes, size);
    buffer[size - 1] = (uint8_t)(index & 1); /* whether checksums are mended */
    maker_clear(&maker);
    return size;
}
