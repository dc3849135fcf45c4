#include "ipc/region.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/memory_available.h"

/* Map `fd` as all of the region; the region owns fd only on success. */
static int map_shared(struct region *region, int fd, size_t bytes)
{
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        return -errno;
    }
    /* Fewer page faults and less page table, where shmem_enabled allows it; else no harm. */
    madvise(base, bytes, MADV_HUGEPAGE);
    *region = (struct region){.fd = fd, .base = base, .bytes = bytes};
    return 0;
}

int region_create(struct region *region, const char *label, size_t bytes)
{
    *region = (struct region){.fd = -1};
    if (bytes == 0 || bytes > (size_t)INT64_MAX || bytes % (size_t)sysconf(_SC_PAGESIZE) != 0) {
        return -EINVAL;
    }
    int fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -errno;
    }
    int error = 0;
    if (ftruncate(fd, (off_t)bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        error = -errno;
    }
    if (error == 0) {
        error = map_shared(region, fd, bytes);
    }
    if (error != 0) {
        close(fd);
    }
    return error;
}

int region_map(struct region *region, int fd, size_t bytes)
{
    *region = (struct region){.fd = -1};
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0) {
        return errno == EBADF ? -EBADF : -EINVAL;
    }
    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    if ((seals & F_SEAL_SHRINK) == 0 || bytes == 0 || status.st_size < 0 ||
        (uint64_t)status.st_size < bytes) {
        return -EINVAL;
    }
    return map_shared(region, fd, bytes);
}

void region_close(struct region *region)
{
    if (region->base != NULL) {
        munmap(region->base, region->bytes);
    }
    if (region->fd >= 0) {
        close(region->fd);
    }
    *region = (struct region){.fd = -1};
}

uint64_t region_memory_available_bytes(void)
{
    return memory_available_bytes("");
}
