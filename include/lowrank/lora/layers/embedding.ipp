// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_LAYERS_EMBEDDING_IPP
#define LOWRANK_LORA_LAYERS_EMBEDDING_IPP

#include <lowrank/lora/layers/embedding.hpp>

#include <algorithm>
#include <cstddef>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE void check_ids(const char* function, std::span<const std::int64_t> ids, index num, index columns) {
    if (static_cast<index>(ids.size()) != columns) [[unlikely]] {
        fail_contract_with(function, ": needs one column per id, got ", columns, " for ", ids.size());
    }
    for (const auto id : ids) {
        expects_in_range(function, "id", static_cast<index>(id), index{0}, num - 1);
    }
}

/// z = A[:, ids]
template <real S>
void gather_columns(const matrix<S>& a, std::span<const std::int64_t> ids, column_view<S>& z) {
    for (std::size_t j = 0; j < ids.size(); ++j) {
        std::copy_n(a.data() + static_cast<index>(ids[j]) * a.rows(), a.rows(),
                    z.data() + static_cast<index>(j) * z.rows());
    }
}

}  // namespace detail

template <real S>
lora_adapter<S> make_embedding_lora(index num, index dim, const lora_options& options) {
    auto adapter = make_lora<S>(dim, num, options);
    adapter.lora_A.setZero();
    fill_normal(adapter.lora_B, S(1), philox(options.seed, options.stream));
    return adapter;
}

template <storage T>
void embedding_lookup(const_weight_view<T> table, std::span<const std::int64_t> ids, column_view<compute_t<T>> y) {
    detail::check_ids("embedding_lookup", ids, table.rows(), y.cols());
    detail::expects_shape("embedding_lookup", "y", y.rows(), y.cols(), table.cols(), y.cols());
    for (index j = 0; j < y.cols(); ++j) {
        const T* row = table.data() + static_cast<index>(ids[static_cast<std::size_t>(j)]) * table.outerStride();
        for (index i = 0; i < y.rows(); ++i) {
            y(i, j) = static_cast<compute_t<T>>(row[i]);
        }
    }
}

template <real S>
void embedding_forward(const lora_adapter<S>& adapter, std::type_identity_t<S> strength,
                       std::span<const std::int64_t> ids, std::type_identity_t<column_view<S>> y, workspace& ws) {
    detail::check_ids("embedding_forward", ids, adapter.cols(), y.cols());
    detail::expects_shape("embedding_forward", "y", y.rows(), y.cols(), adapter.rows(), y.cols());
    if (detail::all_zero(adapter.lora_B)) {
        return;
    }
    const workspace::frame scope(ws);
    auto z = ws.take<S>(adapter.rank(), y.cols());
    detail::gather_columns<S>(adapter.lora_A, ids, z);
    add_product<S, 0>(strength * adapter.scaling(), const_column_view<S>(adapter.lora_B), z, y, ws);
}

template <real S>
void embedding_backward(const lora_adapter<S>& adapter, std::type_identity_t<S> strength,
                        std::span<const std::int64_t> ids, std::type_identity_t<const_column_view<S>> dy,
                        lora_gradient<S>& gradient, workspace& ws, const embedding_options& options) {
    detail::check_ids("embedding_backward", ids, adapter.cols(), dy.cols());
    detail::expects_shape("embedding_backward", "dy", dy.rows(), dy.cols(), adapter.rows(), dy.cols());
    detail::expects_shape("embedding_backward", "gradient.lora_A", gradient.lora_A.rows(), gradient.lora_A.cols(),
                          adapter.lora_A.rows(), adapter.lora_A.cols());
    const workspace::frame scope(ws);
    const S scale = strength * adapter.scaling();
    auto z = ws.take<S>(adapter.rank(), dy.cols());
    detail::gather_columns<S>(adapter.lora_A, ids, z);
    add_outer_product(scale, dy, z, gradient.lora_B, ws);
    auto t = ws.take<S>(adapter.rank(), dy.cols());
    t.setZero();
    add_transposed_product<S, 0>(scale, const_column_view<S>(adapter.lora_B), dy, t, ws);
    for (std::size_t j = 0; j < ids.size(); ++j) {
        if (const auto id = static_cast<index>(ids[j]); id != options.padding_index) {
            detail::axpy(S(1), t.data() + static_cast<index>(j) * t.rows(),
                         gradient.lora_A.data() + id * adapter.rank(), adapter.rank());
        }
    }
}

#ifdef LOWRANK_COMPILED
template void embedding_lookup<half>(const_weight_view<half>, std::span<const std::int64_t>, column_view<float>);
template void embedding_lookup<bfloat16>(const_weight_view<bfloat16>, std::span<const std::int64_t>,
                                         column_view<float>);
#define LOWRANK_EMBEDDING_OF(S)                                                                                  \
    template lora_adapter<S> make_embedding_lora<S>(index, index, const lora_options&);                          \
    template void embedding_lookup<S>(const_weight_view<S>, std::span<const std::int64_t>, column_view<S>);      \
    template void embedding_forward<S>(const lora_adapter<S>&, S, std::span<const std::int64_t>, column_view<S>, \
                                       workspace&);                                                              \
    template void embedding_backward<S>(const lora_adapter<S>&, S, std::span<const std::int64_t>,                \
                                        const_column_view<S>, lora_gradient<S>&, workspace&,                     \
                                        const embedding_options&);
LOWRANK_EMBEDDING_OF(float)
LOWRANK_EMBEDDING_OF(double)
#undef LOWRANK_EMBEDDING_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_LAYERS_EMBEDDING_IPP
