# tests without a GPU of what libpenstock does with one: on a recording double of CUDA
enable_language(CXX)
set(CMAKE_CXX_STANDARD 17)
add_library(cuda_double SHARED cuda/cuda_double.cc)
target_include_directories(cuda_double PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/cuda ${PROJECT_SOURCE_DIR})
target_compile_options(cuda_double PRIVATE -Wall -Wextra -Werror -ffp-contract=off -Wno-unknown-pragmas)
# Found as a runtime by its file name, as the driver by its soname (cuda/cuda_double.h).
set_target_properties(cuda_double PROPERTIES OUTPUT_NAME cudart_double NO_SONAME ON)
target_link_options(cuda_double PRIVATE -Wl,-soname,libcuda.so.1)
unit_test(cuda_on_a_double penstock_client_static penstock_decode ${CMAKE_DL_LIBS})
target_compile_definitions(test_cuda_on_a_double PRIVATE
  CUDA_DOUBLE_PATH="$<TARGET_FILE:cuda_double>")
add_dependencies(test_cuda_on_a_double cuda_double)
