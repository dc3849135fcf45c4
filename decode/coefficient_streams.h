/*
 * coefficient_streams.h - the entropy coding of compact records: a stream as one zstd frame.
 */
#ifndef PENSTOCK_DECODE_COEFFICIENT_STREAMS_H
#define PENSTOCK_DECODE_COEFFICIENT_STREAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Either direction's scratch; one per thread. NULL when memory is short; destroy accepts NULL. */
struct stream_packer *stream_packer_create(void);
void stream_packer_destroy(struct stream_packer *packer);
struct stream_unpacker *stream_unpacker_create(void);
void stream_unpacker_destroy(struct stream_unpacker *unpacker);

/* Compress source[0, size_bytes) to target[0, size_bytes). Returns the frame's bytes, or 0 if it
 * would not be shorter. */
size_t stream_pack(struct stream_packer *packer, const uint8_t *source, size_t size_bytes,
                   uint8_t *target);

/* False if the frame is damaged or does not hold exactly target_bytes bytes. */
bool stream_unpack(struct stream_unpacker *unpacker, const uint8_t *frame, size_t frame_bytes,
                   uint8_t *target, size_t target_bytes);

#endif /* PENSTOCK_DECODE_COEFFICIENT_STREAMS_H */
