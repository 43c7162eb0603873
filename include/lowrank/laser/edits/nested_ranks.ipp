// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_NESTED_RANKS_IPP
#define LOWRANK_LASER_EDITS_NESTED_RANKS_IPP

#include <lowrank/laser/edits/nested_ranks.hpp>

#include <utility>

#include <lowrank/core/skinny_product.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
nested_ranks<S>::nested_ranks(const decomposition<S>& s, std::vector<index> ranks)
    : spectrum_(&s), ranks_(std::move(ranks)) {
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
        detail::expects_in_range("nested_ranks", "a rank", ranks_[i], i == 0 ? index{0} : ranks_[i - 1] + 1, s.size());
    }
    from_below_ = ranks_.size();
    double least = cost(from_below_);
    for (std::size_t cut = s.complete() ? ranks_.size() : 0; cut-- > 0;) {
        if (cost(cut) < least) {
            least = cost(cut);
            from_below_ = cut;
        }
    }
}

template <real S>
double nested_ranks<S>::cost(std::size_t cut) const {
    const double m = static_cast<double>(spectrum_->rows()), n = static_cast<double>(spectrum_->cols());
    const double up = cut > 0 ? static_cast<double>(ranks_[cut - 1]) : 0.0;
    const double down = cut < ranks_.size() ? static_cast<double>(spectrum_->size() - ranks_[cut]) : 0.0;
    return 2 * ((up + down) * (m + n) + (cut < ranks_.size() ? m * n : 0.0));
}

template <real S>
column_view<S> nested_ranks<S>::coefficients(index first, index last, const_column_view<S> x, workspace& ws) const {
    column_view<S> z = ws.take<S>(last - first, x.cols());
    z.setZero();
    if (z.size() > 0) {
        add_transposed_product<S, 0>(S(1), const_column_view<S>(spectrum_->v.middleCols(first, last - first)), x, z,
                                     ws);
        for (index j = 0; j < z.cols(); ++j) {
            for (index i = 0; i < z.rows(); ++i) {
                z(i, j) *= spectrum_->s(first + i);
            }
        }
    }
    return z;
}

template <real S>
void nested_ranks<S>::add(S alpha, index first, index last, index base, const column_view<S>& z, column_view<S> y,
                          workspace& ws) const {
    if (first < last && y.size() > 0) {
        add_product<S, 0>(alpha, const_column_view<S>(spectrum_->u.middleCols(first, last - first)),
                          z.middleRows(first - base, last - first), y, ws);
    }
}

#ifdef LOWRANK_COMPILED
template class nested_ranks<float>;
template class nested_ranks<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_NESTED_RANKS_IPP
