// Blocks of few outputs times panels of activations: vectors run over the rows of a panel, weights
// are broadcast, and a block's outputs share what was read of the activations.
#pragma once

#include "activation.hpp"
#include "dot.hpp"
#include "kernels.hpp"

namespace edgeprune::EDGEPRUNE_ISA {

constexpr int kPrefetchAhead = 4;
static_assert(kPrefetchAhead <= kPaddingEntries);
constexpr uint32_t kTileOutputs = 16;  // finished and stored while they are in the first cache
static_assert(kTileOutputs % kLanes == 0);

// The part of something cut in `of` that comes after `before` others.
struct Part {
  uint32_t before, of;
  uint32_t begin(uint32_t count) const { return count * before / of; }
  uint32_t end(uint32_t count) const { return count * (before + 1) / of; }
};

// Sums of `Rows` outputs over the entries [begin, end), on top of what they hold; `Chains`
// independent sums hide latency.
template <class D, int Rows, int Chains>
EDGEPRUNE_INLINE void sum_entries(const uint32_t* index, const uint32_t* values, uint32_t stride,
                                  uint32_t begin, uint32_t end, const uint8_t* panel, int width,
                                  typename D::Sum (&sums)[Rows][D::kVectors]) {
  typename D::Sum partial[Chains][Rows][D::kVectors] = {};
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < D::kVectors; ++v) partial[0][r][v] = sums[r][v];
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

// Where the sums of an output start: less what the zero point will add to them. Unsigned, so that a
// false weight may wrap.
template <Precision P, class Sum>
EDGEPRUNE_INLINE Sum first_sum(const Weights& w, const RowFacts& facts, uint32_t output) {
  if constexpr (P == Precision::int8) {
    const uint32_t zeros =
        static_cast<uint32_t>(facts.zero_point) * static_cast<uint32_t>(w.weight_sum[output]);
    return broadcast<Sum>(static_cast<int32_t>(0u - zeros));
  } else {
    return Sum{};
  }
}

// A vector of facts about outputs, zeros behind the last.
EDGEPRUNE_INLINE Floats facts_from(const float* from, uint32_t outputs) {
  if (!from) return Floats{};
  if (outputs >= kLanes) return load<Floats>(from);
  Floats some{};
  for (uint32_t n = 0; n < outputs; ++n) some[n] = from[n];
  return some;
}

// Four rows of a vector of outputs: scaled, biased, activated.
template <Precision P, int Width>
EDGEPRUNE_INLINE void finish_rows(Floats bias, Floats scale, const float* scales,
                                  const float* poison, Activation activation,
                                  const uint32_t* sums, Floats (&values)[4]) {
  const uint8_t* at[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) at[i] = reinterpret_cast<const uint8_t*>(sums + i * Width);
  Words transposed[4];
  transpose(at, transposed);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    values[i] = (Floats)transposed[i];
    if constexpr (P == Precision::int8)
      values[i] = __builtin_convertvector((Ints)transposed[i], Floats) * (scale * scales[i]);
    values[i] += bias + poison[i];
  }
  activate(values, activation);
}

// Rows [begin, end) of a panel, four at a time, of as many outputs as a vector has lanes.
template <Precision P, int Width>
EDGEPRUNE_INLINE void finish_columns(const Weights& w, const Panel& panel, const RowFacts& facts,
                                     const Output& out, Activation activation, uint32_t first,
                                     uint32_t columns, const uint32_t (*sums)[Width],
                                     uint32_t begin, uint32_t end) {
  const Floats bias = facts_from(out.bias ? out.bias + first : nullptr, columns);
  const Floats scale = facts_from(P == Precision::int8 ? w.scale + first : nullptr, columns);
  const uint64_t stride = out.stride;
  const uint32_t m = panel.first_row, rows = panel.rows;
  const float* scales = facts.scale + m;
  const float* poison = facts.poison + m;
  float* to = out.data + m * stride + first;
  uint32_t slot = begin;
  if (columns >= kLanes)
    for (; slot + 4 <= end && slot + 4 <= rows; slot += 4) {
      Floats values[4];
      finish_rows<P, Width>(bias, scale, scales + slot, poison + slot, activation, &sums[0][slot],
                            values);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) store(to + (slot + i) * stride, values[i]);
    }
  for (; slot < end && slot < rows; slot += 4) {
    Floats values[4];
    finish_rows<P, Width>(bias, scale, scales + slot, poison + slot, activation, &sums[0][slot],
                          values);
    const uint32_t some = columns < kLanes ? columns : kLanes;
    for (uint32_t i = 0; i < 4 && slot + i < rows; ++i)
      std::memcpy(to + (slot + i) * stride, &values[i], some * sizeof(float));
  }
}

// What the sums of the outputs [first, last) become, of one tile at most: a part of a panel's rows.
template <Precision P, int Width, uint32_t Outputs>
EDGEPRUNE_INLINE void finish_tile(const Weights& w, const Panel& panel, const RowFacts& facts,
                                  const Output& out, uint32_t first, uint32_t last,
                                  const uint32_t (&sums)[Outputs][Width], Part part) {
  const uint32_t outputs = last - first < Outputs ? last - first : Outputs;
  const uint32_t begin = 4 * part.begin(Width / 4), end = 4 * part.end(Width / 4);
  for (uint32_t low = 0; low < outputs; low += kLanes) {
    const auto finish = [&](Activation activation) EDGEPRUNE_LAMBDA {
      finish_columns<P, Width>(w, panel, facts, out, activation, first + low, outputs - low,
                               sums + low, begin, end);
    };
    // Its own loop for the commonest case, without a choice in it.
    if (out.activation == Activation::none)
      finish(Activation::none);
    else
      finish(out.activation);
  }
}

// The same, a part of the outputs, each of which stays a row of floats.
template <Precision P, int Width, uint32_t Outputs>
EDGEPRUNE_INLINE void finish_to_floats(const Weights& w, const Panel& panel, const RowFacts& facts,
                                       const float* bias, Activation activation,
                                       const Columns& columns, uint32_t first, uint32_t last,
                                       const uint32_t (&sums)[Outputs][Width], Part part) {
  constexpr int kVectors = Width / kLanes;
  const uint32_t outputs = last - first < Outputs ? last - first : Outputs;
  const float* scales = facts.scale + panel.first_row;
  const float* poison = facts.poison + panel.first_row;
  const uint64_t stride = columns.stride;
  const uint32_t count = columns.count, end = part.end(Outputs);
  float* to = columns.data + uint64_t{first} * stride;
  for (uint32_t n = part.begin(Outputs); n < end && n < outputs; ++n) {
    Floats values[kVectors];
    const float added = bias ? bias[first + n] : 0.0f;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      values[v] = load<Floats>(&sums[n][v * kLanes]);
      if constexpr (P == Precision::int8)
        values[v] = __builtin_convertvector((Ints)values[v], Floats) *
                    (w.scale[first + n] * load<Floats>(scales + v * kLanes));
      values[v] += added + load<Floats>(poison + v * kLanes);
    }
    activate(values, activation);
    if (count == Width) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) store(to + n * stride + v * kLanes, values[v]);
    } else {
      std::memcpy(to + n * stride, values, count * sizeof(float));
    }
  }
}

// Sums of one group into a tile's rows.
template <Precision P, int Width, int Rows>
EDGEPRUNE_INLINE void sum_group(const Weights& w, const uint8_t* panel, const RowFacts& facts,
                                uint32_t group, uint32_t (*sums_of)[Width]) {
  using D = Dot<P, Width>;
  constexpr int kAtOnce = Rows < kRowsAtOnce ? Rows : kRowsAtOnce;
  constexpr int kSums = kAtOnce * D::kVectors;
  constexpr int kChains = kSums >= 8 ? 1 : kSums >= 4 ? 2 : 4;
  const uint32_t from = w.begin[group], to = w.begin[group + 1];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; r += kAtOnce) {
    typename D::Sum sums[kAtOnce][D::kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kAtOnce; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < D::kVectors; ++v)
        sums[i][v] = first_sum<P, typename D::Sum>(w, facts, group * Rows + r + i);
    sum_entries<D, kAtOnce, kChains>(w.index, w.values + r, Rows, from, to, panel, Width, sums);
#pragma GCC unroll 4
    for (int i = 0; i < kAtOnce; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < D::kVectors; ++v)
        store(&sums_of[r + i][v * D::kVectorBytes / 4], sums[i][v]);
  }
}

// `finish(first, last, sums, part)` takes the sums of up to `kTileOutputs` outputs. A tile is
// finished in parts, one behind each group of the next tile: what finishing takes is mostly not
// what sums take, and a processor does both at once where they lie close together.
template <Precision P, int Width, int Rows, class Finish>
EDGEPRUNE_INLINE void multiply_groups(const Weights& w, const Panel& panel, const RowFacts& facts,
                                      uint32_t begin, uint32_t end, const Finish& finish) {
  constexpr uint32_t kGroups = kTileOutputs / Rows;
  const auto* data = static_cast<const uint8_t*>(panel.data);
  alignas(64) uint32_t tiles[2][kTileOutputs][Width];
  uint32_t current = 0;
  for (uint32_t first = begin; first < end; first += kGroups, current ^= 1) {
    for (uint32_t g = 0; g < kGroups; ++g) {
      if (first + g < end)
        sum_group<P, Width, Rows>(w, data, facts, first + g, tiles[current] + g * Rows);
      if (first != begin)
        finish((first - kGroups) * Rows, end * Rows, tiles[current ^ 1], Part{g, kGroups});
    }
  }
  const uint32_t last = begin + (end - begin - 1) / kGroups * kGroups;
  finish(last * Rows, end * Rows, tiles[current ^ 1], Part{0, 1});
}

template <Precision P, int Width, class Finish>
EDGEPRUNE_INLINE void multiply_panel(const Weights& w, const Panel& panel, const RowFacts& facts,
                                     uint32_t begin, uint32_t end, const Finish& finish) {
  if (w.rows == 4)
    multiply_groups<P, Width, 4>(w, panel, facts, begin, end, finish);
  else
    multiply_groups<P, Width, 1>(w, panel, facts, begin, end, finish);
}

}  // namespace edgeprune::EDGEPRUNE_ISA
