// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_CHECK_ADAPTER_IPP
#define LOWRANK_IO_CHECKPOINTS_CHECK_ADAPTER_IPP

#include <lowrank/io/checkpoints/check_adapter.hpp>

#include <cstddef>
#include <set>
#include <span>
#include <utility>

#include <lowrank/factor/low_rank.hpp>
#include <lowrank/io/checkpoints/detail/element_comparison.hpp>
#include <lowrank/io/checkpoints/detail/merge_plan.hpp>
#include <lowrank/io/checkpoints/detail/planned_tensor.hpp>
#include <lowrank/io/checkpoints/merge_types.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/diagnostics.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// What a plan makes of one tensor.
LOWRANK_API [[nodiscard]] result<checked_tensor> measure_planned(const checkpoint& base, const std::string& name,
                                                                 const merge_plan& plan, const executor& exec) {
    const checkpoint::place* at = base.locate(name);
    const tensor_info& t = *at->info;
    const safetensors_file& file = base.shards()[at->shard].file;
    checked_tensor out{.name = name, .type = t.type};
    if (plan.quantized.contains(name)) {
        const auto merged = merge_planned_codes(plan, name, t.type, {.exec = exec});
        if (!merged) {
            return in_context("tensor " + in_quotes(name), merged.error());
        }
        out.norm = merged->norm;
        out.change_norm = merged->realized_change_norm;
        out.unchanged_fraction = merged->weight.unchanged_fraction();
        return out;
    }
    if (!is_real(t.type)) {
        return out;  // replaced by one of its own type; there are no numbers to compare
    }
    element_comparison comparison(t.type, file.bytes(t), t.type);
    const byte_sink sink = [&](std::span<const std::byte> bytes) {
        comparison.add(bytes);
        return status{};
    };
    const auto merged = write_planned(sink, file, t, plan, {.exec = exec});
    if (!merged) {
        return in_context("tensor " + in_quotes(name), merged.error());
    }
    out.norm = comparison.first_norm_of_all();
    out.change_norm = comparison.change_norm_of_all();
    out.unchanged_fraction = *merged ? (**merged).unchanged_fraction() : 0;
    file.release(t);
    return out;
}

/// \pre the module was planned, and nothing else was.
LOWRANK_API [[nodiscard]] status measure_module(const checkpoint& base, const peft_module& held, const merge_plan& plan,
                                                const executor& exec, checked_module& out) {
    for (const std::string& name : plan.written_over()) {
        auto tensor = measure_planned(base, name, plan, exec);
        if (!tensor) {
            return tensor.error();
        }
        out.tensors.push_back(std::move(*tensor));
    }
    out.is_new = !plan.added.empty();
    if (stored_tensor(held) != nullptr) {
        return {};
    }
    const weight_change<float> change = change_without_factors(held).weight;
    if (const low_rank<float>* factors = factors_of(change)) {
        const auto of = diagnose(*factors);
        if (!of) {
            return of.error();
        }
        out.rank = of->inner_rank;
        out.rank_used = of->numerical_rank;
    }
    return {};
}

}  // namespace detail

LOWRANK_BODY result<adapter_check> check_adapter(const checkpoint& base, const peft_adapter& adapter,
                                                 const check_options& opt) {
    if (adapter.modules.empty()) {
        return status{errc::mismatch, "the adapter holds no module, so there is nothing to check"};
    }
    const detail::base_view about(base);
    adapter_check out{.notes = adapter.warnings};
    const adapter_to_merge whole{.adapter = &adapter, .strength = opt.strength};
    out.merges = detail::plan_merge(base, std::span(&whole, 1)).why;
    const auto head_is_copy = detail::check_tied_tables(about, adapter);
    std::set<std::string> notes;
    index done = 0;
    for (const auto& [path, held] : adapter.modules) {
        if (!report(opt.on_progress,
                    {.done = done++, .total = static_cast<index>(adapter.modules.size()), .what = path})) {
            return status{errc::cancelled, "checking was stopped"};
        }
        checked_module& module = out.modules.emplace_back(checked_module{.path = path, .kind = kind_of(held)});
        detail::merge_plan plan;
        module.why =
            detail::plan_entry(about, path, held, adapter.config, head_is_copy && *head_is_copy, opt.strength, plan);
        if (module.why) {
            module.why = plan.settle(base);
        }
        if (module.why) {
            module.why = detail::measure_module(base, held, plan, opt.exec, module);
        }
        notes.merge(plan.notes);
    }
    out.notes.insert(out.notes.end(), notes.begin(), notes.end());
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_CHECK_ADAPTER_IPP
