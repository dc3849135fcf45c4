# tests of decode/: unit_test() and fuzz_target() lines

# image: imagedump hands pixels to tests/python/test_image_pillow.py
add_executable(imagedump tools/imagedump.c)
target_link_libraries(imagedump PRIVATE penstock_decode)

# transforms
unit_test(philox penstock_decode m)
unit_test(recipe penstock_decode m)
unit_test(geometry penstock_decode m)
pkg_check_modules(JPEG REQUIRED IMPORTED_TARGET libjpeg)
add_library(jpeg_samples STATIC tools/jpeg_samples.c)
target_link_libraries(jpeg_samples PUBLIC penstock_flags PRIVATE PkgConfig::JPEG)
unit_test(image penstock_decode jpeg_samples)
unit_test(block_kernels penstock_decode)
unit_test(coefficients penstock_decode jpeg_samples)
add_library(recipe_samples STATIC tools/recipe_samples.c)
target_link_libraries(recipe_samples PUBLIC penstock_decode)
if(PENSTOCK_FUZZ)
  target_compile_options(recipe_samples PRIVATE -fno-sanitize-coverage=trace-cmp)
endif()
unit_test(decoder recipe_samples jpeg_samples)
fuzz_target(recipe recipe_samples jpeg_samples)
# decodefile hands tensors and geometry to tests/python/test_transforms_torchvision.py
add_executable(decodefile tools/decodefile.c)
target_link_libraries(decodefile PRIVATE penstock_decode)

# kernels: a library for tests/python/test_resize_pillow.py and test_pack_torch.py
unit_test(kernels penstock_decode)
add_library(penstock_kernels_test SHARED tools/kernels_library.c)
target_link_libraries(penstock_kernels_test PRIVATE penstock_decode)
pkg_check_modules(IMAGE_SEEDS REQUIRED IMPORTED_TARGET libwebp zlib)
fuzz_target(image penstock_decode jpeg_samples PkgConfig::IMAGE_SEEDS)
fuzz_target(coefficients penstock_decode jpeg_samples)
