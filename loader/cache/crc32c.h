/*
 * crc32c.h - CRC-32C (Castagnoli), the checksum of blocks in the cache: by the processor's
 * instruction where it has one, else by a table.
 *
 * Threads: any; no state.
 */
#ifndef PENSTOCK_LOADER_CACHE_CRC32C_H
#define PENSTOCK_LOADER_CACHE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of size_bytes bytes, as iSCSI and S3 compute it: "123456789" gives 0xe3069283. */
uint32_t crc32c(const void *bytes, size_t size_bytes);

/* The twin in plain C, for tests and processors without the instruction. */
uint32_t crc32c_table(const void *bytes, size_t size_bytes);

#endif /* PENSTOCK_LOADER_CACHE_CRC32C_H */
