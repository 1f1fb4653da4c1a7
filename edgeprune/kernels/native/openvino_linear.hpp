// Layers with packed weights as an operator of OpenVINO, for IR files and for ONNX (domain
// `edgeprune`). One layer, or several of which each reads what the one before makes.
//
//   inputs      x (float32, last dimension = inputs), and for each layer its packed weight (uint8)
//               and its bias (float32)
//   attributes  features (outputs of the last layer), and for each layer its activation (none,
//               relu, gelu, silu), scale and zero_point of int8 activations (scale 0: every row
//               finds its own); block, precision and sparsity only tell readers of the file what a
//               packed weight holds
#pragma once

#include "multiply.hpp"
#include "openvino_shared.hpp"
#include "openvino/op/op.hpp"

namespace edgeprune {

class SparseLinear : public ov::op::Op {
 public:
  OPENVINO_OP("SparseLinear", "edgeprune");
  SparseLinear() = default;

  void validate_and_infer_types() override {
    const size_t count = layers();
    NODE_VALIDATION_CHECK(this, count > 0 && get_input_size() == 1 + 2 * count,
                          "takes x, and a weight and a bias for each layer; it has ",
                          get_input_size(), " inputs");
    const bool complete = m_activation.size() == count && m_scale.size() == count &&
                          m_zero_point.size() == count;
    NODE_VALIDATION_CHECK(this, complete, "takes an activation, a scale and a zero point for each ",
                          "of its ", count, " layers");
    auto shape = get_input_partial_shape(0);
    const bool ranked = shape.rank().is_static() && shape.size() > 0;
    ov::Dimension width = ranked ? *shape.rbegin() : ov::Dimension::dynamic();
    m_scales.clear();
    for (size_t i = 0; i < count; ++i) {
      activation_named(m_activation[i]);
      m_scales.push_back(scale_of(m_scale[i]));
      const Weights weights = weights_of(input_value(1 + 2 * i));
      NODE_VALIDATION_CHECK(this, width.compatible(weights.inputs), "x has ", width,
                            " columns, the packed weight ", weights.inputs, " inputs");
      const auto bias = get_input_partial_shape(2 + 2 * i);
      NODE_VALIDATION_CHECK(this, bias.compatible(ov::PartialShape{weights.outputs}),
                            "the packed weight has ", weights.outputs, " outputs, the bias ", bias);
      width = weights.outputs;
    }
    for (const int64_t zero_point : m_zero_point)
      NODE_VALIDATION_CHECK(this, zero_point >= 0 && zero_point <= 255, "zero point ", zero_point,
                            " is no byte");
    NODE_VALIDATION_CHECK(this, width.compatible(m_features), "the packed weight has ", width,
                          " outputs, not ", m_features);
    if (ranked) shape[shape.size() - 1] = m_features;
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
    std::vector<ov::Tensor> packed;
    for (size_t i = 0; i < layers(); ++i) packed.push_back(inputs[1 + 2 * i]);
    const auto prepared = m_prepared.of(packed);
    std::vector<Layer> chain;
    for (size_t i = 0; i < layers(); ++i)
      chain.push_back({(*prepared)[i].weights(), inputs[2 + 2 * i].data<float>(),
                       activation_named(m_activation[i]), m_scales[i],
                       static_cast<int32_t>(m_zero_point[i])});
    auto shape = inputs[0].get_shape();
    const uint32_t width = chain.front().weights.inputs;
    OPENVINO_ASSERT(!shape.empty() && shape.back() == width, "SparseLinear: x has shape ", shape,
                    ", the weight ", width, " inputs");
    for (size_t i = 0; i < chain.size(); ++i) {
      const Weights& w = chain[i].weights;
      OPENVINO_ASSERT(inputs[2 + 2 * i].get_size() == w.outputs &&
                          (i == 0 || chain[i - 1].weights.outputs == w.inputs),
                      "SparseLinear: layer ", i, " does not fit what it is given");
    }
    const size_t all_rows = inputs[0].get_size() / width;
    OPENVINO_ASSERT(all_rows <= kMostOfAnything, "SparseLinear: x has too many rows");
    const auto rows = static_cast<uint32_t>(all_rows);
    shape.back() = chain.back().weights.outputs;
    outputs[0].set_shape(shape);
    multiply(chain.data(), static_cast<uint32_t>(chain.size()), (*prepared)[0].kernels(),
             {inputs[0].data<float>(), rows, width, width}, outputs[0].data<float>(), shape.back(),
             all_threads());
    return true;
  }

 private:
  size_t layers() const { return get_input_size() / 2; }

  int64_t m_features = 0;
  std::vector<int64_t> m_zero_point;
  // Numbers as text: lists of floats pass either ONNX or IR, not both.
  std::vector<std::string> m_activation, m_scale, m_block, m_precision, m_sparsity;
  std::vector<float> m_scales;
  PreparedWeights m_prepared;
};

}  // namespace edgeprune
