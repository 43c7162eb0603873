// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MERGE_MERGE_TRANSFORMED_IPP
#define LOWRANK_LORA_MERGE_MERGE_TRANSFORMED_IPP

#include <lowrank/lora/merge/merge_transformed.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/checksum.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/storage.hpp>
#include <lowrank/lora/merge/detail/ulp_code.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// One group of rows of a merge: what it cost, how to take it back.
struct transformed_state {
    std::vector<std::uint8_t> code = {};
    bool failed = false;
    index bad_row = 0;
    index bad_col = 0;
    merge_audit audit = {};
    double change_norm2 = 0;
    double error_norm2 = 0;
};

template <storage T>
class transformed_merger {
public:
    transformed_merger(weight_view<T> w, const any_row_transform& f, bool transposed)
        : w_(w), f_(f), transposed_(transposed) {}

    [[nodiscard]] index out() const { return transposed_ ? w_.cols() : w_.rows(); }
    [[nodiscard]] index in() const { return transposed_ ? w_.rows() : w_.cols(); }
    [[nodiscard]] index groups() const { return (out() + transformed_rows - 1) / transformed_rows; }

    /// Merges group g, or leaves it as it is where a value is not finite.
    void merge(index g, transformed_state& state) const {
        const index first = g * transformed_rows;
        const index count = std::min(transformed_rows, out() - first);
        workspace ws;
        matrix<double> old(in(), count);
        for (index r = 0; r < count; ++r) {
            for (index j = 0; j < in(); ++j) {
                old(j, r) = to_double(at(first + r, j));
            }
        }
        matrix<double> exact = old;
        f_.forward(first, exact, ws);
        std::vector<T> merged(static_cast<std::size_t>(in() * count));
        const auto merged_at = [&](index j, index r) -> T& { return merged[static_cast<std::size_t>(r * in() + j)]; };
        matrix<double> back(in(), count);
        for (index r = 0; r < count; ++r) {
            for (index j = 0; j < in(); ++j) {
                merged_at(j, r) = exact(j, r) == old(j, r) ? at(first + r, j) : to_storage<T>(exact(j, r));
                back(j, r) = to_double(merged_at(j, r));
                if (!is_finite(merged_at(j, r)) || !is_finite(at(first + r, j))) {
                    state.failed = true;
                    state.bad_row = first + r;
                    state.bad_col = j;
                    return;
                }
            }
        }
        f_.backward(first, back, ws);
        ulp_encoder code;
        for (index r = 0; r < count; ++r) {
            for (index j = 0; j < in(); ++j) {
                T& w = at(first + r, j);
                const double change = exact(j, r) - old(j, r);
                const double error = std::abs((to_double(merged_at(j, r)) - old(j, r)) - change);
                state.change_norm2 += change * change;
                state.error_norm2 += error * error;
                if (error > state.audit.worst_error) {
                    state.audit.worst_error = error;
                    state.audit.worst_row = first + r;
                    state.audit.worst_col = j;
                }
                state.audit.touched += change != 0 ? 1U : 0U;
                state.audit.unchanged += change != 0 && ulp_rank(merged_at(j, r)) == ulp_rank(w) ? 1U : 0U;
                const T estimate = to_storage<T>(back(j, r));
                if (ulp_rank(estimate) != ulp_rank(w)) {
                    code.put(static_cast<std::uint64_t>(r * in() + j), ulp_distance(estimate, w));
                }
                w = merged_at(j, r);
            }
        }
        state.code = code.finish(static_cast<std::uint64_t>(count * in()));
    }

    void unmerge(index g, const std::vector<std::uint8_t>& code) const {
        const index first = g * transformed_rows;
        const index count = std::min(transformed_rows, out() - first);
        workspace ws;
        matrix<double> back(in(), count);
        for (index r = 0; r < count; ++r) {
            for (index j = 0; j < in(); ++j) {
                back(j, r) = to_double(at(first + r, j));
            }
        }
        f_.backward(first, back, ws);
        ulp_decoder next(code, static_cast<std::uint64_t>(count * in()));
        for (index r = 0; r < count; ++r) {
            for (index j = 0; j < in(); ++j) {
                at(first + r, j) = to_storage<T>(back(j, r));
                if (next.position() == static_cast<std::uint64_t>(r * in() + j)) {
                    at(first + r, j) = ulp_shift(at(first + r, j), next.correction());
                    next.next();
                }
            }
        }
    }

    [[nodiscard]] std::uint64_t weight_checksum() const {
        std::uint64_t sum = 4;
        for (index i = 0; i < w_.rows(); ++i) {
            sum = checksum(w_.data() + i * w_.outerStride(), static_cast<std::size_t>(w_.cols()) * sizeof(T), sum);
        }
        return sum;
    }

    /// Of what the inverse makes of fixed probes, in every group: it sees parameters, shapes and arithmetic.
    [[nodiscard]] std::uint64_t transform_checksum() const {
        std::uint64_t sum = transposed_ ? 6 : 5;
        workspace ws;
        matrix<double> probe(in(), transformed_rows);
        for (index g = 0; g < groups(); ++g) {
            const index first = g * transformed_rows;
            const index count = std::min(transformed_rows, out() - first);
            for (index r = 0; r < count; ++r) {
                for (index j = 0; j < in(); ++j) {
                    probe(j, r) = 1.0 + static_cast<double>((7 * j + 3 * r) % 11) / 16;
                }
            }
            f_.backward(first, column_view<double>(probe.data(), in(), count), ws);
            sum = checksum(probe.data(), static_cast<std::size_t>(in() * count) * sizeof(double), sum);
        }
        return sum;
    }

private:
    [[nodiscard]] T& at(index o, index i) const {
        return const_cast<T*>(w_.data())[transposed_ ? i * w_.outerStride() + o : o * w_.outerStride() + i];
    }

    weight_view<T> w_;
    const any_row_transform& f_;
    bool transposed_;
};

template <storage T>
result<merge_receipt> merge_rows(weight_view<T> w, const any_row_transform& f,
                                 const transformed_merge_options& options) {
    const transformed_merger<T> work(w, f, options.transposed);
    expects(f.fits(work.out(), work.in()), "merge_transformed: the transform is for a weight of another shape");
    std::vector<transformed_state> states(static_cast<std::size_t>(work.groups()));
    parallel_for(options.exec, work.groups(), [&](index g) { work.merge(g, states[static_cast<std::size_t>(g)]); });
    const auto bad = std::find_if(states.begin(), states.end(), [](const auto& s) { return s.failed; });
    if (bad != states.end()) {
        parallel_for(options.exec, work.groups(), [&](index g) {
            if (!states[static_cast<std::size_t>(g)].failed) {
                work.unmerge(g, states[static_cast<std::size_t>(g)].code);
            }
        });
        return status{errc::non_finite,
                      "merge_transformed: output " + std::to_string(bad->bad_row) + ", input " +
                          std::to_string(bad->bad_col) +
                          " of the weight is or would become NaN or infinite; the weight is as it was"};
    }
    merge_receipt receipt{.rows = w.rows(), .cols = w.cols()};
    double change_norm2 = 0;
    double error_norm2 = 0;
    auto& audit = receipt.audit;
    audit.entries = static_cast<std::uint64_t>(w.size());
    for (auto& state : states) {
        audit.touched += state.audit.touched;
        audit.unchanged += state.audit.unchanged;
        change_norm2 += state.change_norm2;
        error_norm2 += state.error_norm2;
        if (state.audit.worst_error > audit.worst_error) {
            audit.worst_error = state.audit.worst_error;
            audit.worst_row = options.transposed ? state.audit.worst_col : state.audit.worst_row;
            audit.worst_col = options.transposed ? state.audit.worst_row : state.audit.worst_col;
        }
        receipt.corrections.push_back(std::move(state.code));
    }
    audit.change_norm = std::sqrt(change_norm2);
    audit.relative_error = change_norm2 > 0 ? std::sqrt(error_norm2 / change_norm2) : 0.0;
    receipt.merged_checksum = work.weight_checksum();
    receipt.change_checksum = work.transform_checksum();
    receipt.code_checksum = code_checksum(receipt.corrections);
    return receipt;
}

template <storage T>
status unmerge_rows(weight_view<T> w, const merge_receipt& receipt, const any_row_transform& f,
                    const transformed_merge_options& options) {
    const transformed_merger<T> work(w, f, options.transposed);
    expects(f.fits(work.out(), work.in()), "unmerge_transformed: the transform is for a weight of another shape");
    if (receipt.rows != w.rows() || receipt.cols != w.cols() ||
        static_cast<index>(receipt.corrections.size()) != work.groups() ||
        receipt.code_checksum != code_checksum(receipt.corrections)) {
        return {errc::mismatch, "unmerge_transformed: the receipt is damaged or belongs to a weight of another shape"};
    }
    if (receipt.change_checksum != work.transform_checksum()) {
        return {errc::mismatch, "unmerge_transformed: this is not the transform that was merged"};
    }
    if (receipt.merged_checksum != work.weight_checksum()) {
        return {errc::mismatch,
                "unmerge_transformed: the weight is not as that merge left it; undo what came after it"};
    }
    parallel_for(options.exec, work.groups(),
                 [&](index g) { work.unmerge(g, receipt.corrections[static_cast<std::size_t>(g)]); });
    return {};
}

}  // namespace detail

#ifdef LOWRANK_COMPILED
#define LOWRANK_MERGE_ROWS_OF(T)                                                                            \
    template result<merge_receipt> detail::merge_rows<T>(weight_view<T>, const any_row_transform&,          \
                                                         const transformed_merge_options&);                 \
    template status detail::unmerge_rows<T>(weight_view<T>, const merge_receipt&, const any_row_transform&, \
                                            const transformed_merge_options&);
LOWRANK_MERGE_ROWS_OF(float)
LOWRANK_MERGE_ROWS_OF(double)
LOWRANK_MERGE_ROWS_OF(half)
LOWRANK_MERGE_ROWS_OF(bfloat16)
#undef LOWRANK_MERGE_ROWS_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_MERGE_MERGE_TRANSFORMED_IPP
