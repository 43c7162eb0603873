// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_INIT_HPP
#define LOWRANK_LORA_INIT_INIT_HPP

/// \file
/// Random starts of a LoRA adapter that need to know nothing of the weight: PEFT's four, by name.
///
///     auto a = lowrank::make_lora<float>(out, in, {.r = 8, .seed = 1}, lowrank::random_init::gaussian);
///
/// Inits that read the weight are in spectral_init.hpp and loftq.hpp, those that read data in data_init.hpp.
/// Distributions are PEFT's (`init_lora_weights` True, "gaussian", "orthogonal", False); numbers are the library's own,
/// equal on every machine (normals to about one unit in the last place).

#include <cmath>
#include <cstdint>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How A and B start.
enum class random_init {
    kaiming,     ///< A uniform in +-1/sqrt(in), B zero: PEFT's True, loralib, kohya.
    gaussian,    ///< A normal with deviation 1/r, B zero: PEFT's "gaussian".
    orthogonal,  ///< Both not zero, B A = 0 to rounding: PEFT's "orthogonal". r must be even.
    nonzero,     ///< A uniform in +-1/sqrt(in), B in +-1/sqrt(r): PEFT's False, for tests. Changes the model at once.
};

/// A new adapter for an out x in weight with the start asked for.
///
/// \pre  As the `make_lora` of two sizes; an even r for `orthogonal`.
/// \note With `kaiming`, bit-equal to `make_lora` without an init.
template <real S>
[[nodiscard]] lora_adapter<S> make_lora(index out, index in, const lora_options& options, random_init init) {
    auto adapter = make_lora<S>(out, in, options);
    const index r = options.r;
    // A draws from the layer's own stream; what else it draws, from streams that differ in the two highest bits.
    const auto stream = [&](std::uint64_t which) { return philox(options.seed, options.stream + (which << 62)); };
    switch (init) {
        case random_init::kaiming: break;
        case random_init::gaussian:
            fill_normal(adapter.lora_A, static_cast<S>(1 / static_cast<double>(r)), stream(0));
            break;
        case random_init::nonzero: {
            const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(r)));
            fill_uniform(adapter.lora_B, -bound, bound, stream(1));
            break;
        }
        case random_init::orthogonal: {
            detail::expects(r % 2 == 0, "make_lora: the orthogonal init needs an even r");
            const index pairs = r / 2;
            matrix<S> square(r, r);
            matrix<S> of_in(in, pairs);
            matrix<S> of_out(out, pairs);
            fill_normal(square, S(1), stream(1));
            fill_normal(of_in, S(1), stream(2));
            fill_normal(of_out, S(1), stream(3));
            const matrix<S> q = thin_qr(std::move(square)).q;
            // Even rows of Q span what odd rows are orthogonal to.
            matrix<S> even(pairs, r);
            matrix<S> odd(pairs, r);
            for (index i = 0; i < pairs; ++i) {
                even.row(i) = q.row(2 * i);
                odd.row(i) = q.row(2 * i + 1);
            }
            adapter.lora_A.noalias() = S(0.1) * (even.transpose() * of_in.transpose());
            adapter.lora_B.noalias() = S(0.1) * (of_out * odd);
            break;
        }
    }
    return adapter;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_INIT_INIT_HPP
