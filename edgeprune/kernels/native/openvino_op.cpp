// Our operators as an extension of OpenVINO.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "openvino_convolution.hpp"
#include "openvino_linear.hpp"
#include "openvino/core/op_extension.hpp"
#include "openvino/core/version.hpp"
#include "openvino/frontend/onnx/extension/op.hpp"

namespace {

#define EDGEPRUNE_TEXT_OF(name) #name
#define EDGEPRUNE_TEXT(name) EDGEPRUNE_TEXT_OF(name)
constexpr char kBuiltFor[] = EDGEPRUNE_TEXT(OPENVINO_VERSION_MAJOR) "." EDGEPRUNE_TEXT(
    OPENVINO_VERSION_MINOR) "." EDGEPRUNE_TEXT(OPENVINO_VERSION_PATCH);

std::vector<ov::Extension::Ptr> extensions() {
  using edgeprune::SparseConvolution;
  using edgeprune::SparseLinear;
  // Classes of another release may be laid out differently.
  const std::string found = ov::get_openvino_version().buildNumber;
  OPENVINO_ASSERT(found.rfind(kBuiltFor, 0) == 0, "edgeprune's operator was built for OpenVINO ",
                  kBuiltFor, ", this is ", found, ": build it again against this OpenVINO");
  return {std::make_shared<ov::OpExtension<SparseLinear>>(),
          std::make_shared<ov::frontend::onnx::OpExtension<SparseLinear>>(
              "SparseLinear", "edgeprune",
              std::map<std::string, std::string>{{"features", "features"},
                                                 {"activation", "activation"},
                                                 {"scale", "scale"},
                                                 {"zero_point", "zero_point"},
                                                 {"block", "block"},
                                                 {"precision", "precision"},
                                                 {"sparsity", "sparsity"}}),
          std::make_shared<ov::OpExtension<SparseConvolution>>(),
          std::make_shared<ov::frontend::onnx::OpExtension<SparseConvolution>>(
              "SparseConvolution", "edgeprune",
              std::map<std::string, std::string>{{"kernel", "kernel"},
                                                 {"stride", "stride"},
                                                 {"padding", "padding"},
                                                 {"dilation", "dilation"},
                                                 {"activation", "activation"},
                                                 {"scale", "scale"},
                                                 {"zero_point", "zero_point"},
                                                 {"block", "block"},
                                                 {"precision", "precision"},
                                                 {"sparsity", "sparsity"}})};
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(extensions());
