// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_TABLE_LORA_IPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_TABLE_LORA_IPP

#include <lowrank/lora/kinds/lora_forms/table_lora.hpp>

#include <lowrank/core/dense.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
low_rank<S> table_lora_adapter<S>::delta() const {
    low_rank<S> d{.left = copy_in<S>(transposed(lora.lora_A)), .right = copy_in<S>(transposed(lora.lora_B))};
    scale_cols(d.right, [s = lora.scaling()](index) { return s; });
    return d;
}

template <real S>
table_lora_adapter<S> table_lora_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    table_lora_adapter d = *this;
    d.lora.lora_A = copy_in<S>(transposed(g.left));
    d.lora.lora_B = copy_in<S>(transposed(g.right));
    scale_cols(d.lora.lora_B, [s = lora.scaling()](index) { return s; });
    return d;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_TABLE_LORA_OF(S) template struct table_lora_adapter<S>;
LOWRANK_TABLE_LORA_OF(float)
LOWRANK_TABLE_LORA_OF(double)
#undef LOWRANK_TABLE_LORA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_TABLE_LORA_IPP
