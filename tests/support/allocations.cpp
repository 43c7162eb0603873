// SPDX-License-Identifier: MIT
#include "allocations.hpp"

#include <cerrno>
#include <cstddef>

#include "sanitized.hpp"

// Everything on the heap ends in malloc: operator new in all its forms, and Eigen, which calls malloc directly.
#if defined(__GLIBC__) && !LOWRANK_TESTS_SANITIZED
#define LOWRANK_TESTS_COUNT 1
#else
#define LOWRANK_TESTS_COUNT 0
#endif

namespace {
thread_local long count = 0;
}

#if LOWRANK_TESTS_COUNT
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) {
    ++count;
    return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) {
    ++count;
    return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t size) {
    ++count;
    return __libc_realloc(p, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
    ++count;
    return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
    ++count;
    return __libc_memalign(alignment, size);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t size) {
    ++count;
    *p = __libc_memalign(alignment, size);
    return *p == nullptr ? ENOMEM : 0;
}
}
#endif

namespace lowrank_tests {

long allocations() { return count; }
bool can_count_allocations() { return LOWRANK_TESTS_COUNT != 0; }

}  // namespace lowrank_tests
