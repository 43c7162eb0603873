// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_EDIT_HPP
#define LOWRANK_LASER_EDITS_EDIT_HPP

/// \file
/// Reversible edits of one weight: keep some of its singular components, undo to the same bits.
///
///     auto s = lowrank::svd(w).value();
///     auto receipt = lowrank::truncate_weight(lowrank::weight_view<float>(w), s, 5).value();   // W := W_5
///     lowrank::throw_if_failed(lowrank::undo_edit(lowrank::weight_view<float>(w), receipt));   // the bits of before
///
/// The intervention of LASER (Sharma, Ash, Misra: The Truth is in There, arXiv 2312.13558, section 4), with the exact
/// truncation the paper defines instead of the randomized one of its code. The same edit as an adapter is
/// `edit_delta`: - sum_dropped s_i u_i v_i^T, a `low_rank` to scale, stack, store and merge like any other.

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/edits/component_set.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Of the weight's singular components only those in `keep` stay.
struct kept_components {
    component_set keep = {};
    index of = 0;  ///< How many the weight has: min(rows, cols).

    /// The first floor(fraction * min(rows, cols)) components. \pre 0 <= fraction <= 1
    LOWRANK_API [[nodiscard]] static kept_components fraction(double fraction, index rows, index cols);
    /// What `of` must be for a weight of this shape.
    LOWRANK_API [[nodiscard]] index count_in(index rows, index cols) const;
    friend bool operator==(const kept_components&, const kept_components&) = default;
};

/// The rows are cut into contiguous blocks, and of each block's own singular components those in `keep` stay.
struct kept_blocks {
    component_set keep = {};
    index of = 0;      ///< min(ceil(rows / blocks), cols).
    index blocks = 2;  ///< At least 2, at most the rows.

    /// The first floor(fraction * of) components of each block. \pre 0 <= fraction <= 1; 2 <= blocks <= rows
    LOWRANK_API [[nodiscard]] static kept_blocks fraction(double fraction, index rows, index cols, index blocks);
    LOWRANK_API [[nodiscard]] index count_in(index rows, index cols) const;
    friend bool operator==(const kept_blocks&, const kept_blocks&) = default;
};

/// The rows are divided into clusters near the same subspace (`cluster_rows`, default options), and of each cluster's
/// own singular components those in `keep` stay.
struct kept_clusters {
    component_set keep = {};
    index of = 0;        ///< min(ceil(rows / clusters), cols).
    index clusters = 2;  ///< At least 2, at most the rows.

    /// As for `kept_blocks`.
    LOWRANK_API [[nodiscard]] static kept_clusters fraction(double fraction, index rows, index cols, index clusters);
    LOWRANK_API [[nodiscard]] index count_in(index rows, index cols) const;
    friend bool operator==(const kept_clusters&, const kept_clusters&) = default;
};

/// Magnitude pruning: entry number i is the one of i-th largest magnitude (of equals the earlier in the row-major
/// order). Those in `keep` stay, the others become zero.
struct kept_entries {
    component_set keep = {};
    index of = 0;  ///< rows * cols.

    /// The floor(density * rows * cols) entries of largest magnitude. \pre 0 <= density <= 1
    LOWRANK_API [[nodiscard]] static kept_entries fraction(double density, index rows, index cols);
    LOWRANK_API [[nodiscard]] index count_in(index rows, index cols) const;
    friend bool operator==(const kept_entries&, const kept_entries&) = default;
};

/// What is done to which weight. An edit says what stays.
struct edit {
    std::string weight = {};  ///< The name in the model; any text without a line break.
    std::variant<kept_components, kept_blocks, kept_clusters, kept_entries> kept = {};

    /// The numbers of what stays, whatever is numbered.
    LOWRANK_API [[nodiscard]] const component_set& keep() const;
    /// Of how many.
    LOWRANK_API [[nodiscard]] index of() const;
    friend bool operator==(const edit&, const edit&) = default;
};

/// The edit as one line of plain text: "keep 0-4 of 64 in model.layers.1.mlp.up_proj.weight", "keep 0-4 of 16 by 4
/// blocks in ...", "keep 0-4 of 16 by 4 clusters in ...", "keep 0-409 of 4096 entries in ...".
/// \pre the name holds no line break; blocks, clusters >= 2
LOWRANK_API [[nodiscard]] std::string to_text(const edit& e);

/// Reads one line that `to_text` wrote.
/// \return `invalid_format` if the line is anything else, or keeps a component the weight does not have.
LOWRANK_API [[nodiscard]] result<edit> parse_edit(std::string_view line);

namespace detail {

/// How far the norm of a decomposition may be from that of its weight, relative: rounding, and what `error` leaves open.
template <real S>
double norm_tolerance(const decomposition<S>& f);

/// A fingerprint of a weight's bits, padding between rows excluded.
template <storage T>
std::uint64_t bits_hash(const const_weight_view<T>& w);

/// Copies bits row by row; a floating-point assignment may quiet a signalling NaN, this never does.
template <storage T>
void copy_bits(const const_weight_view<T>& from, weight_view<T> to);

/// ||A - B||_F in double, of what is stored.
template <storage T>
double change_norm(const const_weight_view<T>& a, const const_weight_view<T>& b);

/// Writes sum_{i in keep} s_i u_i v_i^T into `to`, by the cheaper of its two forms: the kept part, or, where the dropped
/// part is known, `original` minus it. All components kept: the original's bits. \return whether all that was written is finite
template <storage T>
bool write_components(const const_weight_view<T>& original, const decomposition<compute_t<T>>& s,
                      const component_set& keep, weight_view<T> to);

}  // namespace detail

/// sum_{i in keep} s_i u_i v_i^T, what the edit leaves of the weight, as two factors (m x k, k x n).
/// \pre keep.bound() <= s.size()
template <real S>
[[nodiscard]] low_rank<S> kept_part(const decomposition<S>& s, const component_set& keep);

/// The edit as an update of the weight: - sum_{i not in keep} s_i u_i v_i^T.
/// \pre keep.bound() <= s.size(); s is complete.
template <real S>
[[nodiscard]] low_rank<S> edit_delta(const decomposition<S>& s, const component_set& keep);

/// What an engine multiplies by instead of a weight: `map x`, or with `additive` the weight's own product plus `map x`.
template <real S>
struct weight_override {
    any_operator<S> map;
    bool additive = false;
};

/// The edit without a dense copy: the factors of what stays, or added to the weight those of what goes, whichever are
/// smaller. \pre keep.bound() <= s.size()
template <real S>
[[nodiscard]] weight_override<S> override_by_components(const decomposition<S>& s, const component_set& keep);

/// What an edit in place leaves behind: the bits of before, and what the edit took away.
template <storage T>
struct edit_receipt {
    row_matrix<T> before = {};     ///< The weight as it was.
    std::uint64_t after_hash = 0;  ///< A fingerprint of the bits the edit wrote.
    component_set keep = {};       ///< What stayed.
    double removed_norm = 0;       ///< ||W - W'||_F of the W' that was written, rounding to the stored type included.
    double relative_error = 0;     ///< removed_norm / ||W||_F; 0 for a zero weight.
};

/// W := sum_{i in keep} s_i u_i v_i^T, rounded once to the stored type.
///
/// \pre    `s` has the shape of `w`; keep.bound() <= s.size().
/// \return `mismatch` if `s` is not the spectrum of `w` (its norm differs), `non_finite` if the weight or the edited
///         weight is not finite (16-bit storage can overflow). A failure leaves `w` as it was.
/// \cost   2 m n min(kept, dropped) flops, one copy of W.
template <storage T>
[[nodiscard]] result<edit_receipt<T>> apply_edit(weight_view<T> w, const decomposition<compute_t<T>>& s,
                                                 const component_set& keep);

/// The same for an edit. `mismatch` if it is not one of the components of the whole weight, or of another shape: the
/// other kinds need a `weight_editor`, as in edit_list.hpp.
template <storage T>
[[nodiscard]] result<edit_receipt<T>> apply_edit(weight_view<T> w, const decomposition<compute_t<T>>& s, const edit& e);

/// W := W_k, its best rank-k approximation: `apply_edit` that keeps the first k components.
/// \pre 0 <= k <= s.size()
template <storage T>
[[nodiscard]] result<edit_receipt<T>> truncate_weight(weight_view<T> w, const decomposition<compute_t<T>>& s, index k);

namespace detail {

/// A matrix in memory that an edit may write to, row- or column-major, and that is no view of ours already.
template <class W>
concept writable_weight = dense_weight<W> && !std::is_const_v<std::remove_reference_t<W>> &&
                          !std::derived_from<plain_t<W>, weight_view<typename plain_t<W>::Scalar>> &&
                          (std::is_lvalue_reference_v<W> || !owns_memory<plain_t<W>>);

/// W as a row-major view, or W^T where W is column-major.
template <class W>
[[nodiscard]] auto rows_of(W& w) {
    using T = typename plain_t<W>::Scalar;
    if constexpr (borrowable<W, 1> && !borrowable<W, 0>) {
        return weight_view<T>(w);
    } else {
        const strided_view<T, 0> columns(w);
        return weight_view<T>(const_cast<T*>(columns.data()), columns.cols(), columns.rows(), columns.outerStride());
    }
}

}  // namespace detail

/// `apply_edit` and `truncate_weight` of a matrix, block or map of either storage order: W^T = V diag(s) U^T, so what is
/// column-major is edited as its transpose, and the receipt is that of the transpose.
template <detail::writable_weight W, real S>
[[nodiscard]] auto apply_edit(W&& w, const decomposition<S>& s, const component_set& keep) {
    using T = typename detail::plain_t<W>::Scalar;
    detail::expects_shape("apply_edit", "the weight", w.rows(), w.cols(), s.rows(), s.cols());
    if constexpr (detail::borrowable<W, 1> && !detail::borrowable<W, 0>) {
        return apply_edit<T>(detail::rows_of(w), s, keep);
    } else {
        return apply_edit<T>(detail::rows_of(w), decomposition<S>(s.v, s.s, s.u, s.error), keep);
    }
}
template <detail::writable_weight W, real S>
[[nodiscard]] auto truncate_weight(W&& w, const decomposition<S>& s, index k) {
    detail::expects_in_range("truncate_weight", "rank", k, index{0}, s.size());
    return apply_edit(w, s, component_set::first(k));
}

/// Gives the weight the bits it had before the edit.
///
/// \pre    the receipt has the weight's shape.
/// \return `mismatch` if the weight is no longer as the edit left it; it is then not touched. Undo later edits first,
///         last one first.
template <storage T>
status undo_edit(weight_view<T> w, const edit_receipt<T>& receipt);

/// The same of a matrix, block or map of either storage order.
template <detail::writable_weight W>
status undo_edit(W&& w, const edit_receipt<typename detail::plain_t<W>::Scalar>& receipt) {
    return undo_edit<typename detail::plain_t<W>::Scalar>(detail::rows_of(w), receipt);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/edits/edit.ipp>
#endif

#endif  // LOWRANK_LASER_EDITS_EDIT_HPP
