# The imported target oryx::torch: LibTorch's headers and the libraries that a program needs.
#
# find_package(Torch) of the PyPI wheel enables the CUDA language and links all of CUDA, also where only the CPU is
# wanted; naming the few libraries ourselves lets one pinned wheel serve machines with and without a CUDA toolkit.
# Looked for in this order: ORYX_TORCH_PREFIX, the project's .venv, the system.

file(GLOB _venv_torch ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
set(_torch_prefix "")
if(ORYX_TORCH_PREFIX)
  set(_candidates ${ORYX_TORCH_PREFIX})
else()
  set(_candidates ${_venv_torch} /usr/local/libtorch /opt/libtorch /usr/local /usr)
endif()
foreach(candidate ${_candidates})
  find_library(_found_torch_cpu torch_cpu PATHS ${candidate}/lib ${candidate}/lib/x86_64-linux-gnu
               ${candidate}/lib/aarch64-linux-gnu NO_DEFAULT_PATH NO_CACHE)
  if(_found_torch_cpu AND EXISTS ${candidate}/include/ATen/ATen.h)
    set(_torch_prefix ${candidate})
    break()
  endif()
  unset(_found_torch_cpu)
endforeach()
if(NOT _torch_prefix)
  message(FATAL_ERROR "LibTorch was not found in: ${_candidates}. Run scripts/setup, which installs it into .venv, "
                      "or pass -DORYX_TORCH_PREFIX=DIR with DIR/include and DIR/lib of LibTorch 2.11")
endif()
message(STATUS "LibTorch: ${_torch_prefix}")
get_filename_component(_torch_lib ${_found_torch_cpu} DIRECTORY)
# The wheel keeps CUDA's runtime, which even libtorch_cpu names, in packages beside it.
file(GLOB _nvidia_libs ${_torch_prefix}/../nvidia/*/lib)

add_library(oryx_torch INTERFACE)
add_library(oryx::torch ALIAS oryx_torch)
target_include_directories(oryx_torch SYSTEM INTERFACE ${_torch_prefix}/include
                           ${_torch_prefix}/include/torch/csrc/api/include)
target_compile_definitions(oryx_torch INTERFACE AT_PER_OPERATOR_HEADERS)
# at::parallel_for is inline OpenMP; -fopenmp here and LibTorch's own libgomp.so.1 make one thread pool.
target_compile_options(oryx_torch INTERFACE -fopenmp)
target_link_libraries(oryx_torch INTERFACE -Wl,--no-as-needed ${_torch_lib}/libtorch_cpu.so ${_torch_lib}/libc10.so)
if(ORYX_CUDA)
  target_link_libraries(oryx_torch INTERFACE ${_torch_lib}/libtorch_cuda.so ${_torch_lib}/libc10_cuda.so)
  target_compile_definitions(oryx_torch INTERFACE ORYX_CUDA)
endif()
target_link_libraries(oryx_torch INTERFACE -Wl,--as-needed)
target_link_options(oryx_torch INTERFACE -Wl,-rpath,${_torch_lib} -Wl,--disable-new-dtags)
foreach(dir ${_nvidia_libs})
  target_link_options(oryx_torch INTERFACE -Wl,-rpath,${dir} -Wl,-rpath-link,${dir})
endforeach()

# oryx::c10d: what the process groups of LibTorch need besides. Its wheel carries Gloo and, for CUDA, links NCCL, but has
# the headers of neither, nor CUDA's.
add_library(oryx_c10d INTERFACE)
add_library(oryx::c10d ALIAS oryx_c10d)
target_compile_definitions(oryx_c10d INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
find_path(ORYX_GLOO_INCLUDE gloo/context.h)
if(NOT ORYX_GLOO_INCLUDE)
  message(FATAL_ERROR "gloo/context.h was not found: install libgloo-dev (scripts/setup does)")
endif()
target_include_directories(oryx_c10d SYSTEM INTERFACE ${ORYX_GLOO_INCLUDE})
if(ORYX_CUDA)
  file(GLOB _cuda_hints ${_torch_prefix}/../nvidia/*/include /usr/local/cuda/include)
  find_path(ORYX_NCCL_INCLUDE nccl.h HINTS ${_cuda_hints})
  find_path(ORYX_CUDA_INCLUDE cuda_runtime_api.h HINTS ${_cuda_hints})
  if(NOT ORYX_NCCL_INCLUDE OR NOT ORYX_CUDA_INCLUDE)
    message(FATAL_ERROR "nccl.h or cuda_runtime_api.h was not found: install the CUDA toolkit and NCCL's headers, or the "
                        "wheels nvidia-cuda-runtime and nvidia-nccl-cu13 that LibTorch itself depends on")
  endif()
  target_compile_definitions(oryx_c10d INTERFACE USE_C10D_NCCL)
  target_include_directories(oryx_c10d SYSTEM INTERFACE ${ORYX_NCCL_INCLUDE} ${ORYX_CUDA_INCLUDE})
endif()
