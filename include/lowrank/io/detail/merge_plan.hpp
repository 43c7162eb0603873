// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_DETAIL_MERGE_PLAN_HPP
#define LOWRANK_IO_DETAIL_MERGE_PLAN_HPP

/// \file
/// What adapters do to the tensors of a checkpoint, in the layout the checkpoint stores.
///
///     auto plan = detail::plan_merge(base, adapters);
///     plan->changes.at("model.layers.0.mlp.up_proj.weight").left

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/checksum.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/scalar.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoint.hpp>
#include <lowrank/io/detail/peft_names.hpp>
#include <lowrank/io/detail/peft_relatives.hpp>
#include <lowrank/io/detail/text.hpp>
#include <lowrank/io/dtype.hpp>
#include <lowrank/io/peft_adapter.hpp>
#include <lowrank/io/peft_config.hpp>
#include <lowrank/io/peft_modules.hpp>
#include <lowrank/lora/merge_transformed.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One of several adapters that are merged together. Adapters whose changes are sums may share a tensor; DoRA and
/// (IA)^3 may not.
struct adapter_to_merge {
    const peft_adapter* adapter = nullptr;
    double strength = 1;  ///< W + strength * (what the adapter alone would make of W - W).
};

namespace detail {

/// One tensor's change: new = diag(row_scale) (old + left right) diag(column_scale), in the layout of the checkpoint,
/// dimensions beyond the second counted as columns. Empty scales are ones.
struct stored_change {
    matrix<float> left = {};
    matrix<float> right = {};
    vector<float> row_scale = {};
    vector<float> column_scale = {};
    vector<float> magnitude =
        {};  ///< DoRA: the scale is 1 + strength (magnitude / norm - 1), norms of old + left right.
    bool magnitude_of_columns = false;
    double strength = 1;  ///< Of a magnitude.
    /// All there is where it is set: new rows from old ones (OFT, BOFT, HRA, HiRA, MiSS of the form "bat").
    std::optional<erased_rows> rows = {};
    bool rows_are_columns = false;    ///< The checkpoint stores in x out.
    std::uint64_t rows_checksum = 0;  ///< Of what `rows` was made from.

    [[nodiscard]] bool scales() const noexcept {
        return row_scale.size() != 0 || column_scale.size() != 0 || magnitude.size() != 0 || rows;
    }
};

/// A new row of an embedding table, borrowed from its adapter.
struct token_row {
    dtype type = dtype::f32;
    std::span<const std::byte> bytes = {};
    double strength = 1;  ///< old + strength (new - old)
};

/// The changes and replacements of adapters by tensor of the checkpoint, or what does not fit.
struct merge_plan {
    std::map<std::string, stored_change> changes = {};
    std::map<std::string, const tensor_to_write*> replacements = {};
    std::map<std::string, std::map<std::int64_t, token_row>> token_rows = {};  ///< By tensor, then by token.

    /// Adds a change of `rows x cols` entries to what is known about a tensor.
    [[nodiscard]] status add(const checkpoint& base, const std::string& name, stored_change change, index rows,
                             index cols) {
        const tensor_info* t = base.find(name);
        if (t == nullptr) {
            return {errc::mismatch, "the checkpoint has no tensor " + in_quotes(name) +
                                        ", which the adapter changes; it belongs to another model"};
        }
        std::uint64_t columns = 1;
        for (std::size_t i = 1; i < t->shape.size(); ++i) {
            columns *= t->shape[i];
        }
        if (t->shape.empty() || t->shape[0] != static_cast<std::uint64_t>(rows) ||
            columns != static_cast<std::uint64_t>(cols)) {
            return {errc::mismatch, "tensor " + in_quotes(name) + " has shape " + shape_in_words(t->shape) +
                                        ", the adapter is for [" + std::to_string(rows) + ", " + std::to_string(cols) +
                                        "]; it belongs to another model"};
        }
        if (!is_real(t->type)) {
            return not_real(*t);
        }
        const auto [at, is_new] = changes.try_emplace(name, std::move(change));
        if (is_new) {
            return {};
        }
        stored_change& sum = at->second;
        if (sum.scales() || change.scales()) {
            return {errc::unsupported, "two adapters change " + in_quotes(name) +
                                           " and one of them scales or turns it (DoRA, (IA)^3, OFT, ...); their order "
                                           "would matter, so "
                                           "merge them one after the other"};
        }
        const index r = sum.left.cols();
        sum.left.conservativeResize(rows, r + change.left.cols());
        sum.left.rightCols(change.left.cols()) = change.left;
        sum.right.conservativeResize(r + change.right.rows(), cols);
        sum.right.bottomRows(change.right.rows()) = change.right;
        return {};
    }
};

/// 1 + strength (scale - 1)
template <class = on_use>
[[nodiscard]] vector<float> weakened(const vector<float>& scale, double strength) {
    return (1 + strength * (scale.cast<double>().array() - 1)).cast<float>();
}

/// A module's name in the checkpoint: its path, or that without its first part, which some checkpoints leave out.
template <class = on_use>
[[nodiscard]] std::string stored_module(const checkpoint& base, const std::string& module) {
    const std::size_t dot = module.find('.');
    if (base.find(module + ".weight") == nullptr && dot != std::string::npos &&
        base.find(module.substr(dot + 1) + ".weight") != nullptr) {
        return module.substr(dot + 1);
    }
    return module;
}

/// Puts what one module does into the plan.
template <class = on_use>
[[nodiscard]] status plan_module(const checkpoint& base, const std::string& path, const peft_change& change,
                                 bool transposed, double strength, merge_plan& out) {
    const std::string module = stored_module(base, path);
    const std::string weight = module + ".weight";
    const std::string bias = module + ".bias";
    stored_change stored{.strength = strength};
    index rows = change.delta.rows();
    index cols = change.delta.cols();
    const tensor_info* t = base.find(weight);
    std::uint64_t stored_columns = 1;
    for (std::size_t i = 1; t != nullptr && i < t->shape.size(); ++i) {
        stored_columns *= t->shape[i];
    }
    if (change.has_delta()) {
        // DoRA needs the change as it is for its norms.
        const matrix<float> left =
            (change.magnitude.size() != 0 ? 1.0F : static_cast<float>(strength)) * change.delta.left;
        stored.left = transposed ? matrix<float>(change.delta.right.transpose()) : left;
        stored.right = transposed ? matrix<float>(left.transpose()) : change.delta.right;
        rows = stored.left.rows();
        cols = stored.right.cols();
    } else if (t != nullptr && !t->shape.empty()) {  // scales alone: any shape they fit
        rows = static_cast<index>(t->shape[0]);
        cols = static_cast<index>(stored_columns);
        stored.left = matrix<float>(rows, 0);
        stored.right = matrix<float>(0, cols);
    }
    if (change.rows) {
        stored.rows = rows_at_strength(*change.rows, strength);
        stored.rows_are_columns = transposed != change.rows_are_columns;
    }
    stored.magnitude = change.magnitude;
    stored.magnitude_of_columns = transposed != change.magnitude_of_inputs;
    const vector<float> by_out = weakened(change.output_scale, strength);
    vector<float> by_in = weakened(change.input_scale, strength);
    const index taps = by_in.size() != 0 && !transposed ? cols / by_in.size() : 1;
    if (taps > 1) {  // one scale for all taps of a channel
        by_in = vector<float>(by_in.transpose().replicate(taps, 1).reshaped());
    }
    stored.row_scale = transposed ? by_in : by_out;
    stored.column_scale = transposed ? by_out : by_in;
    if ((stored.row_scale.size() != 0 && stored.row_scale.size() != rows) ||
        (stored.column_scale.size() != 0 && stored.column_scale.size() != cols) ||
        (stored.magnitude.size() != 0 && stored.magnitude.size() != (stored.magnitude_of_columns ? cols : rows))) {
        return {errc::mismatch,
                "the scales of module " + in_quotes(module) + " do not fit the weight in the checkpoint"};
    }
    if (status why = out.add(base, weight, std::move(stored), rows, cols); !why) {
        return why;
    }
    if (change.bias.size() != 0) {
        const vector<float> add = static_cast<float>(strength) * change.bias;
        return out.add(base, bias, {.left = add, .right = matrix<float>::Ones(1, 1)}, add.size(), 1);
    }
    if (by_out.size() != 0 && base.find(bias) != nullptr) {
        return out.add(base, bias,
                       {.left = matrix<float>(by_out.size(), 0), .right = matrix<float>(0, 1), .row_scale = by_out},
                       by_out.size(), 1);
    }
    return {};
}

/// Adds the rows that an adapter has trained of an embedding table (PEFT's trainable_token_indices). The tensor is
/// called a delta and holds the new rows themselves: huggingface/peft, trainable_tokens/layer.py, `merge`.
template <class = on_use>
[[nodiscard]] status plan_token_rows(const checkpoint& base, const tensor_to_write& e, const peft_lora_config& config,
                                     double strength, merge_plan& out) {
    std::string module = e.name.starts_with(peft_prefix) ? e.name.substr(peft_prefix.size()) : e.name;
    module.resize(module.size() - token_rows_tail.size());
    const std::vector<std::int64_t>* tokens = token_indices_of(config, module);
    if (tokens == nullptr) {
        return {errc::mismatch, "tensor " + in_quotes(e.name) +
                                    " holds trained tokens, which the configuration's "
                                    "trainable_token_indices do not list"};
    }
    const std::string name = stored_module(base, module) + ".weight";
    const tensor_info* t = base.find(name);
    if (t == nullptr || t->shape.size() != 2 || !is_real(t->type)) {
        return {errc::mismatch,
                "the checkpoint has no table " + in_quotes(name) + ", of which the adapter has trained tokens"};
    }
    if (e.shape.size() != 2 || e.shape[0] != tokens->size() || e.shape[1] != t->shape[1] || !is_real(e.type)) {
        return {errc::mismatch, "tensor " + in_quotes(e.name) + " has shape " + shape_in_words(e.shape) +
                                    ", expected [" + std::to_string(tokens->size()) + ", " +
                                    std::to_string(t->shape[1]) + "]: a row for each of trainable_token_indices"};
    }
    const std::size_t length = tokens->empty() ? 0 : e.bytes.size() / tokens->size();
    std::vector<double> values(static_cast<std::size_t>(t->shape[1]));
    auto& rows = out.token_rows[name];
    for (std::size_t i = 0; i < tokens->size(); ++i) {
        const std::int64_t token = (*tokens)[i];
        if (token < 0 || static_cast<std::uint64_t>(token) >= t->shape[0]) {
            return {errc::mismatch, "token " + std::to_string(token) + " of the adapter is not among the " +
                                        std::to_string(t->shape[0]) + " of " + in_quotes(name) +
                                        "; give the model the tokens that were added before the training"};
        }
        const token_row row{e.type, e.bytes.subspan(i * length, length), strength};
        convert_elements<double>(row.type, row.bytes, values);
        if (!all_finite(values.data(), static_cast<index>(values.size()))) {
            return {errc::non_finite, "tensor " + in_quotes(e.name) + " holds NaN or infinity"};
        }
        if (!rows.emplace(token, row).second) {
            return {errc::mismatch, "token " + std::to_string(token) + " of " + in_quotes(name) + " is trained twice"};
        }
    }
    return {};
}

template <class = on_use>
[[nodiscard]] result<merge_plan> plan_merge(const checkpoint& base, std::span<const adapter_to_merge> adapters) {
    merge_plan out;
    for (const auto& [adapter, strength] : adapters) {
        expects(adapter != nullptr, "merge_checkpoint: an adapter is null");
        if (strength == 0) {
            continue;
        }
        if (!adapter->config.alora_invocation_tokens.empty()) {
            return status{errc::unsupported,
                          "the adapter applies only from its invocation tokens on (aLoRA) and cannot be merged"};
        }
        if (!adapter->config.layer_replication.empty()) {
            return status{errc::unsupported,
                          "the adapter is for a model whose layers were repeated (layer_replication), each copy with "
                          "changes of its own; it cannot be merged into a checkpoint that has every layer once. Write "
                          "the checkpoint with the layers repeated, and remove layer_replication from the adapter"};
        }
        const bool transposed = adapter->config.fan_in_fan_out;
        for (const auto* group : {&adapter->modules, &adapter->embeddings}) {
            for (const auto& [module, lora] : *group) {
                const peft_change change{.delta = lora.delta()};
                if (status why =
                        plan_module(base, module, change, transposed || group == &adapter->embeddings, strength, out);
                    !why) {
                    return why;
                }
            }
        }
        for (const auto& [module, relative] : adapter->relatives) {
            const tensor_info* t = base.find(stored_module(base, module) + ".weight");
            const bool is_matrix = t != nullptr && t->shape.size() == 2;
            const bool flipped = transposed && is_matrix;
            peft_module fitted = relative;
            if (t != nullptr && !t->shape.empty() && t->shape[0] != 0) {
                const auto first = static_cast<index>(t->shape[0]);
                std::uint64_t columns = 1;
                for (std::size_t i = 1; i < t->shape.size(); ++i) {
                    columns *= t->shape[i];
                }
                const auto rest = static_cast<index>(columns);
                if (status why = fit_module(fitted, flipped ? rest : first, flipped ? first : rest); !why) {
                    return in_context("module " + in_quotes(module), why);
                }
            }
            auto change = change_of(fitted);
            if (status why = plan_module(base, module, change, flipped || change.is_table, strength, out); !why) {
                return why;
            }
            if (change.rows) {
                relative_tensors tensors;
                std::visit(tensors, relative);
                std::uint64_t& sum = out.changes.at(stored_module(base, module) + ".weight").rows_checksum;
                sum = checksum(&strength, sizeof strength, relative.index());
                if (const auto* turned = std::get_if<lycoris_oft>(&relative)) {
                    sum = checksum(&turned->constraint, sizeof turned->constraint, sum);
                }
                for (const auto& part : tensors.parts) {
                    sum =
                        checksum(part.values.data(), static_cast<std::size_t>(part.values.size()) * sizeof(float), sum);
                }
            }
        }
        for (const tensor_to_write& e : adapter->extra) {
            if (e.name.ends_with(token_rows_tail)) {
                if (status why = plan_token_rows(base, e, adapter->config, strength, out); !why) {
                    return why;
                }
                continue;
            }
            std::string name = e.name.starts_with(peft_prefix) ? e.name.substr(peft_prefix.size()) : e.name;
            constexpr std::string_view inner = ".base_layer.";
            if (const std::size_t at = name.rfind(inner); at != std::string::npos) {
                name.replace(at, inner.size(), ".");
            }
            const tensor_info* t = base.find(name);
            if (t == nullptr || t->type != e.type || t->shape != e.shape) {
                return status{errc::mismatch,
                              "tensor " + in_quotes(e.name) +
                                  " of the adapter replaces one of the base, but the checkpoint has none of "
                                  "that name, type and shape"};
            }
            if (!out.replacements.emplace(name, &e).second) {
                return status{errc::mismatch, "two adapters replace tensor " + in_quotes(name)};
            }
        }
    }
    for (const auto& entry : out.token_rows) {
        if (out.changes.count(entry.first) != 0 || out.replacements.count(entry.first) != 0) {
            return status{errc::unsupported,
                          "tensor " + in_quotes(entry.first) +
                              " has single tokens replaced and is changed besides; their order would "
                              "matter, so merge them one after the other"};
        }
    }
    return out;
}

/// Squared lengths of the rows or columns of old + left right, in double. \cost one pass.
template <storage T>
[[nodiscard]] vector<double> changed_norms(std::span<const std::byte> bytes, const stored_change& c) {
    const index rows = c.left.rows();
    const index cols = c.right.cols();
    vector<double> norms = vector<double>::Zero(c.magnitude_of_columns ? cols : rows);
    const matrix<double> right_t = c.right.transpose().cast<double>();
    std::vector<T> row(static_cast<std::size_t>(cols));
    vector<double> sum(cols);
    for (index i = 0; i < rows; ++i) {
        std::memcpy(row.data(), bytes.data() + static_cast<std::size_t>(i * cols) * sizeof(T), row.size() * sizeof(T));
        for (index j = 0; j < cols; ++j) {
            sum(j) = static_cast<double>(static_cast<compute_t<T>>(row[static_cast<std::size_t>(j)]));
        }
        sum.noalias() += right_t * c.left.row(i).transpose().cast<double>();
        if (c.magnitude_of_columns) {
            norms.array() += sum.array().square();
        } else {
            norms(i) = sum.squaredNorm();
        }
    }
    return norms;
}

/// Turns DoRA's magnitude into scales: with k = m / n and c = 1 + strength (k - 1),
/// W + strength (diag(k) (W + D) - W) = diag(c) (W + diag(strength k / c) D).
template <storage T>
void resolve_magnitude(std::span<const std::byte> bytes, stored_change& change) {
    if (change.magnitude.size() == 0) {
        return;
    }
    const vector<double> norms = changed_norms<T>(bytes, change).cwiseSqrt();
    vector<float> scale(norms.size());
    for (index i = 0; i < norms.size(); ++i) {
        const double k = norms(i) > 0 ? static_cast<double>(change.magnitude(i)) / norms(i) : 0;
        const auto c = static_cast<float>(1 + change.strength * (k - 1));
        scale(i) = c != 0 ? c : 1e-30F;
        const auto factor = static_cast<float>(change.strength * k / static_cast<double>(scale(i)));
        if (change.strength == 1) {
            continue;
        }
        if (change.magnitude_of_columns) {
            change.right.col(i) *= factor;
        } else {
            change.left.row(i) *= factor;
        }
    }
    (change.magnitude_of_columns ? change.column_scale : change.row_scale) = std::move(scale);
    change.magnitude.resize(0);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_DETAIL_MERGE_PLAN_HPP
