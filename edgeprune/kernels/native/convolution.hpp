// Convolutions with packed weights, of images as torch has them: [image][channel][row][column].
#pragma once

#include "multiply.hpp"

namespace edgeprune {

// What keeps a weight from being used for a convolution, or nullptr.
const char* check_window(const Weights&, const Window&);

// activation(conv(x, W) + bias), for a window that was checked. Inputs of the weight are ordered as
// (channel, vertical, horizontal). int8 with scale zero finds one for each position of an output.
// Threads share positions; the result does not depend on how many there are. Throws std::bad_alloc.
void convolve(const Layer& layer, const Window& window, const Kernels& kernels, const float* x,
              uint64_t images, float* y, const Parallel& parallel);

}  // namespace edgeprune
