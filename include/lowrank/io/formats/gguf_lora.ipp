// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_GGUF_LORA_IPP
#define LOWRANK_IO_FORMATS_GGUF_LORA_IPP

#include <lowrank/io/formats/gguf_lora.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/gguf_writer.hpp>
#include <lowrank/io/models/module_names.hpp>
#include <lowrank/io/models/rope_rows.hpp>
#include <lowrank/io/peft.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

inline constexpr std::string_view gguf_table = "token_embd.weight";

/// The two halves of one tensor's adapter.
struct gguf_halves {
    const gguf_tensor* a = nullptr;
    const gguf_tensor* b = nullptr;
};

LOWRANK_API
[[nodiscard]] result<lora_adapter<float>> join_halves(const gguf_file& file, const std::string& base,
                                                      const gguf_halves& h, float alpha) {
    if (h.a == nullptr || h.b == nullptr) {
        return status{errc::invalid_format, "tensor " + in_quotes(h.a != nullptr ? h.a->name : h.b->name) +
                                                " has no partner: the file lacks " +
                                                (h.a == nullptr ? "lora_a" : "lora_b") + " of " + in_quotes(base)};
    }
    for (const gguf_tensor* t : {h.a, h.b}) {
        if (t->ne.size() != 2) {
            return status{
                t->ne.size() > 2 ? errc::unsupported : errc::invalid_format,
                "tensor " + in_quotes(t->name) + " has " + std::to_string(t->ne.size()) + " dimensions, expected 2"};
        }
    }
    auto a = file.matrix<float>(*h.a);
    auto b = file.matrix<float>(*h.b);
    if (!a || !b) {
        return a ? b.error() : a.error();
    }
    if (!all_finite(*a) || !all_finite(*b)) {
        return status{errc::non_finite, "the adapter of " + in_quotes(base) + " holds NaN or infinity"};
    }
    lora_adapter<float> out;
    out.lora_A = base == gguf_table ? matrix<float>(a->transpose()) : matrix<float>(*a);
    out.lora_B = *b;
    if (out.lora_A.rows() != out.lora_B.cols()) {
        return status{errc::mismatch, "lora_a of " + in_quotes(base) + " has rank " +
                                          std::to_string(out.lora_A.rows()) + ", lora_b has " +
                                          std::to_string(out.lora_B.cols()) + "; one of them may be stored transposed"};
    }
    out.lora_alpha = alpha != 0 ? static_cast<double>(alpha) : static_cast<double>(out.rank());
    return out;
}

}  // namespace detail

LOWRANK_BODY result<gguf_lora> read_gguf_lora(const gguf_file& file, const gguf_lora_read_options& opt) {
    const auto text = [&](const char* key, bool required, std::string& out) -> status {
        const gguf_value* v = file.value(key);
        if (v == nullptr && !required) {
            return {};
        }
        if (v == nullptr || v->as_string() == nullptr) {
            return {errc::invalid_format, std::string("the key ") + key + " must be there and be a string"};
        }
        out = *v->as_string();
        return {};
    };
    gguf_lora out;
    std::string type;
    std::string kind;
    for (const auto& [key, to] :
         {std::pair{"general.type", &type}, std::pair{"general.architecture", &out.architecture},
          std::pair{"adapter.type", &kind}}) {
        if (status why = text(key, true, *to); !why) {
            return why;
        }
    }
    if (status why = text("general.name", false, out.name); !why) {
        return why;
    }
    if (type != "adapter") {
        return status{errc::invalid_format,
                      "general.type is " + detail::in_quotes(type) + ", expected \"adapter\"; this is no adapter"};
    }
    if (kind != "lora") {
        return status{errc::unsupported, "adapter.type is " + detail::in_quotes(kind) + ", only \"lora\" is supported"};
    }
    if (const gguf_value* v = file.value("adapter.lora.alpha")) {
        const auto alpha = v->as_f32();
        if (!alpha || !is_finite(*alpha)) {
            return status{alpha ? errc::non_finite : errc::invalid_format,
                          "adapter.lora.alpha must be a finite number of type f32"};
        }
        out.alpha = *alpha;
    }
    if (const gguf_value* v = file.value("adapter.alora.invocation_tokens")) {
        if (v->type != gguf_type::array || v->element != gguf_type::u32) {
            return status{errc::invalid_format, "adapter.alora.invocation_tokens must be an array of u32"};
        }
        out.alora_invocation_tokens.resize(v->elements.size() / sizeof(std::uint32_t));
        if (!v->elements.empty()) {
            std::memcpy(out.alora_invocation_tokens.data(), v->elements.data(), v->elements.size());
        }
        if (!opt.activated_by_tokens && !v->elements.empty()) {
            return status{errc::unsupported,
                          "adapter.alora.invocation_tokens is set: the adapter applies only from these tokens on "
                          "(aLoRA); set activated_by_tokens if your program sees to it"};
        }
    }
    std::map<std::string, detail::gguf_halves> halves;
    std::size_t norms = 0;
    for (const gguf_tensor& t : file.tensors()) {
        if (t.name.ends_with(".lora_a") || t.name.ends_with(".lora_b")) {
            auto& h = halves[t.name.substr(0, t.name.size() - 7)];
            (t.name.back() == 'a' ? h.a : h.b) = &t;
        } else if (t.name.ends_with("_norm.weight")) {
            ++norms;
        } else {
            return status{errc::invalid_format,
                          "tensor " + detail::in_quotes(t.name) + " is neither lora_a nor lora_b of a base tensor"};
        }
    }
    if (halves.empty()) {
        return status{errc::invalid_format, "the file holds no LoRA tensors"};
    }
    if (norms != 0) {
        out.warnings.push_back(std::to_string(norms) + " norm vectors are ignored, as llama.cpp ignores them");
    }
    for (const auto& [base, h] : halves) {
        auto adapter = detail::join_halves(file, base, h, out.alpha);
        if (!adapter) {
            return adapter.error();
        }
        out.tensors.emplace(base, std::move(*adapter));
    }
    return out;
}

LOWRANK_BODY result<gguf_lora> read_gguf_lora(const std::filesystem::path& path, const gguf_lora_read_options& opt) {
    const auto file = gguf_file::open(path);
    if (!file) {
        return file.error();
    }
    auto adapter = read_gguf_lora(*file, opt);
    return adapter ? std::move(adapter) : result<gguf_lora>(detail::in_file(path, adapter.error()));
}

LOWRANK_BODY status check_gguf_base(const gguf_lora& adapter, const gguf_file& base) {
    const gguf_value* architecture = base.value("general.architecture");
    const std::string* name = architecture != nullptr ? architecture->as_string() : nullptr;
    if (name == nullptr || *name != adapter.architecture) {
        return {errc::mismatch, "the adapter is for architecture " + detail::in_quotes(adapter.architecture) +
                                    ", the base has " + (name != nullptr ? detail::in_quotes(*name) : "none")};
    }
    for (const auto& [tensor, lora] : adapter.tensors) {
        const gguf_tensor* w = base.find(tensor);
        if (w == nullptr) {
            return {errc::mismatch, "the base has no tensor " + detail::in_quotes(tensor)};
        }
        const bool table = tensor == detail::gguf_table;
        const auto in = static_cast<std::uint64_t>(table ? lora.rows() : lora.cols());
        const auto out = static_cast<std::uint64_t>(table ? lora.cols() : lora.rows());
        if (w->ne.size() != 2 || w->ne[0] != in || w->ne[1] != out) {
            return {errc::mismatch, "the adapter of " + detail::in_quotes(tensor) + " is for a " + std::to_string(out) +
                                        " x " + std::to_string(in) +
                                        " weight, which the base's is not; a factor may be stored transposed"};
        }
    }
    return {};
}

namespace detail {

/// The one alpha of the file: the configuration's if a module has it, else that of the most modules, so that as few
/// factors as can be are multiplied. rsLoRA's is alpha sqrt(r). \pre all modules are plain LoRA.
LOWRANK_API [[nodiscard]] float gguf_alpha(const peft_adapter& adapter) {
    std::map<float, std::size_t> counts;
    for (const auto& entry : adapter.modules) {
        const lora_adapter<float>& lora = lora_of(entry.second);
        const double own =
            lora_scaling(lora.lora_alpha, lora.rank(), lora.use_rslora) * static_cast<double>(lora.rank());
        ++counts[static_cast<float>(own)];
    }
    counts.erase(0.0F);
    const auto said = static_cast<float>(adapter.config.lora_alpha);
    if (counts.empty() || counts.contains(said)) {
        return said != 0 ? said : 1.0F;
    }
    return std::max_element(counts.begin(), counts.end(), [](auto& x, auto& y) { return x.second < y.second; })->first;
}

/// Whether the largest entry of a factor is one that a type's 16-bit scales or numbers have to full precision, so that
/// rounding loses no more than it does of any matrix; all of F32 and BF16.
LOWRANK_API [[nodiscard]] bool is_in_range(const row_matrix<float>& x, ggml_type type) {
    if (type == ggml_type::f32 || type == ggml_type::bf16) {
        return true;
    }
    const auto largest = static_cast<double>(max_abs(x));
    const double steps = type == ggml_type::f16 ? 16.0 : 256.0;  // f16's entries, or a scale that is a part of them
    return largest == 0 || (largest >= steps * 6.2e-5 && largest <= 65000.0);
}

/// The entry of a module whatever wrappers stand before its path.
LOWRANK_API [[nodiscard]] std::optional<module_match> find_module_of(const architecture& a, const std::string& module) {
    const std::string plain = plain_path(module);
    const std::string root = a.hf_layers.substr(0, a.hf_layers.size() - plain_path(a.hf_layers).size());  // "model."
    std::optional<module_match> names;
    for (const std::string& path : {module, root + plain, plain}) {
        names = names ? std::move(names) : find_module(a, path + ".weight");
    }
    return names;
}

/// "self_attn.q_proj" of "model.layers.3.self_attn.q_proj".
[[nodiscard]] inline std::string_view last_module(std::string_view module) {
    const std::size_t at = module.find("layers.");
    const std::size_t dot = at == std::string_view::npos ? at : module.find('.', at + 7);
    return dot == std::string_view::npos ? module : module.substr(dot + 1);
}

/// Where a module lies in a GGUF of a model.
struct gguf_place {
    module_match names = {};
    std::vector<index> rows = {};  ///< Of each of the tensors it becomes.
};

LOWRANK_API [[nodiscard]] result<gguf_place> place_in_gguf(const std::string& module, const peft_module& held,
                                                           const architecture& a, const model_config& model) {
    auto names = find_module_of(a, module);
    if (!names || is_plain_table(held) != (names->module->role == module_role::table)) {
        std::vector<std::string> known;
        for (const architecture_module& m : a.modules) {
            known.push_back(m.name);
        }
        return status{errc::unsupported, "module " + in_quotes(module) + " has no place in a GGUF of " + a.name +
                                             nearest_in_words(last_module(module), known)};
    }
    if (model.tie_word_embeddings && names->module->role == module_role::output) {
        return status{errc::unsupported, "module " + in_quotes(module) +
                                             " is tied to the embedding table; llama.cpp cannot adapt it alone"};
    }
    auto rows = rows_of_parts(*names->module, model, lora_of(held).rows());
    return rows ? result<gguf_place>(gguf_place{std::move(*names), std::move(*rows)})
                : result<gguf_place>(in_context("module " + in_quotes(module), rows.error()));
}

/// \pre `opt.model` is set, the module is plain LoRA.
LOWRANK_API [[nodiscard]] status fits_gguf(const std::string& path, const peft_module& module,
                                           const adapter_write_options& opt) {
    const auto a = find_architecture(opt.model->model_type, opt.architectures);
    if (!a) {
        return a.error();
    }
    if (status why = check_activation(*opt.model, **a); !why) {
        return why;
    }
    return place_in_gguf(path, module, **a, *opt.model).why;
}

}  // namespace detail

LOWRANK_BODY status write_gguf_lora(const std::filesystem::path& path, const peft_adapter& adapter,
                                    const model_config& model, const gguf_lora_options& opt,
                                    std::span<const architecture> among) {
    const auto a = find_architecture(model.model_type, among);
    if (!a) {
        return a.error();
    }
    if (const tensor_to_write* t = first_stored_tensor(adapter)) {
        return {errc::unsupported,
                "tensor " + detail::in_quotes(t->name) +
                    " replaces one of the base, which a GGUF adapter cannot express; merge it instead"};
    }
    if (status why = check_activation(model, **a); !why) {
        return why;
    }
    if (status why = check_plain_lora(adapter); !why) {
        return why;
    }
    const float alpha = detail::gguf_alpha(adapter);
    std::vector<gguf_tensor_to_write> tensors;
    const auto append = [&](const std::string& name, const row_matrix<float>& x) {
        const bool fits =
            x.cols() % static_cast<index>(facts_of(opt.type).block) == 0 && detail::is_in_range(x, opt.type);
        tensors.push_back(gguf_tensor_of(name, x, fits ? opt.type : ggml_type::f32));
    };
    for (const auto& [module, held] : adapter.modules) {
        const lora_adapter<float>& lora = lora_of(held);
        const bool is_table = is_plain_table(held);
        const auto place = detail::place_in_gguf(module, held, **a, model);
        if (!place) {
            return place.error();
        }
        const auto& [names, rows] = *place;
        // What llama.cpp multiplies by is alpha / r; what PEFT means is the module's own scaling.
        const double wanted = lora_scaling(lora.lora_alpha, lora.rank(), lora.use_rslora);
        const double factor = wanted * static_cast<double>(lora.rank()) / static_cast<double>(alpha);
        row_matrix<float> b = lora.lora_B;
        if (factor != 1) {
            b = (lora.lora_B.template cast<double>() * factor).template cast<float>();
        }
        const row_matrix<float> in =
            is_table ? row_matrix<float>(lora.lora_A.transpose()) : row_matrix<float>(lora.lora_A);
        if (!all_finite(in) || !all_finite(b)) {
            return {errc::non_finite, "module " + detail::in_quotes(module) + " holds NaN or infinity"};
        }
        index first = 0;
        for (std::size_t i = 0; i < rows.size(); first += rows[i++]) {
            const gguf_part& part = names.module->parts[i];
            const row_matrix<float> own = b.middleRows(first, rows[i]);
            append(names.gguf[i] + ".lora_a", in);
            append(names.gguf[i] + ".lora_b", part.is_rotary ? rope_rows_to_gguf(own, heads_of(part, model)) : own);
        }
    }
    std::vector<gguf_entry> entries = {{"general.architecture", gguf_value::of((*a)->gguf)},
                                       {"general.type", gguf_value::of("adapter")},
                                       {"adapter.type", gguf_value::of("lora")},
                                       {"general.name", gguf_value::of(opt.name)},
                                       {"adapter.lora.alpha", gguf_value::of(alpha)}};
    if (!adapter.config.alora_invocation_tokens.empty()) {
        const auto& ids = adapter.config.alora_invocation_tokens;
        entries.push_back(
            {"adapter.alora.invocation_tokens",
             gguf_value::of(std::span<const std::uint32_t>(std::vector<std::uint32_t>(ids.begin(), ids.end())))});
    }
    return write_gguf(path, entries, tensors, opt.write);
}

LOWRANK_BODY result<peft_adapter> peft_from_gguf(const gguf_lora& adapter, const model_config& model,
                                                 std::span<const architecture> among) {
    const auto a = find_architecture(model.model_type, among);
    if (!a) {
        return a.error();
    }
    if ((*a)->gguf != adapter.architecture) {
        return status{errc::unsupported, "the adapter is for architecture " + detail::in_quotes(adapter.architecture) +
                                             ", the model is " + detail::in_quotes((*a)->name)};
    }
    peft_adapter out;
    out.warnings = adapter.warnings;
    for (const auto& [tensor, lora] : adapter.tensors) {
        const auto names = find_gguf_module(**a, tensor);
        if (!names || !names->hf.ends_with(".weight")) {
            return status{errc::unsupported, "tensor " + detail::in_quotes(tensor) + " has no name in transformers"};
        }
        const bool is_table = names->module->role == module_role::table;
        const std::string module = names->hf.substr(0, names->hf.size() - 7);
        if (out.modules.contains(module)) {
            continue;  // another part of the same
        }
        matrix<float> b(0, lora.rank());
        std::vector<index> has;
        for (std::size_t i = 0; i < names->gguf.size(); ++i) {
            const auto at = adapter.tensors.find(names->gguf[i]);
            if (at == adapter.tensors.end() || at->second.rank() != lora.rank() || at->second.cols() != lora.cols() ||
                at->second.lora_A != lora.lora_A) {
                return status{errc::unsupported, "tensor " + detail::in_quotes(names->gguf[i]) +
                                                     " must share lora_a with " + detail::in_quotes(tensor) +
                                                     ", the other part of " + detail::in_quotes(module)};
            }
            has.push_back(at->second.rows());
            b.conservativeResize(b.rows() + has.back(), Eigen::NoChange);
            b.bottomRows(has.back()) = at->second.lora_B;
        }
        const auto rows = rows_of_parts(*names->module, model, b.rows());
        if (!rows || *rows != has) {
            return detail::in_context(
                "tensor " + detail::in_quotes(tensor),
                rows ? status{errc::mismatch, "has rows that do not fit the heads"} : rows.error());
        }
        index first = 0;
        for (std::size_t i = 0; i < has.size(); first += has[i++]) {
            if (const gguf_part& part = names->module->parts[i]; part.is_rotary) {
                b.middleRows(first, has[i]) = rope_rows_to_hf(b.middleRows(first, has[i]), heads_of(part, model));
            }
        }
        lora_adapter<float> whole = lora;
        whole.lora_B = std::move(b);
        out.modules.emplace(module, plain_module(std::move(whole), is_table));
    }
    out.config = peft_config_for(out, {.task_type = "CAUSAL_LM"});
    out.config.alora_invocation_tokens.assign(adapter.alora_invocation_tokens.begin(),
                                              adapter.alora_invocation_tokens.end());
    return out;
}

namespace detail {

LOWRANK_API [[nodiscard]] result<adapter_file> read_gguf_adapter(const std::filesystem::path& path,
                                                                 const adapter_read_options& opt) {
    if (opt.model == nullptr) {
        return status{errc::unsupported, path_in_quotes(path) +
                                             " is a GGUF adapter: the base model is needed, whose heads say the order "
                                             "of rows"};
    }
    const auto gguf = read_gguf_lora(path, {.activated_by_tokens = opt.peft.activated_by_tokens});
    if (!gguf) {
        return gguf.error();
    }
    auto adapter = peft_from_gguf(*gguf, *opt.model, opt.architectures);
    return adapter ? result<adapter_file>(adapter_file{.format = "gguf", .adapter = std::move(*adapter)})
                   : result<adapter_file>(in_file(path, adapter.error()));
}

LOWRANK_API [[nodiscard]] status write_gguf_adapter(const std::filesystem::path& path, const peft_adapter& adapter,
                                                    const adapter_write_options& opt) {
    if (opt.model == nullptr) {
        return {errc::unsupported, "writing GGUF needs the base model, whose heads say the order of rows"};
    }
    return write_gguf_lora(path, adapter, *opt.model, {.type = opt.type, .name = opt.name, .write = opt.write},
                           opt.architectures);
}

}  // namespace detail

LOWRANK_BODY adapter_format gguf_format() {
    return {.name = "gguf",
            .needs_model = true,
            .holds_tables = true,
            .holds_invocation_tokens = true,
            .fits = &detail::fits_gguf,
            .recognizes = [](const adapter_source& source) { return source.head.starts_with("GGUF"); },
            .read = &detail::read_gguf_adapter,
            .write = &detail::write_gguf_adapter};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_GGUF_LORA_IPP
