// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_NESTED_RANKS_HPP
#define LOWRANK_LASER_EDITS_NESTED_RANKS_HPP

/// \file
/// Products with several truncations of one weight, for about the price of the largest.
///
///     const auto add_wx = [&](auto y) { lowrank::as_operator(w).add_product(1.0F, x, y, ws); };      // if that pays
///     lowrank::nested_ranks<float> nested(spec, {1, 6, 25, 51});
///     nested.for_each(x, add_wx, ws, [&](lowrank::index i, auto y) { use(i, y); });      // y = W_{ranks[i]} x
///
/// Let z = diag(s) V^T x and U_ab the columns a to b - 1 of U. Then W_b x = W_a x + U_ab z_ab: from one rank to a higher
/// one only the columns between them are needed. Low ranks are computed upwards from zero, high ranks downwards from
/// W x; the split with the fewest operations is chosen. A partial decomposition serves the ranks it holds, upwards. LASER's search (Sharma, Ash, Misra, arXiv 2312.13558) tries
/// eight ranks of each weight.

#include <cstddef>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/decomposition.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The truncations of one weight to several ranks, as products with activations.
template <real S>
class nested_ranks {
public:
    /// `s` is the weight's spectrum and must outlive this object.
    /// \pre `ranks` rise strictly in [0, s.size()]
    nested_ranks(const decomposition<S>&&, std::vector<index>) = delete;
    nested_ranks(const decomposition<S>& s, std::vector<index> ranks);

    [[nodiscard]] const std::vector<index>& ranks() const noexcept { return ranks_; }
    [[nodiscard]] const decomposition<S>& factors() const noexcept { return *spectrum_; }
    /// How many of the ranks, the lowest ones, are computed upwards from zero; the others downwards from W x.
    [[nodiscard]] index built_up() const noexcept { return static_cast<index>(from_below_); }
    /// Floating-point operations for each column of x, W x included where it is needed.
    [[nodiscard]] double flops_per_column() const { return cost(from_below_); }

    /// Calls `body(i, y)` once for each rank, in no particular order, with y = W_{ranks[i]} x (m x N), good until body
    /// returns. `full(y)` adds W x to its argument, which is zero; it is called at most once, and only if a rank is
    /// computed downwards. At full rank y then has the bits that `full` wrote.
    ///
    /// \pre  x has as many rows as the weight columns.
    /// \cost 2 N (m + n) times the components of the largest rank built up, and as much for the components that the
    ///       lowest rank from above drops; scratch: (m + components) N scalars.
    /// \note Deterministic. The rounding at one rank depends on the other ranks.
    template <class Full, class Body>
    void for_each(const_column_view<S> x, Full&& full, workspace& ws, Body&& body) const {
        detail::expects_shape("nested_ranks::for_each", "x", x.rows(), x.cols(), spectrum_->cols(), x.cols());
        const workspace::frame scope(ws);
        column_view<S> y = ws.take<S>(spectrum_->rows(), x.cols());
        if (from_below_ > 0) {
            const workspace::frame inner(ws);
            const column_view<S> z = coefficients(0, ranks_[from_below_ - 1], x, ws);
            y.setZero();
            for (std::size_t i = 0, done = 0; i < from_below_; ++i) {
                add(S(1), static_cast<index>(done), ranks_[i], 0, z, y, ws);
                done = static_cast<std::size_t>(ranks_[i]);
                body(static_cast<index>(i), const_column_view<S>(y));
            }
        }
        if (from_below_ < ranks_.size()) {
            const workspace::frame inner(ws);
            const index base = ranks_[from_below_];
            const column_view<S> z = coefficients(base, spectrum_->size(), x, ws);
            y.setZero();
            full(y);
            index above = spectrum_->size();
            for (std::size_t i = ranks_.size(); i-- > from_below_;) {
                add(S(-1), ranks_[i], above, base, z, y, ws);
                above = ranks_[i];
                body(static_cast<index>(i), const_column_view<S>(y));
            }
        }
    }

private:
    /// The first `cut` ranks from below, the others from above.
    [[nodiscard]] double cost(std::size_t cut) const;

    /// s_i v_i^T x for first <= i < last.
    [[nodiscard]] column_view<S> coefficients(index first, index last, const_column_view<S> x, workspace& ws) const;

    /// y += alpha U[:, first:last) z, where row 0 of z belongs to component `base`.
    void add(S alpha, index first, index last, index base, const column_view<S>& z, column_view<S> y,
             workspace& ws) const;

    const decomposition<S>* spectrum_;
    std::vector<index> ranks_;
    std::size_t from_below_ = 0;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/edits/nested_ranks.ipp>
#endif

#endif  // LOWRANK_LASER_EDITS_NESTED_RANKS_HPP
