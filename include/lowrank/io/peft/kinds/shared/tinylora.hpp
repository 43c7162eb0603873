// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_SHARED_TINYLORA_HPP
#define LOWRANK_IO_PEFT_KINDS_SHARED_TINYLORA_HPP

/// \file
/// TinyLoRA in an adapter of PEFT: frozen factors a module, and trained vectors that groups of modules share.
///
///     const lowrank::peft_module module = lowrank::tinylora_adapter<float>{};    // in an adapter of peft_type TINYLORA
///
/// Which vector is whose follows, as in huggingface/peft, from weight_tying and the place of a module in the order in which
/// the model defines them. Where names do not tell that order, an adapter of several groups is refused.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/module_order.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/shared/tinylora.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The vectors of an adapter, by their number.
using tinylora_vectors = std::map<index, vector<float>>;

/// The group of a module, or why it is not known.
LOWRANK_INLINE [[nodiscard]] result<index> tinylora_group(const peft_place& place) {
    const auto count = static_cast<double>(place.modules.size());
    const double tied = place.options.get<double>("weight_tying");
    // Half is rounded to even, as std::nearbyint does by default.
    const auto groups = static_cast<index>(std::max(1.0, std::nearbyint(count * (1.0 - tied))));
    if (groups == 1) {
        return index{0};
    }
    const index size = std::max(index{1}, static_cast<index>(place.modules.size()) / groups);
    const auto group_at = [&](index number) { return std::min(number / size, groups - 1); };
    index before = 0;
    index unknown = 0;  // of those that may stand before it or behind
    std::string_view other;
    for (const std::string_view name : place.modules) {
        if (name == place.module) {
            continue;
        }
        const module_order order = compare_modules(name, place.module);
        before += order.less && order.is_known ? 1 : 0;
        unknown += order.is_known ? 0 : 1;
        other = order.is_known ? other : name;
    }
    if (group_at(before) != group_at(before + unknown)) {
        return status{errc::unsupported,
                      "has one of " + std::to_string(groups) +
                          " vectors tinylora_v, which is told by the order of modules in the model, and names do not "
                          "tell whether it stands before " +
                          in_quotes(other) + "; merge the adapter with PEFT, or convert it to LoRA there"};
    }
    return group_at(before);
}

}  // namespace detail

template <>
struct peft_kind<tinylora_adapter<float>> {
    using module = tinylora_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "TINYLORA",
                 .r_key = "r",
                 .r = 2,
                 .dropout_key = "tinylora_dropout",
                 .has_bias = true,
                 .bias_only = "tinylora_only",
                 .has_fan_in_fan_out = true,
                 .leaves = {"tinylora_A", "tinylora_B", "tinylora_P"},
                 .numbered = "tinylora_v",
                 .keys = {{"u", std::int64_t{64}}, {"weight_tying", 0.0}},
                 .known = {"init_v_bound", "projection_seed", "save_projection"},
                 .defaults = R"({"bias":"none","exclude_modules":null,"init_v_bound":0.02,"init_weights":true,
                                 "layers_pattern":null,"layers_to_transform":null,"projection_seed":42,
                                 "save_projection":true})"}};
    }
    LOWRANK_INLINE static status check(const peft_options& o, std::string_view, std::vector<std::string>&) {
        const double tied = o.get<double>("weight_tying");
        return 0 <= tied && tied <= 1 ? status{}
                                      : wrong_value("weight_tying", "between 0 and 1", detail::in_words(tied));
    }
    static const char* label(const module&) { return "TinyLoRA"; }
    static module_shape shape(const module& m) { return {.out = m.tinylora_B.rows(), .in = m.tinylora_A.cols()}; }
    static bool fit(module&, index, index) { return true; }
    static peft_facts facts(const module& m) { return {m.r, 0, m.dropout}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    /// The vectors.
    LOWRANK_INLINE static std::shared_ptr<const void> join_shared(peft_parts& p) {
        auto all = std::make_shared<detail::tinylora_vectors>();
        for (const std::string_view leaf : p.leaves()) {
            const std::string_view number = leaf.substr(leaf.rfind('.') + 1);
            index group = 0;
            for (const char c : number) {
                group = 10 * group + (c - '0');
            }
            if (!leaf.starts_with("tinylora_v.") || number.size() > 9 || (number.size() > 1 && number.front() == '0')) {
                p.fail(errc::invalid_format, *p.find(leaf), "is not the vector of a group of modules");
                break;
            }
            all->emplace(group, p.take_vector(leaf));
        }
        return all;
    }
    LOWRANK_INLINE static status write_shared(const module& m, const peft_place& place, peft_tensors& to) {
        const auto group = detail::tinylora_group(place);
        if (!group) {
            return {group.error().code,
                    "module " + detail::in_quotes(std::string(place.module)) + " " + group.error().message};
        }
        to.add("tinylora_v." + std::to_string(*group), {detail::extent(m.v.size())}, m.v);
        return {};
    }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) {
        module out{.tinylora_A = p.take_blocks("tinylora_A", 2),
                   .tinylora_B = p.take_blocks("tinylora_B", 2),
                   .r = c.r,
                   .dropout = c.dropout};
        if (!p.has("tinylora_P")) {
            p.fail(errc::unsupported,
                   "needs the random matrices tinylora_P, which are not in the file; save the adapter again with "
                   "save_projection=True");
            return out;
        }
        out.tinylora_P = p.take_blocks("tinylora_P", 3);
        const auto group = detail::tinylora_group({c.options, p.module(), c.modules});
        if (!group) {
            p.fail(group.error().code, group.error().message);
            return out;
        }
        out.group = *group;
        const auto all = std::static_pointer_cast<const detail::tinylora_vectors>(c.shared);
        const auto own = all != nullptr ? all->find(out.group) : detail::tinylora_vectors::const_iterator();
        if (all == nullptr || own == all->end()) {
            p.fail(errc::invalid_format,
                   "needs tinylora_v." + std::to_string(out.group) + ", which is not in the file");
            return out;
        }
        out.v = own->second;
        if (!p.why) {
            return out;
        }
        const index k = out.tinylora_A.rows();
        p.expect_of_config(static_cast<std::int64_t>(out.v.size()) == c.options.get<std::int64_t>("u"),
                           "a vector of " + std::to_string(out.v.size()));
        p.expect_of_config(k == std::min({c.r, out.tinylora_B.rows(), out.tinylora_A.cols()}),
                           "rank " + std::to_string(k));
        p.agree(k >= 1 && out.tinylora_B.cols() == k && out.tinylora_P.cols() == k &&
                out.tinylora_P.rows() == out.v.size() * k && p.find("tinylora_P")->shape[1] == detail::extent(k));
        return out;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        const std::uint64_t k = detail::extent(m.tinylora_A.rows());
        to.add("tinylora_A", m.tinylora_A);
        to.add("tinylora_B", m.tinylora_B);
        to.add("tinylora_P", {detail::extent(m.v.size()), k, k}, m.tinylora_P);
    }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        std::set<index> groups;
        for (const module* m : all) {
            groups.insert(m->group);
            o.set("u", static_cast<std::int64_t>(m->v.size()));
        }
        if (!all.empty()) {
            o.set("weight_tying", groups.size() == 1 && all.size() > 1
                                      ? 1.0
                                      : 1.0 - static_cast<double>(groups.size()) / static_cast<double>(all.size()));
        }
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module& m) {
        return static_cast<std::int64_t>(m.v.size()) == o.get<std::int64_t>("u") ? nullptr : "u";
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_SHARED_TINYLORA_HPP
