// Activations as the kernels want them: transposed panels, or rows at a stride that does not alias;
// in the weight's precision; with a note of what no byte can say.
#pragma once

#include "dot.hpp"
#include "kernels.hpp"

namespace edgeprune::EDGEPRUNE_ISA {

constexpr uint32_t kChunk = 256;  // inputs converted at once, so that they stay in the first cache

EDGEPRUNE_INLINE Vector<uint16_t, kBytes / 2> as_bfloat16(Floats values) {
#if defined(__AVX512BF16__)
  // What is too small for a normal number becomes zero, as it does where it is multiplied.
  return (Vector<uint16_t, kBytes / 2>)_mm512_cvtneps_pbh(values);
#else
  const Words bits = (Words)values;  // to nearest, ties to even
  return low_halves((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
#endif
}

EDGEPRUNE_INLINE Vector<uint8_t, kBytes / 4> as_bytes(Floats values, Floats inverse_scale,
                                                      int32_t zero_point) {
  const Floats low = Floats{} - static_cast<float>(zero_point), high = low + 255.0f;
  Floats scaled = values * inverse_scale;
  scaled = smaller_of(greater_of(scaled, low), high);  // takes a NaN, too
  const uint32_t offset = static_cast<uint32_t>(zero_point) - kRoundingBits;
  return low_bytes((Words)(scaled + kRounding) + offset);
}

#if defined(__AVX2__)
// The same of four vectors at once: halves and bytes saturate on the way, which is less work than
// bounding every float.
EDGEPRUNE_INLINE Vector<uint8_t> as_bytes(const float* values, Floats inverse_scale,
                                          int32_t zero_point) {
  // Larger floats have no integer; a NaN stays one, and becomes the least.
  const Floats most = Floats{} + 65536.0f;
  Floats scaled[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    scaled[i] = smaller_of(most, load<Floats>(values + i * kLanes) * inverse_scale);
  return packed_bytes(scaled, zero_point);
}
#endif

// Sizes of floats compare like the integers of their bits, and those of a NaN or an infinity are
// the greatest: one maximum tells a row's scale, and whether the row is poisoned.
constexpr int32_t kInfinity = 0x7F800000;

EDGEPRUNE_INLINE Ints greater(Ints greatest, Floats values) {
  const Ints size = (Ints)values & 0x7FFFFFFF;
  return size > greatest ? size : greatest;
}

EDGEPRUNE_INLINE float poison_of(int32_t greatest) {
  return greatest >= kInfinity ? __builtin_nanf("") : 0.0f;
}

// What a row needs before it is packed.
EDGEPRUNE_INLINE void scan_row(const float* row, uint32_t inputs, bool scaled,
                               const RowFacts& facts, uint32_t m) {
  Ints largest[2] = {};
  uint32_t k = 0;
  for (; k + 2 * kLanes <= inputs; k += 2 * kLanes)
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i)
      largest[i] = greater(largest[i], load<Floats>(row + k + i * kLanes));
  int32_t greatest = largest_lane(largest[0] > largest[1] ? largest[0] : largest[1]);
  for (; k < inputs; ++k) {
    int32_t size;
    std::memcpy(&size, row + k, sizeof size);
    size &= 0x7FFFFFFF;
    greatest = size > greatest ? size : greatest;
  }
  facts.poison[m] = poison_of(greatest);
  if (!scaled || !facts.dynamic) return;
  float size;
  std::memcpy(&size, &greatest, sizeof size);
  facts.scale[m] = greatest > 0 && greatest < kInfinity ? size / 127.0f : 1.0f;
}

template <Precision P>
EDGEPRUNE_INLINE void convert_vector(Floats values, Floats inverse_scale, int32_t zero_point,
                                     uint8_t* to) {
  if constexpr (P == Precision::f32)
    store(to, values);
  else if constexpr (P == Precision::bf16)
    store(to, as_bfloat16(values));
  else
    store(to, as_bytes(values, inverse_scale, zero_point));
}

// A row in the precision of its weight. Writes up to a whole vector of inputs: zeros behind the
// last one.
template <Precision P>
EDGEPRUNE_INLINE void convert_row(const float* row, uint32_t inputs, float inverse_scale,
                                  int32_t zero_point, uint8_t* to) {
  constexpr int kElement = Dot<P, 16>::kElement;
  const Floats inverse = Floats{} + inverse_scale;
  uint32_t k = 0;
#if defined(__AVX2__)
  if constexpr (P == Precision::int8)
    for (; k + 4 * kLanes <= inputs; k += 4 * kLanes)
      store(to + k, as_bytes(row + k, inverse, zero_point));
#endif
  for (; k + kLanes <= inputs; k += kLanes)
    convert_vector<P>(load<Floats>(row + k), inverse, zero_point, to + k * kElement);
  if (k == inputs) return;
  Floats rest{};
  std::memcpy(&rest, row + k, (inputs - k) * sizeof(float));
  convert_vector<P>(rest, inverse, zero_point, to + k * kElement);
}

// How a panel holds a row's inputs: each in a row of its own, or four bytes side by side in a word.
enum class Layout { planes, words };

// Four words of each row, of as many inputs as they hold, into a panel's rows.
template <Precision P, int Width>
EDGEPRUNE_INLINE void store_planes(const Words (&columns)[4], uint32_t inputs, uint8_t* to) {
  constexpr int kElement = Dot<P, Width>::kElement, kPerWord = 4 / kElement;
  constexpr int kRowBytes = Width * kElement;
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    Words planes = columns[j];
    if constexpr (P == Precision::bf16) planes = half_planes(planes);
    if constexpr (P == Precision::int8) planes = byte_planes(planes);
    const auto* plane = reinterpret_cast<const uint8_t*>(&planes);
#pragma GCC unroll 4
    for (int i = 0; i < kPerWord; ++i)
      if (static_cast<uint32_t>(j * kPerWord + i) < inputs)
        std::memcpy(to + (j * kPerWord + i) * kRowBytes, plane + i * kBytes / kPerWord,
                    kBytes / kPerWord);
  }
}

template <int Width>
EDGEPRUNE_INLINE void store_words(const Words (&columns)[4], uint32_t inputs, uint8_t* to) {
#pragma GCC unroll 4
  for (uint32_t j = 0; j < 4; ++j)
    if (4 * j < inputs) store(to + j * Width * 4, columns[j]);
}

// Rows of activations for as many slots of a panel as a vector has lanes. Rows behind the last one
// repeat it: their slots are computed and never stored.
template <class RowOf>
EDGEPRUNE_INLINE void find_rows(const Input& input, const Panel& panel, uint32_t slot,
                                const RowOf& row_of, const float* (&rows)[kLanes]) {
  const auto* x = static_cast<const float*>(input.data) + panel.first_row * input.stride;
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t m = row_of(slot + i), last = panel.rows - 1;
    rows[i] = x + (m < last ? m : last) * input.stride;
  }
}

// Floats are transposed where they lie, and looked at on the way.
template <int Width>
void pack_float_panel(const Input& input, const RowFacts& facts, const Panel& panel,
                      uint32_t begin, uint32_t end) {
  for (uint32_t slot = begin; slot < end; slot += kLanes) {
    const float* rows[kLanes];
    find_rows(input, panel, slot, [](uint32_t at) { return at; }, rows);
    auto* to = static_cast<uint8_t*>(panel.data) + slot * sizeof(float);
    Ints greatest{};
    for (uint32_t k = 0; k < input.inputs; k += 4) {
      alignas(16) float rest[kLanes][4] = {};
      const uint8_t* at[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        at[i] = reinterpret_cast<const uint8_t*>(rows[i] + k);
        if (k + 4 <= input.inputs) continue;
        std::memcpy(rest[i], rows[i] + k, (input.inputs - k) * sizeof(float));
        at[i] = reinterpret_cast<const uint8_t*>(rest[i]);
      }
      Words columns[4];
      transpose(at, columns);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) greatest = greater(greatest, (Floats)columns[j]);
      store_planes<Precision::f32, Width>(columns, input.inputs - k, to + uint64_t{k} * Width * 4);
    }
    for (int i = 0; i < kLanes; ++i)
      facts.poison[panel.first_row + slot + i] = poison_of(greatest[i]);
  }
}

// Everything else is converted row by row first.
template <Precision P, int Width, Layout L>
void pack_panel(const Input& input, const RowFacts& facts, const Panel& panel, uint32_t begin,
                uint32_t end) {
  using D = Dot<P, Width>;
  constexpr uint32_t kInputsAtOnce = 16 / D::kElement;
  constexpr auto row_of = [](uint32_t slot) {
    return L == Layout::words ? slot : static_cast<uint32_t>(D::row_of(slot));
  };
  for (uint32_t slot = begin; slot < end; slot += kLanes) {
    const float* rows[kLanes];
    find_rows(input, panel, slot, row_of, rows);
    float inverse[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const uint32_t m = panel.first_row + row_of(slot + i);
      scan_row(rows[i], input.inputs, P == Precision::int8, facts, m);
      inverse[i] = P == Precision::int8 ? 1.0f / facts.scale[m] : 1.0f;
    }
    alignas(64) uint8_t converted[kLanes][kChunk * D::kElement];
    for (uint32_t from = 0; from < input.inputs; from += kChunk) {
      const uint32_t inputs = input.inputs - from < kChunk ? input.inputs - from : kChunk;
      for (int i = 0; i < kLanes; ++i)
        convert_row<P>(rows[i] + from, inputs, inverse[i], facts.zero_point, converted[i]);
      for (uint32_t k = 0; k < inputs; k += kInputsAtOnce) {
        const uint8_t* at[kLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) at[i] = converted[i] + k * D::kElement;
        Words columns[4];
        transpose(at, columns);
        uint8_t* row = static_cast<uint8_t*>(panel.data) + uint64_t{from + k} * Width * D::kElement;
        if constexpr (L == Layout::words)
          store_words<Width>(columns, inputs - k, row + slot * 4);
        else
          store_planes<P, Width>(columns, inputs - k, row + slot * D::kElement);
      }
    }
  }
}

// A row of one input, in the order of a panel's planes.
template <Precision P, int Width>
EDGEPRUNE_INLINE void arrange_plane(const uint8_t* natural, uint8_t* to) {
  using D = Dot<P, Width>;
  // Slots move in fours: as many elements, of one half of the row for bfloat16.
  using Fours = std::conditional_t<P == Precision::int8, Vector<uint32_t, Width>,
                                   Vector<uint64_t, Width>>;
  constexpr int kParts = D::kElement, kPerPart = Width / kParts;
  struct Pick {
    static constexpr int at(int i) { return D::row_of(4 * i) / 4; }
  };
#pragma GCC unroll 2
  for (int part = 0; part < kParts; ++part) {
    const auto fours = load<Fours>(natural + part * kPerPart * D::kElement);
    store(to + part * kPerPart * D::kElement, shuffle_by<Pick>(fours, fours));
  }
}

// A row of floats of one input, in the precision and the order of a panel's planes.
template <Precision P, int Width>
EDGEPRUNE_INLINE void store_plane(const float* values, const float* inverse_scales,
                                  int32_t zero_point, uint8_t* to) {
  constexpr int kElement = Dot<P, Width>::kElement;
  alignas(64) uint8_t natural[Width * kElement];
#pragma GCC unroll 4
  for (int slot = 0; slot < Width; slot += kLanes)
    convert_vector<P>(load<Floats>(values + slot), load<Floats>(inverse_scales + slot), zero_point,
                      natural + slot * kElement);
  arrange_plane<P, Width>(natural, to);
}

// Four bytes of each slot, of four inputs, side by side.
template <int Width>
EDGEPRUNE_INLINE void store_word_row(const float* const (&inputs)[4], const float* inverse_scales,
                                     int32_t zero_point, uint8_t* to) {
  alignas(64) uint8_t natural[4][Width];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
    for (int slot = 0; slot < Width; slot += kLanes)
      convert_vector<Precision::int8>(load<Floats>(inputs[i] + slot),
                                      load<Floats>(inverse_scales + slot), zero_point,
                                      natural[i] + slot);
  using Bytes = Vector<uint8_t, 16>;
  using Halves = Vector<uint16_t, 16>;
#pragma GCC unroll 4
  for (int slot = 0; slot < Width; slot += 16) {
    Bytes x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) x[i] = load<Bytes>(natural[i] + slot);
    Halves merged[4];
    interleave_four(x, merged);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) store(to + slot * 4 + 16 * i, merged[i]);
  }
}

// What each slot of floats [input][slot] needs before it is converted, as `scan_row` finds it.
template <int Width>
EDGEPRUNE_INLINE void scan_floats(const float* floats, uint32_t inputs, bool scaled,
                                  const RowFacts& facts, uint32_t first_row) {
  constexpr int kVectors = Width / kLanes;
  const Ints infinity = Ints{} + kInfinity;
  Ints greatest[kVectors] = {};
  for (uint32_t k = 0; k < inputs; ++k)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      greatest[v] = greater(greatest[v], load<Floats>(floats + uint64_t{k} * Width + v * kLanes));
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const Floats poison = greatest[v] >= infinity ? Floats{} + __builtin_nanf("") : Floats{};
    store(facts.poison + first_row + v * kLanes, poison);
    if (!scaled || !facts.dynamic) continue;
    const Floats scale = (Floats)greatest[v] / 127.0f;
    const auto usable = (greatest[v] > 0) & (greatest[v] < infinity);
    store(facts.scale + first_row + v * kLanes, usable ? scale : Floats{} + 1.0f);
  }
}

// Floats [input][slot] of the layer before as the panel of one that follows.
template <Precision P, int Width, Layout L>
void pack_floats(const float* floats, uint32_t inputs, const RowFacts& facts, const Panel& panel) {
  scan_floats<Width>(floats, inputs, P == Precision::int8, facts, panel.first_row);
  auto* to = static_cast<uint8_t*>(panel.data);
  alignas(64) float inverse[Width] = {};
  if constexpr (P == Precision::int8)
    for (int slot = 0; slot < Width; ++slot)
      inverse[slot] = 1.0f / facts.scale[panel.first_row + slot];
  if constexpr (L == Layout::words) {
    for (uint32_t k = 0; k < inputs; k += 4) {
      const float* rows[4];
      // Behind the last input any value will do: its weights are zeros.
      for (uint32_t i = 0; i < 4; ++i)
        rows[i] = floats + uint64_t{k + i < inputs ? k + i : inputs - 1} * Width;
      store_word_row<Width>(rows, inverse, facts.zero_point, to + uint64_t{k} * Width);
    }
  } else {
    for (uint32_t k = 0; k < inputs; ++k)
      store_plane<P, Width>(floats + uint64_t{k} * Width, inverse, facts.zero_point,
                            to + uint64_t{k} * Width * Dot<P, Width>::kElement);
  }
}

// Rows for wide blocks: floats, rounded to bfloat16 where the weight is, or bytes.
template <Precision P>
void pack_rows(const Input& input, const RowFacts& facts, void* packed, uint64_t stride,
               uint32_t begin, uint32_t end) {
  const auto* x = static_cast<const float*>(input.data);
  for (uint32_t m = begin; m < end; ++m) {
    const float* row = x + m * input.stride;
    scan_row(row, input.inputs, P == Precision::int8, facts, m);
    if constexpr (P == Precision::int8) {
      convert_row<P>(row, input.inputs, 1.0f / facts.scale[m], facts.zero_point,
                     static_cast<uint8_t*>(packed) + m * stride);
    } else {
      auto* to = static_cast<float*>(packed) + m * stride;
      for (uint32_t k = 0; k < input.inputs; k += kLanes) {
        Floats values{};
        if (k + kLanes <= input.inputs)
          values = load<Floats>(row + k);
        else
          std::memcpy(&values, row + k, (input.inputs - k) * sizeof(float));
        if constexpr (P == Precision::bf16)
          values = (Floats)(__builtin_convertvector(as_bfloat16(values), Words) << 16);
        store(to + k, values);
      }
    }
  }
}

}  // namespace edgeprune::EDGEPRUNE_ISA
