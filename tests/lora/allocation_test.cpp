// SPDX-License-Identifier: MIT
// Counts every operator new of this program; gradient_test.cpp checks that the counting works.
#include <atomic>
#include <cstdlib>
#include <new>

#include "support.hpp"

namespace {

std::atomic<std::uint64_t> allocations{0};

[[maybe_unused]] void* counted(std::size_t size, std::size_t alignment) {
    ++allocations;
    void* place = alignment <= alignof(std::max_align_t)
                      ? std::malloc(size == 0 ? 1 : size)
                      : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (place == nullptr) {
        std::abort();
    }
    return place;
}

}  // namespace

// A sanitizer brings operators of its own.
#if defined(__SANITIZE_ADDRESS__)
#define LOWRANK_TESTS_COUNT_NEW 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LOWRANK_TESTS_COUNT_NEW 0
#endif
#endif
#ifndef LOWRANK_TESTS_COUNT_NEW
#define LOWRANK_TESTS_COUNT_NEW 1
#endif

#if LOWRANK_TESTS_COUNT_NEW
void* operator new(std::size_t size) { return counted(size, 1); }
void* operator new[](std::size_t size) { return counted(size, 1); }
void* operator new(std::size_t size, std::align_val_t alignment) {
    return counted(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
    return counted(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* place) noexcept { std::free(place); }
void operator delete[](void* place) noexcept { std::free(place); }
void operator delete(void* place, std::size_t) noexcept { std::free(place); }
void operator delete[](void* place, std::size_t) noexcept { std::free(place); }
void operator delete(void* place, std::align_val_t) noexcept { std::free(place); }
void operator delete[](void* place, std::align_val_t) noexcept { std::free(place); }
void operator delete(void* place, std::size_t, std::align_val_t) noexcept { std::free(place); }
void operator delete[](void* place, std::size_t, std::align_val_t) noexcept { std::free(place); }

#endif

bool lowrank_tests::can_count_new() { return LOWRANK_TESTS_COUNT_NEW != 0; }
std::uint64_t lowrank_tests::allocation_count() { return allocations; }
