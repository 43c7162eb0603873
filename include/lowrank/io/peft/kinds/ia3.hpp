// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_IA3_HPP
#define LOWRANK_IO_PEFT_KINDS_IA3_HPP

/// \file
/// (IA)^3 in an adapter of PEFT: one scale a module.
///
///     const lowrank::peft_module module = lowrank::peft_ia3{};    // in an adapter of peft_type IA3
///
/// Names and shapes follow huggingface/peft.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/ia3.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// (IA)^3: W' = diag(scale) W, or W diag(scale) for feed-forward modules.
struct peft_ia3 {
    vector<float> scale = {};
    bool is_feedforward = false;   ///< Scales inputs instead of outputs (and of the bias).
    index spatial_dimensions = 0;  ///< 2 for a 2-d convolution, 0 for a linear layer.
};

namespace detail {

LOWRANK_INLINE peft_ia3 join_ia3(peft_parts& p, const peft_options& o) {
    peft_ia3 out{.scale = p.take_vector("ia3_l")};
    const tensor_info* t = p.find("ia3_l");
    if (!p.why || t == nullptr) {
        return out;
    }
    const auto tails = o.get<std::vector<std::string>>("feedforward_modules");
    const bool named =
        std::any_of(tails.begin(), tails.end(), [&](const std::string& tail) { return p.module().ends_with(tail); });
    if (t->shape.size() > 2) {
        out.spatial_dimensions = static_cast<index>(t->shape.size()) - 2;
        out.is_feedforward = named;
    } else {
        out.is_feedforward = t->shape.size() == 2 && t->shape[0] == 1 && (t->shape[1] != 1 || named);
    }
    return out;
}

}  // namespace detail

template <>
struct peft_kind<peft_ia3> {
    using module = peft_ia3;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "IA3",
                 .leaves = {"ia3_l"},
                 .keys = {{"feedforward_modules", std::vector<std::string>(), true, true}},
                 .known = {"init_ia3_weights"}}};
    }
    static const char* label(const module&) { return "(IA)^3"; }
    LOWRANK_INLINE static module_shape shape(const module&) { return {}; }
    static bool fit(module&, index, index) { return true; }
    LOWRANK_INLINE static peft_facts facts(const module&) { return {}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        scaled_change<float> c;
        (m.is_feedforward ? c.column_scale : c.row_scale) = m.scale;
        return {.weight = std::move(c), .acts_on_bias = !m.is_feedforward};
    }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) { return detail::join_ia3(p, c.options); }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>& names,
                                           std::span<const module* const> all) {
        std::vector<std::string> tails;
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (all[i]->is_feedforward) {
                tails.push_back(names[i]);
            }
        }
        o.set("feedforward_modules", std::move(tails));
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        std::vector<std::uint64_t> shape{detail::extent(m.scale.size()), 1};
        if (m.is_feedforward || m.spatial_dimensions != 0) {
            shape = {1, detail::extent(m.scale.size())};
            shape.resize(2 + static_cast<std::size_t>(m.spatial_dimensions), 1);
        }
        to.add("ia3_l", shape, m.scale);
    }
    LOWRANK_INLINE static result<any_adapter<float>> adapter(const module& m, const adapted_weight& w) {
        if (m.scale.size() != (m.is_feedforward ? w.in : w.out) || (w.has_bias && !m.is_feedforward)) {
            return status{errc::unsupported, "has a scale of another length, or scales a bias"};
        }
        return any_adapter<float>(
            ia3_adapter<float>{.ia3_l = m.scale, .is_feedforward = m.is_feedforward, .out = w.out, .in = w.in});
    }
    LOWRANK_INLINE static std::optional<module> from(const any_adapter<float>& a) {
        const auto* ia3 = a.get<ia3_adapter<float>>();
        return ia3 == nullptr ? std::nullopt
                              : std::optional<module>({.scale = ia3->ia3_l, .is_feedforward = ia3->is_feedforward});
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_IA3_HPP
