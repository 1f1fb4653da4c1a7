// The product as an operator of OpenVINO, for IR files and for ONNX (domain `edgeprune`).
//
//   inputs      x (float32, last dimension = inputs), packed weight (uint8), bias (float32, optional)
//   attributes  features (its outputs), activation (none, relu, gelu, silu), scale and zero_point of int8
//               activations (scale 0: every row finds its own); block, precision and sparsity only
//               tell readers of the file what the packed weight holds
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "multiply.hpp"
#include "prepared.hpp"
#include "openvino/core/op_extension.hpp"
#include "openvino/core/parallel.hpp"
#include "openvino/core/version.hpp"
#include "openvino/frontend/onnx/extension/op.hpp"
#include "openvino/op/constant.hpp"
#include "openvino/op/op.hpp"

namespace edgeprune {
namespace {

Activation activation_named(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "gelu") return Activation::gelu;
  if (name == "silu") return Activation::silu;
  OPENVINO_THROW("SparseLinear: activation '", name, "' is unknown; use none, relu, gelu or silu");
}

void refuse(const char* problem) {
  OPENVINO_ASSERT(!problem, "SparseLinear: the packed weight cannot be used: ", problem);
}

}  // namespace

class SparseLinear : public ov::op::Op {
 public:
  OPENVINO_OP("SparseLinear", "edgeprune");
  SparseLinear() = default;

  void validate_and_infer_types() override {
    activation_named(m_activation);
    if (const auto packed = ov::as_type_ptr<ov::op::v0::Constant>(
            input_value(1).get_node_shared_ptr())) {
      Weights weights;
      refuse(parse(packed->get_data_ptr(), packed->get_byte_size(), &weights));
      NODE_VALIDATION_CHECK(this, weights.outputs == static_cast<uint64_t>(m_features),
                            "the packed weight has ", weights.outputs, " outputs, not ", m_features);
      const auto width = get_input_partial_shape(0).rank().is_static()
                             ? *get_input_partial_shape(0).rbegin()
                             : ov::Dimension::dynamic();
      NODE_VALIDATION_CHECK(this, width.compatible(weights.inputs), "x has ", width,
                            " columns, the packed weight ", weights.inputs, " inputs");
    }
    auto shape = get_input_partial_shape(0);
    if (shape.rank().is_static()) shape[shape.size() - 1] = m_features;
    set_output_type(0, ov::element::f32, shape);
  }

  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
    auto clone = std::make_shared<SparseLinear>();
    clone->m_features = m_features;
    clone->m_zero_point = m_zero_point;
    clone->m_scale = m_scale;
    clone->m_sparsity = m_sparsity;
    clone->m_activation = m_activation;
    clone->m_block = m_block;
    clone->m_precision = m_precision;
    clone->set_arguments(inputs);
    clone->constructor_validate_and_infer_types();
    return clone;
  }

  bool visit_attributes(ov::AttributeVisitor& visitor) override {
    visitor.on_attribute("features", m_features);
    visitor.on_attribute("activation", m_activation);
    visitor.on_attribute("scale", m_scale);
    visitor.on_attribute("zero_point", m_zero_point);
    visitor.on_attribute("block", m_block);
    visitor.on_attribute("precision", m_precision);
    visitor.on_attribute("sparsity", m_sparsity);
    return true;
  }

  bool has_evaluate() const override { return true; }

  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
    const auto prepared = prepared_of(inputs[1]);
    const Weights& weights = prepared->weights();
    auto shape = inputs[0].get_shape();
    OPENVINO_ASSERT(!shape.empty() && shape.back() == weights.inputs, "SparseLinear: x has ",
                    shape.empty() ? 0 : shape.back(), " columns, the weight ", weights.inputs);
    const auto rows = static_cast<uint32_t>(inputs[0].get_size() / weights.inputs);
    shape.back() = weights.outputs;
    outputs[0].set_shape(shape);
    const Layer layer{weights, inputs.size() > 2 ? inputs[2].data<float>() : nullptr,
                      activation_named(m_activation), m_scale, static_cast<int32_t>(m_zero_point)};
    const Parallel parallel{parallel_get_max_threads(), run};
    multiply(&layer, 1, prepared->kernels(),
             {inputs[0].data<float>(), rows, weights.inputs, weights.inputs},
             outputs[0].data<float>(), weights.outputs, parallel);
    return true;
  }

 private:
  static void run(int threads, void (*body)(int, int, void*), void* state) {
    ov::parallel_nt(threads, [&](int i, int n) { body(i, n, state); });
  }

  // A packed weight is checked once where it lies; several streams may ask at the same time.
  std::shared_ptr<const Prepared> prepared_of(const ov::Tensor& packed) const {
    const std::lock_guard<std::mutex> lock(m_mutex);
    if (!m_prepared || m_packed != packed.data()) {
      auto made = std::make_shared<Prepared>();
      refuse(made->open(packed.data(), packed.get_byte_size(), *available_kernels()[0]));
      m_prepared = made;
      m_packed = packed.data();
    }
    return m_prepared;
  }

  int64_t m_features = 0, m_zero_point = 128;
  float m_scale = 0.0f, m_sparsity = 0.0f;
  std::string m_activation = "none", m_block, m_precision;
  mutable std::mutex m_mutex;
  mutable const void* m_packed = nullptr;
  mutable std::shared_ptr<const Prepared> m_prepared;
};

}  // namespace edgeprune

namespace {

#define EDGEPRUNE_TEXT_OF(name) #name
#define EDGEPRUNE_TEXT(name) EDGEPRUNE_TEXT_OF(name)
constexpr char kBuiltFor[] = EDGEPRUNE_TEXT(OPENVINO_VERSION_MAJOR) "." EDGEPRUNE_TEXT(
    OPENVINO_VERSION_MINOR) "." EDGEPRUNE_TEXT(OPENVINO_VERSION_PATCH);

std::vector<ov::Extension::Ptr> extensions() {
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
                                                 {"sparsity", "sparsity"}})};
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(extensions());
