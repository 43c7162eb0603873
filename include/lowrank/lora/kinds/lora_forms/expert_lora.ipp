// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_EXPERT_LORA_IPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_EXPERT_LORA_IPP

#include <lowrank/lora/kinds/lora_forms/expert_lora.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void product_blocks<S>::add_rows(double factor, index first, column_view<double> to) const {
    for (const block& b : blocks) {
        const index begin = std::max(first, b.row);
        const index end = std::min(first + to.cols(), b.row + b.product.rows());
        if (begin < end) {
            detail::add_rows_of_product(factor, b.product.left, b.product.right, begin - b.row,
                                        column_view<double>(to.data() + b.col + (begin - first) * to.outerStride(),
                                                            b.product.cols(), end - begin, to.outerStride()));
        }
    }
}

template <real S>
lora_adapter<S> expert_lora<S>::expert(index e) const {
    detail::expects(0 <= e && e < experts, "expert_lora: there is no such expert");
    const index r = rank();
    lora_adapter<S> out{.lora_A = matrix<S>(r, cols()),
                        .lora_B = matrix<S>(rows(), r),
                        .lora_alpha = lora_alpha,
                        .use_rslora = use_rslora};
    for (index j = 0; j < cols(); ++j) {
        for (index k = 0; k < r; ++k) {
            out.lora_A(k, j) = lora_A(e * r + k, j);
        }
    }
    for (index k = 0; k < r; ++k) {
        for (index i = 0; i < rows(); ++i) {
            out.lora_B(i, k) = lora_B(i, k * experts + e);
        }
    }
    return out;
}

template <real S>
void expert_lora<S>::put_expert(index e, const matrix<S>& a, const matrix<S>& b) {
    const index r = rank();
    detail::expects(0 <= e && e < experts, "expert_lora: there is no such expert");
    detail::expects(a.rows() == r && a.cols() == cols() && b.rows() == rows() && b.cols() == r,
                    "expert_lora: the factors of an expert have other shapes than the stack's");
    for (index j = 0; j < cols(); ++j) {
        for (index k = 0; k < r; ++k) {
            lora_A(e * r + k, j) = a(k, j);
        }
    }
    for (index k = 0; k < r; ++k) {
        for (index i = 0; i < rows(); ++i) {
            lora_B(i, k * experts + e) = b(i, k);
        }
    }
}

template <real S>
added_rows_change expert_lora<S>::change(expert_layout layout) const {
    const bool turned = layout == expert_layout::in_by_out;
    const index height = turned ? cols() : rows();
    product_blocks<S> all{.row_count = experts * height, .col_count = turned ? rows() : cols()};
    for (index e = 0; e < experts; ++e) {
        low_rank<S> d = expert(e).delta();
        if (turned) {
            d = {.left = copy_in<S>(transposed(d.right)), .right = copy_in<S>(transposed(d.left))};
        }
        all.blocks.push_back({.row = e * height, .product = std::move(d)});
    }
    return {added_rows(std::move(all))};
}

template <real S>
expert_lora<S> stack_experts(std::span<const lora_adapter<S>> experts) {
    detail::expects(!experts.empty(), "stack_experts: there is no expert");
    const lora_adapter<S>& one = experts.front();
    const auto count = static_cast<index>(experts.size());
    expert_lora<S> out{.experts = count,
                       .lora_A = matrix<S>(count * one.rank(), one.cols()),
                       .lora_B = matrix<S>(one.rows(), count * one.rank()),
                       .lora_alpha = one.lora_alpha,
                       .use_rslora = one.use_rslora};
    for (index e = 0; e < count; ++e) {
        const lora_adapter<S>& lora = experts[static_cast<std::size_t>(e)];
        detail::expects(lora.lora_alpha == one.lora_alpha && lora.use_rslora == one.use_rslora,
                        "stack_experts: the experts have different scalings");
        out.put_expert(e, lora);
    }
    return out;
}

template <real S>
expert_lora<S> make_expert_lora(index experts, index out, index in, const lora_options& options) {
    detail::expects(experts >= 1, "make_expert_lora: there must be an expert");
    detail::expects(options.lora_dropout == 0, "make_expert_lora: a stack of experts has no dropout");
    std::vector<lora_adapter<S>> all;
    for (index e = 0; e < experts; ++e) {
        lora_options of_expert = options;
        of_expert.stream = options.stream * static_cast<std::uint64_t>(experts) + static_cast<std::uint64_t>(e);
        all.push_back(make_lora<S>(out, in, of_expert));
    }
    return stack_experts<S>(all);
}

#ifdef LOWRANK_COMPILED
template struct product_blocks<float>;
template struct product_blocks<double>;
template struct expert_lora<float>;
template struct expert_lora<double>;
template expert_lora<float> make_expert_lora<float>(index, index, index, const lora_options&);
template expert_lora<double> make_expert_lora<double>(index, index, index, const lora_options&);
template expert_lora<float> stack_experts<float>(std::span<const lora_adapter<float>>);
template expert_lora<double> stack_experts<double>(std::span<const lora_adapter<double>>);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_EXPERT_LORA_IPP
