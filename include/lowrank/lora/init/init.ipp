// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_INIT_IPP
#define LOWRANK_LORA_INIT_INIT_IPP

#include <lowrank/lora/init/init.hpp>

#include <cmath>
#include <cstdint>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/orthonormalize.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
lora_adapter<S> make_lora(index out, index in, const lora_options& options, random_init init) {
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
            const dense_view<const S> even(q.data(), pairs, r, 2, r), odd(q.data() + 1, pairs, r, 2, r);
            adapter.lora_A.setZero();
            add_product(S(0.1), transposed(even), transposed(of_in), adapter.lora_A);
            add_product(S(0.1), of_out, odd, adapter.lora_B);
            break;
        }
    }
    return adapter;
}

#ifdef LOWRANK_COMPILED
template lora_adapter<float> make_lora<float>(index, index, const lora_options&, random_init);
template lora_adapter<double> make_lora<double>(index, index, const lora_options&, random_init);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_INIT_INIT_IPP
