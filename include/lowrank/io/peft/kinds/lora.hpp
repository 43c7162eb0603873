// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LORA_HPP
#define LOWRANK_IO_PEFT_KINDS_LORA_HPP

/// \file
/// LoRA in an adapter of PEFT, with what PEFT may add to it: DoRA, a bias, the kernel of a convolution.
///
///     const lowrank::peft_module module = lowrank::peft_lora{.lora = adapter};    // in an adapter of peft_type LORA
///
/// Names and shapes follow huggingface/peft.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/peft_factors.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/conv.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// LoRA with what PEFT may add to it: DoRA's magnitude, a bias on lora_B, the kernel of a convolution.
struct peft_lora {
    /// Of a convolution: A is r x (in * taps), B is out x r, block-diagonal if there are groups.
    lora_adapter<float> lora = {};
    vector<float> magnitude = {};            ///< DoRA: lengths of the rows of W + delta; empty: no DoRA.
    bool magnitude_of_inputs = false;        ///< Lengths of the columns instead (LyCORIS's wd_on_output=False).
    vector<float> bias = {};                 ///< Of lora_B: the layer's bias changes by scaling * bias; empty: none.
    std::vector<std::uint64_t> kernel = {};  ///< Of a convolution: {kw}, {kh, kw} or {kd, kh, kw}; empty: linear.
    index groups = 1;                        ///< Of a convolution.
    bool is_table = false;                   ///< Of an embedding: A is r x tokens, B is dim x r.
};

namespace detail {

/// The two factors of one module while they are collected.
struct peft_factors {
    const checkpoint::place* a = nullptr;
    const checkpoint::place* b = nullptr;
    const checkpoint::place* magnitude = nullptr;
    const checkpoint::place* bias = nullptr;

    /// More than two matrices.
    [[nodiscard]] bool is_relative() const {
        return magnitude != nullptr || bias != nullptr || (a != nullptr && a->info->shape.size() > 2);
    }
};

/// Makes an adapter of two tensors and what may belong to them, or says what is wrong with them.
LOWRANK_INLINE result<peft_lora> join_factors(const checkpoint& file, const peft_factors& f, const std::string& module,
                                              const peft_lora_config& c, const peft_rules& rules) {
    const auto about = [&](errc code, const tensor_info& t, std::string text) {
        return status{code, "tensor " + in_quotes(t.name) + " " + std::move(text)};
    };
    if (f.a == nullptr || f.b == nullptr) {
        const auto* there = f.a != nullptr ? f.a : f.b != nullptr ? f.b : f.magnitude != nullptr ? f.magnitude : f.bias;
        return about(errc::invalid_format, *there->info,
                     std::string("has no partner: the file lacks ") + (f.a == nullptr ? "lora_A" : "lora_B") +
                         " of module " + in_quotes(module));
    }
    const tensor_info& a = *f.a->info;
    const tensor_info& b = *f.b->info;
    for (const tensor_info* t : {&a, &b}) {
        if (t->shape.size() < 2 || t->shape.size() > 5) {
            return about(errc::invalid_format, *t,
                         "has shape " + shape_in_words(t->shape) + ", expected a matrix or a kernel");
        }
        if (!is_real(t->type)) {
            return not_real(*t);
        }
    }
    peft_lora out;
    out.kernel.assign(a.shape.begin() + 2, a.shape.end());
    std::uint64_t columns = a.shape[1];
    for (const std::uint64_t taps : out.kernel) {
        columns *= taps;  // their product is that of the whole shape over r, which was checked
    }
    if (b.shape.size() != a.shape.size() ||
        std::any_of(b.shape.begin() + 2, b.shape.end(), [](auto n) { return n != 1; })) {
        return about(errc::mismatch, b,
                     "has shape " + shape_in_words(b.shape) + ", its lora_A has " + shape_in_words(a.shape) +
                         "; a kernel belongs to lora_A alone");
    }
    const auto r = static_cast<std::uint64_t>(rules.r_for(module));
    const std::uint64_t lora_r = a.shape[0];
    const std::uint64_t groups =
        !out.kernel.empty() && b.shape[1] != 0 && lora_r % b.shape[1] == 0 ? lora_r / b.shape[1] : 1;
    if (lora_r != r || b.shape[1] * groups != r || b.shape[0] % groups != 0) {
        if (a.shape[1] == r && b.shape[0] == r) {
            return about(errc::mismatch, a,
                         "has shape " + shape_in_words(a.shape) + " where [r, in] with r = " + std::to_string(r) +
                             " is expected; it looks transposed, as MLX stores it");
        }
        if (lora_r != b.shape[1]) {
            return about(errc::mismatch, b,
                         "has shape " + shape_in_words(b.shape) + ", its lora_A has " + shape_in_words(a.shape) +
                             "; [out, r] and [r, in] must have the same r");
        }
        return about(errc::mismatch, a,
                     "has rank " + std::to_string(lora_r) + ", the configuration says " + std::to_string(r));
    }
    out.lora = {.lora_alpha = rules.alpha_for(module), .use_rslora = c.use_rslora, .lora_dropout = c.lora_dropout};
    out.groups = static_cast<index>(groups);
    if (groups > 1 && !may_unfold(b.shape[0], r, a.shape[0] * columns + b.shape[0] * b.shape[1])) {
        return status{errc::unsupported, "module " + in_quotes(module) + " has " + std::to_string(groups) +
                                             " groups; its lora_B of all groups would be too large for what the file "
                                             "holds of it"};
    }
    auto left = finite_matrix(file, *f.b, b.shape[0], b.shape[1]);
    auto right = finite_matrix(file, *f.a, a.shape[0], columns);
    if (!left || !right) {
        return left ? right.error() : left.error();
    }
    out.lora.lora_A = std::move(*right);
    out.lora.lora_B = groups == 1 ? std::move(*left) : expand_groups(*left, out.groups);
    for (const auto& [place, to] : {std::pair{f.magnitude, &out.magnitude}, std::pair{f.bias, &out.bias}}) {
        if (place != nullptr) {
            auto v = finite_vector(file, *place, b.shape[0]);
            if (!v) {
                return v.error();
            }
            *to = std::move(*v);
        }
    }
    return out;
}

}  // namespace detail

template <>
struct peft_kind<peft_lora> {
    using module = peft_lora;
    static constexpr std::string_view type = "LORA";
    /// LyCORIS's DoRA of the inputs is none of PEFT's.
    static std::string_view type_of(const module& m) { return m.magnitude_of_inputs ? "LYCORIS" : type; }
    static const char* label(const module& m) {
        return m.magnitude_of_inputs     ? "DoRA of the inputs (LyCORIS)"
               : m.magnitude.size() != 0 ? "DoRA"
               : !m.kernel.empty()       ? "LoRA of a convolution"
               : m.bias.size() != 0      ? "LoRA with a bias"
                                         : "LoRA";
    }
    LOWRANK_INLINE static module_shape shape([[maybe_unused]] const module& m) {
        return {m.lora.rows(), m.lora.cols()};
    }
    static bool fit(module&, index, index) { return true; }
    LOWRANK_INLINE static peft_facts facts([[maybe_unused]] const module& m) {
        return {m.lora.rank(), m.lora.lora_alpha};
    }
    LOWRANK_INLINE static peft_change change(const module& m) {
        peft_change out{.is_table = m.is_table};
        if (m.magnitude.size() != 0) {
            out.weight = magnitude_change<float>{
                .delta = m.lora.delta(), .magnitude = m.magnitude, .of_columns = m.magnitude_of_inputs};
        } else {
            out.weight = m.lora.delta();
        }
        if (m.bias.size() != 0) {
            out.bias = m.lora.scaling() * m.bias;
        }
        return out;
    }
    LOWRANK_INLINE static void write(const module& m, detail::relative_tensors& to) {
        const char* dot_a = m.is_table ? ".lora_embedding_A" : ".lora_A.weight";
        const char* dot_b = m.is_table ? ".lora_embedding_B" : ".lora_B.weight";
        matrix<float> b = m.groups == 1 ? m.lora.lora_B : collect_groups(m.lora.lora_B, m.groups);
        std::vector<std::uint64_t> shape_a{detail::extent(m.lora.lora_A.rows())};
        std::vector<std::uint64_t> shape_b{detail::extent(b.rows()), detail::extent(b.cols())};
        std::uint64_t taps = 1;
        for (const std::uint64_t n : m.kernel) {
            taps *= n;
        }
        shape_a.push_back(taps == 0 ? 0 : detail::extent(m.lora.lora_A.cols()) / taps);
        shape_a.insert(shape_a.end(), m.kernel.begin(), m.kernel.end());
        shape_b.resize(shape_a.size(), 1);
        to.add(dot_a, shape_a, m.lora.lora_A);
        to.add(dot_b, shape_b, b);
        if (m.magnitude.size() != 0) {
            std::vector<std::uint64_t> shape{detail::extent(m.magnitude.size())};
            if (!m.kernel.empty()) {
                shape.insert(shape.begin(), 1);
                shape.resize(2 + m.kernel.size(), 1);
            }
            to.add(".lora_magnitude_vector", shape, m.magnitude);
        }
        if (m.bias.size() != 0) {
            to.add(".lora_B.bias", {detail::extent(m.bias.size())}, m.bias);
        }
    }
    LOWRANK_INLINE static result<any_adapter<float>> adapter(const module& m, const adapted_weight& w) {
        if (m.bias.size() > 0 || !m.kernel.empty() || m.is_table || m.magnitude_of_inputs) {
            return status{errc::unsupported, std::string("is ") + label(m) + ", which is more than a linear layer's"};
        }
        if (m.magnitude.size() == 0) {
            return any_adapter<float>(m.lora);
        }
        if (m.magnitude.size() != w.out) {
            return status{errc::mismatch, "has a magnitude of another length than the layer's outputs"};
        }
        return any_adapter<float>(dora_adapter<float>{.lora = m.lora, .magnitude = m.magnitude});
    }
    LOWRANK_INLINE static std::optional<module> from(const any_adapter<float>& a) {
        if (const auto* dora = a.get<dora_adapter<float>>()) {
            return module{.lora = dora->lora, .magnitude = dora->magnitude};
        }
        const auto* lora = a.get<lora_adapter<float>>();
        return lora == nullptr ? std::nullopt : std::optional<module>({.lora = *lora});
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_LORA_HPP
