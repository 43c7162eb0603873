// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_EXTRACT_ADAPTER_IPP
#define LOWRANK_IO_CHECKPOINTS_EXTRACT_ADAPTER_IPP

#include <lowrank/io/checkpoints/extract_adapter.hpp>

#include <lowrank/io/checkpoints/detail/shard_journal.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/models/base_facts.hpp>
#include <lowrank/io/peft/detail/peft_reader.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Of all that the factors depend on beside the checkpoints.
LOWRANK_API [[nodiscard]] std::uint64_t checksum_of(const extraction_options& opt) {
    const double numbers[] = {static_cast<double>(opt.rank.rule),
                              opt.rank.value,
                              static_cast<double>(opt.rank.max_rank),
                              static_cast<double>(opt.rank.min_rank),
                              static_cast<double>(opt.split),
                              opt.min_difference,
                              opt.clamp_quantile,
                              opt.fan_in_fan_out ? 1.0 : 0.0,
                              opt.fast ? 1.0 : 0.0,
                              static_cast<double>(opt.sketch.oversample),
                              static_cast<double>(opt.sketch.power_iterations),
                              LOWRANK_VERSION_MAJOR,
                              LOWRANK_VERSION_MINOR};
    return checksum(&opt.sketch.seed, sizeof opt.sketch.seed, checksum(numbers, sizeof numbers, 7));
}

/// An extraction as a file beside the journal, and back. No factors: the weight is as good as unchanged.
LOWRANK_API [[nodiscard]] status keep_part(shard_journal& journal, const std::filesystem::path& part,
                                           const tensor_info& t, const lora_extraction<float>& found,
                                           const write_options& write) {
    std::vector<tensor_to_write> factors;
    const bool is_empty = !found.changed || found.adapter.rank() == 0;
    if (!is_empty) {
        factors = {tensor_of("lora_A", found.adapter.lora_A), tensor_of("lora_B", found.adapter.lora_B)};
    }
    if (status why = write_safetensors(part, std::move(factors), {{"tensor", t.name}}, write); !why) {
        return why;
    }
    return journal.record(part.filename().string(), {found.adapter.lora_alpha, found.adapter.use_rslora ? 1.0 : 0.0,
                                                     found.relative, found.largest_change});
}
LOWRANK_API [[nodiscard]] bool take_part(shard_journal& journal, const std::filesystem::path& part,
                                         const tensor_info& t, lora_extraction<float>& found) {
    const json* facts = journal.finished(part.filename().string());
    if (facts == nullptr || !facts->is_array() || facts->size() != 4 ||
        !std::all_of(facts->begin(), facts->end(), [](const json& x) { return x.is_number(); })) {
        return false;
    }
    const auto file = safetensors_file::open(part, {.map = false});
    const auto of = file ? file->metadata().find("tensor") : std::map<std::string, std::string>::const_iterator{};
    if (!file || of == file->metadata().end() || of->second != t.name) {
        return false;
    }
    if (!file->tensors().empty()) {
        const auto a = file->matrix<float>("lora_A");
        const auto b = file->matrix<float>("lora_B");
        if (!a || !b || a->rows() != b->cols()) {
            return false;
        }
        found.adapter.lora_A = *a;
        found.adapter.lora_B = *b;
    }
    found.adapter.lora_alpha = (*facts)[0].get<double>();
    found.adapter.use_rslora = (*facts)[1].get<double>() != 0;
    found.relative = (*facts)[2].get<double>();
    found.largest_change = (*facts)[3].get<double>();
    found.changed = found.adapter.rank() != 0;
    return true;
}

}  // namespace detail

LOWRANK_BODY void forget_parts(const std::filesystem::path& folder) { detail::shard_journal::clear(folder); }

LOWRANK_BODY result<extracted_adapter> extract_adapter(const checkpoint& base, const checkpoint& tuned,
                                                       const extract_adapter_options& opt) {
    extracted_adapter out;
    const base_facts facts = facts_of_base(base);
    bool turns = false;
    std::optional<detail::shard_journal> journal;
    if (!opt.parts.empty()) {
        const std::uint64_t inputs[] = {detail::checkpoint_checksum(base), detail::checkpoint_checksum(tuned),
                                        detail::checksum_of(opt.lora),
                                        (facts.knows_layers ? 2U : 0U) + (facts.has_conv1d ? 1U : 0U)};
        std::error_code error;
        std::filesystem::create_directories(opt.parts, error);
        auto opened = detail::shard_journal::open(opt.parts, checksum(inputs, sizeof inputs, 8), opt.write);
        if (!opened) {
            return opened.error();
        }
        journal.emplace(std::move(*opened));
    }
    const auto total = static_cast<index>(tuned.tensors().size());
    std::size_t partners = 0;
    std::vector<std::string> saved;  // kept whole
    for (index i = 0; i < total; ++i) {
        const checkpoint::place& place = tuned.tensors()[static_cast<std::size_t>(i)];
        const tensor_info& t = *place.info;
        if (!report(opt.on_progress, {.done = i, .total = total, .what = t.name})) {
            return status{errc::cancelled, "the extraction was stopped"};
        }
        const tensor_info* before = base.find(t.name);
        if (before == nullptr || before->shape != t.shape || !is_real(t.type) || !is_real(before->type)) {
            const bool is_new = before == nullptr;
            const bool is_same = !is_new && before->shape == t.shape && before->type == t.type &&
                                 std::ranges::equal(*base.bytes(t.name), tuned.bytes(place));
            if (is_same) {
                out.unchanged.push_back(t.name);
                continue;
            }
            out.left_out.push_back(t.name + (is_new ? std::string(": the base has no tensor of this name")
                                             : before->shape != t.shape
                                                 ? ": has shape " + detail::shape_in_words(t.shape) +
                                                       ", that of the base " + detail::shape_in_words(before->shape)
                                                 : ": changed, but " +
                                                       std::string(name_of(is_real(t.type) ? before->type : t.type)) +
                                                       " elements are no weights by themselves"));
            partners += is_new ? 0 : 1;
            continue;
        }
        ++partners;
        const auto old_bytes = *base.bytes(t.name);
        const auto new_bytes = tuned.bytes(place);
        if (before->type == t.type &&
            std::equal(old_bytes.begin(), old_bytes.end(), new_bytes.begin(), new_bytes.end())) {
            out.unchanged.push_back(t.name);
            continue;
        }
        constexpr std::string_view suffix = ".weight";
        if (t.shape.size() != 2 || !t.name.ends_with(suffix)) {
            if (opt.keep_others) {
                auto copy = std::make_shared<std::vector<std::byte>>(new_bytes.begin(), new_bytes.end());
                out.adapter.modules.emplace(
                    t.name, whole_tensor{{std::string(detail::peft_prefix) + t.name, t.type, t.shape, *copy, copy}});
                saved.push_back(t.name);
            } else {
                out.left_out.push_back(t.name + ": changed, but is no matrix");
            }
            continue;
        }
        const std::string module = t.name.substr(0, t.name.size() - suffix.size());
        const bool is_table = is_table_name(module);
        const bool is_turned = !is_table && facts.stores_in_by_out(module).value_or(opt.lora.fan_in_fan_out);
        turns = turns || is_turned;
        const auto part = opt.parts / detail::shard_journal::part_name("adapter", static_cast<std::size_t>(i));
        lora_extraction<float> found;
        if (journal && detail::take_part(*journal, part, t, found)) {
            ++out.kept_parts;
        } else {
            const auto x = base.matrix<double>(t.name);
            const auto y = tuned.matrix<double>(t.name);
            if (!x || !y) {
                return x ? y.error() : x.error();
            }
            matrix<float> difference = (*y - *x).cast<float>();
            if (is_table || is_turned) {
                difference.transposeInPlace();
            }
            found = extract_lora(difference, opt.lora);
            if (!found) {
                return detail::in_context("tensor " + detail::in_quotes(t.name), found.why);
            }
            if (journal) {
                if (status why = detail::keep_part(*journal, part, t, found, opt.write); !why) {
                    return why;
                }
            }
        }
        if (!found.changed || found.adapter.rank() == 0) {
            out.unchanged.push_back(t.name);
            continue;
        }
        out.weights[t.name] = {found.adapter.rank(), found.relative, found.largest_change};
        out.adapter.modules.emplace(module, plain_module(std::move(found.adapter), is_table));
    }
    if (partners == 0) {
        return status{errc::mismatch,
                      "no tensor of the one checkpoint has a partner in the other; they are not of one model"};
    }
    if (out.adapter.modules.empty()) {
        return status{errc::mismatch,
                      out.left_out.empty()
                          ? std::string("no weight changed (enough): there is nothing to extract")
                          : "no weight that changed can be extracted; " + out.left_out.front() +
                                (out.left_out.size() > 1 ? ", and " + std::to_string(out.left_out.size() - 1) + " more"
                                                         : std::string())};
    }
    for (std::string& module : saved) {
        module.resize(std::min(module.rfind('.'), module.size()));
        module = module.substr(module.rfind('.') + 1);
    }
    std::sort(saved.begin(), saved.end());
    saved.erase(std::unique(saved.begin(), saved.end()), saved.end());
    out.adapter.config = peft_config_for(out.adapter, {.fan_in_fan_out = turns, .modules_to_save = std::move(saved)});
    return out;
}

LOWRANK_BODY result<resized_adapter> resize_adapter(const peft_adapter& adapter, const rank_choice& choice) {
    if (status why = check_plain_lora(adapter); !why) {
        return why;
    }
    resized_adapter out{.adapter = adapter};
    for (auto& [module, held] : out.adapter.modules) {
        if (stored_tensor(held) != nullptr) {
            continue;
        }
        auto small = resize_lora(lora_of(held), choice);
        if (!small) {
            return detail::in_context("module " + detail::in_quotes(module), small.why);
        }
        out.modules[module] = {small.adapter.rank(), small.relative, 0};
        lora_of(held) = std::move(small.adapter);
    }
    out.adapter.config = peft_config_for(out.adapter, adapter.config);
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_EXTRACT_ADAPTER_IPP
