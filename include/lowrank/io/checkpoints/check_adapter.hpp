// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_CHECK_ADAPTER_HPP
#define LOWRANK_IO_CHECKPOINTS_CHECK_ADAPTER_HPP

/// \file
/// What an adapter would do to a checkpoint, found out without writing anything: which modules have a place, how large
/// each change is, how much of its rank is used, what is assumed.
///
///     auto check = lowrank::check_adapter(*before, *poet);
///     for (const lowrank::checked_module& m : check->modules)
///         if (!m.why) log(m.path + ": " + m.why.message);

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What one tensor of the base would become: W' of W.
struct checked_tensor {
    std::string name = {};
    dtype type = dtype::f32;
    double norm = 0;         ///< ||W||_F
    double change_norm = 0;  ///< ||W' - W||_F, as W' is stored.
    /// Of the entries that the change means to move, those that rounding to the stored type leaves as they are.
    double unchanged_fraction = 0;

    /// ||W' - W||_F / ||W||_F; infinity where W is zero and W' is not.
    [[nodiscard]] double relative() const noexcept {
        return change_norm == 0 ? 0.0 : norm > 0 ? change_norm / norm : INFINITY;
    }
};

/// One module of an adapter, or a tensor that it saves whole.
struct checked_module {
    std::string path = {};
    std::string kind = {};                     ///< "LoRA", ...
    status why = {};                           ///< Why it has no place in the base.
    index rank = 0;                            ///< Columns of its factors; 0 of kinds without.
    index rank_used = 0;                       ///< Singular values of their product above rounding.
    std::vector<checked_tensor> tensors = {};  ///< What it changes: the weight, the bias.
    bool is_new = false;                       ///< It adds a tensor that the base does not have.

    /// Whether merging it would leave every tensor as it is: a zero factor, or a change below rounding.
    [[nodiscard]] bool changes_nothing() const noexcept {
        return why.code == errc::ok && !is_new &&
               std::all_of(tensors.begin(), tensors.end(), [](const checked_tensor& t) { return t.change_norm == 0; });
    }
};

struct adapter_check {
    std::vector<checked_module> modules = {};  ///< By path.
    std::vector<std::string> notes = {};       ///< What was assumed, and the warnings of the reader.
    status merges = {};                        ///< Why the whole adapter cannot be merged.

    /// Whether every module has a place in the base.
    [[nodiscard]] bool maps() const noexcept {
        return std::all_of(modules.begin(), modules.end(), [](const checked_module& m) { return bool(m.why); });
    }
};

struct check_options {
    double strength = 1;
    executor exec = {};
    progress_callback on_progress = {};  ///< Modules; false stops with `cancelled`.
};

/// Tries every module of an adapter by itself, with the rules of `merge_checkpoint`, and measures what it changes.
///
/// \return `mismatch` for an adapter without modules; `cancelled`. What is wrong with a module is said there.
/// \cost   As merging without writing: one pass over each weight that changes, an SVD of r x r for each module.
LOWRANK_API [[nodiscard]] result<adapter_check> check_adapter(const checkpoint& base, const peft_adapter& adapter,
                                                              const check_options& opt = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/checkpoints/check_adapter.ipp>
#endif

#endif  // LOWRANK_IO_CHECKPOINTS_CHECK_ADAPTER_HPP
