#include "decode/webp.h"

#include <stdlib.h>

#include <webp/decode.h>
#include <webp/demux.h>

/* The demuxer wants the whole file, as Pillow does: a truncated one has none. */
static enum decode_status demux(const uint8_t *bytes, size_t size_bytes, WebPDemuxer **demuxer,
                                struct decode_error *error)
{
    WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
    WebPData data = {bytes, size_bytes};
    *demuxer = WebPDemuxPartial(&data, &state);
    if (*demuxer != NULL && state == WEBP_DEMUX_DONE) {
        return DECODE_OK;
    }
    WebPDemuxDelete(*demuxer);
    *demuxer = NULL;
    if (state == WEBP_DEMUX_PARSE_ERROR) {
        return decode_fail(error, DECODE_CORRUPT, 0, "libwebp cannot parse the WebP's chunks");
    }
    return decode_fail(error, DECODE_TRUNCATED, size_bytes, "the WebP ends too early");
}

enum decode_status webp_open(const uint8_t *bytes, size_t size_bytes,
                             const struct image_limits *limits, struct image_info *info,
                             struct decode_error *error)
{
    WebPDemuxer *demuxer = NULL;
    enum decode_status status = demux(bytes, size_bytes, &demuxer, error);
    if (status != DECODE_OK) {
        return status;
    }
    info->width_px = WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH);
    info->height_px = WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT);
    uint32_t frame_count = WebPDemuxGetI(demuxer, WEBP_FF_FRAME_COUNT);
    WebPDemuxDelete(demuxer);
    if (info->width_px == 0 || info->height_px == 0 || frame_count == 0) {
        return decode_fail(error, DECODE_CORRUPT, 0, "a WebP without a picture");
    }
    if ((uint64_t)info->width_px * info->height_px > limits->pixels_max) {
        return decode_fail(error, DECODE_TOO_LARGE, 0,
                           "%u x %u pixels are more than the limit of %llu",
                           (unsigned)info->width_px, (unsigned)info->height_px,
                           (unsigned long long)limits->pixels_max);
    }
    return DECODE_OK;
}

/* Decode the frame's stream to RGBA: alpha too, since a broken one is an error. */
static enum decode_status decode_frame(const WebPIterator *frame, uint8_t *rgba, size_t rgba_bytes,
                                       size_t offset_bytes, struct decode_error *error)
{
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config)) {
        return decode_fail(error, DECODE_UNSUPPORTED, 0, "libwebp is of another version");
    }
    config.output.colorspace = MODE_RGBA;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = rgba;
    config.output.u.RGBA.stride = frame->width * 4;
    config.output.u.RGBA.size = rgba_bytes;
    VP8StatusCode code = WebPDecode(frame->fragment.bytes, frame->fragment.size, &config);
    switch (code) {
    case VP8_STATUS_OK: return DECODE_OK;
    case VP8_STATUS_OUT_OF_MEMORY:
        return decode_fail(error, DECODE_NO_MEMORY, offset_bytes, "no memory to decode a WebP");
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return decode_fail(error, DECODE_UNSUPPORTED, offset_bytes,
                           "the WebP uses a feature that libwebp does not know");
    case VP8_STATUS_NOT_ENOUGH_DATA:
        return decode_fail(error, DECODE_TRUNCATED, offset_bytes, "the WebP frame ends too early");
    case VP8_STATUS_INVALID_PARAM:
    case VP8_STATUS_BITSTREAM_ERROR:
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_USER_ABORT: break;
    }
    return decode_fail(error, DECODE_CORRUPT, offset_bytes, "the WebP frame is corrupt");
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Copy what the frame has of the region; around the frame the picture stays black. */
static void copy_region(const WebPIterator *frame, const uint8_t *rgba, struct image_rect region,
                        uint8_t *target)
{
    uint32_t frame_x = (uint32_t)frame->x_offset, frame_y = (uint32_t)frame->y_offset;
    uint32_t frame_width = (uint32_t)frame->width;
    uint32_t x0 = larger(region.x_px, frame_x);
    uint32_t x1 = smaller(region.x_px + region.width_px, frame_x + frame_width);
    uint32_t y0 = larger(region.y_px, frame_y);
    uint32_t y1 = smaller(region.y_px + region.height_px, frame_y + (uint32_t)frame->height);
    for (uint32_t y = y0; y < y1; y++) {
        const uint8_t *from = rgba + ((size_t)(y - frame_y) * frame_width + x0 - frame_x) * 4;
        uint8_t *to = target + ((size_t)(y - region.y_px) * region.width_px + x0 - region.x_px) * 3;
        for (uint32_t x = x0; x < x1; x++, from += 4, to += 3) {
            to[0] = from[0];
            to[1] = from[1];
            to[2] = from[2];
        }
    }
}

enum decode_status webp_decode(const uint8_t *bytes, size_t size_bytes, struct image_rect region,
                               uint8_t *target, struct decode_error *error)
{
    WebPDemuxer *demuxer = NULL;
    enum decode_status status = demux(bytes, size_bytes, &demuxer, error);
    if (status != DECODE_OK) {
        return status;
    }
    WebPIterator frame;
    if (!WebPDemuxGetFrame(demuxer, 1, &frame)) {
        WebPDemuxDelete(demuxer);
        return decode_fail(error, DECODE_CORRUPT, 0, "a WebP without a first frame");
    }
    size_t rgba_bytes = (size_t)frame.width * (size_t)frame.height * 4;
    uint8_t *rgba = malloc(rgba_bytes);
    if (rgba == NULL) {
        status = decode_fail(error, DECODE_NO_MEMORY, 0, "no memory for a WebP frame");
    } else {
        size_t offset_bytes = (size_t)(frame.fragment.bytes - bytes);
        status = decode_frame(&frame, rgba, rgba_bytes, offset_bytes, error);
        if (status == DECODE_OK) {
            copy_region(&frame, rgba, region, target);
        }
    }
    free(rgba);
    WebPDemuxReleaseIterator(&frame);
    WebPDemuxDelete(demuxer);
    return status;
}
