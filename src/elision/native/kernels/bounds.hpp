// Memory that is kept for later calls, as AddressSanitizer sees it.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace elision {

// Of `kept` bytes this use has the first `used`; in a sanitized library the rest is out of
// bounds, as it would be if the memory were of just this size.
inline void bound(void* memory, size_t used, size_t kept) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(memory, used);
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(memory) + used, kept - used);
#else
  (void)memory, (void)used, (void)kept;
#endif
}

}  // namespace elision
