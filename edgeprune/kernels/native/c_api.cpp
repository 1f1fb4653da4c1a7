// The kernels from Python, through ctypes. Functions that can fail return what went wrong, or null.
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "convolution.hpp"
#include "prepared.hpp"

#define EDGEPRUNE_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

const edgeprune::Kernels* find(const char* isa) {
  for (auto at = edgeprune::available_kernels(); *at; ++at)
    if (!*isa || std::strcmp((*at)->name, isa) == 0) return *at;
  return nullptr;
}

// Cuts the work as that many threads would, without having them.
void one_after_the_other(int threads, void (*body)(int, int, void*), void* state) {
  for (int i = 0; i < threads; ++i) body(i, threads, state);
}

}  // namespace

// Name of the n-th instruction set of this processor, best first; null behind the last.
EDGEPRUNE_EXPORT const char* edgeprune_isa(int n) {
  for (auto at = edgeprune::available_kernels(); *at; ++at)
    if (n-- == 0) return (*at)->name;
  return nullptr;
}

// Checks a packed weight, which has to stay where it is as long as `*weight` is in use.
EDGEPRUNE_EXPORT const char* edgeprune_open(const void* packed, uint64_t bytes, const char* isa,
                                            edgeprune::Prepared** weight) {
  const edgeprune::Kernels* kernels = find(isa);
  if (!kernels) return "this processor lacks the instruction set";
  try {
    auto made = std::make_unique<edgeprune::Prepared>();
    if (const char* problem = made->open(packed, bytes, *kernels)) return problem;
    *weight = made.release();
  } catch (const std::bad_alloc&) {
    return "memory is exhausted";
  }
  return nullptr;
}

EDGEPRUNE_EXPORT void edgeprune_close(edgeprune::Prepared* weight) { delete weight; }

// One layer of a product; as Python fills it in.
struct ProductLayer {
  const edgeprune::Prepared* weight;
  const float* bias;
  uint32_t activation;
  float scale;
  int32_t zero_point;
};

// Layer after layer, float32 and row-major, on the calling thread, in `parts`.
EDGEPRUNE_EXPORT const char* edgeprune_multiply(const ProductLayer* layers, uint32_t count,
                                                const float* x, uint32_t rows, float* y,
                                                int parts) {
  try {
    std::vector<edgeprune::Layer> chain;
    for (const ProductLayer* at = layers; at != layers + count; ++at)
      chain.push_back({at->weight->weights(), at->bias,
                       static_cast<edgeprune::Activation>(at->activation), at->scale,
                       at->zero_point});
    const uint32_t inputs = chain.front().weights.inputs, outputs = chain.back().weights.outputs;
    edgeprune::multiply(chain.data(), count, layers->weight->kernels(), {x, rows, inputs, inputs},
                        y, outputs, {parts, one_after_the_other});
  } catch (const std::bad_alloc&) {
    return "memory is exhausted";
  }
  return nullptr;
}

// Images as [image][channel][row][column], on the calling thread, in `parts`.
EDGEPRUNE_EXPORT const char* edgeprune_convolve(const ProductLayer* layer,
                                                const edgeprune::Window* window, const float* x,
                                                uint64_t images, float* y, int parts) {
  const edgeprune::Weights& weights = layer->weight->weights();
  if (const char* problem = edgeprune::check_window(weights, *window)) return problem;
  try {
    edgeprune::convolve({weights, layer->bias,
                         static_cast<edgeprune::Activation>(layer->activation), layer->scale,
                         layer->zero_point},
                        *window, layer->weight->kernels(), x, images, y,
                        {parts, one_after_the_other});
  } catch (const std::bad_alloc&) {
    return "memory is exhausted";
  }
  return nullptr;
}

// Arithmetic on registers alone; returns how many operations it took, 0 without the instructions.
EDGEPRUNE_EXPORT uint64_t edgeprune_peak(const char* isa, uint32_t precision, uint64_t steps) {
  const edgeprune::Kernels* kernels = find(isa);
  return kernels ? kernels->run_peak(static_cast<edgeprune::Precision>(precision), steps) : 0;
}
