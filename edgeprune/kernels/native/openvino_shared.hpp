// What our operators of OpenVINO have in common.
#pragma once

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "multiply.hpp"
#include "prepared.hpp"
#include "openvino/core/parallel.hpp"
#include "openvino/op/constant.hpp"
#include "openvino/runtime/tensor.hpp"

namespace edgeprune {

inline Activation activation_named(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "gelu") return Activation::gelu;
  if (name == "silu") return Activation::silu;
  OPENVINO_THROW("edgeprune: activation '", name, "' is unknown; use none, relu, gelu or silu");
}

inline float scale_of(const std::string& text) {
  char* end = nullptr;
  const float scale = std::strtof(text.c_str(), &end);
  OPENVINO_ASSERT(!text.empty() && *end == '\0' && scale >= 0.0f, "edgeprune: scale '", text,
                  "' is no number from 0 on");
  return scale;
}

inline void refuse(const char* problem) {
  OPENVINO_ASSERT(!problem, "edgeprune: the packed weight cannot be used: ", problem);
}

// A constant input as a checked weight.
inline Weights weights_of(const ov::Output<ov::Node>& input) {
  const auto packed = ov::as_type_ptr<ov::op::v0::Constant>(input.get_node_shared_ptr());
  OPENVINO_ASSERT(packed, "edgeprune: takes packed weights as constants");
  Weights weights;
  refuse(parse(packed->get_data_ptr(), packed->get_byte_size(), &weights));
  return weights;
}

inline Parallel all_threads() {
  const auto run = [](int threads, void (*body)(int, int, void*), void* state) {
    ov::parallel_nt(threads, [&](int i, int n) { body(i, n, state); });
  };
  return {parallel_get_max_threads(), run};
}

// Prepared once for each place that packed weights lie in: the runtime copies constants for each
// memory node of a machine. Several streams may ask at the same time.
class PreparedWeights {
 public:
  using Chain = std::vector<Prepared>;

  std::shared_ptr<const Chain> of(const std::vector<ov::Tensor>& packed) const {
    std::vector<const void*> places;
    for (const auto& tensor : packed) places.push_back(tensor.data());
    const std::lock_guard<std::mutex> lock(m_mutex);
    auto& prepared = m_prepared[places];
    if (!prepared) {
      auto made = std::make_shared<Chain>(packed.size());
      const Kernels& best = *available_kernels()[0];
      for (size_t i = 0; i < packed.size(); ++i)
        refuse((*made)[i].open(places[i], packed[i].get_byte_size(), best));
      prepared = made;
    }
    return prepared;
  }

 private:
  mutable std::mutex m_mutex;
  mutable std::map<std::vector<const void*>, std::shared_ptr<const Chain>> m_prepared;
};

}  // namespace edgeprune
