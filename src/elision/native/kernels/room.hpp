// An array that grows and never shrinks, uninitialised.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#include "bounds.hpp"

namespace elision {

// Memory that is not touched before it is used: room for the densest case costs nothing.
template <typename T>
class Room {
 public:
  void reserve(size_t count) {
    if (count > count_) {
      data_.reset(static_cast<T*>(std::malloc(count * sizeof(T))));
      if (!data_) throw std::bad_alloc();
      count_ = count;
    }
    bound(data_.get(), count * sizeof(T), count_ * sizeof(T));
  }
  T* get() const { return data_.get(); }
  size_t count() const { return count_; }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
  size_t count_ = 0;
};

}  // namespace elision
