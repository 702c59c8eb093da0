// Memory of many megabytes in pages of 2 MiB, where the system has them on request.
//
// Fresh memory is given page by page, at its first touch; in pages of 4 KiB that takes as
// long as several hundred products for each value.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include "bounds.hpp"

namespace elision {

constexpr size_t LARGE_PAGE = size_t{2} << 20;

// Ask for large pages in memory that has not been written yet. A wish, no promise.
inline void in_large_pages(void* memory, size_t bytes) {
#if defined(MADV_HUGEPAGE)
  uintptr_t begin = reinterpret_cast<uintptr_t>(memory), end = begin + bytes;
  begin = (begin + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
  end = end / LARGE_PAGE * LARGE_PAGE;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

// Floats, uninitialised.
class Floats {
 public:
  explicit Floats(size_t count) {
    size_t bytes = count * sizeof(float);
    size_t page = bytes < LARGE_PAGE ? 64 : LARGE_PAGE;
    bytes = (bytes + page - 1) / page * page;
    data_ = static_cast<float*>(std::aligned_alloc(page, std::max(bytes, page)));
    if (data_ == nullptr) throw std::bad_alloc();
    in_large_pages(data_, bytes);
    bound(data_, count * sizeof(float), bytes);
  }
  Floats(size_t count, float value) : Floats(count) { std::fill_n(data_, count, value); }
  Floats(Floats&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;
  ~Floats() { std::free(data_); }

  float* get() const { return data_; }
  float& operator[](size_t place) const { return data_[place]; }

 private:
  float* data_;
};

}  // namespace elision
