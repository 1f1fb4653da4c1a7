// Vectors of the instruction set this file is compiled for, in the compiler's vector extensions.
//
// Each instruction set compiles all kernels once more, in a namespace of its own: two versions of
// one inline function under one name would be merged by the linker, and the wrong one may stay.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if !defined(EDGEPRUNE_ISA)
#error "compile with -DEDGEPRUNE_ISA=name"
#endif

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define EDGEPRUNE_INLINE inline __attribute__((always_inline))
#define EDGEPRUNE_LAMBDA __attribute__((always_inline))

namespace edgeprune::EDGEPRUNE_ISA {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
constexpr int kRowsAtOnce = 4;  // of a block: 16 sums of the 32 registers
#elif defined(__AVX2__)
constexpr int kBytes = 32;
constexpr int kRowsAtOnce = 2;  // 8 sums of the 16 registers
#else
constexpr int kBytes = 16;
constexpr int kRowsAtOnce = 2;
#endif
constexpr int kLanes = kBytes / 4;

template <class T, int Bytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(Bytes)));
  typedef T unaligned __attribute__((vector_size(Bytes), aligned(1), may_alias));
};
template <class T, int Bytes = kBytes>
using Vector = typename VectorOf<T, Bytes>::type;

using Floats = Vector<float>;
using Words = Vector<uint32_t>;
using Ints = Vector<int32_t>;

template <class V>
EDGEPRUNE_INLINE V load(const void* from) {
  using T = std::remove_reference_t<decltype(V{}[0])>;
  return *static_cast<const typename VectorOf<T, sizeof(V)>::unaligned*>(from);
}

template <class V>
EDGEPRUNE_INLINE void store(void* to, V value) {
  using T = std::remove_reference_t<decltype(V{}[0])>;
  *static_cast<typename VectorOf<T, sizeof(V)>::unaligned*>(to) = value;
}

template <class V, class T>
EDGEPRUNE_INLINE V broadcast(T value) {
  return value - V{};
}

template <class V, int... I>
EDGEPRUNE_INLINE V shuffle(V a, V b, std::integer_sequence<int, I...>) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, I...);
#else  // GCC before 12
  using Element = std::remove_reference_t<decltype(V{}[0])>;
  using Short = std::conditional_t<sizeof(Element) == 2, int16_t, int8_t>;
  using Long = std::conditional_t<sizeof(Element) == 8, int64_t, int32_t>;
  using Index = std::conditional_t<sizeof(Element) >= 4, Long, Short>;
  return __builtin_shuffle(a, b, Vector<Index, sizeof(V)>{I...});
#endif
}

// The shuffle whose i-th element is the `Pick::at(i)`-th of both vectors.
template <class Pick, class V, int... I>
EDGEPRUNE_INLINE V shuffle_by(V a, V b, std::integer_sequence<int, I...>) {
  return shuffle(a, b, std::integer_sequence<int, Pick::at(I)...>());
}
template <class Pick, class V>
EDGEPRUNE_INLINE V shuffle_by(V a, V b) {
  return shuffle_by<Pick>(a, b, std::make_integer_sequence<int, sizeof(V) / sizeof(V{}[0])>());
}

// Two vectors interleaved, each 128-bit lane by itself: a0 b0 a1 b1 ... of their lower or upper
// halves. That is one instruction, where interleaving across lanes takes several.
template <bool Upper, class V>
EDGEPRUNE_INLINE V interleave_lanes(V a, V b) {
  struct Pick {
    static constexpr int at(int i) {
      constexpr int count = sizeof(V) / sizeof(V{}[0]), per_lane = 16 * count / sizeof(V);
      return i / per_lane * per_lane + i % per_lane / 2 + (Upper ? per_lane / 2 : 0) +
             i % 2 * count;
    }
  };
  return shuffle_by<Pick>(a, b);
}

// Four vectors interleaved in the same way: a0 b0 c0 d0 a1 ... in four vectors. `Pairs` has
// elements twice as wide, which the second step moves as one.
template <class Pairs, class V>
EDGEPRUNE_INLINE void interleave_four(const V (&from)[4], Pairs (&to)[4]) {
  const auto low01 = (Pairs)interleave_lanes<false>(from[0], from[1]);
  const auto low23 = (Pairs)interleave_lanes<false>(from[2], from[3]);
  const auto high01 = (Pairs)interleave_lanes<true>(from[0], from[1]);
  const auto high23 = (Pairs)interleave_lanes<true>(from[2], from[3]);
  to[0] = interleave_lanes<false>(low01, low23);
  to[1] = interleave_lanes<true>(low01, low23);
  to[2] = interleave_lanes<false>(high01, high23);
  to[3] = interleave_lanes<true>(high01, high23);
}

// The greater or the smaller of two; of a NaN and anything the second. The compiler would compare
// first and choose then.
EDGEPRUNE_INLINE Floats greater_of(Floats a, Floats b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
EDGEPRUNE_INLINE Floats smaller_of(Floats a, Floats b) {
#if defined(__AVX512F__)
  return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

// Added to a small float, its last bits are the nearest integer.
constexpr float kRounding = 12582912.0f;
constexpr uint32_t kRoundingBits = 0x4B400000;

// One over x to the last bit or two: a vector's division takes as long as sixteen multiplications.
EDGEPRUNE_INLINE Floats reciprocal(Floats x) {
#if defined(__AVX512F__)
  const Floats guess = _mm512_rcp14_ps(x);
#elif defined(__AVX2__)
  const Floats guess = _mm256_rcp_ps(x);
#else
  return 1.0f / x;
#endif
#if defined(__AVX2__)
  return guess * (2.0f - x * guess);  // a step of Newton's doubles its bits
#endif
}

template <int Step>
EDGEPRUNE_INLINE Ints largest_of_halves(Ints values) {
  struct Pick {
    static constexpr int at(int i) { return i ^ Step; }
  };
  const Ints other = shuffle_by<Pick>(values, values);
  values = values > other ? values : other;
  if constexpr (Step > 1) values = largest_of_halves<Step / 2>(values);
  return values;
}
EDGEPRUNE_INLINE int32_t largest_lane(Ints values) {
  return largest_of_halves<kLanes / 2>(values)[0];
}

// Sixteen bytes from each of some places, side by side.
EDGEPRUNE_INLINE Words join_quarters(const uint8_t* const (&from)[kLanes / 4]) {
#if defined(__AVX512F__)
  // Inserting from memory leaves the one port free that shuffles.
  const auto quarter = [&](int i) { return _mm_loadu_si128((const __m128i*)from[i]); };
  __m512i joined = _mm512_castsi128_si512(quarter(0));
  joined = _mm512_inserti32x4(joined, quarter(1), 1);
  joined = _mm512_inserti32x4(joined, quarter(2), 2);
  return (Words)_mm512_inserti32x4(joined, quarter(3), 3);
#else
  Words joined;
#pragma GCC unroll 2
  for (int i = 0; i < kLanes / 4; ++i)
    std::memcpy(reinterpret_cast<uint8_t*>(&joined) + 16 * i, from[i], 16);
  return joined;
#endif
}

// Four words from each of as many rows as a vector has lanes, as four columns of them.
EDGEPRUNE_INLINE void transpose(const uint8_t* const (&rows)[kLanes], Words (&columns)[4]) {
  Words mixed[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const uint8_t* quarters[kLanes / 4];
#pragma GCC unroll 4
    for (int i = 0; i < kLanes / 4; ++i) quarters[i] = rows[4 * i + j];
    mixed[j] = join_quarters(quarters);
  }
  Vector<uint64_t> interleaved[4];
  interleave_four(mixed, interleaved);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) columns[j] = (Words)interleaved[j];
}

// Words of four bytes to four planes: all first bytes, all second bytes, and so on.
EDGEPRUNE_INLINE Words byte_planes(Words words) {
  using Bytes = Vector<uint8_t>;
  struct WithinLane {
    static constexpr int at(int i) { return i / 16 * 16 + i % 4 * 4 + i % 16 / 4; }
  };
  struct AcrossLanes {
    static constexpr int at(int i) { return i % (kLanes / 4) * 4 + i / (kLanes / 4); }
  };
  words = (Words)shuffle_by<WithinLane>((Bytes)words, (Bytes)words);
  return shuffle_by<AcrossLanes>(words, words);
}

// Words of two halves to two planes: all first halves, then all second ones.
EDGEPRUNE_INLINE Words half_planes(Words words) {
  using Halves = Vector<uint16_t>;
  struct WithinLane {
    static constexpr int at(int i) { return i / 8 * 8 + i % 4 * 2 + i % 8 / 4; }
  };
  using Doubles = Vector<uint64_t>;
  struct AcrossLanes {
    static constexpr int at(int i) { return i % (kLanes / 4) * 2 + i / (kLanes / 4); }
  };
  words = (Words)shuffle_by<WithinLane>((Halves)words, (Halves)words);
  return (Words)shuffle_by<AcrossLanes>((Doubles)words, (Doubles)words);
}

// The low byte, or half, of every word. The compiler's own conversion sometimes goes word by word.
EDGEPRUNE_INLINE Vector<uint8_t, kBytes / 4> low_bytes(Words words) {
  words = byte_planes(words);
  return load<Vector<uint8_t, kBytes / 4>>(&words);
}
EDGEPRUNE_INLINE Vector<uint16_t, kBytes / 2> low_halves(Words words) {
  words = half_planes(words);
  return load<Vector<uint16_t, kBytes / 2>>(&words);
}

#if defined(__AVX2__)
// Four vectors of floats below 2**31 to bytes: to nearest, `zero` added, between 0 and 255.
EDGEPRUNE_INLINE Vector<uint8_t> packed_bytes(const Floats (&values)[4], int32_t zero) {
#if defined(__AVX512F__)
  const auto halves = [&](int i) EDGEPRUNE_LAMBDA {
    const __m512i packed =
        _mm512_packs_epi32(_mm512_cvtps_epi32(values[i]), _mm512_cvtps_epi32(values[i + 1]));
    return _mm512_adds_epi16(packed, _mm512_set1_epi16(static_cast<int16_t>(zero)));
  };
  const auto bytes = (Words)_mm512_packus_epi16(halves(0), halves(2));
#else
  const auto halves = [&](int i) EDGEPRUNE_LAMBDA {
    const __m256i packed =
        _mm256_packs_epi32(_mm256_cvtps_epi32(values[i]), _mm256_cvtps_epi32(values[i + 1]));
    return _mm256_adds_epi16(packed, _mm256_set1_epi16(static_cast<int16_t>(zero)));
  };
  const auto bytes = (Words)_mm256_packus_epi16(halves(0), halves(2));
#endif
  // Each 128-bit lane holds four bytes of each vector.
  struct Pick {
    static constexpr int at(int i) {
      constexpr int kQuarters = kLanes / 4;
      return i % kQuarters * 4 + i / kQuarters;
    }
  };
  return (Vector<uint8_t>)shuffle_by<Pick>(bytes, bytes);
}
#endif

// sum + the products of the four unsigned and the four signed bytes of each lane, exactly.
template <class Sum, class Word>
EDGEPRUNE_INLINE Sum add_products(Sum sum, Word words, Word weights) {
#if defined(__AVX512VNNI__)
  if constexpr (sizeof(Sum) == 64)
    return (Sum)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)words, (__m512i)weights);
  else if constexpr (sizeof(Sum) == 32)
    return (Sum)_mm256_dpbusd_epi32((__m256i)sum, (__m256i)words, (__m256i)weights);
  else
    return (Sum)_mm_dpbusd_epi32((__m128i)sum, (__m128i)words, (__m128i)weights);
#elif defined(__AVXVNNI__)
  if constexpr (sizeof(Sum) == 32)
    return (Sum)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)words, (__m256i)weights);
  else
    return (Sum)_mm_dpbusd_avx_epi32((__m128i)sum, (__m128i)words, (__m128i)weights);
#else
  // Even and odd bytes as 16-bit integers, since the instruction for bytes saturates.
  using Shorts = Vector<int16_t, sizeof(Sum)>;
  const Shorts even = (Shorts)(words & 0x00FF00FFu), odd = (Shorts)(words >> 8 & 0x00FF00FFu);
  const Shorts weights_odd = (Shorts)weights >> 8, weights_even = (Shorts)(weights << 8) >> 8;
#if defined(__AVX2__)
  if constexpr (sizeof(Sum) == 32)
    return sum + (Sum)_mm256_madd_epi16((__m256i)even, (__m256i)weights_even) +
           (Sum)_mm256_madd_epi16((__m256i)odd, (__m256i)weights_odd);
  else
    return sum + (Sum)_mm_madd_epi16((__m128i)even, (__m128i)weights_even) +
           (Sum)_mm_madd_epi16((__m128i)odd, (__m128i)weights_odd);
#else
  const Sum a = (Sum)(even * weights_even), b = (Sum)(odd * weights_odd);  // each fits 16 bits
  return sum + ((a << 16 >> 16) + (a >> 16)) + ((b << 16 >> 16) + (b >> 16));
#endif
#endif
}

}  // namespace edgeprune::EDGEPRUNE_ISA
