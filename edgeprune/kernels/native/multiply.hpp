// y = activation(x W^T + bias) with a packed W.
#pragma once

#include "kernels.hpp"

namespace edgeprune {

// How often a body is run side by side; a caller brings its own pool.
struct Parallel {
  int threads;
  // Calls body(i, threads, state) for every i below `threads`, and returns when all are done.
  void (*run)(int threads, void (*body)(int, int, void*), void* state);
};

struct Call {
  const Kernels* kernels;
  Activation activation;
  float static_scale;  // int8: of activations; zero where each row finds its own
  int32_t zero_point;
};

// Threads share outputs by their nonzeros; the result does not depend on how many there are.
// Throws std::bad_alloc.
void multiply(const Weights& weights, const Call& call, const Input& x, const float* bias,
              float* y, uint64_t y_stride, const Parallel& parallel);

}  // namespace edgeprune
