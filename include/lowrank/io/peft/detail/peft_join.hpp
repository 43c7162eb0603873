// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_JOIN_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_JOIN_HPP

/// \file
/// The tensors of one module of a PEFT adapter made into that module: OFT, BOFT, HRA, MiSS, RandLoRA and HiRA here, the
/// other types in peft_relatives.hpp.
///
///     auto module = detail::join_relative(parts, config, rules, shared);
///
/// Shapes follow huggingface/peft, tuners/*/layer.py. What the configuration says about them must hold.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/peft_factors.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_modules.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

template <class = on_use>
void expect_of_config(relative_parts& p, bool yes, const std::string& what) {
    if (!yes) {
        p.fail(errc::mismatch, "has " + what + ", the configuration says otherwise");
    }
}

template <class = on_use>
oft_adapter<float> join_oft(relative_parts& p, const peft_kind_options& o) {
    if (p.has("oft_embedding_R")) {
        p.fail(errc::unsupported, "adapts an embedding table by OFT, which is not supported");
        return {};
    }
    oft_adapter<float> out{.oft_R = p.take_blocks("oft_R", 2),
                           .coft = o.coft,
                           .eps = o.eps,
                           .use_cayley_neumann = o.use_cayley_neumann,
                           .num_cayley_neumann_terms = static_cast<index>(o.num_cayley_neumann_terms)};
    if (!p.why) {
        return out;
    }
    const index blocks = out.oft_R.rows();
    const index b = out.oft_R.cols() > 0 ? out.block_size() : 1;
    if (blocks < 1 || b < 2 || b * (b - 1) / 2 != out.oft_R.cols()) {
        p.fail(errc::mismatch, "has an oft_R of shape [" + std::to_string(blocks) + ", " +
                                   std::to_string(out.oft_R.cols()) +
                                   "]; a row holds the b (b - 1) / 2 entries of a block of b x b");
        return out;
    }
    if (o.block_share && blocks == 1) {  // the weight says how many inputs there are
        return out;
    }
    out.in = blocks * b;
    const bool fits = o.block_size != 0 ? oft_block_size(out.in, static_cast<index>(o.block_size)) == b
                                        : oft_block_size(out.in, static_cast<index>(o.block_count)) == blocks;
    expect_of_config(p, !o.block_share && fits, std::to_string(blocks) + " blocks of " + std::to_string(b) + " inputs");
    return out;
}

template <class = on_use>
peft_boft join_boft(relative_parts& p, const peft_kind_options& o) {
    peft_boft out{.boft = {.boft_R = p.take_blocks("boft_R", 4), .boft_s = p.take_vector("boft_s")}};
    if (!p.why) {
        return out;
    }
    const auto& shape = p.find("boft_R")->shape;
    const auto butterfly = [](index m, index in, index b) {
        return m == 1 || (m <= 32 && b % 2 == 0 && b < (index{1} << 24) && in % (b << (m - 1)) == 0);
    };
    const auto m = static_cast<index>(shape[0]);
    const auto b = static_cast<index>(shape[3]);
    out.boft.in = out.boft.boft_R.size() != 0 ? out.boft.boft_R.rows() / m : 0;
    if (out.boft.in < 1 || shape[2] != shape[3] || !butterfly(m, out.boft.in, b)) {
        p.fail(errc::mismatch,
               "has a boft_R of shape " + shape_in_words(shape) + ", expected [factors, blocks, b, b] of a butterfly");
        return out;
    }
    expect_of_config(p,
                     (o.block_size != 0 ? o.block_size == b : o.block_count == static_cast<index>(shape[1])) &&
                         o.butterfly_factors == m,
                     std::to_string(m) + " factors of blocks of " + std::to_string(b));
    const auto& scale = p.find("boft_s")->shape;
    out.is_convolution = scale.size() == 2 && scale[0] == 1 && scale[1] != 1;
    return out;
}

/// True if Gram-Schmidt finds a direction in every column.
template <class = on_use>
[[nodiscard]] bool has_independent_columns(const matrix<float>& u) {
    matrix<double> v = u.cast<double>();
    for (index k = 0; k < v.cols(); ++k) {
        const double before = v.col(k).norm();
        for (index j = 0; j < k; ++j) {
            v.col(k) -= v.col(j).dot(v.col(k)) * v.col(j);
        }
        const double norm = v.col(k).norm();
        if (!(norm > 2e-12 * before)) {
            return false;
        }
        v.col(k) /= norm;
    }
    return true;
}

template <class = on_use>
hra_adapter<float> join_hra(relative_parts& p, const peft_lora_config& c) {
    hra_adapter<float> out{.hra_u = p.take_blocks("hra_u", 2), .apply_GS = c.kind.apply_GS};
    expect_of_config(p, out.hra_u.cols() == c.r && out.hra_u.rows() >= 1,
                     std::to_string(out.hra_u.cols()) + " reflections");
    if (p.why && out.apply_GS && (out.hra_u.cols() > out.hra_u.rows() || !has_independent_columns(out.hra_u))) {
        p.fail(errc::mismatch, "has dependent columns in hra_u, which apply_GS cannot make orthogonal");
    }
    return out;
}

template <class = on_use>
peft_module join_miss(relative_parts& p, const peft_lora_config& c) {
    const std::string leaf = c.peft_type == "BONE" ? "bone_block" : "miss_block";
    const tensor_info* t = p.find(leaf);
    const bool is_bat = t != nullptr && t->shape.size() == 3;
    if (t != nullptr) {
        expect_of_config(p, is_bat == (c.kind.form == "bat"), "a " + leaf + " of shape " + shape_in_words(t->shape));
    }
    if (is_bat) {
        miss_bat_adapter<float> bat{.miss_block = p.take_blocks(leaf, 3)};
        p.agree(t->shape[1] == t->shape[2]);
        expect_of_config(p, bat.rank() == c.r, "blocks of " + std::to_string(bat.rank()));
        return bat;
    }
    miss_adapter<float> out{.miss_block = p.take_blocks(leaf, 2)};
    expect_of_config(p, out.rank() == c.r, "rank " + std::to_string(out.rank()));
    p.agree(out.miss_block.cols() >= 1);
    if (c.kind.form == "mini") {
        expect_of_config(p, out.miss_block.cols() == static_cast<index>(c.kind.mini_r),
                         std::to_string(out.miss_block.cols()) + " columns");
    } else {
        out.out = out.miss_block.cols();
    }
    return out;
}

template <class = on_use>
[[nodiscard]] bool are_equal(const matrix<float>& a, const matrix<float>& b) {
    return a.rows() == b.rows() && a.cols() == b.cols() && a == b;
}

/// The bases of RandLoRA among the tensors of a module, or of none.
template <class = on_use>
std::shared_ptr<const randlora_projections<float>> join_bases(relative_parts& p) {
    randlora_projections<float> bases{.randlora_A = p.take("randlora_A"), .randlora_B = p.take("randlora_B")};
    p.agree(bases.randlora_A.rows() >= 1 && bases.randlora_B.cols() % std::max<index>(bases.randlora_A.rows(), 1) == 0);
    return std::make_shared<const randlora_projections<float>>(std::move(bases));
}

template <class = on_use>
peft_randlora join_randlora(relative_parts& p, const peft_lora_config& c, const shared_projections& shared) {
    peft_randlora out{.randlora = {.shared = shared.randlora,
                                   .lambda = p.take("randlora_lambda"),
                                   .gamma = p.take("randlora_gamma"),
                                   .randlora_alpha = c.lora_alpha},
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
    expect_of_config(p, r.lambda.rows() == c.r, "rank " + std::to_string(r.lambda.rows()));
    p.agree(r.lambda.rows() >= 1 && r.lambda.rows() == r.shared->randlora_A.rows() &&
            r.lambda.cols() == r.gamma.rows() && r.gamma.cols() <= r.shared->randlora_A.cols() &&
            r.gamma.cols() <= r.shared->randlora_B.rows() && r.lambda.size() <= r.shared->randlora_B.cols() &&
            r.gamma.cols() >= 1 && r.lambda.cols() == (r.gamma.cols() + r.lambda.rows() - 1) / r.lambda.rows());
    return out;
}

template <class = on_use>
hira_adapter<float> join_hira(relative_parts& p, const peft_rules& rules) {
    if (p.has("hira_embedding_A") || p.has("hira_embedding_B")) {
        p.fail(errc::unsupported, "adapts an embedding table by HiRA, which is not supported");
        return {};
    }
    hira_adapter<float> out{.hira_A = p.take_blocks("hira_A", 2), .hira_B = p.take_blocks("hira_B", 2)};
    p.agree(out.hira_A.rows() == out.hira_B.cols());
    expect_of_config(p, out.hira_A.rows() == rules.r_for(p.module()), "rank " + std::to_string(out.hira_A.rows()));
    return out;
}

/// One module of a type other than LORA.
template <class = on_use>
[[nodiscard]] result<peft_module> join_relative(relative_parts& p, const peft_lora_config& c, const peft_rules& rules,
                                                const shared_projections& shared) {
    const std::string_view type = c.peft_type;
    peft_module out = type == "ADALORA" ? peft_module(join_adalora(p, c))
                      : type == "LOHA" ? peft_module(join_loha(p, rules.alpha_for(p.module()), rules.r_for(p.module())))
                      : type == "LOKR" ? peft_module(join_lokr(p, rules))
                      : type == "VERA" ? peft_module(join_vera(p, shared))
                      : type == "OFT"  ? peft_module(join_oft(p, c.kind))
                      : type == "BOFT" ? peft_module(join_boft(p, c.kind))
                      : type == "HRA"  ? peft_module(join_hra(p, c))
                      : type == "MISS" || type == "BONE" ? join_miss(p, c)
                      : type == "RANDLORA"               ? peft_module(join_randlora(p, c, shared))
                      : type == "HIRA"                   ? peft_module(join_hira(p, rules))
                                                         : peft_module(join_ia3(p, c));
    return p.why ? result<peft_module>(std::move(out)) : result<peft_module>(p.why);
}

/// What all modules share, from the tensors that belong to none.
template <class = on_use>
[[nodiscard]] result<shared_projections> join_shared(relative_parts& p, std::string_view type) {
    shared_projections out;
    if (type == "RANDLORA") {
        out.randlora = join_bases(p);
    } else {
        out.vera = std::make_shared<const vera_projections<float>>(
            vera_projections<float>{.vera_A = p.take("vera_A"), .vera_B = p.take("vera_B")});
    }
    return p.why ? result<shared_projections>(std::move(out)) : result<shared_projections>(p.why);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_JOIN_HPP
