// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_ORIGINAL_BASE_IPP
#define LOWRANK_IO_FORMATS_ORIGINAL_BASE_IPP

#include <lowrank/io/formats/original_base.hpp>

#include <algorithm>
#include <set>
#include <span>
#include <string>
#include <utility>

#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/io/checkpoints/detail/merge_plan.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/lora/convert/convert.hpp>
#include <lowrank/lora/init/spectral_init.hpp>
#include <lowrank/lora/kinds/lora_forms/kasa.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// init_lora_weights of a configuration, where it is a name.
LOWRANK_API [[nodiscard]] std::string initialization_of(const peft_lora_config& config) {
    const auto document = read_json(std::as_bytes(std::span(config.document)));
    const auto how = document && document->is_object() ? document->value("init_lora_weights", json()) : json();
    return how.is_string() ? how.template get<std::string>() : std::string();
}

/// The factors that a module began with.
LOWRANK_API [[nodiscard]] result<lora_adapter<float>> initial_factors(const std::string& how, const matrix<float>& w,
                                                                      const lora_adapter<float>& trained) {
    if (trained.rows() != w.rows() || trained.cols() != w.cols() || trained.rank() < 1 ||
        trained.rank() > std::min(w.rows(), w.cols()) || !(trained.lora_alpha > 0)) {
        return status{errc::mismatch, "is for a weight of " + std::to_string(trained.rows()) + " x " +
                                          std::to_string(trained.cols()) + " with a rank and an alpha, the base has " +
                                          std::to_string(w.rows()) + " x " + std::to_string(w.cols())};
    }
    const lora_options options{.r = trained.rank(), .lora_alpha = trained.lora_alpha, .use_rslora = trained.use_rslora};
    return how == "pissa" ? pissa(w, options) : olora(w, options, init_scaling::peft);
}

/// What KaSA takes from a weight, as an adapter of the scaling of `trained`.
LOWRANK_API [[nodiscard]] result<lora_adapter<float>> smallest_components(const matrix<float>& w,
                                                                          const lora_adapter<float>& trained) {
    if (trained.rows() != w.rows() || trained.cols() != w.cols() || trained.rank() < 1 ||
        trained.rank() >= std::min(w.rows(), w.cols()) || !(trained.scaling() > 0)) {
        return status{errc::mismatch, "is for a weight of " + std::to_string(trained.rows()) + " x " +
                                          std::to_string(trained.cols()) + " of more than its rank, the base has " +
                                          std::to_string(w.rows()) + " x " + std::to_string(w.cols())};
    }
    const auto whole = svd(w);
    if (!whole) {
        return whole.why;
    }
    const low_rank<float> noise = scale(kasa(whole, {.r = trained.rank()}).noise, 1 / trained.scaling());
    return lora_adapter<float>{.lora_A = noise.right,
                               .lora_B = noise.left,
                               .lora_alpha = trained.lora_alpha,
                               .use_rslora = trained.use_rslora};
}

/// KaSA's factors as LoRA's, the diagonal in B.
LOWRANK_API [[nodiscard]] lora_adapter<float> with_diagonal_in_b(const kasa_adapter<float>& a) {
    lora_adapter<float> out{
        .lora_A = a.lora_A, .lora_B = a.lora_B, .lora_alpha = a.lora_alpha, .use_rslora = a.use_rslora};
    scale_cols(out.lora_B, a.lora_diag);
    return out;
}

}  // namespace detail

namespace detail {

/// Every module less what it began with, as plain LoRA of twice the rank; `initial(path, module, notes)` gives the latter.
template <class Initial>
[[nodiscard]] result<peft_adapter> less_initial(const peft_adapter& adapter, const Initial& initial) {
    std::set<std::string> notes;
    peft_adapter out{.metadata = adapter.metadata, .warnings = adapter.warnings};
    for (const auto& [path, module] : adapter.modules) {
        if (stored_tensor(module) != nullptr) {
            out.modules.emplace(path, module);
            continue;
        }
        const auto began = is_plain_lora(module)
                               ? initial(path, module, notes)
                               : result<lora_adapter<float>>(status{errc::unsupported, "is " + kind_of(module) +
                                                                                           ", and only plain LoRA has "
                                                                                           "such a beginning"});
        if (!began) {
            return in_context("module " + in_quotes(path), began.error());
        }
        out.modules.emplace(path, plain_module(plain_lora(lora_of(module), *began), is_table_module(module)));
    }
    out.warnings.insert(out.warnings.end(), notes.begin(), notes.end());
    out.config = peft_config_for(out, {.fan_in_fan_out = adapter.config.fan_in_fan_out,
                                       .modules_to_save = adapter.config.modules_to_save,
                                       .base_model_name_or_path = adapter.config.base_model_name_or_path,
                                       .task_type = adapter.config.task_type});
    return out;
}

}  // namespace detail

LOWRANK_BODY result<peft_adapter> on_original_base(const peft_adapter& adapter, const checkpoint& original) {
    const std::string how = detail::initialization_of(adapter.config);
    const auto begins = [&](const char* name) { return how.starts_with(name); };
    if (begins("pissa_niter") || begins("corda") || begins("lora_ga") || begins("loftq")) {
        return status{errc::unsupported, "init_lora_weights is " + detail::in_quotes(how) +
                                             ", which the weights of the base do not determine; give the adapter as it "
                                             "was before training (--initial-adapter), or use it on its residual base"};
    }
    peft_adapter trained = adapter;
    std::size_t others = 0;
    std::size_t of_kasa = 0;
    for (auto& [path, module] : trained.modules) {
        const auto* kasa = module.template get<kasa_adapter<float>>();
        others += kasa == nullptr && stored_tensor(module) == nullptr ? 1 : 0;
        if (kasa != nullptr) {
            ++of_kasa;
            module = detail::with_diagonal_in_b(*kasa);
        }
    }
    const bool is_kasa = of_kasa != 0 && others == 0;
    if (how != "pissa" && how != "olora" && !is_kasa) {
        return adapter;
    }
    const detail::base_view about(original);
    return detail::less_initial(
        trained,
        [&](const std::string& path, const peft_module& module,
            std::set<std::string>& notes) -> result<lora_adapter<float>> {
            if (is_plain_table(module)) {
                return status{errc::unsupported, "adapts an embedding table, which has no such beginning"};
            }
            const auto stored = about.stored(path, notes);
            if (!stored) {
                return stored.error();
            }
            const auto w = original.matrix<float>(*stored + ".weight");
            if (!w) {
                return w.error();
            }
            const bool turned =
                detail::is_stored_in_by_out(about, *stored, adapter.config.fan_in_fan_out, shape_of(module), notes);
            const matrix<float> weight = turned ? matrix<float>(w->transpose()) : matrix<float>(*w);
            return is_kasa ? detail::smallest_components(weight, lora_of(module))
                           : detail::initial_factors(how, weight, lora_of(module));
        });
}

LOWRANK_BODY result<peft_adapter> on_original_base(const peft_adapter& adapter, const peft_adapter& initial) {
    const std::string how = detail::initialization_of(adapter.config);
    if (how.starts_with("loftq")) {
        return status{errc::unsupported, "init_lora_weights is " + detail::in_quotes(how) +
                                             ": the base of the adapter is quantized, and no change of the original is "
                                             "the same; use it on that base"};
    }
    return detail::less_initial(
        adapter,
        [&](const std::string& path, const peft_module& module, std::set<std::string>&) -> result<lora_adapter<float>> {
            const auto at = initial.modules.find(path);
            if (at == initial.modules.end() || !is_plain_lora(at->second)) {
                return status{errc::mismatch, "has no plain LoRA in the initial adapter"};
            }
            const lora_adapter<float>& began = lora_of(at->second);
            const lora_adapter<float>& trained = lora_of(module);
            if (began.rows() != trained.rows() || began.cols() != trained.cols()) {
                return status{errc::mismatch, "is for another weight in the initial adapter"};
            }
            return began;
        });
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_ORIGINAL_BASE_IPP
