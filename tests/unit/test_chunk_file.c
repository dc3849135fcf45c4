#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loader/cache/chunk_file.h"
#include "loader/cache/crc32c.h"
#include "tests/tools/temporary_folder.h"

enum { DATA_BYTES = 5 * CHUNK_BLOCK_BYTES + 12345, CORRUPTIONS = 1000 };

static struct temporary_folder folder;
static int folder_fd;
static uint8_t *data;
static uint64_t random_state = 1;

static uint64_t draw(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static struct chunk_identity an_identity(uint32_t number)
{
    return (struct chunk_identity){
        .key = {0xab, 0xcd, 0x01},
        .kind = CHUNK_OBJECT,
        .number = number,
        .object_bytes = 100 << 20,
        .chunk_bytes = 8 << 20,
        .data_bytes = DATA_BYTES,
        .url = "s3://bucket/train-000001.tar",
        .tag = "\"0123456789abcdef\"",
    };
}

static const char *name_for(const struct chunk_identity *identity)
{
    static char names[4][CHUNK_NAME_BYTES];
    static unsigned turn;
    struct chunk_name name = {.kind = identity->kind,
                              .number = identity->number,
                              .file_bytes = chunk_file_bytes(identity)};
    memcpy(name.key, identity->key, sizeof name.key);
    char *text = names[turn++ % 4];
    chunk_name_format(&name, text);
    return text;
}

static int set_up(void **state)
{
    (void)state;
    temporary_folder_create(&folder);
    folder_fd = open(folder.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    data = aligned_alloc(4096, DATA_BYTES + 2 * 4096 - DATA_BYTES % 4096);
    for (size_t i = 0; i < DATA_BYTES; i++) {
        data[i] = (uint8_t)(draw() >> 11);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    close(folder_fd);
    free(data);
    temporary_folder_destroy(&folder);
    return 0;
}

/* ---- Checksums ---------------------------------------------------------------------------- */

static void crc_equals_its_twin(void **state)
{
    (void)state;
    assert_int_equal(crc32c("123456789", 9), 0xe3069283);
    assert_int_equal(crc32c_table("123456789", 9), 0xe3069283);
    assert_int_equal(crc32c("", 0), 0);
    for (int i = 0; i < 300; i++) {
        size_t length = i == 0 ? CHUNK_BLOCK_BYTES : draw() % (3 * CHUNK_BLOCK_BYTES);
        size_t offset = draw() % 64;
        assert_int_equal(crc32c(data + offset, length), crc32c_table(data + offset, length));
    }
}

/* ---- Names -------------------------------------------------------------------------------- */

static void names_go_there_and_back(void **state)
{
    (void)state;
    struct chunk_identity identity = an_identity(0xfedcba98);
    const char *text = name_for(&identity);
    struct chunk_name name;
    assert_memory_equal(text, "ab/abcd01", 9);
    assert_true(chunk_name_parse(text + 3, &name));
    assert_int_equal(name.number, 0xfedcba98);
    assert_int_equal(name.kind, CHUNK_OBJECT);
    assert_int_equal(name.file_bytes, chunk_file_bytes(&identity));
    assert_memory_equal(name.key, identity.key, sizeof name.key);
    static const char *const bad[] = {
        "",
        "lock",
        "temporary-0123",
        "abcd",
        "ABCD0100000000000000000000000000-00000001-1-00001000",
        "abcd0100000000000000000000000000-00000001-0-00001000",
        "abcd0100000000000000000000000000-00000001-9-00001000",
        "abcd0100000000000000000000000000-00000001-1-0000100",
        "abcd0100000000000000000000000000-00000001-1-00001000x",
        "abcd0100000000000000000000000000_00000001-1-00001000",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(chunk_name_parse(bad[i], &name));
    }
}

/* ---- Files -------------------------------------------------------------------------------- */

/* Read all of an open file through its blocks; false when a checksum does not hold. */
static bool read_all(const struct chunk_file *file, uint8_t *to)
{
    size_t padded = (file->data_bytes + 4095u) / 4096 * 4096;
    ssize_t got = pread(file->file.fd, to, padded, file->header_bytes);
    return got == (ssize_t)padded && chunk_file_check(file, 0, to, file->data_bytes);
}

static bool is_intact(const struct chunk_identity *identity)
{
    struct chunk_file *file = NULL;
    if (chunk_file_open(folder_fd, name_for(identity), identity, &file) != 0) {
        return false;
    }
    uint8_t *bytes = aligned_alloc(4096, DATA_BYTES + 2 * 4096 - DATA_BYTES % 4096);
    bool is_good = read_all(file, bytes);
    if (is_good) {
        assert_memory_equal(bytes, data, DATA_BYTES); /* what is believed is right */
    }
    free(bytes);
    chunk_file_close(file);
    return is_good;
}

static void write_and_read(void **state)
{
    (void)state;
    struct chunk_identity identity = an_identity(7);
    assert_int_equal(chunk_file_write(folder_fd, name_for(&identity), &identity, 1234, data), 0);
    assert_true(is_intact(&identity));
    struct stat status;
    assert_int_equal(fstatat(folder_fd, name_for(&identity), &status, 0), 0);
    assert_int_equal(status.st_size, chunk_file_bytes(&identity));
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(fstatat(folder_fd, "ab", &status, 0), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    /* Once more, in the place of the first. */
    data[100] ^= 1;
    assert_int_equal(chunk_file_write(folder_fd, name_for(&identity), &identity, 1234, data), 0);
    assert_true(is_intact(&identity));
    struct chunk_header_room room;
    struct chunk_identity found;
    int64_t fetched_s;
    assert_int_equal(chunk_file_identify(folder_fd, name_for(&identity), &found, &fetched_s, &room),
                     0);
    assert_string_equal(found.url, identity.url);
    assert_string_equal(found.tag, identity.tag);
    assert_int_equal(fetched_s, 1234);
    assert_int_equal(found.data_bytes, DATA_BYTES);
}

static void others_are_refused(void **state)
{
    (void)state;
    struct chunk_identity identity = an_identity(7);
    char name[CHUNK_NAME_BYTES];
    strcpy(name, name_for(&identity));
    assert_int_equal(chunk_file_write(folder_fd, name, &identity, 0, data), 0);
    struct chunk_identity others[5];
    for (int i = 0; i < 5; i++) {
        others[i] = identity;
    }
    others[0].number = 8;
    others[1].tag = "\"another\"";
    others[2].url = "s3://bucket/train-000002.tar";
    others[3].object_bytes++;
    others[4].data_bytes--;
    for (int i = 0; i < 5; i++) {
        struct chunk_file *file = NULL;
        assert_int_equal(chunk_file_open(folder_fd, name, &others[i], &file), EBADMSG);
    }
    assert_int_equal(unlinkat(folder_fd, name, 0), 0);
    struct chunk_file *file = NULL;
    assert_int_equal(chunk_file_open(folder_fd, name, &identity, &file), ENOENT);
    assert_int_equal(mkdirat(folder_fd, name, 0700), 0);
    assert_int_not_equal(chunk_file_open(folder_fd, name, &identity, &file), 0);
}

static void long_texts_have_no_file(void **state)
{
    (void)state;
    struct chunk_identity identity = an_identity(1);
    char *url = calloc(1, CHUNK_HEADER_BYTES_MAX + 1);
    memset(url, 'u', CHUNK_HEADER_BYTES_MAX);
    identity.url = url;
    assert_int_equal(chunk_file_bytes(&identity), 0);
    url[5000] = '\0'; /* needs a second page */
    assert_int_equal(chunk_file_bytes(&identity), 2 * 4096 + (DATA_BYTES + 4095) / 4096 * 4096);
    assert_int_equal(chunk_file_write(folder_fd, name_for(&identity), &identity, 0, data), 0);
    assert_true(is_intact(&identity));
    free(url);
}

/* One fault of a random kind at a random place; false when it changed nothing. */
static bool spoil(int fd, size_t file_bytes)
{
    uint8_t bytes[4096], old[4096];
    off_t at = (off_t)(draw() % file_bytes);
    size_t length = 1 + draw() % 4096;
    length = length < file_bytes - (size_t)at ? length : file_bytes - (size_t)at;
    switch (draw() % 4) {
    case 0: return ftruncate(fd, at) == 0;
    case 1: length = 1; break; /* one bit */
    case 2: memset(bytes, 0, sizeof bytes); break;
    default:
        for (size_t i = 0; i < length; i++) {
            bytes[i] = (uint8_t)draw();
        }
    }
    assert_int_equal(pread(fd, old, length, at), length);
    if (length == 1) {
        bytes[0] = old[0] ^ (uint8_t)(1u << draw() % 8);
    }
    assert_int_equal(pwrite(fd, bytes, length, at), length);
    return memcmp(bytes, old, length) != 0;
}

/* Is anything but the zeros after the data another than it was? */
static bool differs_where_it_counts(int fd, const uint8_t *original, size_t used_bytes)
{
    uint8_t *now = calloc(1, used_bytes);
    bool differs = pread(fd, now, used_bytes, 0) != (ssize_t)used_bytes ||
                   memcmp(now, original, used_bytes) != 0;
    free(now);
    return differs;
}

static void every_corruption_is_noticed(void **state)
{
    (void)state;
    struct chunk_identity identity = an_identity(7);
    size_t file_bytes = chunk_file_bytes(&identity);
    uint8_t *original = malloc(file_bytes);
    int noticed = 0;
    while (noticed < CORRUPTIONS) {
        assert_int_equal(chunk_file_write(folder_fd, name_for(&identity), &identity, 0, data), 0);
        int fd = openat(folder_fd, name_for(&identity), O_RDWR | O_CLOEXEC);
        assert_int_equal(pread(fd, original, file_bytes, 0), file_bytes);
        bool changed = spoil(fd, file_bytes);
        bool counts = differs_where_it_counts(fd, original, 4096 + DATA_BYTES) ||
                      lseek(fd, 0, SEEK_END) != (off_t)file_bytes;
        close(fd);
        assert_int_equal(is_intact(&identity), !(changed && counts));
        noticed += changed && counts;
    }
    free(original);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(crc_equals_its_twin, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_go_there_and_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(write_and_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(others_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(long_texts_have_no_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_corruption_is_noticed, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
