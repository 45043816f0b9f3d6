# Included by CMake at the top of llama.cpp (CMAKE_PROJECT_<name>_INCLUDE): llama-cpp-python builds the library behind
# llama.cpp's own programs and never uses it. It is more than half of the time of a build.
set(LLAMA_BUILD_COMMON OFF)
