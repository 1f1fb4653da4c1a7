#include "format.hpp"

#include <array>
#include <cstring>

namespace edgeprune {
namespace {

constexpr char kMagic[8] = {'E', 'P', 'S', 'P', 'A', 'R', 'S', 'E'};
constexpr uint32_t kVersion = 1;
constexpr uint64_t kAlignment = 64;

// Of bytes that follow those of which `before` is the checksum.
uint32_t crc32(const void* bytes_of, size_t bytes, uint32_t before) {
  // Eight tables, eight bytes a step: a packed layer is checked each time a model is compiled.
  static const auto tables = [] {
    std::array<std::array<uint32_t, 256>, 8> made{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0xEDB88320u : 0u);
      made[0][i] = value;
    }
    for (uint32_t i = 0; i < 256; ++i)
      for (int t = 1; t < 8; ++t)
        made[t][i] = (made[t - 1][i] >> 8) ^ made[0][made[t - 1][i] & 0xFF];
    return made;
  }();
  const auto* data = static_cast<const uint8_t*>(bytes_of);
  uint32_t crc = ~before;
  for (; bytes >= 8; bytes -= 8, data += 8) {
    uint32_t low, high;
    std::memcpy(&low, data, 4);
    std::memcpy(&high, data + 4, 4);
    low ^= crc;
    crc = tables[7][low & 0xFF] ^ tables[6][low >> 8 & 0xFF] ^ tables[5][low >> 16 & 0xFF] ^
          tables[4][low >> 24] ^ tables[3][high & 0xFF] ^ tables[2][high >> 8 & 0xFF] ^
          tables[1][high >> 16 & 0xFF] ^ tables[0][high >> 24];
  }
  for (; bytes; --bytes, ++data) crc = (crc >> 8) ^ tables[0][(crc ^ *data) & 0xFF];
  return ~crc;
}

// What one entry merges, or 0 where there is no kernel for the block.
uint32_t inputs_merged(Precision precision, uint32_t rows, uint32_t depth) {
  const uint32_t per_word = 1u << static_cast<uint32_t>(precision);  // 1, 2, 4
  if ((rows == 1 || rows == 4) && depth == 1) return per_word;
  if (precision == Precision::int8) return rows == 16 && depth == 4 ? 4 : 0;
  return (rows == 16 || rows == 32) && depth == 1 ? 1 : 0;
}

// Cuts consecutive sections off a run of bytes; sizes are 64-bit, so that they cannot wrap.
class Sections {
 public:
  Sections(const uint8_t* data, uint64_t bytes) : data_(data), left_(bytes) {}

  template <class T>
  const T* next(uint64_t count) {
    uint64_t bytes = (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    if (bytes > left_) {
      complete_ = false;
      return nullptr;
    }
    const T* section = reinterpret_cast<const T*>(data_);
    data_ += bytes;
    left_ -= bytes;
    return section;
  }
  bool exact() const { return complete_ && left_ == 0; }

 private:
  const uint8_t* data_;
  uint64_t left_;
  bool complete_ = true;
};

const char* check_offsets(const Weights& w, uint32_t entries) {
  if (w.begin[0] != 0 || w.begin[w.groups] != entries) return "entries are miscounted";
  for (uint32_t group = 0; group < w.groups; ++group)
    if (w.begin[group] > w.begin[group + 1]) return "groups are out of order";
  const uint64_t indices = (uint64_t{entries} + kPaddingEntries) * w.indices_per_entry();
  // Rows have room behind their last input for the rest of a block.
  const uint64_t inputs = (uint64_t{w.inputs} + w.depth - 1) / w.depth * w.depth;
  for (uint64_t i = 0; i < indices; ++i)
    if (uint64_t{w.index[i]} + w.depth > inputs || w.index[i] % w.depth)
      return "an index lies outside the inputs";
  return nullptr;
}

}  // namespace

const char* parse(const void* data, size_t bytes, Weights* weights) {
  Header header;
  if (bytes < sizeof header) return "it is shorter than its header";
  std::memcpy(&header, data, sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) return "it is no packed weight";
  if (header.version != kVersion) return "its version is not known here";
  if (header.bytes != bytes) return "it is truncated or too long";
  if (header.precision > static_cast<uint32_t>(Precision::int8)) return "its precision is unknown";

  Weights w{};
  w.precision = static_cast<Precision>(header.precision);
  w.rows = header.rows;
  w.depth = header.depth;
  w.outputs = header.outputs;
  w.inputs = header.inputs;
  w.merge = inputs_merged(w.precision, w.rows, w.depth);
  if (w.merge == 0) return "there is no kernel for its block";
  if (w.outputs == 0 || w.inputs == 0 || w.outputs % w.rows != 0) return "its shape is impossible";
  const uint32_t most = w.precision == Precision::int8 ? kMostInt8Inputs : kMostOfAnything;
  if (w.inputs > most || w.outputs > kMostOfAnything) return "it is too large";
  w.groups = w.outputs / w.rows;

  const auto* behind = static_cast<const uint8_t*>(data) + sizeof header;
  const uint64_t padded = uint64_t{header.entries} + kPaddingEntries;
  // A row of an entry is one word, but for bfloat16 in wide blocks, which has half a word.
  const bool half = w.precision == Precision::bf16 && w.merge == 1;
  const uint64_t words = half ? padded * w.rows / 2 : padded * w.rows;

  Sections sections(behind, bytes - sizeof header);
  w.begin = sections.next<uint32_t>(uint64_t{w.groups} + 1);
  w.index = sections.next<uint32_t>(padded * w.indices_per_entry());
  w.values = sections.next<uint32_t>(words);
  if (w.precision == Precision::int8) {
    w.scale = sections.next<float>(w.outputs);
    w.weight_sum = sections.next<int32_t>(w.outputs);
  }
  if (!sections.exact()) return "it is truncated or too long";
  const uint32_t crc = crc32(&header, offsetof(Header, crc), 0);
  if (crc32(behind, bytes - sizeof header, crc) != header.crc) return "its checksum does not match";
  if (const char* problem = check_offsets(w, header.entries)) return problem;
  *weights = w;
  return nullptr;
}

}  // namespace edgeprune
