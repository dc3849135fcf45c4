/*
 * decodefile.c - runs whole recipes for the Python tests.
 *
 *     decodefile LEVEL LAYOUT TRANSFORM...
 *
 * LEVEL is scalar, neon, avx2 or avx512, the most that is used; LAYOUT is nchw or nhwc. Each
 * TRANSFORM is a name and "key=value"s, separated by commas, values by colons; what is not given
 * is torchvision's default:
 *     rrc,size=H:W,filter=F,scale=MIN:MAX,ratio=MIN:MAX     center,size=H:W
 *     resize,size=H:W | shorter=N | max=N, filter=F         hflip,p=P   vflip,p=P
 *     crop,size=H:W,pad=L:T:R:B,mode=M,fill=R:G:B,if_needed=0|1
 *     pad,pad=L:T:R:B,mode=M,fill=R:G:B                     dtype,to=u8|f32|f16|bf16,scale=0|1
 *     normalize,mean=A:B:C,std=A:B:C
 *
 * Reads lines "SEED EPOCH SAMPLE_ID PATH" from stdin and answers each on stdout with
 * "ok HEIGHT WIDTH GEOMETRY_BYTES TENSOR_BYTES", a newline, the text of geometry_describe() and the
 * tensor; or with "STATUS REASON" and a newline. A recipe that is refused: "STATUS REASON", exit 1.
 */
#include "decode/decoder.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what, const char *which)
{
    fprintf(stderr, "decodefile: %s: %s\n", what, which);
    exit(2);
}

/* ---- Transforms from text -------------------------------------------------------------------- */

/* The place of `name` in a list that ends with NULL. */
static int choose(const char *const *names, const char *name)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    die("no such value", name);
    return 0;
}

static void parse_member(struct transform *transform, const char *key, const char *value)
{
    static const char *const filters[] = {"", "nearest", "bilinear", "bicubic", NULL};
    static const char *const modes[] = {"constant", "edge", "reflect", "symmetric", NULL};
    static const char *const dtypes[] = {"", "u8", "f32", "f16", "bf16", NULL};
    double numbers[4] = {0};
    sscanf(value, "%lf:%lf:%lf:%lf", &numbers[0], &numbers[1], &numbers[2], &numbers[3]);
    if (strcmp(key, "size") == 0) {
        transform->height_px = (uint32_t)numbers[0];
        transform->width_px = (uint32_t)numbers[1];
    } else if (strcmp(key, "shorter") == 0) {
        transform->shorter_px = (uint32_t)numbers[0];
    } else if (strcmp(key, "max") == 0) {
        transform->longer_max_px = (uint32_t)numbers[0];
    } else if (strcmp(key, "filter") == 0) {
        transform->filter = (enum resize_filter)choose(filters, value);
    } else if (strcmp(key, "scale") == 0) {
        transform->scale = numbers[0] != 0;
        transform->scale_min = numbers[0];
        transform->scale_max = numbers[1];
    } else if (strcmp(key, "ratio") == 0) {
        transform->ratio_min = numbers[0];
        transform->ratio_max = numbers[1];
    } else if (strcmp(key, "pad") == 0) {
        transform->pad_left = (uint32_t)numbers[0];
        transform->pad_top = (uint32_t)numbers[1];
        transform->pad_right = (uint32_t)numbers[2];
        transform->pad_bottom = (uint32_t)numbers[3];
    } else if (strcmp(key, "mode") == 0) {
        transform->pad_mode = (enum pad_mode)choose(modes, value);
    } else if (strcmp(key, "if_needed") == 0) {
        transform->pad_if_needed = numbers[0] != 0;
    } else if (strcmp(key, "p") == 0) {
        transform->probability = numbers[0];
    } else if (strcmp(key, "to") == 0) {
        transform->dtype = (enum pack_dtype)choose(dtypes, value);
    } else if (strcmp(key, "fill") == 0) {
        for (int i = 0; i < 3; i++) {
            transform->fill[i] = (uint8_t)numbers[i];
        }
    } else if (strcmp(key, "mean") == 0 || strcmp(key, "std") == 0) {
        float *values = key[0] == 'm' ? transform->mean : transform->std;
        for (int i = 0; i < 3; i++) {
            values[i] = (float)numbers[i];
        }
    } else {
        die("no such key", key);
    }
}

static struct transform parse_transform(char *text)
{
    static const char *const names[] = {"",      "rrc",   "resize", "center",    "crop", "pad",
                                        "hflip", "vflip", "dtype",  "normalize", NULL};
    char *rest = NULL;
    struct transform transform = {
        .kind = (enum transform_kind)choose(names, strtok_r(text, ",", &rest)),
        .filter = RESIZE_BILINEAR,
        .scale_min = 0.08,
        .scale_max = 1,
        .ratio_min = 3.0 / 4,
        .ratio_max = 4.0 / 3,
        .probability = 0.5,
    };
    for (char *pair = strtok_r(NULL, ",", &rest); pair; pair = strtok_r(NULL, ",", &rest)) {
        char *equals = strchr(pair, '=');
        if (equals == NULL) {
            die("no value", pair);
        }
        *equals = '\0';
        parse_member(&transform, pair, equals + 1);
    }
    return transform;
}

/* ---- Files ----------------------------------------------------------------------------------- */

static uint8_t *read_file(const char *path, size_t *size_bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        die("cannot read", path);
    }
    *size_bytes = (size_t)ftell(file);
    uint8_t *bytes = malloc(*size_bytes + 1);
    rewind(file);
    if (bytes == NULL || fread(bytes, 1, *size_bytes, file) != *size_bytes) {
        die("cannot read", path);
    }
    fclose(file);
    return bytes;
}

static void answer(struct decoder *decoder, const struct recipe *recipe, struct sample_key key,
                   const char *path)
{
    size_t size_bytes;
    uint8_t *bytes = read_file(path, &size_bytes);
    struct recipe_output output = recipe_output(recipe);
    void *tensor = malloc(output.bytes);
    if (tensor == NULL) {
        die("no memory for", path);
    }
    struct decode_error error;
    enum decode_status status =
        decoder_run(decoder, recipe, key, bytes, size_bytes, tensor, &error);
    if (status == DECODE_OK) {
        char text[GEOMETRY_TEXT_BYTES];
        size_t length = geometry_describe(decoder_geometry(decoder), text, sizeof text);
        printf("ok %u %u %zu %zu\n%s", output.height_px, output.width_px, length, output.bytes,
               text);
        fwrite(tensor, 1, output.bytes, stdout);
    } else {
        printf("%s %s\n", decode_status_name(status), error.reason);
    }
    fflush(stdout);
    free(tensor);
    free(bytes);
}

int main(int argc, char **argv)
{
    static const char *const levels[] = {"scalar", "neon", "avx2", "avx512", NULL};
    static const char *const layouts[] = {"", "nchw", "nhwc", NULL};
    if (argc < 3) {
        die("usage", "decodefile LEVEL LAYOUT TRANSFORM...");
    }
    struct transform transforms[RECIPE_TRANSFORMS_MAX + 1];
    size_t count = 0;
    for (int i = 3; i < argc && count <= RECIPE_TRANSFORMS_MAX; i++) {
        transforms[count++] = parse_transform(argv[i]);
    }
    struct recipe *recipe;
    struct decode_error error;
    enum decode_status status = recipe_create(
        transforms, count, (enum pack_layout)choose(layouts, argv[2]), &recipe, &error);
    if (status != DECODE_OK) {
        printf("%s %s\n", decode_status_name(status), error.reason);
        return 1;
    }
    struct decoder *decoder = decoder_create(&(struct decoder_options){
        .limits = {.pixels_max = IMAGE_PIXELS_MAX_DEFAULT, .scans_max = IMAGE_SCANS_MAX_DEFAULT},
        .level_max = (enum kernel_level)choose(levels, argv[1])});
    if (decoder == NULL) {
        die("no memory", "decoder");
    }
    struct sample_key key;
    char path[4096];
    while (scanf("%" SCNu64 " %" SCNu64 " %" SCNu64 " %4095[^\n]", &key.seed, &key.epoch,
                 &key.sample_id, path) == 4) {
        answer(decoder, recipe, key, path);
    }
    decoder_destroy(decoder);
    recipe_destroy(recipe);
    return 0;
}
