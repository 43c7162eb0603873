// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_SHARED_RANDLORA_HPP
#define LOWRANK_IO_PEFT_KINDS_SHARED_RANDLORA_HPP

/// \file
/// RandLoRA in an adapter of PEFT: two scales a module, and bases that all modules share.
///
///     const lowrank::peft_module module = lowrank::peft_randlora{};    // in an adapter of peft_type RANDLORA
///
/// Names and shapes follow huggingface/peft.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/shared/randlora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// RandLoRA. PEFT repeats the shared bases in every module of its file; here they are one.
struct peft_randlora {
    randlora_adapter<float> randlora = {};
    bool repeats_bases = false;  ///< The file had a copy of the bases in this module, and gets one again.
};

namespace detail {

LOWRANK_INLINE bool are_equal(const matrix<float>& a, const matrix<float>& b) {
    return a.rows() == b.rows() && a.cols() == b.cols() && a == b;
}

/// The bases of RandLoRA among the tensors of a module, or of none.
LOWRANK_INLINE std::shared_ptr<const randlora_projections<float>> join_bases(peft_parts& p) {
    randlora_projections<float> bases{.randlora_A = p.take("randlora_A"), .randlora_B = p.take("randlora_B")};
    p.agree(bases.randlora_A.rows() >= 1 && bases.randlora_B.cols() % std::max<index>(bases.randlora_A.rows(), 1) == 0);
    return std::make_shared<const randlora_projections<float>>(std::move(bases));
}

LOWRANK_INLINE peft_randlora join_randlora(peft_parts& p, const peft_context& c) {
    peft_randlora out{.randlora = {.shared = std::static_pointer_cast<const randlora_projections<float>>(c.shared),
                                   .lambda = p.take("randlora_lambda"),
                                   .gamma = p.take("randlora_gamma"),
                                   .randlora_alpha = c.alpha},
                      .repeats_bases = p.has("randlora_A")};
    auto& r = out.randlora;
    if (out.repeats_bases && p.why) {
        const auto own = join_bases(p);
        if (r.shared == nullptr) {
            r.shared = own;
        } else if (p.why && !(are_equal(own->randlora_A, r.shared->randlora_A) &&
                              are_equal(own->randlora_B, r.shared->randlora_B))) {
            p.fail(errc::mismatch, "has random bases of its own that are not those of the adapter");
        }
    }
    if (r.shared == nullptr) {
        p.fail(errc::unsupported,
               "needs the random bases randlora_A and randlora_B, which are not in the file; save the adapter again "
               "with save_projection=True");
    }
    if (!p.why) {
        return out;
    }
    p.expect_of_config(r.lambda.rows() == c.r, "rank " + std::to_string(r.lambda.rows()));
    p.agree(r.lambda.rows() >= 1 && r.lambda.rows() == r.shared->randlora_A.rows() &&
            r.lambda.cols() == r.gamma.rows() && r.gamma.cols() <= r.shared->randlora_A.cols() &&
            r.gamma.cols() <= r.shared->randlora_B.rows() && r.lambda.size() <= r.shared->randlora_B.cols() &&
            r.gamma.cols() >= 1 && r.lambda.cols() == (r.gamma.cols() + r.lambda.rows() - 1) / r.lambda.rows());
    return out;
}

LOWRANK_INLINE void add_bases(peft_tensors& to, const randlora_projections<float>& p) {
    const std::uint64_t r = extent(p.randlora_A.rows());
    to.add("randlora_A", {r, 1, extent(p.randlora_A.cols())}, p.randlora_A);
    to.add("randlora_B", {extent(p.randlora_B.rows()), r == 0 ? 0 : extent(p.randlora_B.cols()) / r, r}, p.randlora_B);
}

}  // namespace detail

template <>
struct peft_kind<peft_randlora> {
    using module = peft_randlora;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "RANDLORA",
                 .r_key = "r",
                 .r = 32,
                 .alpha_key = "randlora_alpha",
                 .alpha = 640,
                 .dropout_key = "randlora_dropout",
                 .has_bias = true,
                 .has_fan_in_fan_out = true,
                 .leaves = {"randlora_lambda", "randlora_gamma", "randlora_A", "randlora_B"},
                 .known = {"projection_prng_key", "save_projection", "sparse", "very_sparse"},
                 .defaults = R"({"bias":"none","exclude_modules":null,"init_weights":true,"layers_pattern":null,
                                 "layers_to_transform":null,"projection_prng_key":0,"save_projection":true,
                                 "sparse":false,"very_sparse":false})"}};
    }
    static const char* label(const module&) { return "RandLoRA"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.randlora.out, m.randlora.in}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        auto& r = m.randlora;
        const bool fits = r.gamma.cols() == std::min(out, in) && std::max(out, in) <= r.shared->randlora_B.rows();
        r.out = fits ? out : r.out;
        r.in = fits ? in : r.in;
        return fits;
    }
    LOWRANK_INLINE static peft_facts facts(const module& m) {
        return {m.randlora.lambda.rows(), m.randlora.randlora_alpha};
    }
    LOWRANK_INLINE static peft_change change(const module& m) {
        if (m.randlora.out == 0) {
            return {};
        }
        return {.weight = m.randlora.delta()};
    }
    /// What all modules share.
    LOWRANK_INLINE static std::shared_ptr<const void> join_shared(peft_parts& p) { return detail::join_bases(p); }
    LOWRANK_INLINE static void write_shared(const module& m, peft_tensors& to) {
        detail::add_bases(to, *m.randlora.shared);
    }
    static const void* shared_identity(const module& m) { return m.randlora.shared.get(); }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) { return detail::join_randlora(p, c); }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("randlora_lambda", m.randlora.lambda);
        to.add("randlora_gamma", m.randlora.gamma);
        if (m.repeats_bases && m.randlora.shared != nullptr) {
            detail::add_bases(to, *m.randlora.shared);
        }
    }
    LOWRANK_INLINE static result<any_adapter<float>> adapter(const module& m, const adapted_weight&) {
        return any_adapter<float>(m.randlora);
    }
    LOWRANK_INLINE static std::optional<module> from(const any_adapter<float>& a) {
        const auto* randlora = a.get<randlora_adapter<float>>();
        return randlora == nullptr ? std::nullopt : std::optional<module>({.randlora = *randlora});
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_SHARED_RANDLORA_HPP
