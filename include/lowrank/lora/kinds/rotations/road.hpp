// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ROTATIONS_ROAD_HPP
#define LOWRANK_LORA_KINDS_ROTATIONS_ROAD_HPP

/// \file
/// RoAd: pairs of outputs are turned by a trained angle and scaled.
///
///     auto a = lowrank::make_road<float>(out, {.group_size = 64});       // angles 0, scales 1: changes nothing yet
///     lowrank::any_adapter<float> any = a;                               // W' = R W; the layer's bias b becomes R b
///
/// Liao, Monz, 3-in-1: 2D Rotary Adaptation, arXiv 2409.00119; parameters and pairs as in PEFT. An adapter is a few
/// multiplications for each output, so that every token of a batch may have one of its own.

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults.
struct road_options {
    index variant = 1;
    index group_size = 64;
};

/// y_p = c_p z_p - s_p z_q, y_q = s_q z_p + c_q z_q for outputs p in the first half of each group of g and q = p + g / 2,
/// with c = alpha cos(theta), s = alpha sin(theta). Variant 1 has one theta and alpha for a pair, variant 2 for an output,
/// variant 4 for each of c and s of an output: those of c of a group, then those of s.
template <real S>
struct road_adapter {
    using scalar = S;

    vector<S> road_theta = {};
    vector<S> road_alpha = {};
    index variant = 1;  ///< 1, 2 or 4
    index group_size = 64;
    index in = 0;  ///< Of the layer. 0: learned at the first refresh.

    [[nodiscard]] index out() const noexcept { return road_theta.size() * 2 / variant; }
    /// As many angles as scales, an even group, whole groups.
    [[nodiscard]] bool is_valid() const noexcept {
        return (variant == 1 || variant == 2 || variant == 4) && group_size >= 2 && group_size % 2 == 0 &&
               road_alpha.size() == road_theta.size() && road_theta.size() * 2 % variant == 0 &&
               out() % group_size == 0;
    }

    /// The output that output o is paired with.
    [[nodiscard]] index partner(index o) const noexcept { return o + (is_first(o) ? group_size / 2 : -group_size / 2); }
    /// c, and s with the sign of the formula: y_o = own(o) z_o + other(o) z_partner(o).
    [[nodiscard]] std::pair<vector<S>, vector<S>> coefficients() const;
    /// The gradients of the parameters from those of `coefficients`.
    [[nodiscard]] road_adapter pull_back(const vector<S>& own, const vector<S>& other) const;
    /// W' = R W, for a weight of any number of inputs. Where a pair cannot be turned back the receipt of a merge holds it.
    [[nodiscard]] row_change change() const;

private:
    [[nodiscard]] bool is_first(index o) const noexcept { return o % group_size < group_size / 2; }
    [[nodiscard]] std::pair<index, index> places(index o) const noexcept;
};

/// A new adapter for a layer of `out` outputs: angles zero and scales one, so that it changes nothing yet.
/// \pre variant is 1, 2 or 4; group_size is even and divides out.
template <real S>
[[nodiscard]] road_adapter<S> make_road(index out, const road_options& options = {});

/// y += R (W x).
template <real S>
class applied_road {
public:
    using scalar = S;
    static constexpr bool additive = false;
    struct gradient {
        vector<S> own = {};
        vector<S> other = {};
    };

    explicit applied_road(road_adapter<S> a) : adapter(std::move(a)) { make(); }

    road_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.out(); }
    [[nodiscard]] index cols() const { return adapter.in; }
    void refresh(operator_reference<S> base) {
        adapter.in = base.cols();
        make();
    }

    [[nodiscard]] gradient zero_gradient() const {
        gradient g;
        g.own.setZero(rows());
        g.other.setZero(rows());
        return g;
    }
    static std::vector<std::span<S>> spans(gradient& g) { return {detail::entries(g.own), detail::entries(g.other)}; }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const;
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const;
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
    void pull_back(const gradient& g, S* out) const { detail::add_parameters(adapter.pull_back(g.own, g.other), out); }
    [[nodiscard]] weight_change<S> change() const { return adapter.change(); }

private:
    void make();

    vector<S> own_ = {};
    vector<S> other_ = {};
};

/// Angles and scales.
template <real S>
struct adapter_kind<road_adapter<S>> {
    static constexpr std::string_view name = "road";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("road_theta"), a.road_theta);
        f(std::string_view("road_alpha"), a.road_alpha);
    }
    static constexpr double learning_rate = 2e-2;
    static status check_layers(const adapted_layers& all) {
        return all.common_out % 2 == 0
                   ? status{}
                   : status{errc::unsupported,
                            "road turns pairs of outputs, and a layer has an odd number of them; choose "
                            "other layers"};
    }
    /// One size of groups for all layers, the largest up to that of PEFT: it decides which outputs are pairs, no more.
    static auto maker(const adapted_layers& all, const lora_options& /*options*/) {
        index group = 64;
        while (group > 2 && all.common_out % group != 0) {
            group -= 2;
        }
        return [group](const target_layer<S>& layer) { return make_road<S>(layer.base.rows(), {.group_size = group}); };
    }
    using applied = applied_road<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/rotations/road.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_ROTATIONS_ROAD_HPP
