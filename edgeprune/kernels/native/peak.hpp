// The arithmetic of the kernels on registers alone: what a processor can do at best.
#pragma once

#include "dot.hpp"

namespace edgeprune::EDGEPRUNE_ISA {

// Runs `steps` steps of a full panel times `kRowsAtOnce` outputs, and returns the number of
// multiplications and additions they took.
template <Precision P>
uint64_t run_peak(uint64_t steps) {
  using D = Dot<P, kBytes>;
  typename D::Words words[D::kVectors] = {};
  typename D::Sum sums[kRowsAtOnce][D::kVectors] = {};
  for (uint64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 4
    for (int r = 0; r < kRowsAtOnce; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < D::kVectors; ++v) {
        sums[r][v] = D::add(sums[r][v], words[v], static_cast<uint32_t>(r));
        __asm__ volatile("" : "+x"(sums[r][v]));  // or the compiler adds it up beforehand
      }
  }
  return steps * 2 * kRowsAtOnce * kBytes * D::kMerged;
}

}  // namespace edgeprune::EDGEPRUNE_ISA
