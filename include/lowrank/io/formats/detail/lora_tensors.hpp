// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_DETAIL_LORA_TENSORS_HPP
#define LOWRANK_IO_FORMATS_DETAIL_LORA_TENSORS_HPP

/// \file
/// Relatives of LoRA as tensors under the names of LyCORIS and MLX, and those of LyCORIS read.
///
///     auto why = detail::append_lycoris(tensors, "unet.x", relative, {});   // lora_unet_x.hada_w1_a, .alpha, ...

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/formats/detail/lora_names.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct lora_write_options {
    lora_format format = lora_format::kohya;
    std::string kohya_prefix = "lora_unet_";  ///< Put before names that have no such prefix yet.
    std::optional<double> mlx_scale =
        std::nullopt;  ///< The scale beside an MLX file; lora_b carries the rest. None: 1.
    write_options write = {};
};

namespace detail {

template <class = on_use>
[[nodiscard]] std::string flat_name(std::string module, const lora_write_options& opt) {
    std::replace(module.begin(), module.end(), '.', '_');
    return module.starts_with("lora_") ? module : opt.kohya_prefix + module;
}

template <class = on_use>
[[nodiscard]] tensor_to_write scalar_tensor(std::string name, double value) {
    auto t =
        tensor_of(std::move(name), row_matrix<float>(row_matrix<float>::Constant(1, 1, static_cast<float>(value))));
    t.shape.clear();
    return t;
}

template <class = on_use>
[[nodiscard]] status no_place_for(const std::string& module, const peft_module& relative, lora_format format) {
    return {errc::unsupported, "module " + in_quotes(module) + " is adapted by " + kind_of(relative) +
                                   ", which the names of " + to_string(format) + " have no place for"};
}

/// LyCORIS's names: its tensors are PEFT's under other names for LoRA, and with an alpha of their own.
template <class = on_use>
[[nodiscard]] status append_lycoris(std::vector<tensor_to_write>& out, const std::string& module,
                                    const peft_module& relative, const lora_write_options& opt) {
    const std::string flat = flat_name(module, opt);
    relative_tensors parts;
    double alpha = 0;
    index rank = 0;
    if (const auto* m = std::get_if<peft_lora>(&relative); m != nullptr && m->bias.size() == 0 && m->groups == 1) {
        alpha =
            lora_scaling(m->lora.lora_alpha, m->lora.rank(), m->lora.use_rslora) * static_cast<double>(m->lora.rank());
        rank = m->lora.rank();
        parts(*m);
        for (auto& p : parts.parts) {
            p.tail = p.tail == ".lora_A.weight"   ? ".lora_down.weight"
                     : p.tail == ".lora_B.weight" ? ".lora_up.weight"
                                                  : ".dora_scale";
        }
        if (m->magnitude.size() != 0) {  // [out, 1...], of the dimensions of the weight
            auto& shape = parts.parts.back().shape;
            shape.assign(2 + m->kernel.size(), 1);
            shape[m->magnitude_of_inputs ? 1 : 0] = static_cast<std::uint64_t>(m->magnitude.size());
        }
    } else if (const auto* loha = std::get_if<loha_adapter<float>>(&relative)) {
        alpha = loha->alpha;
        rank = loha->w1_b.rows();
        parts(*loha);
    } else if (const auto* lokr = std::get_if<lokr_adapter<float>>(&relative)) {
        lokr_adapter<float> scaled = *lokr;
        alpha = lokr->alpha;
        rank = lokr->r;
        if (lokr->w1.whole() && lokr->w2.whole()) {  // LyCORIS takes the scaling of these to be 1
            scaled.w1.left *= lokr->scaling();
            alpha = static_cast<double>(lokr->r);
        }
        parts(scaled);
    } else if (const auto* oft = std::get_if<lycoris_oft>(&relative)) {
        alpha = oft->constraint;
        parts(*oft);
    } else {
        return no_place_for(module, relative, opt.format);
    }
    if (alpha == 0 && !std::holds_alternative<lycoris_oft>(relative)) {  // no alpha says so: 0 is the rank
        alpha = static_cast<double>(rank);
        parts.parts.front().values.setZero();
    }
    out.push_back(scalar_tensor(flat + ".alpha", alpha));
    for (const auto& p : parts.parts) {
        out.push_back(tensor_of(flat + p.tail, p.values));
        out.back().shape = p.shape;
    }
    return {};
}

/// The diag-oft (three dimensions) or boft (four) of a LyCORIS file, whose alpha is the constraint.
template <class = on_use>
lycoris_oft join_lycoris_oft(relative_parts& p, double constraint) {
    const tensor_info* t = p.find("oft_blocks");
    const std::size_t dimensions = t != nullptr && t->shape.size() == 4 ? 4 : 3;
    lycoris_oft out{.oft_blocks = p.take_blocks("oft_blocks", dimensions),
                    .is_butterfly = dimensions == 4,
                    .constraint = constraint};
    if (p.has("rescale")) {
        out.rescale = p.take_vector("rescale");
        out.rescale_dimensions = p.find("rescale")->shape.size();
    }
    if (p.why) {
        out.block_count = static_cast<index>(t->shape[dimensions - 3]);
        p.agree(t->shape[dimensions - 2] == t->shape[dimensions - 1] && out.is_valid() && out.rescale_dimensions >= 1 &&
                out.rescale_dimensions <= 5);
    }
    if (p.why && constraint < 0) {
        p.fail(errc::unsupported, "has a negative constraint (alpha)");
    }
    return out;
}

/// The LoHa, LoKr or OFT of a LyCORIS file: the rank is that of the tensors, alpha without a number is the rank, and
/// the scaling of a LoKr of two whole factors is 1 whatever its alpha says.
template <class = on_use>
[[nodiscard]] result<peft_module> join_lycoris(relative_parts& p, std::optional<double> alpha) {
    if (p.has("oft_blocks") || p.has("rescale")) {
        auto oft = join_lycoris_oft(p, alpha.value_or(0));
        return p.why ? result<peft_module>(std::move(oft)) : result<peft_module>(p.why);
    }
    if (p.has("hada_w1_b")) {
        auto loha = join_loha(p, 0, std::nullopt);
        loha.alpha = alpha.value_or(static_cast<double>(loha.w1_b.rows()));
        return p.why ? result<peft_module>(std::move(loha)) : result<peft_module>(p.why);
    }
    lokr_adapter<float> lokr{.w1 = join_lokr_factor(p, "lokr_w1", "lokr_w1_a", "lokr_w1_b", std::nullopt),
                             .w2 = join_lokr_factor(p, "lokr_w2", "lokr_w2_a", "lokr_w2_b", std::nullopt)};
    const auto& factor = lokr.w2.whole() ? lokr.w1 : lokr.w2;
    const bool both_whole = factor.whole();
    lokr.r = both_whole ? 1 : factor.left.cols();
    lokr.alpha = both_whole ? 1 : alpha.value_or(static_cast<double>(lokr.r));
    return p.why ? result<peft_module>(std::move(lokr)) : result<peft_module>(p.why);
}

/// MLX's DoRA: the magnitude is `m`.
template <class = on_use>
[[nodiscard]] status append_mlx(std::vector<tensor_to_write>& out, const std::string& module,
                                const peft_module& relative, const lora_write_options& opt) {
    const auto* m = std::get_if<peft_lora>(&relative);
    if (m == nullptr || m->bias.size() != 0 || !m->kernel.empty() || m->is_table || m->magnitude_of_inputs) {
        return no_place_for(module, relative, opt.format);
    }
    const double scaling =
        lora_scaling(m->lora.lora_alpha, m->lora.rank(), m->lora.use_rslora) / opt.mlx_scale.value_or(1);
    const matrix<float> b =
        scaling == 1 ? m->lora.lora_B : matrix<float>((m->lora.lora_B.cast<double>() * scaling).cast<float>());
    out.push_back(tensor_of(module + ".lora_a", matrix<float>(m->lora.lora_A.transpose())));
    out.push_back(tensor_of(module + ".lora_b", matrix<float>(b.transpose())));
    if (m->magnitude.size() != 0) {
        out.push_back(tensor_of(module + ".m", m->magnitude));
    }
    return {};
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_DETAIL_LORA_TENSORS_HPP
