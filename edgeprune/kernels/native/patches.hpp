// What a convolution reads, cut out of its image for a panel.
#pragma once

#include "kernels.hpp"
#include "packing.hpp"

namespace edgeprune::EDGEPRUNE_ISA {

constexpr uint32_t kMostPositions = 64;  // of a panel

// Positions of a panel that lie in one row of the output: side by side in a run of the image.
struct Segment {
  uint64_t from;  // what the kernel's first value reads there
  uint32_t slot, count;
};

inline uint32_t find_segments(const Window& window, const Planes& planes, const Positions& at,
                              Segment (&segments)[kMostPositions]) {
  const uint64_t across = window.made(1);
  uint32_t found = 0;
  for (uint32_t slot = 0; slot < at.count; ++found) {
    const uint64_t row = (at.first + slot) / across, column = (at.first + slot) % across;
    const uint64_t left = across - column;
    const uint32_t count = left < at.count - slot ? static_cast<uint32_t>(left) : at.count - slot;
    segments[found] = {row * window.stride[0] * planes.row + column, slot, count};
    slot += count;
  }
  return found;
}

// In vectors: what they write too much belongs to the next segment, or the next input.
EDGEPRUNE_INLINE void copy_bytes(const uint8_t* from, uint8_t* to, uint32_t bytes, bool exact) {
  using Sixteen = Vector<uint8_t, 16>;
  uint32_t i = 0;
  for (; i + kBytes <= bytes; i += kBytes) store(to + i, load<Vector<uint8_t>>(from + i));
  if (exact)
    std::memcpy(to + i, from + i, bytes - i);
  else
    for (; i < bytes; i += 16) store(to + i, load<Sixteen>(from + i));
}

template <class Element>
void cut(const Window& window, const Planes& planes, const Positions& at, uint8_t* to) {
  Segment segments[kMostPositions];
  const uint32_t count = find_segments(window, planes, at, segments);
  const bool exact = planes.exact;
  const auto* elements = static_cast<const Element*>(planes.data);
  // Where a step of the kernel leads, without a division for each.
  const uint32_t stride = window.stride[1], dilation = window.dilation[1];
  const uint64_t runs = dilation % stride, steps = dilation / stride;
  for (uint32_t c = 0; c < window.channels; ++c)
    for (uint32_t v = 0; v < window.kernel[0]; ++v) {
      const Element* row =
          elements + c * planes.channel + uint64_t{v} * window.dilation[0] * planes.row;
      uint64_t run = 0, step = 0;
      for (uint32_t h = 0; h < window.kernel[1]; ++h, to += at.width * sizeof(Element)) {
        const Element* from = row + run * planes.run + step;
        for (uint32_t i = 0; i < count; ++i)
          copy_bytes(reinterpret_cast<const uint8_t*>(from + segments[i].from),
                     to + segments[i].slot * sizeof(Element),
                     segments[i].count * static_cast<uint32_t>(sizeof(Element)), exact);
        run += runs;
        step += steps;
        if (run >= stride) run -= stride, ++step;
      }
    }
}

template <Precision P, int Width>
void cut_panel(const Window& window, const Planes& planes, const Positions& at, void* panel) {
  auto* to = static_cast<uint8_t*>(panel);
  if constexpr (P == Precision::f32) {
    cut<float>(window, planes, at, to);
  } else {
    constexpr int kRowBytes = Width * Dot<P, Width>::kElement;
    cut<std::conditional_t<P == Precision::bf16, uint16_t, uint8_t>>(window, planes, at, to);
    const uint64_t inputs = uint64_t{window.channels} * window.kernel[0] * window.kernel[1];
    for (uint64_t k = 0; k < inputs; ++k, to += kRowBytes) arrange_plane<P, Width>(to, to);
  }
}

template <Precision P>
bool convert_floats(const float* from, uint64_t count, float scale, int32_t zero_point,
                    uint8_t* to) {
  constexpr int kElement = Dot<P, 16>::kElement;
  const float inverse = P == Precision::int8 ? 1.0f / scale : 1.0f;
  Ints greatest{};
  for (uint64_t at = 0; at < count; at += kChunk) {
    const auto some = static_cast<uint32_t>(count - at < kChunk ? count - at : kChunk);
    uint32_t k = 0;
    for (; k + kLanes <= some; k += kLanes)
      greatest = greater(greatest, load<Floats>(from + at + k));
    Floats rest{};
    std::memcpy(&rest, from + at + k, (some - k) * sizeof(float));
    greatest = greater(greatest, rest);
    if constexpr (P != Precision::f32)
      convert_row<P>(from + at, some, inverse, zero_point, to + at * kElement);
  }
  return largest_lane(greatest) < kInfinity;
}

}  // namespace edgeprune::EDGEPRUNE_ISA
