/*
 * Control requests: any bytes as a request. What request_parse() accepts must be in the ranges
 * that the rest of the daemon relies on, and its transforms must either make a recipe or be
 * refused with a reason.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/layout.h"
#include "loader/request.h"
#include "tests/fuzz/fuzz.h"

static const char *const seeds[] = {
    "{\"op\":\"hello\",\"protocol\":1,\"version\":\"0.1.0\",\"pid\":1}",
    "{\"op\":\"dataset\",\"source\":{\"urls\":[\"/data/train-{000..146}.tar\"]},\"rebuild\":true}",
    "{\"op\":\"plan\",\"source\":{\"urls\":[\"/"
    "d\"]},\"batch\":256,\"order\":\"window\",\"window\":4,"
    "\"seed\":\"18446744073709551615\",\"rank\":1,\"world\":8,\"tail\":\"pad\",\"epoch\":3,"
    "\"position\":77}",
    "{\"op\":\"attach\",\"source\":{\"urls\":[\"/d\"]},\"batch\":8,\"layout\":\"nhwc\",\"slots\":4,"
    "\"workers\":2,\"job\":\"a\",\"weight\":1.5,\"name\":\"n\",\"cpus\":[0,1],\"on_error\":"
    "\"skip\","
    "\"side_bytes\":64,\"fields\":[{\"name\":\"image\",\"kind\":\"image\",\"pattern\":\"jpg;png\"},"
    "{\"name\":\"t\",\"kind\":\"text\",\"pattern\":\"txt\"}],\"transforms\":["
    "{\"op\":\"RandomResizedCrop\",\"size\":[8,8],\"scale\":[0.1,1.0],\"ratio\":[0.75,1.33],"
    "\"interpolation\":\"bicubic\"},{\"op\":\"Resize\",\"size\":[9],\"max_size\":20},"
    "{\"op\":\"CenterCrop\",\"size\":[4,4]},{\"op\":\"RandomCrop\",\"size\":[4,4],"
    "\"padding\":[1,1,1,1],\"pad_if_needed\":true,\"fill\":[1,2,3],\"padding_mode\":\"edge\"},"
    "{\"op\":\"Pad\",\"padding\":[1,2,3,4]},{\"op\":\"RandomHorizontalFlip\",\"p\":0.5},"
    "{\"op\":\"RandomVerticalFlip\"},{\"op\":\"ToDtype\",\"dtype\":\"float16\",\"scale\":true},"
    "{\"op\":\"Normalize\",\"mean\":[0.5,0.5,0.5],\"std\":[0.2,0.2,0.2]}]}",
    "{\"op\":\"seek\",\"epoch\":1,\"position\":2,\"taken\":3}",
    "{\"op\":\"sample\",\"source\":{\"urls\":[\"/d\"]},\"sample_id\":5,\"epoch\":1,\"seed\":2}",
    "{\"op\":\"errors\",\"count\":5}",
    "{\"op\":\"stop\",\"drain\":false}",
};

size_t fuzz_seed(size_t index, uint8_t *buffer, size_t size_max_bytes)
{
    if (index >= sizeof seeds / sizeof seeds[0]) {
        return 0;
    }
    size_t size_bytes = strlen(seeds[index]);
    size_bytes = size_bytes < size_max_bytes ? size_bytes : size_max_bytes;
    memcpy(buffer, seeds[index], size_bytes);
    return size_bytes;
}

static void check_spec(const struct request *request)
{
    const struct session_spec *spec = &request->spec;
    assert(request->url_count >= 1 && request->url_count <= REQUEST_URLS_MAX);
    if (request->op == REQUEST_ATTACH || request->op == REQUEST_PLAN) {
        assert(spec->world >= 1 && spec->rank < spec->world && spec->batch >= spec->world);
        assert(spec->window_shards >= 1 && spec->position <= PLAN_SAMPLES_MAX);
    }
    if (request->op == REQUEST_ATTACH) {
        assert(spec->slots >= 2 && spec->slots <= LAYOUT_SLOTS_MAX);
        assert(spec->weight > 0 && spec->side_bytes >= 1);
    }
    if (request->op != REQUEST_PLAN) {
        assert(spec->field_count >= 1 && spec->field_count <= INDEX_FIELDS_MAX);
        assert(spec->transform_count <= RECIPE_TRANSFORMS_MAX);
        struct recipe *recipe = NULL;
        struct decode_error error = {.reason = ""};
        if (recipe_create(spec->transforms, spec->transform_count, spec->layout, &recipe, &error) ==
            DECODE_OK) {
            assert(recipe_output(recipe).bytes > 0);
        } else {
            assert(error.reason[0] != '\0');
        }
        recipe_destroy(recipe);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes)
{
    struct request request;
    struct error error = {.kind = ERROR_NONE};
    if (request_parse((const char *)bytes, size_bytes, &request, &error) != 0) {
        assert(error.kind != ERROR_NONE && error.text[0] != '\0');
        return 0;
    }
    assert(error.kind == ERROR_NONE);
    bool has_source =
        request.op == REQUEST_PLAN || request.op == REQUEST_ATTACH || request.op == REQUEST_SAMPLE;
    if (has_source) {
        check_spec(&request);
    }
    request_clear(&request);
    return 0;
}
