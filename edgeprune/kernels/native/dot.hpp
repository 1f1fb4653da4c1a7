// One step of a kernel on a panel: how each precision reads activations and multiplies them.
//
// A panel holds activations as [input][slot], `Width` slots for as many rows. One step merges one
// float, two bfloat16 or four bytes a row into the lanes of `kVectors` vectors of 32-bit words, and
// multiplies them by one word of weights. Two and four inputs are merged by interleaving within
// 128-bit lanes, which permutes the rows; packing puts each row where it comes out in order.
#pragma once

#include "format.hpp"
#include "simd.hpp"

namespace edgeprune::EDGEPRUNE_ISA {

template <Precision, int Width>
struct Dot;

template <int Width>
struct Dot<Precision::f32, Width> {
  static constexpr int kMerged = 1, kElement = 4;
  static constexpr int kVectorBytes = kBytes, kVectors = Width / kLanes;
  using Sum = Vector<float, kVectorBytes>;
  using Words = Sum;

  static constexpr int row_of(int slot) { return slot; }

  static EDGEPRUNE_INLINE void read(const uint8_t* panel, const uint32_t* index,
                                    Words (&words)[kVectors]) {
    const uint8_t* row = panel + uint64_t{index[0]} * Width * kElement;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) words[v] = load<Words>(row + v * kVectorBytes);
  }
  static EDGEPRUNE_INLINE Sum add(Sum sum, Words words, uint32_t weight) {
    float value;
    std::memcpy(&value, &weight, 4);
    return sum + words * value;
  }
};

template <int Width>
struct Dot<Precision::bf16, Width> {
  static constexpr int kMerged = 2, kElement = 2;
  static constexpr int kVectorBytes = Width < kBytes ? Width : kBytes, kVectors = 4;
  using Sum = Vector<float, kVectorBytes>;
  using Words = Vector<uint32_t, kVectorBytes>;

  static constexpr int row_of(int slot) {
    const int half = slot / (Width / 2), rest = slot % (Width / 2);
    return half * (Width / 2) + rest % 8 / 4 * (Width / 4) + rest / 8 * 4 + rest % 4;
  }

  static EDGEPRUNE_INLINE void read(const uint8_t* panel, const uint32_t* index,
                                    Words (&words)[kVectors]) {
    using Halves = Vector<uint16_t, kVectorBytes>;
    const uint8_t* first = panel + uint64_t{index[0]} * Width * kElement;
    const uint8_t* second = panel + uint64_t{index[1]} * Width * kElement;
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const auto a = load<Halves>(first + v * kVectorBytes);
      const auto b = load<Halves>(second + v * kVectorBytes);
      words[2 * v] = (Words)interleave_lanes<false>(a, b);
      words[2 * v + 1] = (Words)interleave_lanes<true>(a, b);
    }
  }
  static EDGEPRUNE_INLINE Sum add(Sum sum, Words words, uint32_t weight) {
#if defined(__AVX512BF16__)
    const Words weights = broadcast<Words>(weight);
    if constexpr (kVectorBytes == 64) {
      return _mm512_dpbf16_ps(sum, (__m512bh)words, (__m512bh)weights);
    } else if constexpr (kVectorBytes == 32) {
      return _mm256_dpbf16_ps(sum, (__m256bh)words, (__m256bh)weights);
    } else {
      return _mm_dpbf16_ps(sum, (__m128bh)words, (__m128bh)weights);
    }
#else
    const uint32_t low_bits = weight << 16, high_bits = weight & 0xFFFF0000u;
    float low, high;
    std::memcpy(&low, &low_bits, 4);
    std::memcpy(&high, &high_bits, 4);
    sum += (Sum)(words << 16) * low;
    return sum + (Sum)(words & 0xFFFF0000u) * high;
#endif
  }
};

template <int Width>
struct Dot<Precision::int8, Width> {
  static constexpr int kMerged = 4, kElement = 1;
  static constexpr int kVectorBytes = Width, kVectors = 4;
  using Sum = Vector<int32_t, kVectorBytes>;
  using Words = Vector<uint32_t, kVectorBytes>;

  static constexpr int row_of(int slot) {
    return slot % 16 / 4 * (Width / 4) + slot / 16 * 4 + slot % 4;
  }

  static EDGEPRUNE_INLINE void read(const uint8_t* panel, const uint32_t* index,
                                    Words (&words)[kVectors]) {
    using Bytes = Vector<uint8_t, kVectorBytes>;
    using Halves = Vector<uint16_t, kVectorBytes>;
    Bytes x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) x[i] = load<Bytes>(panel + uint64_t{index[i]} * Width);
    Halves merged[4];
    interleave_four(x, merged);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) words[i] = (Words)merged[i];
  }
  static EDGEPRUNE_INLINE Sum add(Sum sum, Words words, uint32_t weight) {
    return add_products(sum, words, broadcast<Words>(weight));
  }
};

}  // namespace edgeprune::EDGEPRUNE_ISA
