// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_EXPERTS_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_EXPERTS_HPP

/// \file
/// Changes of experts in a merge plan, whether adapter and base keep them in one stack or each by itself.
///
///     status why = detail::plan_experts(about, path, stack, config, strength, plan);

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/checksum.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoints/detail/merge_targets.hpp>
#include <lowrank/io/checkpoints/detail/stored_change.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/models/expert_names.hpp>
#include <lowrank/io/models/module_names.hpp>
#include <lowrank/io/peft/kinds/experts.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_modules.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// A stack as one matrix, experts below each other; a parameter of two dimensions is one expert.
struct stack_shape {
    index experts = 0;
    index height = 0;
    index width = 0;
};
LOWRANK_INLINE [[nodiscard]] std::optional<stack_shape> shape_of_stack(const tensor_info& t) {
    if (t.shape.size() != 2 && t.shape.size() != 3) {
        return std::nullopt;
    }
    const bool is_stack = t.shape.size() == 3;
    const auto dimension = [&](std::size_t i) { return static_cast<index>(t.shape[i]); };  // elements were counted
    return stack_shape{is_stack ? dimension(0) : 1, dimension(is_stack ? 1 : 0), dimension(is_stack ? 2 : 1)};
}

/// Whether PEFT saved an adapter before it distinguished stacks by their layout: then A is for the second dimension and
/// B for the third, whatever they mean.
LOWRANK_INLINE [[nodiscard]] bool is_before_layouts(const peft_lora_config& config) {
    const json document = json::parse(config.document.empty() ? "{}" : config.document, nullptr, false);
    const auto version = document.is_object() ? document.find("peft_version") : document.end();
    if (!document.is_object() || version == document.end() || !version->is_string()) {
        return false;
    }
    int major = 0, minor = 0;
    const auto text = version->get<std::string>();
    return std::sscanf(text.c_str(), "%d.%d", &major, &minor) == 2 && major == 0 && minor < 19;
}

/// The layouts in which a change out x in fits a stack.
LOWRANK_INLINE [[nodiscard]] std::vector<expert_layout> layouts_of(const stack_shape& has, index out, index in) {
    std::vector<expert_layout> all;
    if (has.height == out && has.width == in) {
        all.push_back(expert_layout::out_by_in);
    }
    if (has.height == in && has.width == out && has.experts > 1) {
        all.push_back(expert_layout::in_by_out);
    }
    return all;
}
/// The one of several.
LOWRANK_INLINE [[nodiscard]] expert_layout layout_among(const std::vector<expert_layout>& all, const base_view& about,
                                                        bool before_layouts) {
    const bool turned = before_layouts || stores_experts_in_by_out(about.facts.model_type);
    return all.size() == 1 ? all.front() : turned ? expert_layout::in_by_out : expert_layout::out_by_in;
}

/// Plans what is added to a stack, formed by `make` whenever it is called.
template <class Make>
[[nodiscard]] status plan_stack(const tensor_info& t, const stack_shape& has, Make make, double strength,
                                std::uint64_t parameters, merge_plan& out) {
    const auto form = [has, make, strength, parameters] {
        stored_change stored{.left = matrix<float>(has.experts * has.height, 0), .right = matrix<float>(0, has.width)};
        auto change = at_strength(weight_change<float>(added_rows_change{make()}), strength);
        stored.rows = std::get<added_rows_change>(change).rows;
        stored.is_additive = true;
        stored.rows_checksum = checksum(&strength, sizeof strength, parameters);
        return stored;
    };
    return out.add_fitting(t, form(), form);
}

/// LoRA of a stack whose experts the base keeps each by itself. \return nothing if the base has no such experts.
LOWRANK_INLINE [[nodiscard]] std::optional<status> plan_split_experts(const base_view& about, const std::string& path,
                                                                      const peft_module& held, double strength,
                                                                      merge_plan& out) {
    const std::size_t dot = path.rfind('.');
    const std::string owner = path.substr(0, dot);
    const bool is_fused = path.substr(dot + 1) == fused_gate_up;
    if (!is_fused && path.substr(dot + 1) != fused_down) {
        return std::nullopt;
    }
    for (const expert_names& names : known_expert_names) {
        std::set<std::string> notes;
        const std::string first(is_fused ? names.gate : names.down);
        const auto found = about.stored(owner + ".0." + first, notes);
        if (!found) {
            continue;
        }
        const std::string prefix = found->substr(0, found->size() - first.size() - 2);  // up to the number
        const auto* stack = held.get<peft_experts>();
        const expert_lora<float>& lora = stack->lora;
        const tensor_info* one = about.base.find(*found + ".weight");
        const index height = one != nullptr ? stored_shape(*one).out : 0;
        const index parts = is_fused ? 2 : 1;
        const bool turned = lora.rows() != parts * height && lora.cols() == parts * height;  // of an older release
        const std::vector<std::string_view> leaves =
            is_fused ? std::vector<std::string_view>{names.gate, names.up} : std::vector<std::string_view>{names.down};
        for (index e = 0; e < lora.experts; ++e) {
            for (std::size_t part = 0; part < leaves.size(); ++part) {
                const std::string name = prefix + std::to_string(e) + "." + std::string(leaves[part]) + ".weight";
                const auto form = [&lora, e, part, parts, turned, strength] {
                    low_rank<float> d = lora_of_expert(lora, e, static_cast<index>(part), parts, turned)
                                            .delta(static_cast<float>(strength));
                    stored_change stored{.left = std::move(d.left), .right = std::move(d.right)};
                    return stored;
                };
                if (status why = out.add(about.base, name, form(), form); !why) {
                    return why;
                }
            }
        }
        if (about.base.find(prefix + std::to_string(lora.experts) + "." + std::string(leaves.front()) + ".weight")) {
            return status{errc::mismatch, "module " + in_quotes(path) + " of the adapter is for " +
                                              std::to_string(lora.experts) + " experts, the base has more"};
        }
        out.notes.merge(notes);
        return status{};
    }
    return std::nullopt;
}

/// Plans LoRA of a stack. \pre `held` is `peft_experts`.
LOWRANK_INLINE [[nodiscard]] status plan_experts(const base_view& about, const std::string& path,
                                                 const peft_module& held, const peft_lora_config& config,
                                                 std::uint64_t parameters, double strength, merge_plan& out) {
    const peft_experts& m = *held.get<peft_experts>();
    const tensor_info* found = nullptr;
    stack_shape has;
    std::vector<expert_layout> layouts;
    std::string others;
    const auto names = m.place.names();
    for (const std::string& name : names) {
        const tensor_info* t = about.parameter(name, out.notes);
        if (t == nullptr) {
            if (auto planned = plan_split_experts(about, name, held, strength, out)) {
                return *planned;
            }
            continue;
        }
        const auto shape = shape_of_stack(*t);
        auto fit = shape && shape->experts == m.lora.experts ? layouts_of(*shape, m.lora.rows(), m.lora.cols())
                                                             : std::vector<expert_layout>();
        if (fit.empty()) {
            others += (others.empty() ? "" : ", ") + in_quotes(t->name) + " " + shape_in_words(t->shape);
        } else if (found != nullptr) {
            return {errc::unsupported, "nothing tells whether module " + in_quotes(path) + " is for " +
                                           in_quotes(found->name) + " or " + in_quotes(t->name) +
                                           ": both fit, and the file does not say"};
        } else {
            found = t;
            has = *shape;
            layouts = std::move(fit);
        }
    }
    if (found == nullptr) {
        return {errc::mismatch,
                "module " + in_quotes(path) + " is LoRA of " + std::to_string(m.lora.experts) + " experts of " +
                    std::to_string(m.lora.rows()) + " outputs and " + std::to_string(m.lora.cols()) + " inputs; " +
                    (others.empty() ? "the base has no tensor " + in_quotes(names.front())
                                    : "the base has " + others + ": it was trained on a model of other sizes")};
    }
    if (!is_real(found->type)) {
        return not_real(*found);
    }
    const bool before_layouts = is_before_layouts(config);
    const expert_layout layout = layout_among(layouts, about, before_layouts);
    if (layouts.size() > 1) {
        out.notes.insert(std::string("stacks of square experts are taken as ") +
                         (layout == expert_layout::in_by_out ? "in x out" : "out x in") + ", as " +
                         (before_layouts ? "the release of PEFT that saved the adapter did"
                                         : "PEFT from release 0.19 on does for this model"));
    }
    const auto make = [from = &m, layout] { return from->lora.change(layout).rows; };
    return plan_stack(*found, has, make, strength, checksum(&layout, sizeof layout, parameters), out);
}

/// Plans low-rank changes of one expert whose base keeps all in one stack. \return nothing if `path` is no such expert.
template <class Make>
[[nodiscard]] std::optional<status> plan_expert_of_stack(const base_view& about, const std::string& path,
                                                         const Make& make, std::uint64_t parameters, double strength,
                                                         merge_plan& out) {
    const auto part = find_expert_part(path);
    const tensor_info* t = part ? about.parameter(part->stack, out.notes) : nullptr;
    if (t == nullptr || t->shape.size() != 3) {
        return std::nullopt;
    }
    const stack_shape has = *shape_of_stack(*t);
    const peft_change change = make();
    const auto* delta = std::get_if<low_rank<float>>(&change.weight);
    if (delta == nullptr || change.bias.size() != 0) {
        return status{errc::unsupported, "module " + in_quotes(path) + " changes one expert of the stack " +
                                             in_quotes(t->name) + "; only a low-rank sum can be put into a stack"};
    }
    if (part->is_fused && interleaves_gate_and_up(about.facts.model_type)) {
        return status{errc::unsupported, "module " + in_quotes(path) +
                                             " is one expert's; this model has gate and up in "
                                             "turn in the rows of " +
                                             in_quotes(t->name)};
    }
    const index parts = part->is_fused ? 2 : 1;
    const index at = part->is_up ? delta->rows() : 0;
    const auto layouts = layouts_of(has, parts * delta->rows(), delta->cols());
    if (layouts.empty() || part->expert >= has.experts) {
        return status{errc::mismatch, "module " + in_quotes(path) + " is for a weight [" +
                                          std::to_string(delta->rows()) + ", " + std::to_string(delta->cols()) +
                                          "]; the stack of the base, " + in_quotes(t->name) + ", has shape " +
                                          shape_in_words(t->shape)};
    }
    const bool turned = layout_among(layouts, about, false) == expert_layout::in_by_out;
    const index row = part->expert * has.height;
    const auto rows = [make, has, turned, row, at] {
        low_rank<float> d = std::get<low_rank<float>>(make().weight);
        if (turned) {
            d = {.left = copy_in<float>(transposed(d.right)), .right = copy_in<float>(transposed(d.left))};
        }
        product_blocks<float> one{.row_count = has.experts * has.height, .col_count = has.width};
        one.blocks.push_back({.row = row + (turned ? 0 : at), .col = turned ? at : 0, .product = std::move(d)});
        return any_row_transform(added_rows(std::move(one)));
    };
    const index place[] = {part->expert, at, turned ? 1 : 0};
    return plan_stack(*t, has, rows, strength, checksum(place, sizeof place, parameters), out);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_EXPERTS_HPP
