#include "decode/coefficient_streams.h"

#include <stdlib.h>

#include <zstd.h>

struct stream_packer {
    ZSTD_CCtx *context;
};

struct stream_unpacker {
    ZSTD_DCtx *context;
};

/* The streams are numbers with hardly a repetition: what compresses them is Huffman coding of their
 * bytes. Level 1, told to take only long matches from a tiny table, is smaller and decodes faster
 * than the level as it is, and than levels 2 and 3. */
static bool set_parameters(ZSTD_CCtx *context)
{
    return !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 1)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_minMatch, 7)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_hashLog, 6));
}

struct stream_packer *stream_packer_create(void)
{
    struct stream_packer *packer = calloc(1, sizeof *packer);
    if (packer == NULL) {
        return NULL;
    }
    packer->context = ZSTD_createCCtx();
    if (packer->context == NULL || !set_parameters(packer->context)) {
        stream_packer_destroy(packer);
        return NULL;
    }
    return packer;
}

void stream_packer_destroy(struct stream_packer *packer)
{
    if (packer != NULL) {
        ZSTD_freeCCtx(packer->context);
        free(packer);
    }
}

struct stream_unpacker *stream_unpacker_create(void)
{
    struct stream_unpacker *unpacker = calloc(1, sizeof *unpacker);
    if (unpacker == NULL) {
        return NULL;
    }
    unpacker->context = ZSTD_createDCtx();
    if (unpacker->context == NULL) {
        stream_unpacker_destroy(unpacker);
        return NULL;
    }
    return unpacker;
}

void stream_unpacker_destroy(struct stream_unpacker *unpacker)
{
    if (unpacker != NULL) {
        ZSTD_freeDCtx(unpacker->context);
        free(unpacker);
    }
}

size_t stream_pack(struct stream_packer *packer, const uint8_t *source, size_t size_bytes,
                   uint8_t *target)
{
    if (size_bytes < 2) {
        return 0;
    }
    size_t frame_bytes =
        ZSTD_compress2(packer->context, target, size_bytes - 1, source, size_bytes);
    return ZSTD_isError(frame_bytes) ? 0 : frame_bytes;
}

bool stream_unpack(struct stream_unpacker *unpacker, const uint8_t *frame, size_t frame_bytes,
                   uint8_t *target, size_t target_bytes)
{
    return ZSTD_decompressDCtx(unpacker->context, target, target_bytes, frame, frame_bytes) ==
           target_bytes;
}
