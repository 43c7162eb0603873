// SPDX-License-Identifier: MIT
// A view borrows memory; an expression has none. Eigen::Ref would copy it without a word.
// expects: no matching (function|constructor)|conversion from .* requested|could not convert|no viable conversion
#include <lowrank/core/types.hpp>

int main() {
    const lowrank::matrix<float> a = lowrank::matrix<float>::Ones(3, 4);
#ifdef LOWRANK_COMPILE_FAIL
    const lowrank::const_column_view<float> view = a * 2.0F;
#else
    const lowrank::const_column_view<float> view = a;
#endif
    return static_cast<int>(view.rows()) - 3;
}
