// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_FACTORS_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_FACTORS_HPP

/// \file
/// Rank and alpha of each module of a PEFT adapter, and two tensors made into one adapter, or what is wrong with them.
///
///     auto rules = detail::peft_rules::compile(config, modules);
///     auto adapter = detail::join_factors(file, factors, module, config, *rules);

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/module_rules.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/lora/kinds/conv.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// rank_pattern and alpha_pattern of a configuration, compiled for the modules of an adapter.
class peft_rules {
public:
    /// \return `mismatch` for a key that matches no module: it was misspelt; as `module_rules::compile`.
    [[nodiscard]] static result<peft_rules> compile(const peft_lora_config& c,
                                                    const std::vector<std::string_view>& modules) {
        auto ranks = module_rules<index>::compile(c.rank_pattern);
        auto alphas = module_rules<double>::compile(c.alpha_pattern);
        if (!ranks || !alphas) {
            return ranks ? in_context("alpha_pattern", alphas.error()) : in_context("rank_pattern", ranks.error());
        }
        std::size_t bytes = 0;
        for (const auto module : modules) {
            bytes += module.size();
        }
        constexpr std::size_t most_steps = std::size_t{1} << 32;
        if (bytes != 0 && ranks->cost() + alphas->cost() > most_steps / bytes) {
            return status{errc::unsupported, "the patterns are too large for so many modules; use simpler ones"};
        }
        status why = check_used("rank_pattern", c.rank_pattern, *ranks, modules);
        if (why) {
            why = check_used("alpha_pattern", c.alpha_pattern, *alphas, modules);
        }
        if (!why) {
            return why;
        }
        return peft_rules(c, std::move(*ranks), std::move(*alphas));
    }

    [[nodiscard]] index r_for(std::string_view module) const {
        const index* r = ranks_.find(module);
        return r != nullptr ? *r : r_;
    }
    [[nodiscard]] double alpha_for(std::string_view module) const {
        const double* alpha = alphas_.find(module);
        return alpha != nullptr ? *alpha : alpha_;
    }

private:
    peft_rules(const peft_lora_config& c, module_rules<index> ranks, module_rules<double> alphas)
        : r_(c.r), alpha_(c.lora_alpha), ranks_(std::move(ranks)), alphas_(std::move(alphas)) {}

    template <class T>
    static status check_used(const char* what, const module_pattern<T>& patterns, const module_rules<T>& rules,
                             const std::vector<std::string_view>& modules) {
        for (std::size_t i = 0; i < patterns.size(); ++i) {
            const module_key& key = rules.rules()[i].first;
            if (std::none_of(modules.begin(), modules.end(), [&](auto m) { return key.matches(m); })) {
                return {errc::mismatch, std::string("the key ") + in_quotes(patterns[i].first) + " of " + what +
                                            " matches no module of the adapter; correct or remove it"};
            }
        }
        return {};
    }

    index r_;
    double alpha_;
    module_rules<index> ranks_;
    module_rules<double> alphas_;
};

template <class First, class Second>
[[nodiscard]] std::vector<std::string_view> names_of(const First& modules, const Second& embeddings) {
    std::vector<std::string_view> names;
    for (const auto& [module, value] : modules) {
        names.push_back(module);
    }
    for (const auto& [module, value] : embeddings) {
        names.push_back(module);
    }
    return names;
}

/// Factors that a file stores compactly (a convolution's blocks by groups, a kernel apart from its factors) are not
/// unfolded to more than this many times what the file holds of them.
inline constexpr std::uint64_t most_unfolding = 128;

/// Whether `rows` x `cols` entries may be made of `stored` ones.
[[nodiscard]] constexpr bool may_unfold(std::uint64_t rows, std::uint64_t cols, std::uint64_t stored) noexcept {
    std::uint64_t wanted = 0;
    return checked_multiply(rows, cols, wanted) && wanted / most_unfolding <= stored;
}

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

/// The elements of a tensor as a rows x cols matrix of finite floats. \pre they are as many.
template <class = on_use>
[[nodiscard]] result<matrix<float>> finite_matrix(const checkpoint& file, const checkpoint::place& p,
                                                  std::uint64_t rows, std::uint64_t cols) {
    tensor_info flat = *p.info;
    flat.shape = {rows, cols};
    auto m = matrix_from<float>(flat, file.bytes(p));
    if (!m) {
        return m.error();
    }
    if (!all_finite(*m)) {
        return status{errc::non_finite, "tensor " + in_quotes(flat.name) + " holds NaN or infinity"};
    }
    return matrix<float>(*m);
}

/// The elements of a tensor that is one row of numbers however its shape is written, `size` of them if that is given.
template <class = on_use>
[[nodiscard]] result<vector<float>> finite_vector(const checkpoint& file, const checkpoint::place& p,
                                                  std::uint64_t size = 0) {
    const tensor_info& t = *p.info;
    std::uint64_t count = 1;
    int extended = 0;
    for (const std::uint64_t n : t.shape) {
        count *= n;  // at most one is not 1
        extended += n != 1 ? 1 : 0;
    }
    if (extended > 1 || (size != 0 && count != size)) {
        return status{errc::mismatch, "tensor " + in_quotes(t.name) + " has shape " + shape_in_words(t.shape) +
                                          ", expected " + (size != 0 ? std::to_string(size) + " numbers" : "a vector")};
    }
    auto m = finite_matrix(file, p, count, 1);
    if (!m) {
        return m.error();
    }
    return vector<float>(m->col(0));
}

/// Makes an adapter of two tensors and what may belong to them, or says what is wrong with them.
template <class = on_use>
[[nodiscard]] result<peft_lora> join_factors(const checkpoint& file, const peft_factors& f, const std::string& module,
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
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_FACTORS_HPP
