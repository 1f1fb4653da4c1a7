// What a convolution reads, cut out of its image for a panel.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace edgeprune::EDGEPRUNE_ISA {

constexpr uint32_t kMostPositions = 64;  // of a panel

// Positions of a panel that lie in one row of the output: side by side in a run of the image.
struct Segment {
  uint64_t from;  // where the first reads, from the first value of the kernel's
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

// Whole vectors: what they write too much belongs to the next segment, or the next input.
EDGEPRUNE_INLINE void copy_segment(const float* from, float* to, uint32_t count, bool exact) {
  uint32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load<Floats>(from + i));
  if (i == count) return;
  if (exact)
    std::memcpy(to + i, from + i, (count - i) * sizeof(float));
  else
    store(to + i, load<Floats>(from + i));
}

inline void cut_patches(const Window& window, const Planes& planes, const Positions& at,
                        float* floats) {
  Segment segments[kMostPositions];
  const uint32_t count = find_segments(window, planes, at, segments);
  const bool exact = planes.exact;
  for (uint32_t c = 0; c < window.channels; ++c)
    for (uint32_t v = 0; v < window.kernel[0]; ++v)
      for (uint32_t h = 0; h < window.kernel[1]; ++h, floats += at.width) {
        const uint64_t column = uint64_t{h} * window.dilation[1];
        const float* from = planes.data + c * planes.channel +
                            uint64_t{v} * window.dilation[0] * planes.row +
                            column % window.stride[1] * planes.run + column / window.stride[1];
        for (uint32_t i = 0; i < count; ++i)
          copy_segment(from + segments[i].from, floats + segments[i].slot, segments[i].count,
                       exact);
      }
}

}  // namespace edgeprune::EDGEPRUNE_ISA
