// SPDX-License-Identifier: MIT
// An adapter kind that the library does not know, defined here alone, is applied, trained, merged and unmerged.
#include <string_view>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/hold_adapter.hpp>
#include <lowrank/lora/merge/merge_change.hpp>
#include <lowrank/lora/train/trainer.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// The change u v^T with a gain: three parameters.
template <real S>
struct outer_adapter {
    using scalar = S;
    vector<S> u = {};     ///< out
    vector<S> v = {};     ///< in
    matrix<S> gain = {};  ///< 1 x 1

    [[nodiscard]] low_rank<S> delta() const { return {.left = gain(0, 0) * u, .right = v.transpose()}; }
    [[nodiscard]] outer_adapter pull_back(const delta_gradient<S>& g) const {
        outer_adapter d{.u = gain(0, 0) * g.left, .v = g.right.transpose(), .gain = matrix<S>(1, 1)};
        d.gain(0, 0) = g.left.cwiseProduct(u).sum();
        return d;
    }
};

/// W' = W diag(1 + s): it needs the base, and describes everything itself.
template <real S>
struct column_gain_adapter {
    using scalar = S;
    vector<S> s = {};
    lowrank::index out = 0;
};

template <real S>
class applied_column_gain {
public:
    using scalar = S;
    static constexpr bool additive = false;
    using gradient = column_gain_adapter<S>;

    explicit applied_column_gain(column_gain_adapter<S> a) : adapter(std::move(a)) {}
    column_gain_adapter<S> adapter;

    [[nodiscard]] lowrank::index rows() const { return adapter.out; }
    [[nodiscard]] lowrank::index cols() const { return adapter.s.size(); }
    void refresh(operator_reference<S>) {}
    [[nodiscard]] gradient zero_gradient() const { return {vector<S>::Zero(cols()), adapter.out}; }
    static std::vector<std::span<S>> spans(gradient& g) { return {{g.s.data(), static_cast<std::size_t>(g.s.size())}}; }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key&) const {
        const matrix<S> scaled = scale().asDiagonal() * x;
        base.add_product(alpha, scaled, y, ws);
    }
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        matrix<S> back = matrix<S>::Zero(cols(), x.cols());
        base.add_transposed_product(alpha, x, back, ws);
        y += scale().asDiagonal() * back;
    }
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key&) const {
        matrix<S> back = matrix<S>::Zero(cols(), x.cols());
        base.add_transposed_product(alpha, dy, back, ws);
        g.s += back.cwiseProduct(x).rowwise().sum();
        if (dx != nullptr) {
            *dx += scale().asDiagonal() * back;
        }
    }
    void pull_back(const gradient& g, S* out) const {
        for (lowrank::index i = 0; i < g.s.size(); ++i) {
            out[i] += g.s(i);
        }
    }
    [[nodiscard]] weight_change<S> change() const {
        return scaled_change<S>{.delta = {matrix<S>(rows(), 0), matrix<S>(0, cols())}, .column_scale = scale()};
    }

private:
    [[nodiscard]] vector<S> scale() const { return (S(1) + adapter.s.array()).matrix(); }
};

}  // namespace

template <lowrank::real S>
struct lowrank::adapter_kind<outer_adapter<S>> {
    static constexpr std::string_view name = "outer";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("u"), a.u);
        f(std::string_view("v"), a.v);
        f(std::string_view("gain"), a.gain);
    }
    using applied = applied_factors<outer_adapter<S>>;
};
template <lowrank::real S>
struct lowrank::adapter_kind<column_gain_adapter<S>> {
    static constexpr std::string_view name = "column_gain";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("s"), a.s);
    }
    using applied = applied_column_gain<S>;
};

TEST_CASE("kinds of a program's own are applied, trained, merged and unmerged") {
    const row_matrix<double> w = random_weight<double>(6, 5, 1, 0.4);
    const matrix<double> x = random_matrix<double>(5, 40, 2);
    const matrix<double> wanted = (w + 0.3 * random_matrix<double>(6, 1, 3) * random_matrix<double>(1, 5, 4)) * x;
    for (const any_adapter<double>& start :
         {any_adapter<double>(outer_adapter<double>{.u = random_matrix<double>(6, 1, 5, 0.1),
         .v = random_matrix<double>(5, 1, 6, 0.1),
         .gain = matrix<double>::Ones(1, 1)}),
          any_adapter<double>(column_gain_adapter<double>{.s = vector<double>::Zero(5), .out = 6})}) {
        CAPTURE(start.kind());
        trainer<double> t({.learning_rate = 2e-2});
        t.add("layer", start, as_operator(w));
        workspace ws;
        double first = 0;
        double last = 0;
        for (int step = 0; step < 150; ++step) {
            const any_adapter<double>& a = t.adapter(0);
            matrix<double> y = a.additive() ? matrix<double>(w * x) : matrix<double>::Zero(6, 40);
            a.add_product(as_operator(w), 1, x, y, ws);
            const matrix<double> dy = (y - wanted) / 40;
            (step == 0 ? first : last) = dy.squaredNorm();
            auto gradient = a.zero_gradient();
            a.backward(as_operator(w), 1, x, dy, gradient, nullptr, ws);
            t.accumulate(0, gradient);
            REQUIRE(t.step());
        }
        CHECK(last < 0.95 * first);
        const any_adapter<double>& a = t.adapter(0);
        row_matrix<double> merged = w;
        const auto receipt = merge(weight_view<double>(merged), a, 0.5);
        REQUIRE(receipt.has_value());
        matrix<double> y = a.additive() ? matrix<double>(w * x) : matrix<double>::Zero(6, 40);
        a.add_product(as_operator(w), 0.5, x, y, ws);
        CHECK(relative_diff(matrix<double>(merged * x), y) < 1e-12);
        REQUIRE(unmerge(weight_view<double>(merged), *receipt, a, 0.5));
        CHECK(same_bits(merged, w));
    }
}
