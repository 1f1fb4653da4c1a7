// A convolution with a packed weight as an operator of OpenVINO, for IR files and for ONNX (domain
// `edgeprune`).
//
//   inputs      x (float32; image, channel, row, column), the packed weight (uint8; its inputs are
//               ordered as channel, vertical, horizontal), the bias (float32)
//   attributes  kernel, stride, padding (on both sides) and dilation, each vertical and horizontal;
//               activation, scale and zero_point as those of SparseLinear, a scale of zero being
//               found for each position; block, precision and sparsity only tell readers of the
//               file
#pragma once

#include <algorithm>

#include "convolution.hpp"
#include "openvino_shared.hpp"
#include "openvino/op/op.hpp"

namespace edgeprune {

class SparseConvolution : public ov::op::Op {
 public:
  OPENVINO_OP("SparseConvolution", "edgeprune");
  SparseConvolution() = default;

  void validate_and_infer_types() override {
    NODE_VALIDATION_CHECK(this, get_input_size() == 3, "takes x, a weight and a bias; it has ",
                          get_input_size(), " inputs");
    check_attributes();
    const Weights weights = weights_of(input_value(1));
    const auto bias = get_input_partial_shape(2);
    NODE_VALIDATION_CHECK(this, bias.compatible(ov::PartialShape{weights.outputs}),
                          "the packed weight has ", weights.outputs, " outputs, the bias ", bias);
    auto shape = get_input_partial_shape(0);
    NODE_VALIDATION_CHECK(this, shape.rank().compatible(4), "x has shape ", shape,
                          ", not image, channel, row, column");
    if (shape.rank().is_dynamic()) shape = ov::PartialShape::dynamic(4);
    const int64_t kernel = m_kernel[0] * m_kernel[1], channels = weights.inputs / kernel;
    NODE_VALIDATION_CHECK(this, channels * kernel == weights.inputs && weights.rows < 16,
                          "the packed weight has ", weights.inputs, " inputs and blocks of ",
                          weights.rows, " outputs; a kernel of ", m_kernel[0], "x", m_kernel[1],
                          " takes a multiple of ", kernel, " inputs and blocks of 1 or 4");
    NODE_VALIDATION_CHECK(this, shape[1].compatible(channels), "x has ", shape[1],
                          " channels, the packed weight ", channels);
    ov::PartialShape made{shape[0], weights.outputs, {}, {}};
    for (int i = 0; i < 2; ++i) {
      if (shape[2 + i].is_dynamic()) continue;
      const auto length = [&](int d) { return shape[d].is_dynamic() ? 1 : shape[d].get_length(); };
      const Window window = window_of(channels, {length(2), length(3)});
      NODE_VALIDATION_CHECK(this, window.made(i) > 0,
                            "the kernel is larger than the padded image, x has shape ", shape);
      made[2 + i] = static_cast<int64_t>(window.made(i));
    }
    set_output_type(0, ov::element::f32, made);
  }

  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
    auto clone = std::make_shared<SparseConvolution>();
    clone->m_kernel = m_kernel;
    clone->m_stride = m_stride;
    clone->m_padding = m_padding;
    clone->m_dilation = m_dilation;
    clone->m_zero_point = m_zero_point;
    clone->m_activation = m_activation;
    clone->m_scale = m_scale;
    clone->m_block = m_block;
    clone->m_precision = m_precision;
    clone->m_sparsity = m_sparsity;
    clone->set_arguments(inputs);
    clone->constructor_validate_and_infer_types();
    return clone;
  }

  bool visit_attributes(ov::AttributeVisitor& visitor) override {
    visitor.on_attribute("kernel", m_kernel);
    visitor.on_attribute("stride", m_stride);
    visitor.on_attribute("padding", m_padding);
    visitor.on_attribute("dilation", m_dilation);
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
    const auto shape = inputs[0].get_shape();
    const auto prepared = m_prepared.of({inputs[1]});
    const Prepared& weight = prepared->front();
    const Weights& weights = weight.weights();
    OPENVINO_ASSERT(shape.size() == 4 && inputs[2].get_size() == weights.outputs &&
                        std::max({shape[1], shape[2], shape[3]}) <= kMostOfAnything,
                    "SparseConvolution: x has shape ", shape, ", the bias ", inputs[2].get_shape());
    const Window window =
        window_of(static_cast<int64_t>(shape[1]),
                  {static_cast<int64_t>(shape[2]), static_cast<int64_t>(shape[3])});
    const char* problem = check_window(weights, window);
    OPENVINO_ASSERT(!problem, "SparseConvolution: x has shape ", shape, ": ", problem);
    outputs[0].set_shape({shape[0], weights.outputs, window.made(0), window.made(1)});
    const Layer layer{weights, inputs[2].data<float>(), activation_named(m_activation),
                      scale_of(m_scale), static_cast<int32_t>(m_zero_point)};
    convolve(layer, window, weight.kernels(), inputs[0].data<float>(), shape[0],
             outputs[0].data<float>(), all_threads());
    return true;
  }

 private:
  void check_attributes() const {
    constexpr int64_t most = 65536;
    for (const auto* pair : {&m_kernel, &m_stride, &m_dilation, &m_padding}) {
      const int64_t least = pair == &m_padding ? 0 : 1;
      NODE_VALIDATION_CHECK(this, pair->size() == 2 && std::min((*pair)[0], (*pair)[1]) >= least &&
                                      std::max((*pair)[0], (*pair)[1]) <= most,
                            "kernel, stride and dilation are two numbers from 1 on, padding two ",
                            "from 0 on, at most ", most);
    }
    activation_named(m_activation);
    scale_of(m_scale);
    NODE_VALIDATION_CHECK(this, m_zero_point >= 0 && m_zero_point <= 255, "zero point ",
                          m_zero_point, " is no byte");
  }

  Window window_of(int64_t channels, const std::vector<int64_t>& size) const {
    const auto narrow = [](int64_t value) { return static_cast<uint32_t>(value); };
    Window window{narrow(channels), {narrow(size[0]), narrow(size[1])}, {}, {}, {}, {}};
    for (int i = 0; i < 2; ++i) {
      window.kernel[i] = narrow(m_kernel[i]);
      window.stride[i] = narrow(m_stride[i]);
      window.padding[i] = narrow(m_padding[i]);
      window.dilation[i] = narrow(m_dilation[i]);
    }
    return window;
  }

  std::vector<int64_t> m_kernel{1, 1}, m_stride{1, 1}, m_padding{0, 0}, m_dilation{1, 1};
  int64_t m_zero_point = 128;
  std::string m_activation = "none", m_scale = "0", m_block, m_precision, m_sparsity;
  PreparedWeights m_prepared;
};

}  // namespace edgeprune
