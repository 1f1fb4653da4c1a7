#include "convolution.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "work.hpp"

namespace edgeprune {
namespace {

// Behind a run of elements: whole vectors are read and written.
constexpr uint64_t kVectorRoom = 64;
constexpr uint32_t kMostOfWindow = 1u << 16;
constexpr uint64_t kMostFloats = uint64_t{1} << 40;  // of a padded image

bool reads_as_it_lies(const Window& w) {
  return w.padding[0] == 0 && w.padding[1] == 0 && w.stride[1] == 1;
}

// A kernel of one value at every position does not see rows: an image is one long row.
Window flattened(const Window& w) {
  const bool pointwise = w.kernel[0] == 1 && w.kernel[1] == 1 && w.stride[0] == 1;
  const uint64_t pixels = uint64_t{w.size[0]} * w.size[1];
  if (!pointwise || !reads_as_it_lies(w) || pixels > kMostOfAnything) return w;
  return {w.channels, {1, static_cast<uint32_t>(pixels)}, {1, 1}, {1, 1}, {0, 0}, {1, 1}};
}

// The strides of padded images.
Planes padded_planes(const Window& w) {
  const uint64_t run = (w.padded(1) + w.stride[1] - 1) / w.stride[1], row = run * w.stride[1];
  return {nullptr, row * w.padded(0), row, run, false};
}

// One channel, padded, each row in as many runs as the horizontal stride.
void pad_channel(const Window& w, const Planes& planes, const float* from, float* to) {
  std::fill_n(to, planes.channel, 0.0f);
  to += w.padding[0] * planes.row;
  const uint32_t stride = w.stride[1], columns = w.size[1];
  for (uint32_t row = 0; row < w.size[0]; ++row, from += columns, to += planes.row) {
    if (stride == 1) {
      std::copy_n(from, columns, to + w.padding[1]);
      continue;
    }
    for (uint32_t phase = 0; phase < stride && phase < columns; ++phase) {
      const uint64_t at = uint64_t{phase} + w.padding[1];
      float* run = to + at % stride * planes.run + at / stride;
      for (uint32_t column = phase; column < columns; column += stride) *run++ = from[column];
    }
  }
}

// Memory that a thread keeps from call to call, borrowed for one.
struct Memory {
  Scratch padded, planes, floats, panels;
};

class Borrowed {
 public:
  Borrowed() { std::swap(memory, kept()); }
  ~Borrowed() { std::swap(memory, kept()); }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  Memory memory;

 private:
  static Memory& kept() {
    thread_local Memory memory;
    return memory;
  }
};

struct Convolution {
  const Layer& layer;
  const Window& window;
  const Kernels& kernels;
  const Parallel& parallel;
  uint64_t positions;

  Precision precision() const { return layer.weights.precision; }
  bool dynamic() const { return layer.static_scale == 0.0f; }
};

// An image as what a panel holds can be cut from.
struct Image {
  Planes planes;
  Precision precision;  // of the planes; floats are converted once they are cut
  bool finite;
};

// Calls body(channel) for all channels; tells whether all returned true.
template <class Body>
bool over_channels(const Convolution& c, const Body& body) {
  std::vector<char> good(std::max(c.parallel.threads, 1), 1);
  in_parallel(c.parallel, [&](int i, int n) {
    const uint64_t channels = c.window.channels;
    for (uint64_t channel = channels * i / n; channel < channels * (i + 1) / n; ++channel)
      if (!body(channel)) good[i] = 0;
  });
  return std::all_of(good.begin(), good.end(), [](char one) { return one; });
}

// Padded, and in the precision of the weight. Neither is possible for all: each position's own
// scale is known once it is cut, and what is not finite has to spoil what reads it.
Image prepare(const Convolution& c, const float* x, Memory& memory) {
  const Window& w = c.window;
  const uint64_t plane = uint64_t{w.size[0]} * w.size[1];
  Planes planes{x, plane, w.size[1], 0, true};
  const bool as_it_lies = reads_as_it_lies(w);
  if (!as_it_lies) {
    planes = padded_planes(w);
    const uint64_t floats = w.channels * planes.channel + kVectorRoom;
    planes.data = memory.padded.of(floats * sizeof(float));
  }
  const bool convert = c.precision() == Precision::bf16 ||
                       (c.precision() == Precision::int8 && !c.dynamic());
  const Precision precision = convert ? c.precision() : Precision::f32;
  const uint64_t element = 4u >> static_cast<uint32_t>(precision);
  const uint64_t channel = round_up(planes.channel + kVectorRoom);
  uint8_t* converted = convert ? memory.planes.of((w.channels * channel + kVectorRoom) * element)
                               : nullptr;
  const bool finite = over_channels(c, [&](uint64_t at) {
    const float* from = static_cast<const float*>(planes.data) + at * planes.channel;
    if (!as_it_lies) pad_channel(w, planes, x + at * plane, const_cast<float*>(from));
    uint8_t* to = convert ? converted + at * channel * element : nullptr;
    return c.kernels.convert(precision, from, planes.channel, c.layer.static_scale,
                             c.layer.zero_point, to);
  });
  if (convert && finite)
    return {{converted, channel, planes.row, planes.run, false}, precision, true};
  return {planes, Precision::f32, finite};
}

// What a thread works in.
struct Place {
  uint8_t* floats;
  uint8_t* panel;
};

// Outputs of the groups [begin, end) at some positions.
void convolve_positions(const Convolution& c, const Image& image, const Positions& at,
                        const Place& place, uint32_t begin, uint32_t end, float* y) {
  const Layer& layer = c.layer;
  const Weights& w = layer.weights;
  alignas(kCacheLine) float scale[kWidestPanel], poison[kWidestPanel] = {};
  std::fill_n(scale, kWidestPanel, layer.static_scale);
  const RowFacts facts{scale, c.dynamic() ? 128 : layer.zero_point, c.dynamic(), poison};
  Panel panel{place.panel, at.width, 0, at.count};
  if (image.precision == w.precision) {
    c.kernels.cut_patches(w.precision, c.window, image.planes, at, panel.data);
    if (!image.finite) c.kernels.pack_floats(w, static_cast<float*>(panel.data), facts, panel);
  } else {
    c.kernels.cut_patches(Precision::f32, c.window, image.planes, at, place.floats);
    c.kernels.pack_floats(w, reinterpret_cast<float*>(place.floats), facts, panel);
  }
  const Columns columns{y + at.first, c.positions, at.count};
  c.kernels.multiply_to_floats(w, panel, facts, layer.bias, layer.activation, columns, begin, end);
}

std::vector<Positions> cut_into_panels(const Convolution& c) {
  std::vector<Positions> panels;
  for (uint64_t first = 0; first < c.positions;) {
    const auto left = static_cast<uint32_t>(std::min<uint64_t>(c.positions - first, kWidestPanel));
    const uint32_t width = panel_width(c.kernels, left);
    panels.push_back({first, std::min(left, width), width});
    first += panels.back().count;
  }
  return panels;
}

// Every thread has panels of its own, which it cuts, packs and multiplies while they are in its
// caches. Where there are too few for all, several threads pack one and share its outputs.
void convolve_image(const Convolution& c, const Image& image, const std::vector<Positions>& panels,
                    Memory& memory, float* y) {
  const Weights& w = c.layer.weights;
  const auto threads = static_cast<uint64_t>(std::max(c.parallel.threads, 1));
  const uint64_t shares = (threads + panels.size() - 1) / panels.size();
  const uint64_t units = panels.size() * shares;
  const uint64_t bytes = panel_bytes(w, kWidestPanel) + kVectorRoom;
  const bool as_floats = image.precision != w.precision;
  const uint64_t room =
      as_floats ? round_up((uint64_t{w.inputs} * kWidestPanel + kVectorRoom) * sizeof(float)) : 0;
  uint8_t* floats = memory.floats.of(room * threads);
  uint8_t* packed = memory.panels.of(bytes * threads);
  in_parallel(c.parallel, [&](int i, int n) {
    const Place place{floats + room * i, packed + bytes * i};
    for (uint64_t unit = units * i / n; unit < units * (i + 1) / n; ++unit) {
      const uint64_t share = unit % shares;
      const auto begin = static_cast<uint32_t>(w.groups * share / shares);
      const auto end = static_cast<uint32_t>(w.groups * (share + 1) / shares);
      if (begin < end)
        convolve_positions(c, image, panels[unit / shares], place, begin, end, y);
    }
  });
}

}  // namespace

const char* check_window(const Weights& weights, const Window& w) {
  if (weights.rows >= 16) return "a convolution takes blocks of 4x1 or 1x1";
  for (int i = 0; i < 2; ++i) {
    if (w.kernel[i] == 0 || w.stride[i] == 0 || w.dilation[i] == 0 || w.size[i] == 0)
      return "kernel, stride, dilation and images are at least 1";
    if (std::max({w.kernel[i], w.stride[i], w.dilation[i], w.padding[i], w.size[i]}) >
        kMostOfWindow)
      return "kernel, stride, padding, dilation and images are at most 65536";
    if (w.made(i) == 0) return "the kernel is larger than the padded image";
  }
  const uint64_t kernel = uint64_t{w.kernel[0]} * w.kernel[1];
  if (kernel > kMostOfAnything || w.channels * kernel != weights.inputs)
    return "channels times kernel are not the inputs of the weight";
  if (w.channels > kMostFloats / (w.padded(0) * w.padded(1))) return "a padded image is too large";
  return nullptr;
}

void convolve(const Layer& layer, const Window& given, const Kernels& kernels, const float* x,
              uint64_t images, float* y, const Parallel& parallel) {
  Borrowed borrowed;
  const Window window = flattened(given);
  const Convolution c{layer, window, kernels, parallel, window.made(0) * window.made(1)};
  const auto panels = cut_into_panels(c);
  const uint64_t read = uint64_t{window.channels} * window.size[0] * window.size[1];
  const uint64_t made = layer.weights.outputs * c.positions;
  for (uint64_t i = 0; i < images; ++i) {
    const Image image = prepare(c, x + i * read, borrowed.memory);
    convolve_image(c, image, panels, borrowed.memory, y + i * made);
  }
}

}  // namespace edgeprune
