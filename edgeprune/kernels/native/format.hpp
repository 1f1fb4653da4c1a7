// The packed form of a block-sparse weight: one run of bytes, in memory and on disk.
//
//   header      64 bytes
//   begin       uint32[groups + 1]     first entry of each group of `rows` outputs
//   index       uint32[(entries + padding) * indices]   the inputs an entry reads; one index where
//               they are adjacent
//   values      uint32[(entries + padding) * rows], or half of it for bfloat16 in wide blocks
//   scale       float[outputs]         int8 only
//   weight_sum  int32[outputs]         int8 only: what a zero point of one would add
//
// Every section starts at a multiple of 64 bytes. An entry is what one step of a kernel takes:
// `rows` outputs by `merge` inputs. A word holds one float, two bfloat16 or four int8 weights of
// one output, so entries are `rows` words wide, whatever inputs they merge; those of wide blocks in
// bfloat16 merge none and are half as wide.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeprune {

enum class Precision : uint32_t { f32 = 0, bf16 = 1, int8 = 2 };

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t precision;
  uint32_t rows;
  uint32_t depth;
  uint32_t outputs;
  uint32_t inputs;
  uint32_t entries;
  uint32_t reserved;
  uint64_t bytes;
  uint32_t reserved_too[3];
  uint32_t crc;  // of everything else
};
static_assert(sizeof(Header) == 64 && offsetof(Header, crc) == 60);

// Kernels read this many entries ahead of the last one, to prefetch.
constexpr uint32_t kPaddingEntries = 8;

// Sums of more products of bytes do not fit 32 bits; and 32-bit counts must not wrap.
constexpr uint32_t kMostInt8Inputs = 1u << 16, kMostOfAnything = 1u << 30;

// Words of a tile in one direction: of one output, and outputs.
constexpr uint32_t kTileWords = 16;

// A packed weight whose every offset was checked.
struct Weights {
  Precision precision;
  uint32_t rows;     // outputs of a block
  uint32_t depth;    // adjacent inputs of a block
  uint32_t merge;    // inputs of an entry
  uint32_t outputs;
  uint32_t inputs;
  uint32_t groups;
  const uint32_t* begin;
  const uint32_t* index;
  const uint32_t* values;
  const float* scale;
  const int32_t* weight_sum;
  // Only where a processor multiplies whole tiles, see prepared.hpp.
  const uint32_t* tile_begin;
  const uint32_t* tile_index;
  const uint32_t* tile_values;

  // Adjacent inputs have one index together.
  uint32_t indices_per_entry() const { return depth == 1 ? merge : 1; }
};

// Reads a packed weight without copying it. Returns what is wrong with it, or nullptr.
const char* parse(const void* data, size_t bytes, Weights* weights);

}  // namespace edgeprune
