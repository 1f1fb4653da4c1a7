// How products and convolutions are cut into panels and among threads.
#pragma once

#include "multiply.hpp"
#include "scratch.hpp"

namespace edgeprune {

constexpr uint32_t kWidestPanel = 64;

template <class Body>
void in_parallel(const Parallel& parallel, const Body& body) {
  if (parallel.threads <= 1) return body(0, 1);
  parallel.run(
      parallel.threads,
      [](int i, int n, void* state) { (*static_cast<const Body*>(state))(i, n); },
      const_cast<Body*>(&body));
}

inline uint64_t panel_bytes(const Weights& w, uint32_t width) {
  const uint64_t inputs = (uint64_t{w.inputs} + w.depth - 1) / w.depth * w.depth;
  const uint32_t element = 4u >> static_cast<uint32_t>(w.precision);
  return round_up(inputs * width * element);
}

// The widest panel, but for the last rows: the narrowest that takes them all.
inline uint32_t panel_width(const Kernels& kernels, uint32_t rows_left) {
  uint32_t width = kernels.panel_widths[0];
  for (const uint32_t offered : kernels.panel_widths)
    if (offered && rows_left <= offered) width = offered;
  return width;
}

}  // namespace edgeprune
