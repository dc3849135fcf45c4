/*
 * request_transforms.h - the member "transforms" of a request to decode/recipe.h's structs.
 */
#ifndef PENSTOCK_LOADER_REQUEST_TRANSFORMS_H
#define PENSTOCK_LOADER_REQUEST_TRANSFORMS_H

#include <jansson.h>

#include "loader/error.h"
#include "loader/session_spec.h"

/* `list` may be NULL: no transforms. 0, or -1 and *error. */
int request_transforms_parse(json_t *list, struct session_spec *spec, struct error *error);

#endif /* PENSTOCK_LOADER_REQUEST_TRANSFORMS_H */
