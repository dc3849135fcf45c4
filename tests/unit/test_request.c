/* Requests: what is asked arrives as it was asked, and what is wrong is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "loader/request.h"

#define SOURCE "\"source\":{\"urls\":[\"/d\"]}"

static int parse(const char *text, struct request *request, struct error *error)
{
    error->kind = ERROR_NONE;
    error->text[0] = '\0';
    return request_parse(text, strlen(text), request, error);
}

static void an_attach_arrives_whole(void **state)
{
    (void)state;
    struct request request;
    struct error error;
    int status = parse("{\"op\":\"attach\"," SOURCE ",\"batch\":512,\"order\":\"window\","
                       "\"window\":3,\"seed\":\"18446744073709551615\",\"rank\":2,\"world\":4,"
                       "\"tail\":\"pad\",\"epoch\":7,\"position\":1024,\"layout\":\"nhwc\","
                       "\"on_error\":\"replace\",\"slots\":6,\"workers\":3,\"weight\":2.5,"
                       "\"job\":\"j\",\"cpus\":[0,3],\"transforms\":[{\"op\":\"Resize\","
                       "\"size\":[256]},{\"op\":\"CenterCrop\",\"size\":[224,192]}]}",
                       &request, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(status, 0);
    const struct session_spec *spec = &request.spec;
    assert_int_equal(spec->order, PLAN_WINDOW);
    assert_int_equal(spec->window_shards, 3);
    assert_true(spec->seed == UINT64_MAX);
    assert_int_equal(spec->rank, 2);
    assert_int_equal(spec->world, 4);
    assert_int_equal(spec->batch, 512);
    assert_int_equal(spec->tail, PLAN_PAD);
    assert_int_equal(spec->epoch, 7);
    assert_int_equal(spec->position, 1024);
    assert_int_equal(spec->layout, PACK_NHWC);
    assert_int_equal(spec->on_error, BAD_REPLACE);
    assert_int_equal(spec->slots, 6);
    assert_int_equal(spec->workers, 3);
    assert_true(spec->weight == 2.5);
    assert_true(CPU_ISSET(0, &spec->cpus) && CPU_ISSET(3, &spec->cpus));
    assert_int_equal(CPU_COUNT(&spec->cpus), 2);
    assert_int_equal(spec->transform_count, 2);
    assert_int_equal(spec->transforms[0].shorter_px, 256);
    assert_int_equal(spec->transforms[1].height_px, 224);
    assert_int_equal(spec->transforms[1].width_px, 192);
    assert_int_equal(spec->field_count, 2);
    assert_string_equal(spec->fields[1].name, "label");
    request_clear(&request);
}

/* A faulty request and a piece of the message that it must get. */
struct fault {
    const char *text;
    const char *says;
};

static void faults_are_named(void **state)
{
    (void)state;
    static const struct fault faults[] = {
        {"", "no JSON"},
        {"[1]", "object"},
        {"{\"op\":\"fly\"}", "fly"},
        {"{\"op\":\"status\",\"extra\":1}", "extra"},
        {"{\"op\":\"plan\",\"batch\":1}", "source"},
        {"{\"op\":\"plan\",\"source\":{\"urls\":[]}}", "urls"},
        {"{\"op\":\"plan\",\"source\":{\"urls\":[7]}}", "urls"},
        {"{\"op\":\"plan\"," SOURCE ",\"batch\":0}", "batch"},
        {"{\"op\":\"plan\"," SOURCE ",\"batch\":-5}", "batch"},
        {"{\"op\":\"plan\"," SOURCE ",\"batch\":2.5}", "batch"},
        {"{\"op\":\"plan\"," SOURCE ",\"batch\":4,\"rank\":4,\"world\":4}", "rank"},
        {"{\"op\":\"plan\"," SOURCE ",\"batch\":4,\"world\":5}", "world"},
        {"{\"op\":\"plan\"," SOURCE ",\"order\":\"sideways\"}", "sideways"},
        {"{\"op\":\"attach\"," SOURCE ",\"slots\":1}", "slots"},
        {"{\"op\":\"attach\"," SOURCE ",\"slots\":257}", "slots"},
        {"{\"op\":\"attach\"," SOURCE ",\"weight\":0}", "weight"},
        {"{\"op\":\"attach\"," SOURCE ",\"cpus\":[-1]}", "cpus"},
        {"{\"op\":\"attach\"," SOURCE ",\"fields\":[{\"name\":\"__id__\"}]}", "name"},
        {"{\"op\":\"attach\"," SOURCE ",\"transforms\":[{\"op\":\"Blur\"}]}", "Blur"},
        {"{\"op\":\"attach\"," SOURCE ",\"transforms\":[{\"op\":\"Resize\"}]}", "size"},
        {"{\"op\":\"attach\"," SOURCE ",\"transforms\":[{\"op\":\"CenterCrop\",\"size\":[0,4]}]}",
         "size"},
        {"{\"op\":\"attach\"," SOURCE ",\"transforms\":[{\"op\":\"Normalize\",\"mean\":[0,0,0],"
         "\"std\":[1,0,1]}]}",
         "std"},
        {"{\"op\":\"attach\"," SOURCE ",\"transforms\":[{\"op\":\"RandomHorizontalFlip\","
         "\"p\":1.5}]}",
         "p "},
        {"{\"op\":\"stop\",\"op\":\"status\"}", "no JSON"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct request request;
        struct error error;
        if (parse(faults[i].text, &request, &error) != -1 ||
            strstr(error.text, faults[i].says) == NULL) {
            fail_msg("request %zu (%s): \"%s\" lacks \"%s\"", i, faults[i].text, error.text,
                     faults[i].says);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_attach_arrives_whole),
        cmocka_unit_test(faults_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
