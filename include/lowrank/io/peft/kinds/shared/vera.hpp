// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_SHARED_VERA_HPP
#define LOWRANK_IO_PEFT_KINDS_SHARED_VERA_HPP

/// \file
/// VeRA in an adapter of PEFT: two scales a module, and projections that all modules share.
///
///     const lowrank::peft_module module = lowrank::vera_adapter<float>{};    // in an adapter of peft_type VERA
///
/// Names and shapes follow huggingface/peft.

#include <memory>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/shared/vera.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// `in` is not in the file of a module: the base's weight says it. Until then it is that of the projection.
LOWRANK_INLINE vera_adapter<float> join_vera(peft_parts& p,
                                             const std::shared_ptr<const vera_projections<float>>& shared) {
    vera_adapter<float> out{
        .shared = shared, .lambda_b = p.take_vector("vera_lambda_b"), .lambda_d = p.take_vector("vera_lambda_d")};
    if (shared == nullptr) {
        p.fail(errc::unsupported,
               "needs the random projections vera_A and vera_B, which are not in the file; save the adapter again "
               "with save_projection=True");
        return out;
    }
    out.in = shared->vera_A.cols();
    p.agree(out.lambda_d.size() == shared->vera_A.rows() && shared->vera_B.cols() == shared->vera_A.rows() &&
            out.lambda_b.size() <= shared->vera_B.rows());
    return out;
}

}  // namespace detail

template <>
struct peft_kind<vera_adapter<float>> {
    using module = vera_adapter<float>;
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "VERA",
                 .r_key = "r",
                 .r = 256,
                 .dropout_key = "vera_dropout",
                 .leaves = {"vera_lambda_b", "vera_lambda_d", "vera_A", "vera_B"},
                 .known = {"d_initial", "projection_prng_key", "save_projection"},
                 .defaults = R"({"projection_prng_key":0,"save_projection":true})"}};
    }
    static const char* label(const module&) { return "VeRA"; }
    LOWRANK_INLINE static module_shape shape(const module& m) { return {m.lambda_b.size(), m.in}; }
    LOWRANK_INLINE static bool fit(module& m, index out, index in) {
        const bool fits = in <= m.shared->vera_A.cols() && m.lambda_b.size() == out;
        m.in = fits ? in : m.in;
        return fits;
    }
    LOWRANK_INLINE static peft_facts facts(const module& m) { return {m.lambda_d.size(), 0}; }
    LOWRANK_INLINE static peft_change change(const module& m) { return {.weight = m.delta()}; }
    /// What all modules share.
    LOWRANK_INLINE static std::shared_ptr<const void> join_shared(peft_parts& p) {
        return std::make_shared<const vera_projections<float>>(
            vera_projections<float>{.vera_A = p.take("vera_A"), .vera_B = p.take("vera_B")});
    }
    LOWRANK_INLINE static void write_shared(const module& m, peft_tensors& to) {
        to.add("vera_A", m.shared->vera_A);
        to.add("vera_B", m.shared->vera_B);
    }
    static const void* shared_identity(const module& m) { return m.shared.get(); }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) {
        return detail::join_vera(p, std::static_pointer_cast<const vera_projections<float>>(c.shared));
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        to.add("vera_lambda_b", {detail::extent(m.lambda_b.size())}, m.lambda_b);
        to.add("vera_lambda_d", {detail::extent(m.lambda_d.size())}, m.lambda_d);
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_SHARED_VERA_HPP
