// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_FACTORS_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_FACTORS_HPP

/// \file
/// Rank and alpha of each module of a PEFT adapter, and tensors as finite matrices.
///
///     auto rules = detail::peft_rules::compile(config, modules);
///     auto a = detail::finite_matrix(file, place, r, in);

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

/// The elements of a tensor as a rows x cols matrix of finite floats. \pre they are as many.
LOWRANK_INLINE [[nodiscard]] result<matrix<float>> finite_matrix(const checkpoint& file, const checkpoint::place& p,
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
LOWRANK_INLINE [[nodiscard]] result<vector<float>> finite_vector(const checkpoint& file, const checkpoint::place& p,
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

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_FACTORS_HPP
