// Memory that a thread keeps from call to call.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace edgeprune {

constexpr uint64_t kCacheLine = 64;

constexpr uint64_t round_up(uint64_t bytes) {
  return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
}

class Scratch {
 public:
  // At least as many bytes, aligned to a cache line. What was there before is lost.
  uint8_t* of(uint64_t bytes) {
    if (bytes > bytes_) {
      data_.reset();
      data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kCacheLine, round_up(bytes))));
      bytes_ = data_ ? bytes : 0;
      if (!data_) throw std::bad_alloc();
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(uint8_t* data) const { std::free(data); }
  };
  std::unique_ptr<uint8_t, Free> data_;
  uint64_t bytes_ = 0;
};

}  // namespace edgeprune
