#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/memory_available.h"
#include "ipc/region.h"

static void test_two_mappings_share_bytes(void **state)
{
    (void)state;
    struct region ours, theirs;
    assert_int_equal(region_create(&ours, "test", 8192), 0);
    int fd = dup(ours.fd);
    assert_int_equal(region_map(&theirs, fd, 8192), 0);
    assert_int_equal(theirs.fd, fd);
    ours.base[8191] = 7;
    assert_int_equal(theirs.base[8191], 7);
    assert_int_equal(fcntl(ours.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    region_close(&theirs);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    region_close(&ours);
    assert_null(ours.base);
    region_close(&ours);
}

static void test_create_refuses_odd_sizes(void **state)
{
    (void)state;
    struct region region;
    assert_int_equal(region_create(&region, "test", 0), -EINVAL);
    assert_int_equal(region_create(&region, "test", 4097), -EINVAL);
    assert_int_equal(region_create(&region, "test", SIZE_MAX - 4095), -EINVAL);
    region_close(&region);
}

static void test_map_refuses_what_could_shrink(void **state)
{
    (void)state;
    struct region region;
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, 8192), 0);
    assert_int_equal(region_map(&region, fd, 8192), -EINVAL); /* not sealed */
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(region_map(&region, fd, 12288), -EINVAL); /* too small */
    assert_int_equal(region_map(&region, fd, 0), -EINVAL);
    assert_true(fcntl(fd, F_GETFD) >= 0); /* still ours */
    assert_int_equal(region_map(&region, fd, 4096), 0);
    region_close(&region);

    FILE *file = tmpfile();
    assert_int_equal(ftruncate(fileno(file), 8192), 0);
    assert_int_equal(region_map(&region, fileno(file), 8192), -EINVAL);
    fclose(file);
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(region_map(&region, pipe_fds[0], 4096), -EINVAL);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    assert_int_equal(region_map(&region, -1, 4096), -EBADF);
}

/* ------------------------------------------------------------------ a made-up tree of cgroups */

static char fake_root[64];

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", fake_root, name);
    for (char *slash = path + strlen(fake_root) + 1; (slash = strchr(slash, '/')) != NULL;) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash++ = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int make_root(void **state)
{
    (void)state;
    strcpy(fake_root, "/tmp/penstock-test-XXXXXX");
    return mkdtemp(fake_root) != NULL ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", fake_root);
    return system(command);
}

#define V2_MOUNT "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"

static void test_every_level_of_v2_counts(void **state)
{
    (void)state;
    assert_true(memory_available_bytes(fake_root) == UINT64_MAX);
    put("proc/meminfo", "MemTotal: 16000 kB\nMemFree: 10 kB\nMemAvailable:    8000 kB\n");
    assert_true(memory_available_bytes(fake_root) == 8000 * 1024);
    put("proc/self/cgroup", "0::/job/step\n");
    put("proc/self/mountinfo", "1 1 8:1 / / rw - ext4 /dev/sda rw\n" V2_MOUNT);
    put("sys/fs/cgroup/job/step/memory.max", "max\n");
    put("sys/fs/cgroup/job/step/memory.current", "1000\n");
    assert_true(memory_available_bytes(fake_root) == 8000 * 1024);
    put("sys/fs/cgroup/job/memory.max", "1000000\n");
    put("sys/fs/cgroup/job/memory.current", "900000\n");
    assert_true(memory_available_bytes(fake_root) == 100000);
    put("sys/fs/cgroup/job/memory.stat", "anon 1\ninactive_file 50000\nactive_file 3\n");
    assert_true(memory_available_bytes(fake_root) == 150000);
    put("sys/fs/cgroup/job/step/memory.max", "900\n");
    assert_true(memory_available_bytes(fake_root) == 0);
}

static void test_a_container_sees_its_limit(void **state)
{
    (void)state;
    /* Docker without a cgroup namespace: the host's name, the mount shows only this cgroup. */
    put("proc/self/cgroup", "12:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/\n");
    put("proc/self/mountinfo", "33 20 0:30 /docker/ab /cg/cpu rw - cgroup cgroup rw,cpu\n"
                               "34 20 0:31 /docker/ab /cg/memory rw - cgroup cgroup rw,memory\n");
    put("cg/memory/memory.limit_in_bytes", "500000\n");
    put("cg/memory/memory.usage_in_bytes", "200000\n");
    put("cg/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n");
    assert_true(memory_available_bytes(fake_root) == 301000);
    /* Entered from outside of its namespace: the name leads out of it. */
    put("proc/self/cgroup", "4:memory:/../other\n");
    assert_true(memory_available_bytes(fake_root) == 301000);
    /* v1 without a limit says 2^63 rounded to pages. */
    put("cg/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_true(memory_available_bytes(fake_root) == 9223372036854771712u - 199000);
}

static void test_odd_files_do_no_harm(void **state)
{
    (void)state;
    put("proc/self/cgroup", "\n0\n:::\n0:\n7:memory\n");
    put("proc/self/mountinfo", " - \n - cgroup2\nx - cgroup2 a b\n");
    put("proc/meminfo", "MemAvailable\nMemAvailable: x\n");
    assert_true(memory_available_bytes(fake_root) == UINT64_MAX);
}

static void test_this_machine_has_memory(void **state)
{
    (void)state;
    uint64_t bytes = region_memory_available_bytes();
    assert_true(bytes > 1 << 20);
    assert_true(bytes < (uint64_t)1 << 50 || bytes == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_mappings_share_bytes),
        cmocka_unit_test(test_create_refuses_odd_sizes),
        cmocka_unit_test(test_map_refuses_what_could_shrink),
        cmocka_unit_test_setup_teardown(test_every_level_of_v2_counts, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_a_container_sees_its_limit, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_odd_files_do_no_harm, make_root, remove_root),
        cmocka_unit_test(test_this_machine_has_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
