// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_DETAIL_ROTATION_MODELS_HPP
#define LOWRANK_LORA_KINDS_DETAIL_ROTATION_MODELS_HPP

/// \file
/// The models (adapter_models.hpp) of adapters that turn the inputs (OFT, BOFT, HRA) and of HiRA, and how they merge.
///
///     #include <lowrank/lora/any_adapter.hpp>          // includes this
///
/// MiSS and RandLoRA are products of factors and need their names only.

#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/algebra/block_rotation.hpp>
#include <lowrank/lora/algebra/rotation.hpp>
#include <lowrank/lora/kinds/boft.hpp>
#include <lowrank/lora/kinds/detail/adapter_models.hpp>
#include <lowrank/lora/kinds/hira.hpp>
#include <lowrank/lora/kinds/hra.hpp>
#include <lowrank/lora/kinds/miss.hpp>
#include <lowrank/lora/kinds/oft.hpp>
#include <lowrank/lora/kinds/randlora.hpp>
#include <lowrank/lora/merge/merge_transformed.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <real S>
struct adapter_traits<oft_adapter<S>> {
    static constexpr std::string_view kind = "oft";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("oft_R.weight"), a.oft_R);
    }
};
template <real S>
struct adapter_traits<boft_adapter<S>> {
    static constexpr std::string_view kind = "boft";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("boft_R"), a.boft_R);
        f(std::string_view("boft_s"), a.boft_s);
    }
};
template <real S>
struct adapter_traits<hra_adapter<S>> {
    static constexpr std::string_view kind = "hra";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("hra_u"), a.hra_u);
    }
};
template <real S>
struct adapter_traits<miss_adapter<S>> {
    static constexpr std::string_view kind = "miss";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("miss_block"), a.miss_block);
    }
};
template <real S>
struct adapter_traits<randlora_adapter<S>> {
    static constexpr std::string_view kind = "randlora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("randlora_lambda"), a.lambda);
        f(std::string_view("randlora_gamma"), a.gamma);
    }
};
template <real S>
struct adapter_traits<hira_adapter<S>> {
    static constexpr std::string_view kind = "hira";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("hira_A"), a.hira_A);
        f(std::string_view("hira_B"), a.hira_B);
    }
};

template <real S>
std::vector<std::span<S>> rotation_places(block_rotation<S>& r) {
    std::vector<std::span<S>> all;
    for (auto& f : r.factors) {
        all.push_back(entries(f.blocks));
    }
    return all;
}
template <real S>
std::vector<std::span<S>> rotation_places(householder_rotation<S>& r) {
    return {entries(r.v), entries(r.t)};
}

/// Any rotating adapter: y += diag(s) W (R x).
template <rotating_adapter A>
class adapter_model<A> {
    using S = typename A::scalar;
    using rotation_type = decltype(std::declval<const A&>().rotation());

public:
    static constexpr bool additive = false;
    using gradient = rotated_gradient<rotation_type>;

    explicit adapter_model(A a)
        : adapter(std::move(a)), rotation_(adapter.rotation()), scale_(adapter.output_scale()) {}

    A adapter;

    /// 0 before the first refresh of an adapter that knows its inputs only.
    [[nodiscard]] index rows() const { return scale_.size() > 0 ? scale_.size() : rows_; }
    [[nodiscard]] index cols() const { return rotation_.cols(); }
    void refresh(operator_reference<S> base) {
        rows_ = base.rows();
        rotation_ = adapter.rotation();
        scale_ = adapter.output_scale();
    }

    [[nodiscard]] gradient zero_gradient() const {
        return {.rotation = rotation_.zero_gradient(), .output_scale = vector<S>::Zero(scale_.size())};
    }
    static std::vector<std::span<S>> places(gradient& g) {
        auto all = rotation_places(g.rotation);
        all.push_back(entries(g.output_scale));
        return all;
    }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        const workspace::frame scope(ws);
        auto z = ws.take<S>(cols(), x.cols());
        z.setZero();
        rotation_.add_product(S(1), x, z, ws);
        if (scale_.size() == 0) {
            base.add_product(alpha, z, y, ws);
            return;
        }
        auto v = ws.take<S>(base.rows(), x.cols());
        v.setZero();
        base.add_product(alpha, z, v, ws);
        y.noalias() += scale_.asDiagonal() * v;
    }
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        const workspace::frame scope(ws);
        rotation_.add_transposed_product(S(1), back_through_base(base, alpha, x, ws), y, ws);
    }
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
        const workspace::frame scope(ws);
        if (scale_.size() > 0) {
            const workspace::frame inner(ws);
            auto z = ws.take<S>(cols(), x.cols());
            z.setZero();
            rotation_.add_product(S(1), x, z, ws);
            auto v = ws.take<S>(base.rows(), x.cols());
            v.setZero();
            base.add_product(alpha, z, v, ws);
            g.output_scale += v.cwiseProduct(dy).rowwise().sum();
        }
        rotation_.backward(x, back_through_base(base, alpha, dy, ws), g.rotation, dx, ws);
    }
    void pull_back(const gradient& g, S* out) const {
        A parameters = adapter.pull_back(g);
        adapter_traits<A>::visit(parameters, [&](std::string_view, const auto& p) { out = add_entries(p, out); });
    }
    [[nodiscard]] std::optional<adapted_form<S>> form() const { return std::nullopt; }
    [[nodiscard]] std::optional<any_row_transform> transform() const {
        const low_rank<S> shape{.left = matrix<S>(rows(), 0), .right = matrix<S>(0, cols())};
        return as_any_row_transform(
            row_rotation(rotated_linear<rotation_type>{.base = shape, .rotation = rotation_, .output_scale = scale_}));
    }

private:
    /// alpha W^T diag(s) dY, in scratch of the caller's frame.
    const_column_view<S> back_through_base(operator_reference<S> base, S alpha, const_column_view<S> dy,
                                           workspace& ws) const {
        auto t = ws.take<S>(base.cols(), dy.cols());
        t.setZero();
        if (scale_.size() == 0) {
            base.add_transposed_product(alpha, dy, t, ws);
            return t;
        }
        const workspace::frame scope(ws);
        auto v = ws.take<S>(dy.rows(), dy.cols());
        v.noalias() = scale_.asDiagonal() * dy;
        base.add_transposed_product(alpha, v, t, ws);
        return t;
    }

    rotation_type rotation_;
    vector<S> scale_;
    index rows_ = 0;
};

/// HiRA over a base that can only be multiplied with: W o (B A) = sum_k diag(B_k) W diag(A_k), one product a rank.
template <real S>
class adapter_model<hira_adapter<S>> {
public:
    static constexpr bool additive = false;
    using gradient = hira_adapter<S>;

    explicit adapter_model(hira_adapter<S> a) : adapter(std::move(a)) {
        expects(adapter.hira_A.rows() == adapter.hira_B.cols(), "hira_adapter: A and B must have one rank");
    }

    hira_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.hira_B.rows(); }
    [[nodiscard]] index cols() const { return adapter.hira_A.cols(); }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const {
        return {.hira_A = matrix<S>::Zero(adapter.hira_A.rows(), adapter.hira_A.cols()),
                .hira_B = matrix<S>::Zero(adapter.hira_B.rows(), adapter.hira_B.cols())};
    }
    static std::vector<std::span<S>> places(gradient& g) { return {entries(g.hira_A), entries(g.hira_B)}; }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        base.add_product(alpha, x, y, ws);
        const workspace::frame scope(ws);
        auto in = ws.take<S>(cols(), x.cols());
        auto out = ws.take<S>(rows(), x.cols());
        for (index k = 0; k < adapter.hira_A.rows(); ++k) {
            in.array() = x.array().colwise() * adapter.hira_A.row(k).transpose().array();
            out.setZero();
            base.add_product(alpha, in, out, ws);
            y.array() += out.array().colwise() * adapter.hira_B.col(k).array();
        }
    }
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        base.add_transposed_product(alpha, x, y, ws);
        const workspace::frame scope(ws);
        auto out = ws.take<S>(rows(), x.cols());
        auto in = ws.take<S>(cols(), x.cols());
        for (index k = 0; k < adapter.hira_A.rows(); ++k) {
            out.array() = x.array().colwise() * adapter.hira_B.col(k).array();
            in.setZero();
            base.add_transposed_product(alpha, out, in, ws);
            y.array() += in.array().colwise() * adapter.hira_A.row(k).transpose().array();
        }
    }
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
        const workspace::frame scope(ws);
        auto out = ws.take<S>(rows(), x.cols());
        auto in = ws.take<S>(cols(), x.cols());
        for (index k = 0; k < adapter.hira_A.rows(); ++k) {
            in.array() = x.array().colwise() * adapter.hira_A.row(k).transpose().array();
            out.setZero();
            base.add_product(alpha, in, out, ws);
            g.hira_B.col(k) += out.cwiseProduct(dy).rowwise().sum();
            out.array() = dy.array().colwise() * adapter.hira_B.col(k).array();
            in.setZero();
            base.add_transposed_product(alpha, out, in, ws);
            g.hira_A.row(k) += in.cwiseProduct(x).rowwise().sum().transpose();
            if (dx != nullptr) {
                dx->array() += in.array().colwise() * adapter.hira_A.row(k).transpose().array();
            }
        }
        if (dx != nullptr) {
            base.add_transposed_product(alpha, dy, *dx, ws);
        }
    }
    void pull_back(const gradient& g, S* out) const { add_entries(g.hira_B, add_entries(g.hira_A, out)); }
    [[nodiscard]] std::optional<adapted_form<S>> form() const { return std::nullopt; }
    [[nodiscard]] std::optional<any_row_transform> transform() const {
        return as_any_row_transform(hira_rows(adapter));
    }
};

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_DETAIL_ROTATION_MODELS_HPP
