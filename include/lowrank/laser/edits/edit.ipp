// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_EDIT_IPP
#define LOWRANK_LASER_EDITS_EDIT_IPP

#include <lowrank/laser/edits/edit.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include <lowrank/core/finite.hpp>
#include <lowrank/core/storage.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY kept_components kept_components::fraction(double fraction, index rows, index cols) {
    const index all = std::min(rows, cols);
    return {component_set::first(rank_from_fraction(fraction, all, all)), all};
}

LOWRANK_BODY index kept_components::count_in(index rows, index cols) const { return std::min(rows, cols); }

namespace detail {

/// Singular components of the largest of `groups` row groups of equal size; -1 if there are no such groups.
LOWRANK_INLINE index components_of_groups(index rows, index cols, index groups) {
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

LOWRANK_BODY kept_blocks kept_blocks::fraction(double fraction, index rows, index cols, index blocks) {
    return detail::fraction_of_groups<kept_blocks>("kept_blocks::fraction", fraction, rows, cols, blocks);
}

LOWRANK_BODY index kept_blocks::count_in(index rows, index cols) const {
    return detail::components_of_groups(rows, cols, blocks);
}

LOWRANK_BODY kept_clusters kept_clusters::fraction(double fraction, index rows, index cols, index clusters) {
    return detail::fraction_of_groups<kept_clusters>("kept_clusters::fraction", fraction, rows, cols, clusters);
}

LOWRANK_BODY index kept_clusters::count_in(index rows, index cols) const {
    return detail::components_of_groups(rows, cols, clusters);
}

LOWRANK_BODY kept_entries kept_entries::fraction(double density, index rows, index cols) {
    const index all = rows * cols;
    return {component_set::first(rank_from_fraction(density, all, all)), all};
}

LOWRANK_BODY index kept_entries::count_in(index rows, index cols) const { return rows * cols; }

LOWRANK_BODY const component_set& edit::keep() const {
    return std::visit([](const auto& part) -> const component_set& { return part.keep; }, kept);
}

LOWRANK_BODY index edit::of() const {
    return std::visit([](const auto& part) { return part.of; }, kept);
}

LOWRANK_BODY std::string to_text(const edit& e) {
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

LOWRANK_BODY result<edit> parse_edit(std::string_view line) {
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
    for (index i = 0; negative && i < part.left.size(); ++i) {
        part.left.data()[i] = -part.left.data()[i];
    }
    return part;
}

template <real S>
double norm_tolerance(const decomposition<S>& f) {
    return 1e-3 + 4 * f.error.relative * f.error.relative * f.error.deviation;
}

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

template <storage T>
void copy_bits(const const_weight_view<T>& from, weight_view<T> to) {
    for (index i = 0; i < from.rows() && from.cols() > 0; ++i) {
        std::memcpy(static_cast<void*>(to.data() + i * to.outerStride()), from.data() + i * from.outerStride(),
                    static_cast<std::size_t>(from.cols()) * sizeof(T));
    }
}

template <storage T>
double change_norm(const const_weight_view<T>& a, const const_weight_view<T>& b) {
    vector<double> row(a.cols());
    double norm = 0.0;
    for (index i = 0; i < a.rows(); ++i) {
        for (index j = 0; j < a.cols(); ++j) {
            row(j) = to_double(a(i, j)) - to_double(b(i, j));
        }
        norm = std::hypot(norm, norm_of(row));
    }
    return norm;
}

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
        wide.setZero(rows, to.cols());
        for (index i = 0; by_difference && i < rows; ++i) {
            for (index j = 0; j < to.cols(); ++j) {
                wide(i, j) = static_cast<S>(original(first + i, j));
            }
        }
        add_product(S(1), dense_view<const S>(part.left).middle_rows(first, rows), part.right, wide);
        for (index i = 0; i < rows; ++i) {
            for (index j = 0; j < to.cols(); ++j) {
                to(first + i, j) = to_storage<T>(static_cast<double>(wide(i, j)));
            }
            finite = finite && all_finite(&to(first + i, 0), to.cols());
        }
    }
    return finite;
}

}  // namespace detail

template <real S>
low_rank<S> kept_part(const decomposition<S>& s, const component_set& keep) {
    detail::expects_in_range("kept_part", "the largest component plus one", keep.bound(), index{0}, s.size());
    return detail::components_of(s, keep);
}

template <real S>
low_rank<S> edit_delta(const decomposition<S>& s, const component_set& keep) {
    detail::expects_in_range("edit_delta", "the largest component plus one", keep.bound(), index{0}, s.size());
    detail::expects(s.complete(),
                    "edit_delta: needs a complete decomposition, as svd makes; what a partial one lacks "
                    "would stay in the weight");
    return detail::components_of(s, keep.complement(s.size()), true);
}

template <real S>
weight_override<S> override_by_components(const decomposition<S>& s, const component_set& keep) {
    const bool additive = s.complete() && 2 * keep.size() > s.size();
    return {.map = any_operator<S>(additive ? edit_delta(s, keep) : kept_part(s, keep)), .additive = additive};
}

template <storage T>
result<edit_receipt<T>> apply_edit(weight_view<T> w, const decomposition<compute_t<T>>& s, const component_set& keep) {
    detail::expects_shape("apply_edit", "the weight", w.rows(), w.cols(), s.rows(), s.cols());
    detail::expects_in_range("apply_edit", "the largest component plus one", keep.bound(), index{0}, s.size());
    const auto bits_now = [&] { return const_weight_view<T>(w.data(), w.rows(), w.cols(), w.outerStride()); };
    if (!all_finite(w)) {
        return status{errc::non_finite, "apply_edit: the weight holds NaN or infinity; repair the checkpoint first"};
    }
    const double norm = norm_of(bits_now());
    const bool same_norm = std::abs(norm - s.norm()) <= detail::norm_tolerance(s) * s.norm();
    if (!same_norm) {
        return status{errc::mismatch,
                      "apply_edit: the spectrum is not that of the weight (their norms differ); compute it again"};
    }

    edit_receipt<T> receipt;
    receipt.before.resize(w.rows(), w.cols());
    detail::copy_bits<T>(bits_now(), weight_view<T>(receipt.before));
    receipt.keep = keep;
    if (!detail::write_components<T>(const_weight_view<T>(receipt.before), s, keep, w)) {
        detail::copy_bits<T>(const_weight_view<T>(receipt.before), w);
        return status{errc::non_finite, "apply_edit: the edited weight does not fit its stored type"};
    }
    receipt.removed_norm = detail::change_norm<T>(const_weight_view<T>(receipt.before), bits_now());
    receipt.relative_error = norm > 0 ? receipt.removed_norm / norm : 0.0;
    receipt.after_hash = detail::bits_hash<T>(bits_now());
    return receipt;
}

template <storage T>
result<edit_receipt<T>> apply_edit(weight_view<T> w, const decomposition<compute_t<T>>& s, const edit& e) {
    const auto* kept = std::get_if<kept_components>(&e.kept);
    if (kept == nullptr || kept->of != kept->count_in(s.rows(), s.cols()) || kept->keep.bound() > s.size()) {
        return status{errc::mismatch, "apply_edit: the decomposition does not serve the edit \"" + to_text(e) +
                                          "\"; make the edit for this shape, or apply it with a weight_editor"};
    }
    return apply_edit<T>(w, s, kept->keep);
}

template <storage T>
result<edit_receipt<T>> truncate_weight(weight_view<T> w, const decomposition<compute_t<T>>& s, index k) {
    detail::expects_in_range("truncate_weight", "rank", k, index{0}, s.size());
    return apply_edit<T>(w, s, component_set::first(k));
}

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

#ifdef LOWRANK_COMPILED
#define LOWRANK_EDIT_OF(T)                                                                                        \
    template std::uint64_t detail::bits_hash(const const_weight_view<T>&);                                        \
    template void detail::copy_bits(const const_weight_view<T>&, weight_view<T>);                                 \
    template double detail::change_norm(const const_weight_view<T>&, const const_weight_view<T>&);                \
    template bool detail::write_components(const const_weight_view<T>&, const decomposition<compute_t<T>>&,       \
                                           const component_set&, weight_view<T>);                                 \
    template result<edit_receipt<T>> apply_edit(weight_view<T>, const decomposition<compute_t<T>>&,               \
                                                const component_set&);                                            \
    template result<edit_receipt<T>> apply_edit(weight_view<T>, const decomposition<compute_t<T>>&, const edit&); \
    template result<edit_receipt<T>> truncate_weight(weight_view<T>, const decomposition<compute_t<T>>&, index);  \
    template status undo_edit(weight_view<T>, const edit_receipt<T>&);
LOWRANK_EDIT_OF(float)
LOWRANK_EDIT_OF(double)
LOWRANK_EDIT_OF(half)
LOWRANK_EDIT_OF(bfloat16)
#undef LOWRANK_EDIT_OF
#define LOWRANK_EDIT_OF(T)                                                          \
    template double detail::norm_tolerance(const decomposition<T>&);                \
    template low_rank<T> kept_part(const decomposition<T>&, const component_set&);  \
    template low_rank<T> edit_delta(const decomposition<T>&, const component_set&); \
    template weight_override<T> override_by_components(const decomposition<T>&, const component_set&);
LOWRANK_EDIT_OF(float)
LOWRANK_EDIT_OF(double)
#undef LOWRANK_EDIT_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_EDIT_IPP
