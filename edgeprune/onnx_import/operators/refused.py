"""Operators that are known and cannot be pruned through, each with its remedy."""

from edgeprune.onnx_import.registry import MICROSOFT, refuse

_QUANTISED = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
    "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool",
    "QLinearAveragePool", "QLinearConcat", "QLinearSoftmax", "ConvInteger", "MatMulInteger",
    "MatMulNBits", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm", "QAttention",
    "QEmbedLayerNormalization",
)  # fmt: skip

refuse(
    *_QUANTISED,
    because="belongs to a quantised model; give the float model, edgeprune quantises itself",
    domains=("", MICROSOFT),
)
refuse(
    "NonZero", "Compress", "Unique", "NonMaxSuppression", "StringNormalizer", "TfIdfVectorizer",
    because="gives a result whose shape depends on data; cut the model off before it and do that "
    "part in your program",
)  # fmt: skip
refuse(
    "Loop", "Scan", "SequenceMap",
    because="repeats a part of the graph; export the model unrolled, or cut that part off",
)  # fmt: skip
refuse(
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
    "Bernoulli",
    because="draws random numbers; export the model in eval mode",
)  # fmt: skip
refuse(
    "MultiHeadAttention", "GroupQueryAttention", "EmbedLayerNormalization", "Attention",
    "RotaryEmbedding", "NhwcConv", "FusedConv", "FusedGemm", "SparseAttention",
    because="was made by an optimiser for one runtime; give the model as it was exported",
    domains=(MICROSOFT,),
)  # fmt: skip
