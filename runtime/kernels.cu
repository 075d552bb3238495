// All kernels, for the one module that a GPU loads: `make kernels` compiles this file.

#include "color.cu"
#include "steady_motion.cu"
#include "steady.cu"
