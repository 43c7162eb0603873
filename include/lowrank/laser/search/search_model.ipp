// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_SEARCH_MODEL_IPP
#define LOWRANK_LASER_SEARCH_SEARCH_MODEL_IPP

#include <lowrank/laser/search/search_model.hpp>

#include <cstddef>

namespace lowrank::inline LOWRANK_ABI {

template <storage T>
index search_model<T>::layer(index weight) const {
    return layer_of.empty() ? 0 : layer_of[static_cast<std::size_t>(weight)];
}

template <storage T>
search_model<T> reordered(const search_model<T>& m, const std::vector<index>& order) {
    std::vector<index> number(m.weights.size(), -1);
    detail::expects(order.size() == m.weights.size(), "reordered: the order must name each weight once");
    search_model<T> out = m;
    out.weights.clear();
    out.layer_of.clear();
    for (const index w : order) {
        detail::expects_in_range("reordered", "a weight", w, index{0}, static_cast<index>(m.weights.size()) - 1);
        const auto at = static_cast<std::size_t>(w);
        detail::expects(number[at] < 0, "reordered: the order must name each weight once");
        number[at] = static_cast<index>(out.weights.size());
        out.weights.push_back(m.weights[at]);
        out.layer_of.push_back(m.layer(w));
    }
    if (m.gradients) {
        out.gradients = [hook = m.gradients, number](sample_range r, const gradient_sink<compute_t<T>>& sink) {
            return hook(
                r, [&](index w, const_column_view<compute_t<T>> x, const_column_view<compute_t<T>> dy,
                       std::span<const index> starts) { sink(number[static_cast<std::size_t>(w)], x, dy, starts); });
        };
    }
    if (m.evaluate_ranks) {
        out.evaluate_ranks = [hook = m.evaluate_ranks, order](sample_range r, index w,
                                                              const nested_ranks<compute_t<T>>& nested, index first) {
            return hook(r, order[static_cast<std::size_t>(w)], nested, first);
        };
    }
    if (m.read) {
        out.read = [hook = m.read, order](index w) { return hook(order[static_cast<std::size_t>(w)]); };
    }
    if (m.decompose) {
        out.decompose = [hook = m.decompose, order](index w, const_weight_view<T> values) {
            return hook(order[static_cast<std::size_t>(w)], values);
        };
    }
    if (m.override_weight) {
        out.override_weight = [hook = m.override_weight, order](index w, const weight_override<compute_t<T>>* edit) {
            hook(order[static_cast<std::size_t>(w)], edit);
        };
    }
    return out;
}

template <storage T>
void expects_search_model(const char* function, const search_model<T>& m) {
    detail::expects(static_cast<bool>(m.evaluate), "search: the evaluator must not be empty");
    detail::expects(m.layers >= 1, "search: a model has at least one layer");
    detail::expects(static_cast<bool>(m.read) == static_cast<bool>(m.override_weight),
                    "search: a model has both of read and override_weight, or neither");
    for (const auto& w : m.weights) {
        detail::expects(m.override_weight || w.weight.data() != nullptr || w.weight.size() == 0,
                        "search: a weight that is not in memory needs read and override_weight");
    }
    detail::expects(m.layer_of.empty() || m.layer_of.size() == m.weights.size(),
                    "search: layer_of must be empty or name the layer of each weight");
    for (const index l : m.layer_of) {
        detail::expects_in_range(function, "the layer of a weight", l, index{0}, m.layers - 1);
    }
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_SEARCH_MODEL_OF(T)                                                         \
    template struct search_model<T>;                                                       \
    template search_model<T> reordered(const search_model<T>&, const std::vector<index>&); \
    template void expects_search_model(const char*, const search_model<T>&);
LOWRANK_SEARCH_MODEL_OF(float)
LOWRANK_SEARCH_MODEL_OF(double)
LOWRANK_SEARCH_MODEL_OF(half)
LOWRANK_SEARCH_MODEL_OF(bfloat16)
#undef LOWRANK_SEARCH_MODEL_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_SEARCH_MODEL_IPP
