// Layers with packed weights, applied to rows of activations.
#pragma once

#include "kernels.hpp"

namespace edgeprune {

// How often a body is run side by side; a caller brings its own pool.
struct Parallel {
  int threads;
  // Calls body(i, threads, state) for every i below `threads`, and returns when all are done.
  void (*run)(int threads, void (*body)(int, int, void*), void* state);
};

// activation(x W^T + bias).
struct Layer {
  const Weights& weights;
  const float* bias;  // may be null
  Activation activation;
  float static_scale;  // int8: of activations; zero where each row finds its own
  int32_t zero_point;
};

// One layer, or several of which each reads what the one before makes: between them activations
// stay in panels. Threads share rows if there are enough, else outputs by their nonzeros; the
// result does not depend on how many there are. Throws std::bad_alloc.
void multiply(const Layer* layers, uint32_t count, const Kernels& kernels, const Input& x, float* y,
              uint64_t y_stride, const Parallel& parallel);

}  // namespace edgeprune
