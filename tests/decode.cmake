# tests of decode/: unit_test() and fuzz_target() lines

# image: imagedump hands pixels to tests/python/test_image_pillow.py
add_executable(imagedump tools/imagedump.c)
target_link_libraries(imagedump PRIVATE penstock_decode)

# transforms
unit_test(philox penstock_decode m)
