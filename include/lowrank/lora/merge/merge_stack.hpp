// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MERGE_MERGE_STACK_HPP
#define LOWRANK_LORA_MERGE_MERGE_STACK_HPP

/// \file
/// Several changes merged into one weight, added and removed in any order.
///
///     lowrank::row_matrix<lowrank::bfloat16> w(out, in);
///     lowrank::merge_stack<lowrank::bfloat16> stack{lowrank::weight_view<lowrank::bfloat16>(w)};
///     lowrank::throw_if_failed(stack.add("poet", poet.delta()));
///     lowrank::throw_if_failed(stack.add("coder", coder.delta(0.5F)));
///     lowrank::throw_if_failed(stack.remove("poet"));      // w has the bits of the original merged with coder alone
///
/// The weight always holds round(float(original) + sum of the changes), rounded once however many there are, with the
/// sum taken in the order of their names. Its bits depend on which changes are in, not on how they came in.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/merge/merge.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A borrowed weight and the named changes in it. Destroying the stack leaves the weight merged.
template <storage T>
class merge_stack {
public:
    using scalar = compute_t<T>;

    /// Borrows `w`, whose memory must outlive the stack, and treats its present values as the original.
    explicit merge_stack(weight_view<T> w, executor exec = {}) : w_(w), exec_(std::move(exec)) {}

    [[nodiscard]] const std::map<std::string, low_rank<scalar>>& changes() const noexcept { return changes_; }
    /// Of all changes together; empty while there are none.
    [[nodiscard]] const merge_receipt& receipt() const noexcept { return receipt_; }

    /// Adds a change, or replaces the one of that name.
    ///
    /// \pre    `change` has the shape of W.
    /// \return As `merge` and `unmerge`; on failure the weight and the stack are as they were.
    /// \cost   One unmerge of what was in, one merge of everything.
    status add(std::string name, low_rank<scalar> change) {
        detail::expects(change.left.cols() == change.right.rows(),
                        "merge_stack::add: the factors must share their inner dimension");
        detail::expects_shape("merge_stack::add", "change", change.rows(), change.cols(), w_.rows(), w_.cols());
        auto wanted = changes_;
        wanted.insert_or_assign(std::move(name), std::move(change));
        return become(std::move(wanted));
    }

    /// Takes out the change of that name. \return `not_found`, or as `add`.
    status remove(const std::string& name) {
        auto wanted = changes_;
        if (wanted.erase(name) == 0) {
            return {errc::not_found, "merge_stack: no change is called \"" + name + "\""};
        }
        return become(std::move(wanted));
    }

    /// Takes out everything: the weight has its original bits again.
    status clear() { return become({}); }

private:
    using change_operator = std::map<std::string, low_rank<scalar>>;

    /// All changes side by side: their sum as one product.
    [[nodiscard]] low_rank<scalar> total(const change_operator& changes) const {
        std::vector<const low_rank<scalar>*> all;
        for (const auto& entry : changes) {
            all.push_back(&entry.second);
        }
        return detail::side_by_side<scalar>(all, w_.rows(), w_.cols());
    }

    status become(change_operator wanted) {
        const merge_options<scalar> options{.exec = exec_};
        const auto present = total(changes_);
        if (!changes_.empty()) {
            if (auto undone = unmerge(w_, receipt_, present, options); !undone) {
                return undone;
            }
        }
        merge_receipt receipt;
        if (!wanted.empty()) {
            auto merged = merge(w_, total(wanted), options);
            if (!merged) {
                if (!changes_.empty()) {
                    (void)merge(w_, present, options);  // succeeded before, on the same bits
                }
                return merged.error();
            }
            receipt = *std::move(merged);
        }
        changes_ = std::move(wanted);
        receipt_ = std::move(receipt);
        return {};
    }

    weight_view<T> w_;
    executor exec_;
    change_operator changes_ = {};
    merge_receipt receipt_ = {};
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_MERGE_MERGE_STACK_HPP
