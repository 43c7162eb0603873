// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_DECOMPOSITION_IPP
#define LOWRANK_FACTOR_DECOMPOSITION_IPP

#include <lowrank/factor/decomposition.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// A question to a decomposition: there must be one, and k must be in it.
template <real S>
void expects_part(const char* function, const decomposition<S>& f, index k) {
    if (!f) [[unlikely]] {
        fail_contract_with(function, ": there is no decomposition; ", f.why.message);
    }
    expects_in_range(function, "k", k, index{0}, f.size());
}

/// left diag(s) right as two factors.
template <real S>
[[nodiscard]] low_rank<S> factors_of(matrix<S> left, vector<S> s, matrix<S> right, sigma_split split) {
    if (split == sigma_split::square) {
        std::transform(s.data(), s.data() + s.size(), s.data(), [](S x) { return std::sqrt(x); });
    }
    if (split != sigma_split::right) {
        scale_cols(left, s);
    }
    if (split != sigma_split::left) {
        scale_rows(s, right);
    }
    return {.left = std::move(left), .right = std::move(right)};
}

/// Which of `size` an index set holds.
[[nodiscard]] inline std::vector<bool> mask_of(const char* function, std::span<const index> keep, index size) {
    std::vector<bool> kept(static_cast<std::size_t>(size), false);
    for (const index i : keep) {
        expects_in_range(function, "index", i, index{0}, size - 1);
        if (kept[static_cast<std::size_t>(i)]) [[unlikely]] {
            fail_contract_with(function, ": an index set must not repeat an index, got ", i, " twice");
        }
        kept[static_cast<std::size_t>(i)] = true;
    }
    return kept;
}

}  // namespace detail

template <real S>
decomposition<S>::decomposition(status failed) : fallible{std::move(failed)} {
    detail::expects(!why, "decomposition: a status that is ok carries no decomposition");
}

template <real S>
decomposition<S>::decomposition(matrix<S> left, vector<S> values, matrix<S> right, const error_evidence& missing)
    : u(std::move(left)), s(std::move(values)), v(std::move(right)), error(missing) {
    detail::expects(u.cols() == s.size() && v.cols() == s.size(), "decomposition: u, s and v must agree in size");
}

template <real S>
const decomposition<S>& decomposition<S>::value() const& {
    throw_if_failed(why);
    return *this;
}

template <real S>
decomposition<S> decomposition<S>::value() && {
    throw_if_failed(why);
    return std::move(*this);
}

template <real S>
low_rank<S> decomposition<S>::truncate(index k, sigma_split split) const {
    detail::expects_part("decomposition::truncate", *this, k);
    return band(0, k, split);
}

template <real S>
low_rank<S> decomposition<S>::dropped(index k, sigma_split split) const {
    detail::expects_part("decomposition::dropped", *this, k);
    if (!complete()) [[unlikely]] {
        detail::fail_contract_with("decomposition::dropped: only the leading ", size(),
                                   " components are here, and not what they leave out; decompose with svd");
    }
    return band(k, size(), split);
}

template <real S>
low_rank<S> decomposition<S>::band(index first, index last, sigma_split split) const {
    detail::expects_part("decomposition::band", *this, last);
    detail::expects_in_range("decomposition::band", "first", first, index{0}, last);
    const index k = last - first;
    return detail::factors_of<S>(columns_of(u, first, k), s.segment(first, k),
                                 copy_in<S>(transposed(dense_view<const S>(v).middle_cols(first, k))), split);
}

template <real S>
low_rank<S> decomposition<S>::select(std::span<const index> keep, sigma_split split) const {
    detail::expects_part("decomposition::select", *this, 0);
    (void)detail::mask_of("decomposition::select", keep, size());
    const auto k = static_cast<index>(keep.size());
    matrix<S> left(rows(), k), right(k, cols());
    vector<S> values(k);
    for (index i = 0; i < k; ++i) {
        const index from = keep[static_cast<std::size_t>(i)];
        values(i) = s(from);
        std::copy_n(u.data() + from * rows(), rows(), left.data() + i * rows());
        for (index j = 0; j < cols(); ++j) {
            right(i, j) = v(j, from);
        }
    }
    return detail::factors_of<S>(std::move(left), std::move(values), std::move(right), split);
}

template <real S>
decomposition<S> decomposition<S>::leading(index k) const {
    detail::expects_part("decomposition::leading", *this, k);
    return {columns_of(u, 0, k), head_in<S>(s, k), columns_of(v, 0, k), evidence_at(k)};
}

template <real S>
double decomposition<S>::norm() const {
    detail::expects_part("decomposition::norm", *this, 0);
    return std::hypot(norm_of(s), error.frobenius);
}

template <real S>
error_evidence decomposition<S>::evidence_at(index k) const {
    detail::expects_part("decomposition::evidence_at", *this, k);
    if (k == size()) {
        return error;
    }
    error_evidence e = error;
    e.frobenius = std::hypot(norm_of(dense_view<const S>(s).middle_rows(k, size() - k)), error.frobenius);
    const double whole = norm();
    e.relative = whole > 0.0 ? e.frobenius / whole : 0.0;
    if (error.how != error_source::sampled) {
        const double share = e.frobenius > 0.0 ? error.frobenius / e.frobenius : 0.0;
        // Values are within 4 eps of the norm, which is more of a small tail; the rest is as uncertain as it was.
        const double rounding = 4.0 * detail::rounding_of_values<S>(size(), whole) /
                                std::max(e.relative, std::numeric_limits<double>::min());
        e.deviation = std::min(1.0, std::max(rounding, share * share * error.deviation));
    }
    return e;
}

template <real S>
double decomposition<S>::spectral_error(index k) const {
    detail::expects_part("decomposition::spectral_error", *this, k);
    detail::expects(k < size() || complete(),
                    "decomposition::spectral_error: k must be below the number of components that are here");
    return k < size() ? static_cast<double>(s(k)) : 0.0;
}

template <real S>
double decomposition<S>::error_at(std::span<const index> keep) const {
    detail::expects_part("decomposition::error_at", *this, 0);
    const auto kept = detail::mask_of("decomposition::error_at", keep, size());
    vector<double> rest(size());
    for (index i = 0; i < size(); ++i) {
        rest(i) = kept[static_cast<std::size_t>(i)] ? 0.0 : static_cast<double>(s(i));
    }
    return std::hypot(norm_of(rest), error.frobenius);
}

#ifdef LOWRANK_COMPILED
template struct decomposition<float>;
template struct decomposition<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_DECOMPOSITION_IPP
