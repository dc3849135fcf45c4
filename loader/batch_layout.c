#include "loader/batch_layout.h"

#include "ipc/layout.h"

static uint64_t round_up(uint64_t value, uint64_t step)
{
    return (value + step - 1) / step * step;
}

uint32_t batch_layout_places(const struct session_spec *spec)
{
    uint64_t first = spec->batch * spec->rank / spec->world;
    uint64_t end = spec->batch * (spec->rank + (uint64_t)1) / spec->world;
    return end > first ? (uint32_t)(end - first) : 1;
}

struct batch_layout batch_layout_make(const struct session_spec *spec,
                                      const struct recipe_output *image)
{
    struct batch_layout layout = {.place_count = batch_layout_places(spec)};
    uint64_t places = layout.place_count;
    uint64_t end = LAYOUT_PAGE_BYTES;
    uint64_t side_fields = 0;
    for (size_t i = 0; i < spec->field_count; i++) {
        if (spec->fields[i].kind == FIELD_IMAGE) {
            layout.image_field = i;
            layout.row_bytes[i] = image->bytes;
            layout.field_offset_bytes[i] = end;
            end = round_up(end + places * image->bytes, 64);
        }
    }
    for (size_t i = 0; i < spec->field_count; i++) {
        if (spec->fields[i].kind != FIELD_IMAGE) {
            bool is_label = spec->fields[i].kind == FIELD_LABEL;
            layout.row_bytes[i] = is_label ? sizeof(int64_t) : sizeof(struct slot_text);
            layout.field_offset_bytes[i] = end;
            end = round_up(end + places * layout.row_bytes[i], 64);
            side_fields += is_label ? 0 : 1;
        }
    }
    layout.id_offset_bytes = end;
    end = round_up(end + places * sizeof(uint64_t), 64);
    layout.valid_offset_bytes = end;
    end = round_up(end + places, 64);
    layout.side_offset_bytes = end;
    layout.side_bytes = side_fields * places * spec->side_bytes;
    layout.slot_bytes = round_up(end + layout.side_bytes, LAYOUT_PAGE_BYTES);
    return layout;
}
