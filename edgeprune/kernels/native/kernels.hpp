// What an instruction set brings, found at run time.
#pragma once

#include "format.hpp"

namespace edgeprune {

enum class Activation : uint32_t { none = 0, relu = 1, gelu = 2, silu = 3 };

// Activations, row-major.
struct Input {
  const void* data;
  uint32_t rows;
  uint32_t inputs;
  uint64_t stride;  // elements from row to row
};

// Consecutive rows of activations, transposed to [input][row] and zero-padded to `width` rows.
struct Panel {
  void* data;
  uint32_t width;
  uint32_t first_row;
  uint32_t rows;
};

// What is known of each row of activations, filled in while it is packed.
struct RowFacts {
  // int8: byte = clamp(rint(x / scale) + zero_point, 0, 255).
  float* scale;
  int32_t zero_point;
  bool dynamic;   // each row's scale is found from its largest value
  float* poison;  // NaN where the row holds a NaN or an infinity, else 0
};

struct Output {
  float* data;
  uint64_t stride;
  const float* bias;  // may be null
  Activation activation;
};

// How a convolution reads its images; pairs are vertical, then horizontal.
struct Window {
  uint32_t channels;
  uint32_t size[2];  // of an image
  uint32_t kernel[2], stride[2], padding[2], dilation[2];

  uint64_t padded(int i) const { return uint64_t{size[i]} + 2 * uint64_t{padding[i]}; }
  // Of an output; zero where the kernel reaches farther than a padded image.
  uint64_t made(int i) const {
    const uint64_t reach = uint64_t{dilation[i]} * (kernel[i] - 1) + 1;
    return padded(i) < reach ? 0 : (padded(i) - reach) / stride[i] + 1;
  }
};

// An image with its padding, in the precision of a weight; each row in as many runs as the
// horizontal stride, so that what neighbouring outputs read lies side by side. Strides count
// elements.
struct Planes {
  const void* data;
  uint64_t channel, row, run;
  bool exact;  // nothing may be read behind the last element
};

// Consecutive positions of an output image.
struct Positions {
  uint64_t first;
  uint32_t count, width;  // as many as a panel takes, and its width
};

// Where floats [output][row] go, and how many rows there are.
struct Columns {
  float* data;
  uint64_t stride;
  uint32_t count;
};

struct Kernels {
  const char* name;
  uint32_t panel_widths[3];  // descending; zero where there are fewer

  // Whether a weight should bring tiles.
  bool (*wants_tiles)(const Weights&);
  // Whether so many rows of activations are multiplied in panels, or row by row.
  bool (*by_panels)(const Weights&, uint32_t rows);
  // Activations of the slots [begin, end) of a panel, in the layout that the weight's kernel reads.
  void (*pack_panel)(const Weights&, const Input&, const RowFacts&, const Panel&, uint32_t begin,
                     uint32_t end);
  // Outputs of the groups [begin, end), for the rows of one panel.
  void (*multiply_panel)(const Weights&, const Panel&, const RowFacts&, const Output&,
                         uint32_t begin, uint32_t end);
  // The same, but every output becomes a row of floats [output][row]: for a layer that follows, or
  // as an image.
  void (*multiply_to_floats)(const Weights&, const Panel&, const RowFacts&, const float* bias,
                             Activation, const Columns&, uint32_t begin, uint32_t end);
  // Such floats as the panel of the layer that follows. Float32 takes them as they are: they are
  // only looked at for what is not finite.
  void (*pack_floats)(const Weights&, const float* floats, const RowFacts&, const Panel&);
  // For wide blocks: the rows [begin, end), as floats or bytes, at a stride that does not alias.
  void (*pack_rows)(Precision, const Input&, const RowFacts&, void* packed, uint64_t stride,
                    uint32_t begin, uint32_t end);
  void (*multiply_rows)(const Weights&, const Input& packed, const RowFacts&, const Output&,
                        uint32_t begin, uint32_t end);
  // Floats in another precision, of int8 with one scale for all; writes up to a vector more. Tells
  // whether all of them are finite; for float32 that is all it does.
  bool (*convert)(Precision, const float* from, uint64_t count, float scale, int32_t zero_point,
                  void* to);
  // What a convolution reads at some positions, as a panel with room for a vector behind it; inputs
  // are ordered as (channel, vertical, horizontal).
  void (*cut_patches)(Precision, const Window&, const Planes&, const Positions&, void* panel);
  // Arithmetic on registers alone, for benchmarks; returns how many operations it took.
  uint64_t (*run_peak)(Precision, uint64_t steps);
};

// The best instruction set of this processor, and all that it has, best first; null-terminated.
const Kernels* const* available_kernels();

}  // namespace edgeprune
