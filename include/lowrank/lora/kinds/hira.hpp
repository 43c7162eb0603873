// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_HIRA_HPP
#define LOWRANK_LORA_KINDS_HIRA_HPP

/// \file
/// HiRA: the change is the entrywise product of the weight with a low-rank matrix, W o (B A). Its rank can be full.
///
///     auto a = lowrank::make_hira<float>(out, in, {.r = 32});                   // B = 0: changes nothing yet
///     const lowrank::hira_operator<float> change(w, a);                         // borrows the weight
///     const lowrank::operator_sum<float> layer({{lowrank::as_operator(w)}, {change}});
///     auto y = lowrank::apply(layer, x);                                        // (W + W o (B A)) x
///     auto receipt = lowrank::merge_transformed(lowrank::weight_view<float>(w), lowrank::hira_rows(a));
///
/// Huang et al., HiRA, ICLR 2025; parameters as in PEFT (no scaling). Products go through a few rows of the weight at a
/// time; nothing of the size of W is formed. For a base that can only be multiplied with (a quantized weight) there are
/// `add_hira_product` and its relatives: sum_k diag(B_k) W diag(A_k), r products with the base.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults.
struct hira_options {
    index r = 32;
    std::uint64_t seed = 0;
    std::uint64_t stream = 0;
};

/// The trainable factors.
template <real S>
struct hira_adapter {
    using scalar = S;

    matrix<S> hira_A = {};  ///< r x in
    matrix<S> hira_B = {};  ///< out x r
};

/// A new adapter for an out x in weight: A uniform in +-1/sqrt(in), B zero, so that it changes nothing yet.
template <real S>
[[nodiscard]] hira_adapter<S> make_hira(index out, index in, const hira_options& options = {}) {
    detail::expects(out >= 0 && in >= 1 && options.r >= 1, "make_hira: in and r must be at least 1");
    hira_adapter<S> a{.hira_A = matrix<S>(options.r, in), .hira_B = matrix<S>::Zero(out, options.r)};
    const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(in)));
    fill_uniform(a.hira_A, -bound, bound, philox(options.seed, options.stream));
    return a;
}

/// The linear operator W o (B A) on a weight it borrows.
template <storage T>
class hira_operator {
public:
    using scalar = compute_t<T>;
    using S = scalar;

    /// \pre The weight has the adapter's shape and outlives the map.
    hira_operator(const_weight_view<T> w, hira_adapter<S> adapter) : w_(w), adapter_(std::move(adapter)) {
        const auto& a = adapter_;
        detail::expects_shape("hira_operator", "weight", w.rows(), w.cols(), a.hira_B.rows(), a.hira_A.cols());
        detail::expects(a.hira_A.rows() == a.hira_B.cols(), "hira_operator: A and B must have one rank");
    }

    [[nodiscard]] index rows() const noexcept { return w_.rows(); }
    [[nodiscard]] index cols() const noexcept { return w_.cols(); }
    [[nodiscard]] const hira_adapter<S>& adapter() const noexcept { return adapter_; }

    /// Y += alpha (W o (B A)) X. A zero B leaves Y untouched. \cost 2 (r + n) out in flops, one pass over W.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("hira_operator::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
        detail::expects_shape("hira_operator::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
        if (detail::all_zero(adapter_.hira_B)) {
            return;
        }
        for_tiles(ws, [&](index first, index count, column_view<S>& tile, column_view<S>&) {
            const column_view<S> y_part(y.data() + first, count, y.cols(), y.outerStride());
            lowrank::add_transposed_product<S, 0>(alpha, const_column_view<S>(tile), x, y_part, ws);
        });
    }
    /// Y += alpha (W o (B A))^T X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("hira_operator::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
        detail::expects_shape("hira_operator::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
        if (detail::all_zero(adapter_.hira_B)) {
            return;
        }
        for_tiles(ws, [&](index first, index count, column_view<S>& tile, column_view<S>&) {
            const const_column_view<S> x_part(x.data() + first, count, x.cols(), x.outerStride());
            lowrank::add_product<S, 0>(alpha, const_column_view<S>(tile), x_part, y, ws);
        });
    }

    /// Adds the gradients of a loss through Y += (W o (B A)) X, given dY, with H = W o (dY X^T):
    ///
    ///     dB += H A^T     dA += B^T H     dX += (W o (B A))^T dY
    ///
    /// `dx` may be null. The base's own W^T dY is not in it. \cost 2 (3 r + 2 n) out in flops.
    void backward(const_column_view<S> x, const_column_view<S> dy, hira_adapter<S>& gradient, column_view<S>* dx,
                  workspace& ws) const {
        detail::expects_shape("hira_operator::backward", "x", x.rows(), x.cols(), cols(), dy.cols());
        detail::expects_shape("hira_operator::backward", "dy", dy.rows(), dy.cols(), rows(), x.cols());
        detail::expects(gradient.hira_A.rows() == adapter_.hira_A.rows() && gradient.hira_A.cols() == cols() &&
                            gradient.hira_B.rows() == rows() && gradient.hira_B.cols() == adapter_.hira_B.cols(),
                        "hira_operator::backward: the gradient was made for another adapter");
        for_tiles(ws, [&](index first, index count, column_view<S>& tile, column_view<S>& old) {
            const const_column_view<S> dy_part(dy.data() + first, count, dy.cols(), dy.outerStride());
            if (dx != nullptr) {
                lowrank::add_product<S, 0>(S(1), const_column_view<S>(tile), dy_part, *dx, ws);
            }
            const workspace::frame scope(ws);
            auto dy_t = ws.take<S>(x.cols(), count);
            dy_t = dy_part.transpose();
            tile.setZero();
            lowrank::add_product<S, 0>(S(1), x, dy_t, tile, ws);
            tile.array() *= old.array();  // H^T, in x count
            const const_column_view<S> h(tile);
            auto db = ws.take<S>(adapter_.hira_A.rows(), count);  // (H A^T)^T = A H^T
            db.setZero();
            lowrank::add_product<S, 0>(S(1), const_column_view<S>(adapter_.hira_A), h, db, ws);
            gradient.hira_B.middleRows(first, count) += db.transpose();
            gradient.hira_A.noalias() += adapter_.hira_B.middleRows(first, count).transpose() * h.transpose();
        });
    }

private:
    /// `body(first, count, tile, old)` for a few rows of W at a time: `old` holds them as columns, `tile` their change.
    template <class F>
    void for_tiles(workspace& ws, F&& body) const {
        constexpr index at_once = 16;
        for (index first = 0; first < rows(); first += at_once) {
            const workspace::frame scope(ws);
            const index count = std::min(at_once, rows() - first);
            auto old = ws.take<S>(cols(), count);
            for (index i = 0; i < count; ++i) {
                const T* row = w_.data() + (first + i) * w_.outerStride();
                for (index j = 0; j < cols(); ++j) {
                    old(j, i) = static_cast<S>(row[j]);
                }
            }
            auto tile = ws.take<S>(cols(), count);
            tile.setZero();
            auto b = ws.take<S>(adapter_.hira_B.cols(), count);
            b = adapter_.hira_B.middleRows(first, count).transpose();
            lowrank::add_transposed_product<S, 0>(S(1), const_column_view<S>(adapter_.hira_A), b, tile, ws);
            tile.array() *= old.array();
            body(first, count, tile, old);
        }
    }

    const_weight_view<T> w_;
    hira_adapter<S> adapter_;
};

namespace detail {

template <linear_operator Base, real S>
void check_hira(const char* function, const Base& base, const hira_adapter<S>& a, const const_column_view<S>& x,
                const const_column_view<S>& y) {
    expects(a.hira_A.cols() == base.cols() && a.hira_B.rows() == base.rows() && a.hira_A.rows() == a.hira_B.cols(),
            "hira: the adapter and the base must have one shape, A and B one rank");
    expects_shape(function, "x", x.rows(), x.cols(), index{base.cols()}, y.cols());
    expects_shape(function, "y", y.rows(), y.cols(), index{base.rows()}, x.cols());
}

/// `body(k, u)` with u = W (A_k o X) for every k, or W^T (B_k o X): several k in one product where X has few columns.
template <bool Transposed, linear_operator Base, real S, class F>
void for_hira_products(const Base& base, const hira_adapter<S>& a, const const_column_view<S>& x, workspace& ws,
                       F&& body) {
    const index r = a.hira_A.rows();
    const index n = x.cols();
    const index group = std::max<index>(1, std::min(r, 64 / std::max<index>(1, n)));
    const workspace::frame scope(ws);
    auto in = ws.take<S>(x.rows(), n * group);
    auto out = ws.take<S>(Transposed ? base.cols() : base.rows(), n * group);
    for (index first = 0; first < r; first += group) {
        const index count = std::min(group, r - first);
        for (index k = 0; k < count; ++k) {
            auto part = in.middleCols(k * n, n);
            if constexpr (Transposed) {
                part.noalias() = a.hira_B.col(first + k).asDiagonal() * x;
            } else {
                part.noalias() = a.hira_A.row(first + k).transpose().asDiagonal() * x;
            }
        }
        const const_column_view<S> from(in.data(), in.rows(), n * count);
        column_view<S> to(out.data(), out.rows(), n * count);
        to.setZero();
        if constexpr (Transposed) {
            base.add_transposed_product(S(1), from, to, ws);
        } else {
            base.add_product(S(1), from, to, ws);
        }
        for (index k = 0; k < count; ++k) {
            body(first + k, to.middleCols(k * n, n));
        }
    }
}

}  // namespace detail

/// Y += alpha (W o (B A)) X for any base W. A zero B leaves Y untouched. \cost r products with the base.
template <linear_operator Base, real S>
void add_hira_product(const Base& base, const hira_adapter<S>& a, std::type_identity_t<S> alpha,
                      std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y,
                      workspace& ws) {
    detail::check_hira("add_hira_product", base, a, x, const_column_view<S>(y));
    if (detail::all_zero(a.hira_B)) {
        return;
    }
    detail::for_hira_products<false>(
        base, a, x, ws, [&](index k, const auto& u) { y.noalias() += (alpha * a.hira_B.col(k)).asDiagonal() * u; });
}

/// Y += alpha (W o (B A))^T X for any base W.
template <linear_operator Base, real S>
void add_hira_transposed_product(const Base& base, const hira_adapter<S>& a, std::type_identity_t<S> alpha,
                                 std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y,
                                 workspace& ws) {
    detail::check_hira("add_hira_transposed_product", base, a, const_column_view<S>(y), x);
    if (detail::all_zero(a.hira_B)) {
        return;
    }
    detail::for_hira_products<true>(base, a, x, ws, [&](index k, const auto& u) {
        y.noalias() += (alpha * a.hira_A.row(k).transpose()).asDiagonal() * u;
    });
}

/// The gradients of `hira_operator::backward` for any base W, at 2 r products with it: with u_k = W (A_k o X) and
/// v_k = W^T (B_k o dY), dB_k += rowsum(dY o u_k), dA_k += rowsum(X o v_k), dX += A_k o v_k.
template <linear_operator Base, real S>
void hira_backward(const Base& base, const hira_adapter<S>& a, std::type_identity_t<const_column_view<S>> x,
                   std::type_identity_t<const_column_view<S>> dy, hira_adapter<S>& gradient,
                   std::type_identity_t<column_view<S>>* dx, workspace& ws) {
    detail::check_hira("hira_backward", base, a, x, dy);
    detail::for_hira_products<false>(
        base, a, x, ws, [&](index k, const auto& u) { gradient.hira_B.col(k) += dy.cwiseProduct(u).rowwise().sum(); });
    detail::for_hira_products<true>(base, a, dy, ws, [&](index k, const auto& v) {
        gradient.hira_A.row(k) += x.cwiseProduct(v).rowwise().sum().transpose();
        if (dx != nullptr) {
            dx->noalias() += a.hira_A.row(k).transpose().asDiagonal() * v;
        }
    });
}

/// The row transform W -> W o (1 + B A) of `merge_transformed`. An entry whose factor is zero is kept by the receipt.
class hira_rows {
public:
    template <real S>
    explicit hira_rows(const hira_adapter<S>& a)
        : a_(a.hira_A.template cast<double>()), b_(a.hira_B.template cast<double>()) {
        detail::expects(a_.rows() == b_.cols(), "hira_rows: A and B must have one rank");
    }

    [[nodiscard]] bool fits(index out, index in) const { return out == b_.rows() && in == a_.cols(); }

    void forward(index first, column_view<double> rows, workspace&) const {
        const matrix<double> factor = factors(first, rows.cols());
        rows.array() *= factor.array();
    }
    void backward(index first, column_view<double> rows, workspace&) const {
        const matrix<double> factor = factors(first, rows.cols());
        rows = (factor.array() == 0).select(0.0, rows.array() / factor.array()).matrix();
    }

private:
    [[nodiscard]] matrix<double> factors(index first, index count) const {
        matrix<double> f = a_.transpose() * b_.middleRows(first, count).transpose();
        f.array() += 1.0;
        return f;
    }

    matrix<double> a_;
    matrix<double> b_;
};

/// HiRA over a base that can only be multiplied with.
template <real S>
class applied_hira {
public:
    using scalar = S;
    static constexpr bool additive = false;
    using gradient = hira_adapter<S>;

    explicit applied_hira(hira_adapter<S> a) : adapter(std::move(a)) {
        detail::expects(adapter.hira_A.rows() == adapter.hira_B.cols(), "hira_adapter: A and B must have one rank");
    }

    hira_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.hira_B.rows(); }
    [[nodiscard]] index cols() const { return adapter.hira_A.cols(); }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return detail::with_zero_parameters(adapter); }
    static std::vector<std::span<S>> spans(gradient& g) { return detail::parameter_spans(g); }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        base.add_product(alpha, x, y, ws);
        add_hira_product(base, adapter, alpha, x, y, ws);
    }
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        base.add_transposed_product(alpha, x, y, ws);
        add_hira_transposed_product(base, adapter, alpha, x, y, ws);
    }
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
        detail::with_scaled(alpha, dy, ws, [&](const_column_view<S> scaled) {
            hira_backward(base, adapter, x, scaled, g, dx, ws);
            if (dx != nullptr) {
                base.add_transposed_product(S(1), scaled, *dx, ws);
            }
        });
    }
    void pull_back(const gradient& g, S* out) const { detail::add_parameters(g, out); }
    [[nodiscard]] weight_change<S> change() const { return row_change{hira_rows(adapter)}; }
};

/// Two factors, multiplied with the weight entry by entry.
template <real S>
struct adapter_kind<hira_adapter<S>> {
    static constexpr std::string_view name = "hira";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("hira_A"), a.hira_A);
        f(std::string_view("hira_B"), a.hira_B);
    }
    using applied = applied_hira<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_HIRA_HPP
