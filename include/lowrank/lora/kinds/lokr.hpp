// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LOKR_HPP
#define LOWRANK_LORA_KINDS_LOKR_HPP

/// \file
/// LoKr: the Kronecker product of two small matrices, each whole or a low-rank product, times alpha / r.
///
///     lowrank::lokr_adapter<float> a{.w1 = {.left = small}, .w2 = {.left = lora_B, .right = lora_A}, .alpha = 8};
///     auto y = lowrank::apply(a.map(), x);             // reshapes columns: no product of size out x in
///     auto change = a.delta();                         // for merging and algebra
///
/// Yeh et al., LyCORIS, arXiv 2309.14859. Shapes come from the tensors, never from a configuration: PEFT and LyCORIS
/// factor dimensions differently.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A matrix that is whole (`left` alone) or a product `left * right`.
template <real S>
struct lokr_factor {
    matrix<S> left = {};
    matrix<S> right = {};  ///< empty: the factor is `left`

    [[nodiscard]] bool whole() const noexcept { return right.size() == 0; }
    [[nodiscard]] index rows() const noexcept { return left.rows(); }
    [[nodiscard]] index cols() const noexcept { return whole() ? left.cols() : right.cols(); }
    [[nodiscard]] matrix<S> dense() const { return whole() ? left : matrix<S>(left * right); }
    /// The right factor, an identity where the factor is whole.
    [[nodiscard]] matrix<S> right_or_identity() const {
        return whole() ? matrix<S>(matrix<S>::Identity(left.cols(), left.cols())) : right;
    }
};

/// The linear operator factor * kron(w1, w2), applied by reshaping each column.
template <real S>
struct kronecker_operator {
    using scalar = S;

    matrix<S> w1 = {};
    matrix<S> w2 = {};
    S factor = S(1);

    [[nodiscard]] index rows() const noexcept { return w1.rows() * w2.rows(); }
    [[nodiscard]] index cols() const noexcept { return w1.cols() * w2.cols(); }

    /// Per column, with x read as X (w2.cols x w1.cols): Y += alpha factor w2 X w1^T.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("kronecker_operator::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
        detail::expects_shape("kronecker_operator::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
        const workspace::frame scope(ws);
        auto t = ws.take<S>(w2.rows(), w1.cols());
        for (index j = 0; j < x.cols(); ++j) {
            const const_column_view<S> in(x.col(j).data(), w2.cols(), w1.cols());
            column_view<S> out(y.col(j).data(), w2.rows(), w1.rows());
            t.noalias() = w2 * in;
            out.noalias() += (alpha * factor) * (t * w1.transpose());
        }
    }
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("kronecker_operator::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
        detail::expects_shape("kronecker_operator::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
        const workspace::frame scope(ws);
        auto t = ws.take<S>(w2.cols(), w1.rows());
        for (index j = 0; j < x.cols(); ++j) {
            const const_column_view<S> in(x.col(j).data(), w2.rows(), w1.rows());
            column_view<S> out(y.col(j).data(), w2.cols(), w1.cols());
            t.noalias() = w2.transpose() * in;
            out.noalias() += (alpha * factor) * (t * w1);
        }
    }
};

/// The change alpha / r * kron(w1, w2); a `factored_adapter`.
template <real S>
struct lokr_adapter {
    using scalar = S;

    lokr_factor<S> w1 = {};
    lokr_factor<S> w2 = {};
    double alpha = 8;
    index r = 8;  ///< of the configuration: PEFT scales by alpha / r even when both factors are whole

    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(alpha, r, false)); }

    /// For serving. \cost Forms the two small factors.
    [[nodiscard]] kronecker_operator<S> map() const {
        return {.w1 = w1.dense(), .w2 = w2.dense(), .factor = scaling()};
    }

    [[nodiscard]] index rows() const noexcept { return w1.rows() * w2.rows(); }
    [[nodiscard]] index cols() const noexcept { return w1.cols() * w2.cols(); }

    /// Adds rows first, first + 1, ... of the change, one a column, times a factor. \cost 2 in flops a row, and a row
    /// of each product.
    void add_rows(double factor, index first, column_view<double> to) const {
        const auto row_of = [](const lokr_factor<S>& f, index i) {
            const vector<double> left = f.left.row(i).transpose().template cast<double>();
            return f.whole() ? left : vector<double>(f.right.transpose().template cast<double>() * left);
        };
        const double scale = factor * lora_scaling(alpha, r, false);
        const index width = w2.cols();
        for (index c = 0; c < to.cols(); ++c) {
            const vector<double> outer = scale * row_of(w1, (first + c) / w2.rows());
            const vector<double> inner = row_of(w2, (first + c) % w2.rows());
            for (index j = 0; j < outer.size(); ++j) {
                to.col(c).segment(j * width, width) += outer(j) * inner;
            }
        }
    }

    /// kron(l1 r1, l2 r2) = kron(l1, l2) kron(r1, r2): as many columns as the inner dimensions multiply to.
    [[nodiscard]] low_rank<S> delta() const {
        return {.left = kron(scaling() * w1.left, w2.left),
                .right = kron(w1.right_or_identity(), w2.right_or_identity())};
    }

    /// Gradients of whatever is not an identity.
    [[nodiscard]] lokr_adapter pull_back(const delta_gradient<S>& g) const {
        lokr_adapter out{.alpha = alpha, .r = r};
        std::tie(out.w1.left, out.w2.left) = kron_backward(w1.left, w2.left, scaling() * g.left);
        auto [right1, right2] = kron_backward(w1.right_or_identity(), w2.right_or_identity(), g.right);
        if (!w1.whole()) {
            out.w1.right = std::move(right1);
        }
        if (!w2.whole()) {
            out.w2.right = std::move(right2);
        }
        return out;
    }

private:
    [[nodiscard]] static matrix<S> kron(const matrix<S>& a, const matrix<S>& b) {
        matrix<S> k(a.rows() * b.rows(), a.cols() * b.cols());
        for (index j = 0; j < a.cols(); ++j) {
            for (index i = 0; i < a.rows(); ++i) {
                k.block(i * b.rows(), j * b.cols(), b.rows(), b.cols()) = a(i, j) * b;
            }
        }
        return k;
    }
    [[nodiscard]] static std::pair<matrix<S>, matrix<S>> kron_backward(const matrix<S>& a, const matrix<S>& b,
                                                                       const matrix<S>& dk) {
        std::pair<matrix<S>, matrix<S>> g{matrix<S>(a.rows(), a.cols()), matrix<S>::Zero(b.rows(), b.cols())};
        for (index j = 0; j < a.cols(); ++j) {
            for (index i = 0; i < a.rows(); ++i) {
                const auto part = dk.block(i * b.rows(), j * b.cols(), b.rows(), b.cols());
                g.first(i, j) = part.cwiseProduct(b).sum();
                g.second += a(i, j) * part;
            }
        }
        return g;
    }
};

/// Two factors of a dimension, the smaller first, as LyCORIS chooses them: `factor` and its partner where it divides,
/// else the pair of divisors nearest to each other with the smaller at most `factor` (-1: no bound).
[[nodiscard]] inline std::pair<index, index> lokr_factorization(index dimension, index factor = -1) {
    detail::expects(dimension >= 1 && (factor == -1 || factor >= 1),
                    "lokr_factorization: dimension must be positive, factor positive or -1");
    index small = 1;
    if (factor > 0 && dimension % factor == 0) {
        small = factor;
    } else {
        const index most = factor == -1 ? dimension : factor;
        for (index d = 1; d <= most && d * d <= dimension; ++d) {
            small = dimension % d == 0 ? d : small;
        }
    }
    const index large = dimension / small;
    return small <= large ? std::pair(small, large) : std::pair(large, small);
}

/// What a new adapter looks like. PEFT's defaults.
struct lokr_options {
    index r = 8;
    double alpha = 8;
    index decompose_factor = -1;
    bool decompose_both = false;  ///< w1 may be a product too.
    std::uint64_t seed = 0;       ///< Same seed and stream, same values, on every machine.
    std::uint64_t stream = 0;     ///< One per layer.
};

/// A new adapter for an out x in weight: w1 zero, so that it changes nothing yet, w2 uniform in +-1/sqrt(columns). w2
/// is a product unless 2 r reaches its larger side.
template <real S>
[[nodiscard]] lokr_adapter<S> make_lokr(index out, index in, const lokr_options& options = {}) {
    detail::expects(out >= 1 && in >= 1 && options.r >= 1, "make_lokr: out, in and r must be at least 1");
    const auto [out1, out2] = lokr_factorization(out, options.decompose_factor);
    const auto [in1, in2] = lokr_factorization(in, options.decompose_factor);
    const index r = options.r;
    std::uint64_t part = 4 * options.stream;
    const auto uniform = [&](index rows, index cols) {
        matrix<S> m(rows, cols);
        const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(cols)));
        fill_uniform(m, -bound, bound, philox(options.seed, part++));
        return m;
    };
    lokr_adapter<S> a{.alpha = options.alpha, .r = r};
    if (options.decompose_both && 2 * r < std::max(out1, in1)) {
        a.w1 = {.left = matrix<S>::Zero(out1, r), .right = uniform(r, in1)};
    } else {
        a.w1 = {.left = matrix<S>::Zero(out1, in1)};
    }
    if (2 * r < std::max(out2, in2)) {
        a.w2 = {.left = uniform(out2, r), .right = uniform(r, in2)};
    } else {
        a.w2 = {.left = uniform(out2, in2)};
    }
    return a;
}

/// LoKr is applied as a Kronecker product, and its gradients are those of the two small matrices.
template <real S>
class applied_lokr {
public:
    using scalar = S;
    static constexpr bool additive = true;
    struct gradient {
        matrix<S> w1, w2;
    };

    explicit applied_lokr(lokr_adapter<S> a) : adapter(std::move(a)), map_(adapter.map()) {}

    lokr_adapter<S> adapter;

    [[nodiscard]] index rows() const { return map_.rows(); }
    [[nodiscard]] index cols() const { return map_.cols(); }
    void refresh(operator_reference<S> /*base*/) { map_ = adapter.map(); }

    [[nodiscard]] gradient zero_gradient() const {
        return {matrix<S>::Zero(map_.w1.rows(), map_.w1.cols()), matrix<S>::Zero(map_.w2.rows(), map_.w2.cols())};
    }
    static std::vector<std::span<S>> spans(gradient& g) { return {detail::entries(g.w1), detail::entries(g.w2)}; }

    void add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        map_.add_product(alpha, x, y, ws);
    }
    void add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        map_.add_transposed_product(alpha, x, y, ws);
    }
    /// Per column, with x and dy read as matrices: dw1 += c dY^T (w2 X), dw2 += c (dY w1) X^T.
    void backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
        const matrix<S>& w1 = map_.w1;
        const matrix<S>& w2 = map_.w2;
        const S factor = alpha * map_.factor;
        const workspace::frame scope(ws);
        auto t = ws.take<S>(w2.rows(), w1.cols());
        for (index j = 0; j < x.cols(); ++j) {
            const const_column_view<S> in(x.col(j).data(), w2.cols(), w1.cols());
            const const_column_view<S> back(dy.col(j).data(), w2.rows(), w1.rows());
            t.noalias() = w2 * in;
            g.w1.noalias() += factor * (back.transpose() * t);
            t.noalias() = back * w1;
            g.w2.noalias() += factor * (t * in.transpose());
        }
        if (dx != nullptr) {
            map_.add_transposed_product(alpha, dy, *dx, ws);
        }
    }
    void pull_back(const gradient& g, S* out) const {
        pull_back_factor(adapter.w2, g.w2, pull_back_factor(adapter.w1, g.w1, out));
    }
    [[nodiscard]] weight_change<S> change() const { return adapter.delta(); }

private:
    static S* pull_back_factor(const lokr_factor<S>& f, const matrix<S>& g, S* out) {
        if (f.whole()) {
            return detail::add_entries(g, out);
        }
        out = detail::add_entries(matrix<S>(g * f.right.transpose()), out);
        return detail::add_entries(matrix<S>(f.left.transpose() * g), out);
    }

    kronecker_operator<S> map_;
};

/// Two small matrices, each whole or two factors.
template <real S>
struct adapter_kind<lokr_adapter<S>> {
    static constexpr std::string_view name = "lokr";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view(a.w1.whole() ? "lokr_w1" : "lokr_w1_a"), a.w1.left);
        if (!a.w1.whole()) {
            f(std::string_view("lokr_w1_b"), a.w1.right);
        }
        f(std::string_view(a.w2.whole() ? "lokr_w2" : "lokr_w2_a"), a.w2.left);
        if (!a.w2.whole()) {
            f(std::string_view("lokr_w2_b"), a.w2.right);
        }
    }
    using applied = applied_lokr<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LOKR_HPP
