#include "prepared.hpp"

#include <algorithm>
#include <cstring>

namespace edgeprune {
namespace {

// The word of one output: four bytes of one entry, or a bfloat16 of each of two.
uint32_t word_of(const Weights& w, uint32_t entry, uint32_t entries, uint32_t output) {
  if (w.precision == Precision::int8) return w.values[uint64_t{entry} * w.rows + output];
  const auto* halves = reinterpret_cast<const uint16_t*>(w.values);
  const uint32_t low = halves[uint64_t{entry} * w.rows + output];
  const uint32_t high = entries > 1 ? halves[uint64_t{entry + 1} * w.rows + output] : 0;
  return low | high << 16;
}

}  // namespace

const char* Prepared::open(const void* data, size_t bytes, const Kernels& kernels) {
  if (reinterpret_cast<uintptr_t>(data) % alignof(uint32_t)) {
    copy_.resize((bytes + 3) / 4);
    std::memcpy(copy_.data(), data, bytes);
    data = copy_.data();
  }
  if (const char* problem = parse(data, bytes, &weights_)) return problem;
  kernels_ = &kernels;
  if (kernels.wants_tiles(weights_)) make_tiles();
  return nullptr;
}

// Tiles are [output][word], where a packed weight is [word][output]; the last tile of a group is
// filled up with zeros.
void Prepared::make_tiles() {
  Weights& w = weights_;
  const uint32_t merged = w.precision == Precision::bf16 ? 2 : 1;  // entries of a word
  const uint32_t per_tile = kTileWords * merged;
  tile_begin_.assign(1, 0);
  for (uint32_t group = 0; group < w.groups; ++group) {
    const uint32_t entries = w.begin[group + 1] - w.begin[group];
    tile_begin_.push_back(tile_begin_.back() + (entries + per_tile - 1) / per_tile);
  }
  tile_index_.assign(uint64_t{tile_begin_.back()} * per_tile, 0);
  tile_values_.assign(uint64_t{tile_begin_.back()} * kTileWords * w.rows, 0);
  for (uint32_t group = 0; group < w.groups; ++group) {
    uint32_t* index = tile_index_.data() + uint64_t{tile_begin_[group]} * per_tile;
    uint32_t* values = tile_values_.data() + uint64_t{tile_begin_[group]} * kTileWords * w.rows;
    const uint32_t first = w.begin[group], last = w.begin[group + 1];
    std::copy(w.index + first, w.index + last, index);
    for (uint32_t entry = first; entry < last; entry += merged) {
      const uint32_t word = (entry - first) / merged;
      uint32_t* tile = values + uint64_t{word / kTileWords} * kTileWords * w.rows;
      for (uint32_t output = 0; output < w.rows; ++output)
        tile[output * kTileWords + word % kTileWords] = word_of(w, entry, last - entry, output);
    }
  }
  w.tile_begin = tile_begin_.data();
  w.tile_index = tile_index_.data();
  w.tile_values = tile_values_.data();
}

}  // namespace edgeprune
