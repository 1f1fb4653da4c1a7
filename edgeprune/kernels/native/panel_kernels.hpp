// Blocks of few outputs times panels of activations: vectors run over the rows of a panel, weights
// are broadcast, and a block's outputs share what was read of the activations.
#pragma once

#include "activation.hpp"
#include "dot.hpp"
#include "kernels.hpp"

namespace edgeprune::EDGEPRUNE_ISA {

constexpr int kPrefetchAhead = 4;
static_assert(kPrefetchAhead <= kPaddingEntries);
constexpr uint32_t kTileOutputs = 64;  // finished and stored while they are in the first cache
static_assert(kTileOutputs % kLanes == 0);

// Sums of `Rows` outputs over the entries [begin, end); `Chains` independent sums hide latency.
template <class D, int Rows, int Chains>
EDGEPRUNE_INLINE void sum_entries(const uint32_t* index, const uint32_t* values, uint32_t stride,
                                  uint32_t begin, uint32_t end, const uint8_t* panel, int width,
                                  typename D::Sum (&sums)[Rows][D::kVectors]) {
  typename D::Sum partial[Chains][Rows][D::kVectors] = {};
  const auto step = [&](uint32_t entry, int chain) EDGEPRUNE_LAMBDA {
    const uint32_t* at = index + uint64_t{entry} * D::kMerged;
#pragma GCC unroll 4
    for (int i = 0; i < D::kMerged; ++i) {
      const uint32_t ahead = at[kPrefetchAhead * D::kMerged + i];
      const uint8_t* row = panel + uint64_t{ahead} * width * D::kElement;
#pragma GCC unroll 4
      for (int line = 0; line < width * D::kElement; line += 64) __builtin_prefetch(row + line);
    }
    typename D::Words words[D::kVectors];
    D::read(panel, at, words);
    const uint32_t* weights = values + uint64_t{entry} * stride;
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < D::kVectors; ++v)
        partial[chain][r][v] = D::add(partial[chain][r][v], words[v], weights[r]);
  };
  uint32_t entry = begin;
  for (; entry + Chains <= end; entry += Chains) {
#pragma GCC unroll 4
    for (int chain = 0; chain < Chains; ++chain) step(entry + chain, chain);
  }
  for (; entry < end; ++entry) step(entry, 0);
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < D::kVectors; ++v) {
      sums[r][v] = partial[0][r][v];
#pragma GCC unroll 4
      for (int chain = 1; chain < Chains; ++chain) sums[r][v] += partial[chain][r][v];
    }
}

// What the zero point added to the sums of an output. Unsigned, so that a false weight may wrap.
inline uint32_t zeros_of(const Weights& w, const RowFacts& facts, uint32_t output) {
  return static_cast<uint32_t>(facts.zero_point) * static_cast<uint32_t>(w.weight_sum[output]);
}

// What is the same for all rows of a tile, with room behind the last output.
struct TileFacts {
  alignas(64) float bias[kTileOutputs] = {};
  alignas(64) float scale[kTileOutputs] = {};
  alignas(64) uint32_t zeros[kTileOutputs] = {};  // what the zero point added to the sums

  TileFacts(const Weights& w, const RowFacts& facts, const Output& out, uint32_t first,
            uint32_t outputs) {
    if (out.bias) std::memcpy(bias, out.bias + first, outputs * sizeof(float));
    if (w.precision != Precision::int8) return;
    std::memcpy(scale, w.scale + first, outputs * sizeof(float));
    for (uint32_t n = 0; n < outputs; ++n)
      zeros[n] = zeros_of(w, facts, first + n);
  }
};

// Four rows of a vector of outputs: scaled, biased, activated.
template <Precision P, int Width>
EDGEPRUNE_INLINE void finish_rows(const TileFacts& tile, uint32_t low, const float* scales,
                                  const float* poison, Activation activation,
                                  const uint32_t* sums, Floats (&values)[4]) {
  const uint8_t* at[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) at[i] = reinterpret_cast<const uint8_t*>(sums + i * Width);
  Words transposed[4];
  transpose(at, transposed);
  const Floats bias = load<Floats>(tile.bias + low), scale = load<Floats>(tile.scale + low);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    values[i] = (Floats)transposed[i];
    if constexpr (P == Precision::int8) {
      const Ints exact = (Ints)(transposed[i] - load<Words>(tile.zeros + low));
      values[i] = __builtin_convertvector(exact, Floats) * (scale * scales[i]);
    }
    values[i] += bias + poison[i];
  }
  activate(values, activation);
}

// What the sums of the outputs [first, last) become, of one tile at most. Rows lie far apart, each
// in a page of its own: all outputs of a row are stored before the next.
template <Precision P, int Width>
EDGEPRUNE_INLINE void finish_tile(const Weights& w, const Panel& panel, const RowFacts& facts,
                                  const Output& out, uint32_t first, uint32_t last,
                                  const uint32_t (&sums)[kTileOutputs][Width]) {
  const uint32_t outputs = last - first < kTileOutputs ? last - first : kTileOutputs;
  const TileFacts tile(w, facts, out, first, outputs);
  const uint64_t stride = out.stride;
  const Activation activation = out.activation;
  for (uint32_t slot = 0; slot < panel.rows; slot += 4) {
    const uint32_t m = panel.first_row + slot, rows = panel.rows - slot;
    float* to = out.data + m * stride + first;
    for (uint32_t low = 0; low < outputs; low += kLanes, to += kLanes) {
      Floats values[4];
      finish_rows<P, Width>(tile, low, facts.scale + m, facts.poison + m, activation,
                            &sums[low][slot], values);
      if (rows >= 4 && outputs - low >= kLanes) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) store(to + i * stride, values[i]);
      } else {
        const uint32_t columns = outputs - low < kLanes ? outputs - low : kLanes;
        for (uint32_t i = 0; i < 4 && i < rows; ++i)
          std::memcpy(to + i * stride, &values[i], columns * sizeof(float));
      }
    }
  }
}

// The same for a layer that follows: an output stays a row of as many floats as a panel has slots.
template <Precision P, int Width>
EDGEPRUNE_INLINE void finish_to_floats(const Weights& w, const Panel& panel, const RowFacts& facts,
                                       const float* bias, Activation activation, float* floats,
                                       uint32_t first, uint32_t last,
                                       const uint32_t (&sums)[kTileOutputs][Width]) {
  constexpr int kVectors = Width / kLanes;
  const uint32_t outputs = last - first < kTileOutputs ? last - first : kTileOutputs;
  const float* scales = facts.scale + panel.first_row;
  const float* poison = facts.poison + panel.first_row;
  for (uint32_t n = 0; n < outputs; ++n) {
    Floats values[kVectors];
    const float added = bias ? bias[first + n] : 0.0f;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      values[v] = load<Floats>(&sums[n][v * kLanes]);
      if constexpr (P == Precision::int8) {
        const Words sum = load<Words>(&sums[n][v * kLanes]);
        const Ints exact = (Ints)(sum - zeros_of(w, facts, first + n));
        values[v] = __builtin_convertvector(exact, Floats) *
                    (w.scale[first + n] * load<Floats>(scales + v * kLanes));
      }
      values[v] += added + load<Floats>(poison + v * kLanes);
    }
    activate(values, activation);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      store(floats + uint64_t{first + n} * Width + v * kLanes, values[v]);
  }
}

// `finish(first, last, sums)` takes the sums of up to `kTileOutputs` outputs, while they are warm.
template <Precision P, int Width, int Rows, class Finish>
EDGEPRUNE_INLINE void multiply_groups(const Weights& w, const Panel& panel, uint32_t begin,
                                      uint32_t end, const Finish& finish) {
  using D = Dot<P, Width>;
  constexpr int kAtOnce = Rows < kRowsAtOnce ? Rows : kRowsAtOnce;
  constexpr int kSums = kAtOnce * D::kVectors;
  constexpr int kChains = kSums >= 8 ? 1 : kSums >= 4 ? 2 : 4;
  constexpr uint32_t kGroups = kTileOutputs / Rows;
  const auto* data = static_cast<const uint8_t*>(panel.data);
  alignas(64) uint32_t tile[kTileOutputs][Width];
  for (uint32_t tile_begin = begin; tile_begin < end; tile_begin += kGroups) {
    for (uint32_t g = 0; g < kGroups && tile_begin + g < end; ++g) {
      const uint32_t from = w.begin[tile_begin + g], to = w.begin[tile_begin + g + 1];
#pragma GCC unroll 4
      for (int r = 0; r < Rows; r += kAtOnce) {
        typename D::Sum sums[kAtOnce][D::kVectors];
        sum_entries<D, kAtOnce, kChains>(w.index, w.values + r, Rows, from, to, data, Width, sums);
#pragma GCC unroll 4
        for (int i = 0; i < kAtOnce; ++i)
#pragma GCC unroll 4
          for (int v = 0; v < D::kVectors; ++v)
            store(&tile[g * Rows + r + i][v * D::kVectorBytes / 4], sums[i][v]);
      }
    }
    finish(tile_begin * Rows, end * Rows, tile);
  }
}

template <Precision P, int Width, class Finish>
EDGEPRUNE_INLINE void multiply_panel(const Weights& w, const Panel& panel, uint32_t begin,
                                     uint32_t end, const Finish& finish) {
  if (w.rows == 4)
    multiply_groups<P, Width, 4>(w, panel, begin, end, finish);
  else
    multiply_groups<P, Width, 1>(w, panel, begin, end, finish);
}

}  // namespace edgeprune::EDGEPRUNE_ISA
