// Wide blocks on a processor's matrix unit (AMX): sixteen outputs times sixteen rows at once.
//
// A tile of weights holds sixteen words of each of sixteen outputs. Which inputs they read is
// arbitrary, so the activations of sixteen words are gathered from a panel into tiles of their own,
// one for every sixteen rows, next to where the unit reads them.
#pragma once

#include "panel_kernels.hpp"

namespace edgeprune::EDGEPRUNE_ISA {

#if defined(__AMX_INT8__) && defined(__AMX_BF16__)

constexpr int kTileRows = kTileWords, kTileBytes = 4 * kTileWords;
constexpr uint32_t kUnitOutputs = 64;  // finished together

// All tiles are full. What was configured before is restored, though not what the tiles held.
class TileConfiguration {
 public:
  TileConfiguration() {
    _tile_storeconfig(&before_);
    Palette full{};
    full.palette = 1;
    for (int i = 0; i < 8; ++i) {
      full.row_bytes[i] = kTileBytes;
      full.rows[i] = kTileRows;
    }
    // The intrinsics do not tell the compiler which memory they read.
    __asm__ volatile("" ::: "memory");
    _tile_loadconfig(&full);
  }
  ~TileConfiguration() { _tile_loadconfig(&before_); }
  TileConfiguration(const TileConfiguration&) = delete;
  TileConfiguration& operator=(const TileConfiguration&) = delete;

 private:
  struct alignas(64) Palette {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  static_assert(sizeof(Palette) == 64);
  Palette before_;
};

// How a precision's panel is read: the inputs of one word, for all rows of the panel.
template <Precision, int Width>
struct Gather;

template <int Width>
struct Gather<Precision::int8, Width> {
  static constexpr int kIndices = 1;
  // Four adjacent inputs lie in one word of the panel.
  static EDGEPRUNE_INLINE void read(const uint8_t* panel, const uint32_t* index,
                                    Vector<uint32_t, 64> (&words)[Width / 16]) {
    const uint8_t* row = panel + uint64_t{index[0]} * Width;
#pragma GCC unroll 4
    for (int v = 0; v < Width / 16; ++v)
      words[v] = load<Vector<uint32_t, 64>>(row + v * kTileBytes);
  }
};

template <int Width>
struct Gather<Precision::bf16, Width> {
  static constexpr int kIndices = 2;
  static EDGEPRUNE_INLINE void read(const uint8_t* panel, const uint32_t* index,
                                    Vector<uint32_t, 64> (&words)[Width / 16]) {
    using D = Dot<Precision::bf16, Width>;
    typename D::Words parts[D::kVectors];
    D::read(panel, index, parts);
    std::memcpy(words, parts, sizeof words);
  }
};

// The intrinsics take names of tiles as text, so that they cannot be arguments of a template.
#define EDGEPRUNE_ADD_TILES(sum, weights, activations)   \
  if constexpr (P == Precision::int8)                    \
    _tile_dpbsud(sum, weights, activations);             \
  else                                                   \
    _tile_dpbf16ps(sum, weights, activations)

// Tiles 0 to 3 are sums, 4 holds weights, 5 to 7 activations.
template <Precision P, int Width>
EDGEPRUNE_INLINE void add_tile(const uint32_t* weights, const uint8_t* gathered) {
  constexpr int kBytesPerTile = kTileRows * kTileBytes;
  __asm__ volatile("" ::: "memory");  // what was gathered is in memory now
  _tile_loadd(4, weights, kTileBytes);
  _tile_loadd(5, gathered, kTileBytes);
  EDGEPRUNE_ADD_TILES(0, 4, 5);
  if constexpr (Width >= 32) {
    _tile_loadd(6, gathered + kBytesPerTile, kTileBytes);
    EDGEPRUNE_ADD_TILES(1, 4, 6);
  }
  if constexpr (Width >= 64) {
    _tile_loadd(7, gathered + 2 * kBytesPerTile, kTileBytes);
    EDGEPRUNE_ADD_TILES(2, 4, 7);
    _tile_loadd(5, gathered + 3 * kBytesPerTile, kTileBytes);
    EDGEPRUNE_ADD_TILES(3, 4, 5);
  }
}
#undef EDGEPRUNE_ADD_TILES

template <int Width>
EDGEPRUNE_INLINE void zero_tiles() {
  _tile_zero(0);
  if constexpr (Width >= 32) _tile_zero(1);
  if constexpr (Width >= 64) {
    _tile_zero(2);
    _tile_zero(3);
  }
}

template <int Width>
EDGEPRUNE_INLINE void store_tiles(uint32_t (*sums)[Width]) {
  _tile_stored(0, &sums[0][0], Width * 4);
  if constexpr (Width >= 32) _tile_stored(1, &sums[0][16], Width * 4);
  if constexpr (Width >= 64) {
    _tile_stored(2, &sums[0][32], Width * 4);
    _tile_stored(3, &sums[0][48], Width * 4);
  }
}

// What the zero point added is taken from the sums, which the unit starts at zero.
template <int Width>
EDGEPRUNE_INLINE void take_zeros(const Weights& w, const RowFacts& facts, uint32_t first,
                                 uint32_t (*sums)[Width]) {
  for (uint32_t n = 0; n < kTileRows; ++n) {
    const auto start = first_sum<Precision::int8, Ints>(w, facts, first + n);
#pragma GCC unroll 4
    for (int v = 0; v < Width / kLanes; ++v) {
      uint32_t* at = &sums[n][v * kLanes];
      store(at, load<Ints>(at) + start);
    }
  }
}

// Sixteen outputs for all rows of a panel.
template <Precision P, int Width>
EDGEPRUNE_INLINE void sum_tiles(const Weights& w, const uint8_t* panel, uint32_t group,
                                uint32_t (*sums)[Width]) {
  using G = Gather<P, Width>;
  // Two, so that one is filled while the unit reads the other.
  alignas(64) uint8_t gathered[2][Width / 16][kTileRows][kTileBytes];
  zero_tiles<Width>();
  for (uint32_t tile = w.tile_begin[group]; tile < w.tile_begin[group + 1]; ++tile) {
    auto& place = gathered[tile % 2];
    const uint32_t* index = w.tile_index + uint64_t{tile} * kTileRows * G::kIndices;
#pragma GCC unroll 4
    for (int i = 0; i < kTileRows; ++i) {
      Vector<uint32_t, 64> words[Width / 16];
      G::read(panel, index + i * G::kIndices, words);
#pragma GCC unroll 4
      for (int v = 0; v < Width / 16; ++v) store(place[v][i], words[v]);
    }
    add_tile<P, Width>(w.tile_values + uint64_t{tile} * kTileRows * kTileWords, &place[0][0][0]);
  }
  store_tiles<Width>(sums);
}

template <Precision P, int Width, class Finish>
EDGEPRUNE_INLINE void multiply_by_tiles(const Weights& w, const Panel& panel, const RowFacts& facts,
                                        uint32_t begin, uint32_t end, const Finish& finish) {
  constexpr uint32_t kGroups = kUnitOutputs / kTileRows;
  const TileConfiguration configuration;
  const auto* data = static_cast<const uint8_t*>(panel.data);
  alignas(64) uint32_t sums[kUnitOutputs][Width];
  for (uint32_t first = begin; first < end; first += kGroups) {
    for (uint32_t g = 0; g < kGroups && first + g < end; ++g) {
      sum_tiles<P, Width>(w, data, first + g, sums + g * kTileRows);
      if constexpr (P == Precision::int8)
        take_zeros<Width>(w, facts, (first + g) * kTileRows, sums + g * kTileRows);
    }
    finish(first * kTileRows, end * kTileRows, sums, Part{0, 1});
  }
}

#endif

}  // namespace edgeprune::EDGEPRUNE_ISA
