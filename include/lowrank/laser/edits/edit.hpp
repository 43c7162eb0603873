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

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <Eigen/Core>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/edits/component_set.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Of the weight's singular components only those in `keep` stay.
struct kept_components {
    component_set keep = {};
    index of = 0;  ///< How many the weight has: min(rows, cols).

    /// The first floor(fraction * min(rows, cols)) components. \pre 0 <= fraction <= 1
    [[nodiscard]] static kept_components fraction(double fraction, index rows, index cols) {
        const index all = std::min(rows, cols);
        return {component_set::first(rank_from_fraction(fraction, all, all)), all};
    }
    /// What `of` must be for a weight of this shape.
    [[nodiscard]] index count_in(index rows, index cols) const { return std::min(rows, cols); }
    friend bool operator==(const kept_components&, const kept_components&) = default;
};

namespace detail {

/// Singular components of the largest of `groups` row groups of equal size; -1 if there are no such groups.
inline index components_of_groups(index rows, index cols, index groups) {
    return groups < 2 || groups > rows ? -1 : std::min((rows + groups - 1) / groups, cols);
}

/// Those of each group that a fraction keeps, and of how many.
template <class Part>
Part fraction_of_groups(const char* function, double fraction, index rows, index cols, index groups) {
    expects_in_range(function, "the number of groups", groups, index{2}, rows);
    const index all = components_of_groups(rows, cols, groups);
    return {component_set::first(rank_from_fraction(fraction, all, all)), all, groups};
}

}  // namespace detail

/// The rows are cut into contiguous blocks, and of each block's own singular components those in `keep` stay.
struct kept_blocks {
    component_set keep = {};
    index of = 0;      ///< min(ceil(rows / blocks), cols).
    index blocks = 2;  ///< At least 2, at most the rows.

    /// The first floor(fraction * of) components of each block. \pre 0 <= fraction <= 1; 2 <= blocks <= rows
    [[nodiscard]] static kept_blocks fraction(double fraction, index rows, index cols, index blocks) {
        return detail::fraction_of_groups<kept_blocks>("kept_blocks::fraction", fraction, rows, cols, blocks);
    }
    [[nodiscard]] index count_in(index rows, index cols) const {
        return detail::components_of_groups(rows, cols, blocks);
    }
    friend bool operator==(const kept_blocks&, const kept_blocks&) = default;
};

/// The rows are divided into clusters near the same subspace (`cluster_rows`, default options), and of each cluster's
/// own singular components those in `keep` stay.
struct kept_clusters {
    component_set keep = {};
    index of = 0;        ///< min(ceil(rows / clusters), cols).
    index clusters = 2;  ///< At least 2, at most the rows.

    /// As for `kept_blocks`.
    [[nodiscard]] static kept_clusters fraction(double fraction, index rows, index cols, index clusters) {
        return detail::fraction_of_groups<kept_clusters>("kept_clusters::fraction", fraction, rows, cols, clusters);
    }
    [[nodiscard]] index count_in(index rows, index cols) const {
        return detail::components_of_groups(rows, cols, clusters);
    }
    friend bool operator==(const kept_clusters&, const kept_clusters&) = default;
};

/// Magnitude pruning: entry number i is the one of i-th largest magnitude (of equals the earlier in the row-major
/// order). Those in `keep` stay, the others become zero.
struct kept_entries {
    component_set keep = {};
    index of = 0;  ///< rows * cols.

    /// The floor(density * rows * cols) entries of largest magnitude. \pre 0 <= density <= 1
    [[nodiscard]] static kept_entries fraction(double density, index rows, index cols) {
        const index all = rows * cols;
        return {component_set::first(rank_from_fraction(density, all, all)), all};
    }
    [[nodiscard]] index count_in(index rows, index cols) const { return rows * cols; }
    friend bool operator==(const kept_entries&, const kept_entries&) = default;
};

/// What is done to which weight. An edit says what stays.
struct edit {
    std::string weight = {};  ///< The name in the model; any text without a line break.
    std::variant<kept_components, kept_blocks, kept_clusters, kept_entries> kept = {};

    /// The numbers of what stays, whatever is numbered.
    [[nodiscard]] const component_set& keep() const {
        return std::visit([](const auto& part) -> const component_set& { return part.keep; }, kept);
    }
    /// Of how many.
    [[nodiscard]] index of() const {
        return std::visit([](const auto& part) { return part.of; }, kept);
    }
    friend bool operator==(const edit&, const edit&) = default;
};

/// The edit as one line of plain text: "keep 0-4 of 64 in model.layers.1.mlp.up_proj.weight", "keep 0-4 of 16 by 4
/// blocks in ...", "keep 0-4 of 16 by 4 clusters in ...", "keep 0-409 of 4096 entries in ...".
/// \pre the name holds no line break; blocks, clusters >= 2
[[nodiscard]] inline std::string to_text(const edit& e) {
    detail::expects(e.weight.find_first_of("\r\n") == std::string::npos,
                    "to_text: the name of a weight must not hold a line break");
    std::string out = "keep " + e.keep().text() + " of " + std::to_string(e.of());
    const auto by = [&out](index groups, const char* kind) {
        detail::expects(groups >= 2, "to_text: an edit by blocks or clusters has at least 2 of them");
        out += " by " + std::to_string(groups) + kind;
    };
    if (const auto* b = std::get_if<kept_blocks>(&e.kept)) {
        by(b->blocks, " blocks");
    } else if (const auto* c = std::get_if<kept_clusters>(&e.kept)) {
        by(c->clusters, " clusters");
    } else if (std::holds_alternative<kept_entries>(e.kept)) {
        out += " entries";
    }
    return out + " in " + e.weight;
}

/// Reads one line that `to_text` wrote.
/// \return `invalid_format` if the line is anything else, or keeps a component the weight does not have.
[[nodiscard]] inline result<edit> parse_edit(std::string_view line) {
    const auto refuse = [&] {
        return status{errc::invalid_format, "parse_edit: expected \"keep 0-4 of 64 in <weight>\", got \"" +
                                                std::string(line.substr(0, 80)) + "\""};
    };
    constexpr std::string_view keep_word = "keep ", of_word = " of ", in_word = " in ", by_word = " by ";
    const auto of_at = line.find(of_word);
    const auto in_at = of_at == line.npos ? line.npos : line.find(in_word, of_at + of_word.size());
    if (!line.starts_with(keep_word) || in_at == line.npos || of_at < keep_word.size() ||
        line.find_first_of("\r\n") != line.npos) {
        return refuse();
    }
    // A number is written like a set of one member, and read by the same strict reader.
    const auto read_number = [](std::string_view text, index& number) {
        const auto set = component_set::parse(text);
        number = set && set->size() == 1 && set->text() == text ? set->bound() - 1 : -1;
        return number >= 0;
    };
    const auto ends_with = [](std::string_view& text, std::string_view end) {
        const bool found = text.ends_with(end);
        text.remove_suffix(found ? end.size() : 0);
        return found;
    };
    const auto keep = component_set::parse(line.substr(keep_word.size(), of_at - keep_word.size()));
    auto count = line.substr(of_at + of_word.size(), in_at - of_at - of_word.size());
    const bool entries = ends_with(count, " entries");
    const auto by_at = entries ? count.npos : count.find(by_word);
    auto by = by_at == count.npos ? std::string_view() : count.substr(by_at + by_word.size());
    index of = 0, groups = 0;
    if (!keep || !read_number(count.substr(0, by_at), of) || keep->bound() > of) {
        return refuse();
    }
    edit e{.weight = std::string(line.substr(in_at + in_word.size()))};
    if (entries) {
        e.kept = kept_entries{*keep, of};
    } else if (by_at == count.npos) {
        e.kept = kept_components{*keep, of};
    } else {
        const bool blocks = ends_with(by, " blocks");
        if ((!blocks && !ends_with(by, " clusters")) || !read_number(by, groups) || groups < 2) {
            return refuse();
        }
        blocks ? e.kept = kept_blocks{*keep, of, groups} : e.kept = kept_clusters{*keep, of, groups};
    }
    return e;
}

namespace detail {

/// sum_{i in set} s_i u_i v_i^T as two factors, or its negative.
template <real S>
low_rank<S> components_of(const decomposition<S>& s, const component_set& set, bool negative = false) {
    low_rank<S> part = s.select(set.members());
    if (negative) {
        part.left = -part.left;
    }
    return part;
}

/// How far the norm of a decomposition may be from that of its weight, relative: rounding, and what `error` leaves open.
template <real S>
double norm_tolerance(const decomposition<S>& f) {
    return 1e-3 + 4 * f.error.relative * f.error.relative * f.error.deviation;
}

/// A fingerprint of a weight's bits, padding between rows excluded.
template <storage T>
std::uint64_t bits_hash(const const_weight_view<T>& w) {
    std::uint64_t hash = 0xcbf29ce484222325U ^ static_cast<std::uint64_t>(w.rows() * 2654435761 + w.cols());
    const std::size_t row_bytes = static_cast<std::size_t>(w.cols()) * sizeof(T);
    for (index i = 0; i < w.rows(); ++i) {
        const auto* bytes = reinterpret_cast<const unsigned char*>(w.data() + i * w.outerStride());
        for (std::size_t at = 0; at < row_bytes; at += sizeof(std::uint64_t)) {
            std::uint64_t word = 0;
            std::memcpy(&word, bytes + at, row_bytes - at < sizeof word ? row_bytes - at : sizeof word);
            hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
            hash ^= hash >> 32;
        }
    }
    return hash;
}

/// Copies bits row by row; a floating-point assignment may quiet a signalling NaN, this never does.
template <storage T>
void copy_bits(const const_weight_view<T>& from, weight_view<T> to) {
    for (index i = 0; i < from.rows() && from.cols() > 0; ++i) {
        std::memcpy(static_cast<void*>(to.data() + i * to.outerStride()), from.data() + i * from.outerStride(),
                    static_cast<std::size_t>(from.cols()) * sizeof(T));
    }
}

/// Writes sum_{i in keep} s_i u_i v_i^T into `to`, by the cheaper of its two forms: the kept part, or, where the dropped
/// part is known, `original` minus it. All components kept: the original's bits. \return whether all that was written is finite
template <storage T>
bool write_components(const const_weight_view<T>& original, const decomposition<compute_t<T>>& s,
                      const component_set& keep, weight_view<T> to) {
    using S = compute_t<T>;
    const index kept = keep.size();
    if (s.complete() && kept == s.size()) {
        copy_bits<T>(original, to);
        return true;
    }
    const bool by_difference = s.complete() && 2 * kept > s.size();
    const low_rank<S> part = by_difference ? components_of(s, keep.complement(s.size()), true) : components_of(s, keep);
    constexpr index panel = 64;  // Rows worked on at a time, so that a 16-bit weight is never widened as a whole.
    row_matrix<S> wide;
    bool finite = true;
    for (index first = 0; first < to.rows(); first += panel) {
        const index rows = std::min(panel, to.rows() - first);
        if (part.rank() > 0) {
            wide.noalias() = part.left.middleRows(first, rows) * part.right;
        } else {
            wide.setZero(rows, to.cols());
        }
        if (by_difference) {
            wide += original.middleRows(first, rows).template cast<S>();
        }
        to.middleRows(first, rows) = wide.template cast<T>();
        finite = finite && all_finite(to.middleRows(first, rows));
    }
    return finite;
}

}  // namespace detail

/// sum_{i in keep} s_i u_i v_i^T, what the edit leaves of the weight, as two factors (m x k, k x n).
/// \pre keep.bound() <= s.size()
template <real S>
[[nodiscard]] low_rank<S> kept_part(const decomposition<S>& s, const component_set& keep) {
    detail::expects_in_range("kept_part", "the largest component plus one", keep.bound(), index{0}, s.size());
    return detail::components_of(s, keep);
}

/// The edit as an update of the weight: - sum_{i not in keep} s_i u_i v_i^T.
/// \pre keep.bound() <= s.size(); s is complete.
template <real S>
[[nodiscard]] low_rank<S> edit_delta(const decomposition<S>& s, const component_set& keep) {
    detail::expects_in_range("edit_delta", "the largest component plus one", keep.bound(), index{0}, s.size());
    detail::expects(s.complete(),
                    "edit_delta: needs a complete decomposition, as svd makes; what a partial one lacks "
                    "would stay in the weight");
    return detail::components_of(s, keep.complement(s.size()), true);
}

/// What an engine multiplies by instead of a weight: `map x`, or with `additive` the weight's own product plus `map x`.
template <real S>
struct weight_override {
    any_operator<S> map;
    bool additive = false;
};

/// The edit without a dense copy: the factors of what stays, or added to the weight those of what goes, whichever are
/// smaller. \pre keep.bound() <= s.size()
template <real S>
[[nodiscard]] weight_override<S> override_by_components(const decomposition<S>& s, const component_set& keep) {
    const bool additive = s.complete() && 2 * keep.size() > s.size();
    return {.map = any_operator<S>(additive ? edit_delta(s, keep) : kept_part(s, keep)), .additive = additive};
}

/// What an edit in place leaves behind: the bits of before, and what the edit took away.
template <storage T>
struct edit_receipt {
    row_matrix<T> before = {};     ///< The weight as it was.
    std::uint64_t after_hash = 0;  ///< A fingerprint of the bits the edit wrote.
    component_set keep = {};       ///< What stayed.
    double removed_norm = 0;       ///< ||W - W'||_F in exact arithmetic: sqrt of the sum of the dropped s_i^2.
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
                                                 const component_set& keep) {
    detail::expects_shape("apply_edit", "the weight", w.rows(), w.cols(), s.rows(), s.cols());
    detail::expects_in_range("apply_edit", "the largest component plus one", keep.bound(), index{0}, s.size());
    const auto bits_now = [&] { return const_weight_view<T>(w.data(), w.rows(), w.cols(), w.outerStride()); };
    if (!all_finite(w)) {
        return status{errc::non_finite, "apply_edit: the weight holds NaN or infinity; repair the checkpoint first"};
    }
    const double norm = s.norm();
    const bool same_norm = std::abs(norm_of(bits_now()) - norm) <= detail::norm_tolerance(s) * norm;
    if (!same_norm) {
        return status{errc::mismatch,
                      "apply_edit: the spectrum is not that of the weight (their norms differ); compute it again"};
    }

    edit_receipt<T> receipt;
    receipt.before.resize(w.rows(), w.cols());
    detail::copy_bits<T>(bits_now(), weight_view<T>(receipt.before));
    receipt.keep = keep;
    receipt.removed_norm = s.error_at(keep.members());
    receipt.relative_error = norm > 0 ? receipt.removed_norm / norm : 0.0;
    if (!detail::write_components<T>(const_weight_view<T>(receipt.before), s, keep, w)) {
        detail::copy_bits<T>(const_weight_view<T>(receipt.before), w);
        return status{errc::non_finite, "apply_edit: the edited weight does not fit its stored type"};
    }
    receipt.after_hash = detail::bits_hash<T>(bits_now());
    return receipt;
}

/// W := W_k, its best rank-k approximation: `apply_edit` that keeps the first k components.
/// \pre 0 <= k <= s.size()
template <storage T>
[[nodiscard]] result<edit_receipt<T>> truncate_weight(weight_view<T> w, const decomposition<compute_t<T>>& s, index k) {
    detail::expects_in_range("truncate_weight", "rank", k, index{0}, s.size());
    return apply_edit<T>(w, s, component_set::first(k));
}

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
status undo_edit(weight_view<T> w, const edit_receipt<T>& receipt) {
    detail::expects_shape("undo_edit", "the weight", w.rows(), w.cols(), receipt.before.rows(), receipt.before.cols());
    if (detail::bits_hash<T>(const_weight_view<T>(w.data(), w.rows(), w.cols(), w.outerStride())) !=
        receipt.after_hash) {
        return {errc::mismatch,
                "undo_edit: the weight is not as this edit left it; undo what was done to it since, last change first"};
    }
    detail::copy_bits<T>(const_weight_view<T>(receipt.before), w);
    return {};
}

/// The same of a matrix, block or map of either storage order.
template <detail::writable_weight W>
status undo_edit(W&& w, const edit_receipt<typename detail::plain_t<W>::Scalar>& receipt) {
    return undo_edit<typename detail::plain_t<W>::Scalar>(detail::rows_of(w), receipt);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_EDIT_HPP
