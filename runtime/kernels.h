// What all kernels share. They are plain C++: nvcc compiles them for the GPU; a host compiler takes the same text as a
// shared library and runs every thread in a loop, so that each value can be checked without a GPU.
#pragma once

#ifdef __CUDACC__
#define DEVICE __device__ __forceinline__
#define METHOD __device__ __forceinline__
#else
#include <math.h>
#define DEVICE static inline
#define METHOD inline
#endif

// `function(argument, x, y)` for every thread as the kernel `name`.
#ifdef __CUDACC__
#define KERNEL(name, Argument, function)                                                                  \
    extern "C" __global__ void __launch_bounds__(128, 4) name(const Argument argument) {                   \
        function(argument, blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y * blockDim.y + threadIdx.y); \
    }
#else
#define KERNEL(name, Argument, function)                                                      \
    extern "C" void name(const Argument* argument, int num_columns, int num_rows) {           \
        for (int y = 0; y < num_rows; ++y) {                                                  \
            for (int x = 0; x < num_columns; ++x) function(*argument, x, y);                  \
        }                                                                                     \
    }
#endif

// ---- values in memory ----

struct Half {
    unsigned short bits;
};
#ifdef __CUDACC__
#include <cuda_fp16.h>
DEVICE float as_float(Half value) { return __half2float(__ushort_as_half(value.bits)); }
DEVICE Half as_half(float value) { return Half{__half_as_ushort(__float2half_rn(value))}; }
DEVICE unsigned int as_word(float value) { return __float_as_uint(value); }
DEVICE float from_word(unsigned int word) { return __uint_as_float(word); }
#else
#include <cstring>
DEVICE float as_float(Half value) {
    _Float16 half;
    std::memcpy(&half, &value.bits, 2);
    return float(half);
}
DEVICE Half as_half(float value) {
    const _Float16 half = _Float16(value);
    Half result;
    std::memcpy(&result.bits, &half, 2);
    return result;
}
DEVICE unsigned int as_word(float value) {
    unsigned int word;
    std::memcpy(&word, &value, 4);
    return word;
}
DEVICE float from_word(unsigned int word) {
    float value;
    std::memcpy(&value, &word, 4);
    return value;
}
#endif

DEVICE float value_of(Half value) { return as_float(value); }
DEVICE float value_of(float value) { return value; }
DEVICE void set(Half& target, float value) { target = as_half(value); }
DEVICE void set(float& target, float value) { target = value; }

// ---- places ----

DEVICE int at_least(int value, int low) { return value < low ? low : value; }
DEVICE int at_most(int value, int high) { return value > high ? high : value; }
DEVICE int within(int value, int size) { return at_most(at_least(value, 0), size - 1); }
