// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_SHARED_VBLORA_HPP
#define LOWRANK_IO_PEFT_KINDS_SHARED_VBLORA_HPP

/// \file
/// VB-LoRA in an adapter of PEFT: logits a module, or the choice they came to, and a bank of vectors that all modules share.
///
///     const lowrank::peft_module module = lowrank::peft_vblora{};    // in an adapter of peft_type VBLORA
///
/// Names, shapes and types follow huggingface/peft.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/shared/vblora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// VB-LoRA whose bank is that of all modules: `vblora.bank` is empty.
struct peft_vblora {
    vblora_adapter<float> vblora = {};
    std::shared_ptr<const matrix<float>> bank = {};
};

namespace detail {

/// The pieces of a factor, whose count and rank are dimensions `first` and 1 - `first` of its tensors.
LOWRANK_INLINE vblora_pieces<float> take_pieces(peft_parts& p, const std::string& leaf, std::size_t rank_at,
                                                const peft_context& c, index vectors) {
    vblora_pieces<float> out;
    const bool is_fixed = c.options.get<bool>("save_only_topk_weights");
    p.expect_of_config(is_fixed != p.has(leaf), is_fixed ? "logits" : "no " + leaf);
    if (!p.why) {
        return out;
    }
    if (is_fixed) {
        out.indices = p.take_indices(leaf + "_topk_indices", 3, vectors);
        out.weights = p.take_blocks(leaf + "_topk_weights", 3);
    } else {
        out.logits = p.take_blocks(leaf, 3);
    }
    if (!p.why) {
        return out;
    }
    const std::string first = is_fixed ? leaf + "_topk_indices" : leaf;
    const auto& shape = p.find(first)->shape;
    p.expect_of_config(shape[rank_at] == extent(c.r), "rank " + std::to_string(shape[rank_at]));
    const auto topk = static_cast<index>(c.options.get<std::int64_t>("topk"));
    p.expect_of_config(is_fixed ? out.indices.cols() == topk : out.logits.cols() == vectors,
                       std::to_string(shape[2]) + (is_fixed ? " indices a piece" : " logits a piece"));
    const auto* weights = p.find(leaf + "_topk_weights");
    p.agree(out.count() != 0 && (!is_fixed || (weights->shape[0] == shape[0] && weights->shape[1] == shape[1] &&
                                               out.weights.cols() == topk - 1)));
    return out;
}

LOWRANK_INLINE void add_pieces(peft_tensors& to, const std::string& leaf, const vblora_pieces<float>& pieces,
                               std::uint64_t first, std::uint64_t second, index vectors) {
    if (!pieces.is_fixed()) {
        to.add(leaf, {first, second, extent(pieces.logits.cols())}, pieces.logits);
        return;
    }
    const dtype type = vectors < (index{1} << 8) ? dtype::u8 : vectors < (index{1} << 15) ? dtype::i16 : dtype::i32;
    matrix<float> numbers(pieces.indices.rows(), pieces.indices.cols());
    for (index j = 0; j < numbers.cols(); ++j) {
        for (index i = 0; i < numbers.rows(); ++i) {
            numbers(i, j) = static_cast<float>(pieces.indices(i, j));
        }
    }
    to.parts.push_back({leaf + "_topk_indices", {first, second, extent(numbers.cols())}, std::move(numbers), type});
    to.add(leaf + "_topk_weights", {first, second, extent(pieces.weights.cols())}, pieces.weights);
}

}  // namespace detail

template <>
struct peft_kind<peft_vblora> {
    using module = peft_vblora;
    static constexpr index most_vectors = index{1} << 24;  ///< Whole numbers in float.

    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {
            {.name = "VBLORA",
             .r_key = "r",
             .r = 4,
             .dropout_key = "vblora_dropout",
             .has_bias = true,
             .bias_only = "vblora_only",
             .has_fan_in_fan_out = true,
             .leaves = {"vblora_logits_A", "vblora_logits_B", "vblora_vector_bank", "vblora_logits_A_topk_indices",
                        "vblora_logits_A_topk_weights", "vblora_logits_B_topk_indices", "vblora_logits_B_topk_weights"},
             .keys = {{"num_vectors", std::int64_t{256}},
                      {"vector_length", std::int64_t{256}},
                      {"topk", std::int64_t{2}},
                      {"save_only_topk_weights", false}},
             .known = {"init_logits_std", "init_vector_bank_bound"},
             .defaults = R"({"bias":"none","exclude_modules":null,"init_logits_std":0.1,
                                 "init_vector_bank_bound":0.02,"layers_pattern":null,"layers_to_transform":null})"}};
    }
    LOWRANK_INLINE static status check(const peft_options& o, std::string_view, std::vector<std::string>&) {
        for (const char* key : {"num_vectors", "vector_length", "topk"}) {
            const auto value = o.get<std::int64_t>(key);
            if (o.contains(key) && (value < 1 || value > static_cast<std::int64_t>(most_vectors))) {
                return wrong_value(key, "between 1 and " + std::to_string(most_vectors), std::to_string(value));
            }
        }
        return {};
    }
    static const char* label(const module&) { return "VB-LoRA"; }
    LOWRANK_INLINE static module_shape shape(const module& m) {
        const index length = m.bank != nullptr ? m.bank->cols() : 0;
        return {.out = m.vblora.B.count() / m.vblora.r * length, .in = m.vblora.A.count() / m.vblora.r * length};
    }
    static bool fit(module&, index, index) { return true; }
    static peft_facts facts(const module& m) { return {m.vblora.r, 0, m.vblora.dropout}; }
    LOWRANK_INLINE static peft_change change(const module& m) {
        return {.weight = vblora_delta(m.vblora.A, m.vblora.B, *m.bank, m.vblora.r, m.vblora.topk)};
    }
    /// What all modules share.
    LOWRANK_INLINE static std::shared_ptr<const void> join_shared(peft_parts& p) {
        p.expect_only({"vblora_vector_bank"});
        return std::make_shared<const matrix<float>>(p.take_blocks("vblora_vector_bank", 2));
    }
    LOWRANK_INLINE static void write_shared(const module& m, peft_tensors& to) {
        to.add("vblora_vector_bank", *m.bank);
    }
    static const void* shared_identity(const module& m) { return m.bank.get(); }
    LOWRANK_INLINE static module join(peft_parts& p, const peft_context& c) {
        module out{.bank = std::static_pointer_cast<const matrix<float>>(c.shared)};
        if (out.bank == nullptr) {
            p.fail(errc::invalid_format, "needs vblora_vector_bank, which is not in the file");
            return out;
        }
        const matrix<float>& bank = *out.bank;
        p.expect_of_config(static_cast<std::int64_t>(bank.rows()) == c.options.get<std::int64_t>("num_vectors") &&
                               static_cast<std::int64_t>(bank.cols()) == c.options.get<std::int64_t>("vector_length"),
                           "a bank of " + std::to_string(bank.rows()) + " vectors of " + std::to_string(bank.cols()));
        out.vblora.r = c.r;
        out.vblora.topk = static_cast<index>(c.options.get<std::int64_t>("topk"));
        out.vblora.dropout = c.dropout;
        p.expect_of_config(out.vblora.topk <= bank.rows(), std::to_string(bank.rows()) + " vectors");
        out.vblora.A = detail::take_pieces(p, "vblora_logits_A", 0, c, bank.rows());
        out.vblora.B = detail::take_pieces(p, "vblora_logits_B", 1, c, bank.rows());
        for (const auto* pieces : {&out.vblora.A, &out.vblora.B}) {
            // A piece is stored by what is chosen: long vectors are not unfolded from few numbers.
            if (p.why &&
                !detail::may_unfold(detail::extent(pieces->count()), detail::extent(bank.cols()),
                                    detail::extent(pieces->logits.size() + pieces->indices.size() + bank.size()))) {
                p.fail(errc::unsupported, "has " + std::to_string(pieces->count()) +
                                              " pieces, which would make its "
                                              "factors too large for what the "
                                              "file holds of them");
            }
        }
        return out;
    }
    LOWRANK_INLINE static void write(const module& m, peft_tensors& to) {
        const auto r = detail::extent(m.vblora.r);
        const index vectors = m.bank->rows();
        detail::add_pieces(to, "vblora_logits_A", m.vblora.A, r, detail::extent(m.vblora.A.count()) / r, vectors);
        detail::add_pieces(to, "vblora_logits_B", m.vblora.B, detail::extent(m.vblora.B.count()) / r, r, vectors);
    }
    LOWRANK_INLINE static void fit_options(peft_options& o, const std::vector<std::string>&,
                                           std::span<const module* const> all) {
        for (const module* m : all) {
            const module& first = *all.front();
            detail::expects(m->bank->rows() == first.bank->rows() && m->bank->cols() == first.bank->cols() &&
                                m->vblora.topk == first.vblora.topk &&
                                m->vblora.A.is_fixed() == first.vblora.A.is_fixed(),
                            "peft_config_for: the modules must agree on the bank, topk and whether logits are there");
            o.set("num_vectors", static_cast<std::int64_t>(m->bank->rows()));
            o.set("vector_length", static_cast<std::int64_t>(m->bank->cols()));
            o.set("topk", static_cast<std::int64_t>(m->vblora.topk));
            o.set("save_only_topk_weights", m->vblora.A.is_fixed());
        }
    }
    LOWRANK_INLINE static const char* differs(const peft_options& o, const std::string&, const module& m) {
        const auto is = [&](const char* key, index n) {
            return static_cast<std::int64_t>(n) == o.get<std::int64_t>(key);
        };
        return !is("num_vectors", m.bank->rows())     ? "num_vectors"
               : !is("vector_length", m.bank->cols()) ? "vector_length"
               : !is("topk", m.vblora.topk)           ? "topk"
               : m.vblora.A.is_fixed() != o.get<bool>("save_only_topk_weights") ||
                       m.vblora.B.is_fixed() != m.vblora.A.is_fixed()
                   ? "save_only_topk_weights"
                   : nullptr;
    }
    LOWRANK_INLINE static result<any_adapter<float>> adapter(const module& m, const adapted_weight&) {
        vblora_adapter<float> own = m.vblora;
        own.bank = *m.bank;
        return any_adapter<float>(std::move(own));
    }
    LOWRANK_INLINE static std::optional<module> from(const any_adapter<float>& a) {
        const auto* vblora = a.get<vblora_adapter<float>>();
        if (vblora == nullptr) {
            return std::nullopt;
        }
        module out{.vblora = *vblora, .bank = std::make_shared<const matrix<float>>(vblora->bank)};
        out.vblora.bank.resize(0, 0);
        return out;
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_SHARED_VBLORA_HPP
