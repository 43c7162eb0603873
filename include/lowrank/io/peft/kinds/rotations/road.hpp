// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_ROTATIONS_ROAD_HPP
#define LOWRANK_IO_PEFT_KINDS_ROTATIONS_ROAD_HPP

/// \file
/// RoAd in an adapter of PEFT: angles and scales of pairs of outputs.
///
///     const lowrank::peft_module module = lowrank::road_adapter<float>{};    // in an adapter of peft_type ROAD
///
/// Names and shapes follow huggingface/peft. The layer's bias is an output like all others and is turned with them.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/rotations/road.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// 1, 2 or 4, or 0 for another text.
LOWRANK_INLINE index road_variant_of(const peft_options& o) {
    const auto text = o.get<std::string>("variant");
    return text == "road_1" ? 1 : text == "road_2" ? 2 : text == "road_4" ? 4 : 0;
}

LOWRANK_INLINE road_adapter<float> join_road(peft_parts& p, const peft_options& o) {
    road_adapter<float> out{.road_theta = p.take_vector("road_theta"),
                            .road_alpha = p.take_vector("road_alpha"),
                            .variant = road_variant_of(o),
                            .group_size = static_cast<index>(o.get<std::int64_t>("group_size"))};
    p.agree(out.road_theta.size() == out.road_alpha.size() && out.road_theta.size() >= 1);
    p.expect_of_config(!p.why || out.is_valid(), std::to_string(out.road_theta.size()) + " angles");
    return out;
}

}  // namespace detail

template <>
struct peft_kind<road_adapter<float>> {
    using module = road_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "ROAD",
                 .leaves = {"road_theta", "road_alpha"},
                 .keys = {{"variant", std::string("road_1")}, {"group_size", std::int64_t{64}}},
                 .defaults = R"({"init_weights":true})"}};
    }
    LOWRANK_INLINE static status check(const peft_options& o, std::string_view, std::vector<std::string>&) {
        if (o.contains("variant") && detail::road_variant_of(o) == 0) {
            return {errc::unsupported, "variant " + detail::in_quotes(o.get<std::string>("variant")) +
                                           " of RoAd is not known; this reads road_1, road_2 and road_4"};
        }
        const auto size = o.get<std::int64_t>("group_size");
        return !o.contains("group_size") || (size >= 2 && size % 2 == 0)
                   ? status{}
                   : wrong_value("group_size", "even and positive", std::to_string(size));
    }
    static const char* label(const module&) { return "RoAd"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.out(), m.in}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        const bool fits = m.out() == out;
        m.in = fits ? in : m.in;
        return fits;
    }
    static peft_facts facts(const module&) { return {}; }
    static double constant(const module& m) { return static_cast<double>(m.group_size * 8 + m.variant); }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.change(), .acts_on_bias = true}; }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) { return detail::join_road(p, c.options); }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        for (const module* m : all) {
            o.set("variant", "road_" + std::to_string(m->variant));
            o.set("group_size", static_cast<std::int64_t>(m->group_size));
        }
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module& m) {
        return m.variant != detail::road_variant_of(o)                                 ? "variant"
               : m.group_size != static_cast<index>(o.get<std::int64_t>("group_size")) ? "group_size"
                                                                                       : nullptr;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("road_theta", {detail::extent(m.road_theta.size())}, m.road_theta);
        to.add("road_alpha", {detail::extent(m.road_alpha.size())}, m.road_alpha);
    }
    LOWRANK_INLINE static result<any_adapter<float>> adapter(const module& m, const adapted_weight& w) {
        if (w.has_bias) {
            return status{errc::unsupported, "turns the layer's bias too; merge it, or serve the layer without a bias"};
        }
        return any_adapter<float>(m);
    }
    LOWRANK_INLINE static std::optional<module> from(const any_adapter<float>& a) {
        const auto* road = a.get<module>();
        return road == nullptr ? std::nullopt : std::optional<module>(*road);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_ROTATIONS_ROAD_HPP
