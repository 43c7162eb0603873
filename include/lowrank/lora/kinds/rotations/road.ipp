// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ROTATIONS_ROAD_IPP
#define LOWRANK_LORA_KINDS_ROTATIONS_ROAD_IPP

#include <lowrank/lora/kinds/rotations/road.hpp>

#include <cmath>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

/// Where the parameters of c and of s of output o are.
template <real S>
std::pair<index, index> road_adapter<S>::places(index o) const noexcept {
    const index group = o / group_size;
    const index within = o % group_size;
    if (variant == 1) {
        const index pair = group * (group_size / 2) + within % (group_size / 2);
        return {pair, pair};
    }
    return variant == 2 ? std::pair(o, o)
                        : std::pair(2 * group * group_size + within, (2 * group + 1) * group_size + within);
}

template <real S>
std::pair<vector<S>, vector<S>> road_adapter<S>::coefficients() const {
    detail::expects(is_valid(),
                    "road_adapter: needs variant 1, 2 or 4, an even group_size that divides the outputs, and "
                    "as many angles as scales");
    std::pair<vector<S>, vector<S>> all{vector<S>(out()), vector<S>(out())};
    for (index o = 0; o < out(); ++o) {
        const auto [c, s] = places(o);
        all.first(o) = road_alpha(c) * std::cos(road_theta(c));
        all.second(o) = (is_first(o) ? -1 : 1) * road_alpha(s) * std::sin(road_theta(s));
    }
    return all;
}

template <real S>
road_adapter<S> road_adapter<S>::pull_back(const vector<S>& own, const vector<S>& other) const {
    detail::expects(is_valid() && own.size() == out() && other.size() == out(),
                    "road_adapter::pull_back: the gradient is not of this rotation");
    road_adapter d = detail::with_zero_parameters(*this);
    for (index o = 0; o < out(); ++o) {
        const auto [c, s] = places(o);
        const S signed_other = is_first(o) ? -other(o) : other(o);
        d.road_alpha(c) += own(o) * std::cos(road_theta(c));
        d.road_theta(c) -= own(o) * road_alpha(c) * std::sin(road_theta(c));
        d.road_alpha(s) += signed_other * std::sin(road_theta(s));
        d.road_theta(s) += signed_other * road_alpha(s) * std::cos(road_theta(s));
    }
    return d;
}

namespace detail {

/// The columns of W, which are the rows of its transpose, through R.
struct turned_pairs {
    vector<double> own;
    vector<double> other;
    index group_size;

    [[nodiscard]] bool fits(index, index outputs) const { return outputs == own.size(); }
    void forward(index, column_view<double> columns, workspace&) const {
        for_pairs(columns, [this](double& p, double& q, index at_p, index at_q) {
            const double old = p;
            p = own(at_p) * old + other(at_p) * q;
            q = own(at_q) * q + other(at_q) * old;
        });
    }
    void backward(index, column_view<double> columns, workspace&) const {
        for_pairs(columns, [this](double& p, double& q, index at_p, index at_q) {
            const double determinant = own(at_p) * own(at_q) - other(at_p) * other(at_q);
            const double inverse = determinant == 0 ? 0 : 1 / determinant;
            const double old = p;
            p = inverse * (own(at_q) * old - other(at_p) * q);
            q = inverse * (own(at_p) * q - other(at_q) * old);
        });
    }

private:
    template <class F>
    void for_pairs(column_view<double>& columns, F&& body) const {
        for (index j = 0; j < columns.cols(); ++j) {
            for (index first = 0; first < columns.rows(); first += group_size) {
                for (index i = first; i < first + group_size / 2; ++i) {
                    body(columns(i, j), columns(i + group_size / 2, j), i, i + group_size / 2);
                }
            }
        }
    }
};

}  // namespace detail

template <real S>
row_change road_adapter<S>::change() const {
    const auto all = coefficients();
    return {detail::turned_pairs{head_in<double>(all.first, out()), head_in<double>(all.second, out()), group_size},
            true};
}

template <real S>
road_adapter<S> make_road(index out, const road_options& options) {
    road_adapter<S> a{.variant = options.variant, .group_size = options.group_size};
    detail::expects(out >= 1 && (a.variant == 1 || a.variant == 2 || a.variant == 4),
                    "make_road: out must be positive, and variant 1, 2 or 4");
    a.road_theta.setZero(out * a.variant / 2);
    a.road_alpha.setOnes(out * a.variant / 2);
    detail::expects(a.out() == out && a.is_valid(), "make_road: group_size must be even and divide out");
    return a;
}

template <real S>
void applied_road<S>::make() {
    auto all = adapter.coefficients();
    own_ = std::move(all.first);
    other_ = std::move(all.second);
}

template <real S>
void applied_road<S>::add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                  workspace& ws, const dropout_key& /*key*/) const {
    const workspace::frame scope(ws);
    auto z = ws.take<S>(y.rows(), y.cols());
    z.setZero();
    base.add_product(S(1), x, z, ws);
    for (index j = 0; j < y.cols(); ++j) {
        for (index o = 0; o < y.rows(); ++o) {
            y(o, j) += alpha * (own_(o) * z(o, j) + other_(o) * z(adapter.partner(o), j));
        }
    }
}

template <real S>
void applied_road<S>::add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x,
                                             column_view<S> y, workspace& ws) const {
    const workspace::frame scope(ws);
    auto t = ws.take<S>(x.rows(), x.cols());
    for (index j = 0; j < x.cols(); ++j) {
        for (index o = 0; o < x.rows(); ++o) {
            const index partner = adapter.partner(o);
            t(o, j) = own_(o) * x(o, j) + other_(partner) * x(partner, j);
        }
    }
    base.add_transposed_product(alpha, t, y, ws);
}

template <real S>
void applied_road<S>::backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy,
                               gradient& g, column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const {
    const workspace::frame scope(ws);
    auto z = ws.take<S>(dy.rows(), dy.cols());
    z.setZero();
    base.add_product(S(1), x, z, ws);
    for (index j = 0; j < dy.cols(); ++j) {
        for (index o = 0; o < dy.rows(); ++o) {
            g.own(o) += alpha * dy(o, j) * z(o, j);
            g.other(o) += alpha * dy(o, j) * z(adapter.partner(o), j);
        }
    }
    if (dx != nullptr) {
        add_transposed_product(base, alpha, dy, *dx, ws);
    }
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_ROAD_OF(S)           \
    template struct road_adapter<S>; \
    template road_adapter<S> make_road<S>(index, const road_options&);
LOWRANK_ROAD_OF(float)
LOWRANK_ROAD_OF(double)
#undef LOWRANK_ROAD_OF
template class applied_road<float>;
template class applied_road<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_ROTATIONS_ROAD_IPP
