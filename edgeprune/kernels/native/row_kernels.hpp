// Wide blocks times rows of activations: vectors run over the outputs of a block, activations are
// broadcast. Each weight is read once for up to sixteen rows, so few rows cost what memory allows.
#pragma once

#include "activation.hpp"
#include "kernels.hpp"

namespace edgeprune::EDGEPRUNE_ISA {

constexpr int kMostSums = kBytes == 64 ? 16 : 8;
constexpr int kWeightsAhead = 8;

// How each precision reads one entry of a wide block, and one activation.
template <Precision>
struct Wide;

template <>
struct Wide<Precision::f32> {
  using Sum = Floats;
  using Element = float;
  static constexpr int kWordsPerRow = 2;  // in half words
  static EDGEPRUNE_INLINE Floats weights(const uint8_t* at, int v) {
    return load<Floats>(at + v * kBytes);
  }
  static EDGEPRUNE_INLINE Floats add(Floats sum, Floats weights, const float* x) {
    return sum + weights * *x;
  }
};

template <>
struct Wide<Precision::bf16> : Wide<Precision::f32> {
  static constexpr int kWordsPerRow = 1;
  static EDGEPRUNE_INLINE Floats weights(const uint8_t* at, int v) {
    using Halves = Vector<uint16_t, kBytes / 2>;
    return (Floats)(__builtin_convertvector(load<Halves>(at + v * kBytes / 2), Words) << 16);
  }
};

template <>
struct Wide<Precision::int8> {
  using Sum = Ints;
  using Element = uint8_t;
  static constexpr int kWordsPerRow = 2;
  static EDGEPRUNE_INLINE Words weights(const uint8_t* at, int v) {
    return load<Words>(at + v * kBytes);
  }
  static EDGEPRUNE_INLINE Ints add(Ints sum, Words weights, const uint8_t* x) {
    uint32_t four;
    std::memcpy(&four, x, 4);
    return add_products(sum, broadcast<Words>(four), weights);
  }
};

// What is the same for all rows of a group of outputs. Kept in registers: behind every store the
// compiler would read it anew.
template <Precision P, int Vectors>
struct GroupFacts {
  Floats bias[Vectors] = {}, scale[Vectors] = {};
  typename Wide<P>::Sum start[Vectors] = {};  // of a sum: less what the zero point will add

  EDGEPRUNE_INLINE GroupFacts(const Weights& w, int32_t zero_point, const float* added,
                              uint32_t n) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      if (added) bias[v] = load<Floats>(added + n + v * kLanes);
      if constexpr (P == Precision::int8) {
        scale[v] = load<Floats>(w.scale + n + v * kLanes);
        start[v] = (Ints)(load<Words>(w.weight_sum + n + v * kLanes) *
                          (0u - static_cast<uint32_t>(zero_point)));
      }
    }
  }
};

// `Rows` rows from `m` on: scaled, biased, activated, stored.
template <Precision P, int Vectors, int Rows>
EDGEPRUNE_INLINE void finish_rows(const GroupFacts<P, Vectors>& group, const RowFacts& facts,
                                  uint32_t m, Activation activation, float* to, uint64_t stride,
                                  const typename Wide<P>::Sum (&sums)[Rows][Vectors]) {
  constexpr int kAtOnce = Rows < 4 ? Rows : 4;
  const float* scales = facts.scale + m;
  const float* poison = facts.poison + m;
#pragma GCC unroll 4
  for (int r = 0; r < Rows; r += kAtOnce) {
    Floats values[kAtOnce * Vectors];
#pragma GCC unroll 4
    for (int i = 0; i < kAtOnce; ++i)
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) {
        Floats& value = values[i * Vectors + v];
        if constexpr (P == Precision::int8)
          value =
              __builtin_convertvector(sums[r + i][v], Floats) * (group.scale[v] * scales[r + i]);
        else
          value = sums[r + i][v];
        value += group.bias[v] + poison[r + i];
      }
    activate(values, activation);
#pragma GCC unroll 4
    for (int i = 0; i < kAtOnce; ++i)
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v)
        store(to + (r + i) * stride + v * kLanes, values[i * Vectors + v]);
  }
}

// `Rows` rows of activations from `m` on.
template <Precision P, int Vectors, int Rows>
EDGEPRUNE_INLINE void multiply_some(const Weights& w, const Input& x, const RowFacts& facts,
                                    const Output& out, uint32_t m, uint32_t begin, uint32_t end) {
  using W = Wide<P>;
  constexpr int kSums = Rows * Vectors;
  constexpr int kChains = kSums >= 8 ? 1 : kSums >= 4 ? 2 : 4;
  constexpr uint64_t kEntryBytes = uint64_t{Vectors} * kLanes * 2 * W::kWordsPerRow;
  const auto* values = reinterpret_cast<const uint8_t*>(w.values);
  const auto* rows = static_cast<const typename W::Element*>(x.data) + m * x.stride;
  const float* bias = out.bias;
  const Activation activation = out.activation;
  const uint64_t stride = out.stride;
  const uint64_t x_stride = x.stride;
  float* to = out.data + m * stride + uint64_t{begin} * Vectors * kLanes;
  uint32_t entry = w.begin[begin];
  for (uint32_t group = begin; group < end; ++group, to += Vectors * kLanes) {
    const GroupFacts<P, Vectors> same(w, facts.zero_point, bias, group * Vectors * kLanes);
    typename W::Sum partial[kChains][Rows][Vectors] = {};
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) partial[0][r][v] = same.start[v];
    const auto step = [&](uint32_t entry, int chain) EDGEPRUNE_LAMBDA {
      const uint8_t* at = values + entry * kEntryBytes;
      const auto* column = rows + w.index[entry];
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) {
        const auto weights = W::weights(at, v);
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r)
          partial[chain][r][v] = W::add(partial[chain][r][v], weights, column + r * x_stride);
      }
      __builtin_prefetch(at + kWeightsAhead * kEntryBytes);
    };
    const uint32_t last = w.begin[group + 1];
    for (; entry + kChains <= last; entry += kChains) {
#pragma GCC unroll 4
      for (int chain = 0; chain < kChains; ++chain) step(entry + chain, chain);
    }
    for (; entry < last; ++entry) step(entry, 0);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v)
#pragma GCC unroll 4
        for (int chain = 1; chain < kChains; ++chain) partial[0][r][v] += partial[chain][r][v];
    finish_rows<P, Vectors, Rows>(same, facts, m, activation, to, stride, partial[0]);
  }
}

// All rows, most at once first.
template <Precision P, int Vectors, int Rows>
void multiply_all(const Weights& w, const Input& x, const RowFacts& facts, const Output& out,
                  uint32_t m, uint32_t begin, uint32_t end) {
  for (; m + Rows <= x.rows; m += Rows)
    multiply_some<P, Vectors, Rows>(w, x, facts, out, m, begin, end);
  if constexpr (Rows > 1)
    multiply_all<P, Vectors, Rows / 2>(w, x, facts, out, m, begin, end);
}

template <Precision P>
void multiply_rows(const Weights& w, const Input& x, const RowFacts& facts, const Output& out,
                   uint32_t begin, uint32_t end) {
  constexpr int kNarrow = 16 / kLanes, kBroad = 32 / kLanes;
  if (w.rows == 16)
    multiply_all<P, kNarrow, kMostSums / kNarrow>(w, x, facts, out, 0, begin, end);
  else if constexpr (P != Precision::int8)
    multiply_all<P, kBroad, kMostSums / kBroad>(w, x, facts, out, 0, begin, end);
}

}  // namespace edgeprune::EDGEPRUNE_ISA
