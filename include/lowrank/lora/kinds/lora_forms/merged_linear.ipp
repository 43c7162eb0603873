// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_MERGED_LINEAR_IPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_MERGED_LINEAR_IPP

#include <lowrank/lora/kinds/lora_forms/merged_linear.hpp>

#include <cstddef>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void merged_linear_adapter<S>::check() const {
    const index n = enabled();
    detail::expects(
        n == 0 ? lora_A.rows() == 0 && lora_B.rows() == 0 : lora_A.rows() == n * rank() && lora_B.rows() % n == 0,
        "merged_linear_adapter: A must have r rows and B out / parts rows per enabled part");
}

template <real S>
void merged_linear_adapter<S>::add_blocks(matrix<S>& compact, matrix<S>& full, bool to_full) const {
    const index block = full.rows() / parts();
    const dense_view<S> parts_of(compact), all(full);
    index j = 0;
    for (index part = 0; part < parts(); ++part) {
        if (enable[static_cast<std::size_t>(part)]) {
            const dense_view<S> small = parts_of.middle_rows(j * block, block);
            const dense_view<S> large = all.block(part * block, j * rank(), block, rank());
            add_scaled(scaling(), to_full ? small : large, to_full ? large : small);
            ++j;
        }
    }
}

template <real S>
low_rank<S> merged_linear_adapter<S>::delta() const {
    check();
    const index n = enabled();
    low_rank<S> change{.right = lora_A};
    change.left.setZero(n == 0 ? 0 : lora_B.rows() / n * parts(), rank() * n);
    if (n > 0) {
        matrix<S> compact = lora_B;
        add_blocks(compact, change.left, true);
    }
    return change;
}

template <real S>
merged_linear_adapter<S> merged_linear_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    check();
    merged_linear_adapter out{.lora_A = g.right, .enable = enable, .lora_alpha = lora_alpha};
    out.lora_B.setZero(lora_B.rows(), rank());
    if (enabled() > 0) {
        matrix<S> full = g.left;
        add_blocks(out.lora_B, full, false);
    }
    return out;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_MERGED_LINEAR_OF(S) template struct merged_linear_adapter<S>;
LOWRANK_MERGED_LINEAR_OF(float)
LOWRANK_MERGED_LINEAR_OF(double)
#undef LOWRANK_MERGED_LINEAR_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_MERGED_LINEAR_IPP
