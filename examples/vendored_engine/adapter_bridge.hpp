// SPDX-License-Identifier: MIT
#ifndef VENDORED_ENGINE_ADAPTER_BRIDGE_HPP
#define VENDORED_ENGINE_ADAPTER_BRIDGE_HPP

// What the engine sees: C++17, no Eigen, no lowrank. Arrays are row-major, as the engine keeps them.

#include <cstddef>
#include <memory>
#include <string>

namespace engine {

class adapter {
public:
    /// lora_A is r x in, lora_B is out x r. On failure returns null and says why.
    static std::unique_ptr<adapter> make(const float* lora_A, const float* lora_B, std::size_t out, std::size_t in,
                                         std::size_t r, float lora_alpha, std::string& why);
    ~adapter();

    /// y += strength * (alpha / r) * B A x for `tokens` rows of x (tokens x in) and y (tokens x out). The engine's
    /// row-major tokens x in is the library's column-major in x tokens, byte for byte: nothing is copied. One call at a
    /// time.
    void apply(float strength, const float* x, float* y, std::size_t tokens) const;

private:
    struct state;
    explicit adapter(std::unique_ptr<state> s);
    std::unique_ptr<state> state_;
};

}  // namespace engine

#endif  // VENDORED_ENGINE_ADAPTER_BRIDGE_HPP
