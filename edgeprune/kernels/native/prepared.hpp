// A packed weight, checked, in the form that an instruction set wants.
#pragma once

#include <vector>

#include "kernels.hpp"

namespace edgeprune {

class Prepared {
 public:
  // The packed weight has to stay where it is. Returns what is wrong with it, or nullptr.
  // Throws std::bad_alloc.
  const char* open(const void* data, size_t bytes, const Kernels& kernels);

  const Weights& weights() const { return weights_; }
  const Kernels& kernels() const { return *kernels_; }

 private:
  void make_tiles();

  std::vector<uint32_t> copy_;  // where the packed weight is not aligned

  Weights weights_{};
  const Kernels* kernels_ = nullptr;
  std::vector<uint32_t> tile_begin_, tile_index_, tile_values_;
};

}  // namespace edgeprune
