// SPDX-License-Identifier: MIT
// An adapter kind that does not say how it is applied.
// expects: applied is missing: how the kind is applied and trained
#include <string_view>

#include <lowrank/lora/any_adapter.hpp>

namespace {

/// The change u v^T.
struct outer_adapter {
    using scalar = float;
    lowrank::matrix<float> u = {};
    lowrank::matrix<float> v = {};

    [[nodiscard]] lowrank::low_rank<float> delta() const { return {.left = u, .right = v}; }
    [[nodiscard]] outer_adapter pull_back(const lowrank::delta_gradient<float>& g) const { return {g.left, g.right}; }
};

}  // namespace

template <>
struct lowrank::adapter_kind<outer_adapter> {
    static constexpr std::string_view name = "outer";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("u"), a.u);
        f(std::string_view("v"), a.v);
    }
#ifndef LOWRANK_COMPILE_FAIL
    using applied = lowrank::applied_factors<outer_adapter>;
#endif
};

int main() {
    const lowrank::any_adapter<float> a = outer_adapter{lowrank::matrix<float>(3, 1), lowrank::matrix<float>(1, 4)};
    return a.rows() == 3 ? 0 : 1;
}
