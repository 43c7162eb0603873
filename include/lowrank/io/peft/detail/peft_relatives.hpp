// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_RELATIVES_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_RELATIVES_HPP

/// \file
/// Tensors of a PEFT adapter of the types ADALORA, LOHA, LOKR, VERA and IA3 made into modules, and modules of every
/// type into tensors.
///
///     detail::relative_tensors tensors;
///     std::visit(tensors, module);                     // tensors.parts: names, shapes, values

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/peft/detail/peft_factors.hpp>
#include <lowrank/io/peft/detail/peft_names.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/lora/algebra/tucker.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// What all modules of a VeRA or RandLoRA adapter share; null where the file has none.
struct shared_projections {
    std::shared_ptr<const vera_projections<float>> vera = {};
    std::shared_ptr<const randlora_projections<float>> randlora = {};
};

/// The tensors of one module while they are read. The first thing that is wrong stays in `why`.
class relative_parts {
public:
    relative_parts(const checkpoint& file, std::string module) : file_(file), module_(std::move(module)) {}

    status why = {};

    /// False if the leaf is there already, under another spelling.
    bool add(std::string_view leaf, const checkpoint::place& p) { return leaves_.emplace(leaf, &p).second; }
    [[nodiscard]] bool has(std::string_view leaf) const { return leaves_.contains(leaf); }
    [[nodiscard]] const tensor_info* find(std::string_view leaf) const {
        const auto at = leaves_.find(leaf);
        return at != leaves_.end() ? at->second->info : nullptr;
    }
    [[nodiscard]] const std::string& module() const noexcept { return module_; }

    void fail(errc code, std::string text) {
        if (why) {
            why = {code, "module " + in_quotes(module_) + " " + std::move(text)};
        }
    }

    /// A matrix, dimensions beyond the second counted as columns.
    matrix<float> take(std::string_view leaf) {
        const auto at = leaves_.find(leaf);
        if (at == leaves_.end()) {
            fail(errc::invalid_format, "lacks " + std::string(leaf));
            return {};
        }
        const tensor_info& t = *at->second->info;
        std::uint64_t columns = 1;
        for (std::size_t i = 1; i < t.shape.size(); ++i) {
            columns *= t.shape[i];
        }
        if (t.shape.size() < 2 || t.shape.size() > 5) {
            fail(errc::invalid_format,
                 "has a " + std::string(leaf) + " of shape " + shape_in_words(t.shape) + ", expected a matrix");
            return {};
        }
        return keep(finite_matrix(file_, *at->second, t.shape[0], columns));
    }
    vector<float> take_vector(std::string_view leaf) {
        const auto at = leaves_.find(leaf);
        if (at == leaves_.end()) {
            fail(errc::invalid_format, "lacks " + std::string(leaf));
            return {};
        }
        return keep(finite_vector(file_, *at->second));
    }
    /// A tensor of `dimensions` dimensions as a matrix of its last one's columns.
    matrix<float> take_blocks(std::string_view leaf, std::size_t dimensions) {
        const auto at = leaves_.find(leaf);
        if (at == leaves_.end()) {
            fail(errc::invalid_format, "lacks " + std::string(leaf));
            return {};
        }
        const std::vector<std::uint64_t>& shape = at->second->info->shape;
        if (shape.size() != dimensions) {
            fail(errc::mismatch, "has a " + std::string(leaf) + " of shape " + shape_in_words(shape) + ", expected " +
                                     std::to_string(dimensions) + " dimensions");
            return {};
        }
        std::uint64_t rows = 1;
        for (std::size_t i = 0; i + 1 < dimensions; ++i) {
            rows *= shape[i];
        }
        return keep(finite_matrix(file_, *at->second, rows, shape.back()));
    }
    /// Taps of a kernel: the product of the dimensions beyond the second.
    [[nodiscard]] index taps(std::string_view leaf) const {
        std::uint64_t n = 1;
        for (std::size_t i = 2; i < find(leaf)->shape.size(); ++i) {
            n *= find(leaf)->shape[i];
        }
        return static_cast<index>(n);
    }
    void agree(bool yes) {
        if (!yes) {
            fail(errc::mismatch, "has factors whose shapes do not fit each other");
        }
    }

private:
    template <class T>
    T keep(result<T> r) {
        if (r) {
            return std::move(*r);
        }
        why = why ? r.error() : why;
        return {};
    }

    const checkpoint& file_;
    std::string module_;
    std::map<std::string_view, const checkpoint::place*> leaves_ = {};
};

template <class = on_use>
adalora_adapter<float> join_adalora(relative_parts& p, const peft_lora_config& c) {
    adalora_adapter<float> out{.lora_A = p.take("lora_A"),
                               .lora_B = p.take("lora_B"),
                               .lora_E = p.take_vector("lora_E"),
                               .lora_alpha = c.lora_alpha > 0 ? c.lora_alpha : static_cast<double>(c.r),
                               .ranknum = static_cast<double>(c.r)};
    p.agree(out.lora_A.rows() == out.lora_B.cols() && out.lora_E.size() == out.lora_A.rows());
    const auto kept = c.kind.triplets.find(p.module() + ".lora_E");
    if (kept != c.kind.triplets.end() &&
        std::count(kept->second.begin(), kept->second.end(), true) != out.lora_E.size()) {
        p.fail(errc::mismatch, "has " + std::to_string(out.lora_E.size()) + " triplets, rank_pattern says " +
                                   std::to_string(std::count(kept->second.begin(), kept->second.end(), true)));
    }
    return out;
}

/// "Effective" kernels: sum_ij t[i, j, k] a[i, p] b[j, q] as the product of a^T and one wide factor.
template <class = on_use>
void unfold_tucker(relative_parts& p, std::string_view t, matrix<float>& left, matrix<float>& right) {
    if (!p.has(t) || !p.why) {
        return;
    }
    const matrix<float> core = p.take(t);
    const index taps = p.why && core.size() != 0 ? p.taps(t) : 0;
    p.agree(p.why && taps != 0 && core.rows() == left.rows() && core.cols() / taps == right.rows() &&
            core.cols() % taps == 0);
    const auto count = [](index n) { return static_cast<std::uint64_t>(n); };
    if (p.why &&
        !may_unfold(count(core.rows() * taps), count(right.cols()), count(core.size()) + count(right.size()))) {
        p.fail(errc::unsupported, "has a " + std::string(t) + " of " + std::to_string(taps) +
                                      " taps, which would make its factors too large for what the file holds of them");
    }
    if (p.why) {
        right = tucker_right(core, right, taps);
        left = matrix<float>(left.transpose());
    }
}

/// `r` is that of the configuration, if there is one.
template <class = on_use>
loha_adapter<float> join_loha(relative_parts& p, double alpha, std::optional<index> r) {
    loha_adapter<float> out{.w1_a = p.take("hada_w1_a"),
                            .w1_b = p.take("hada_w1_b"),
                            .w2_a = p.take("hada_w2_a"),
                            .w2_b = p.take("hada_w2_b"),
                            .alpha = alpha};
    unfold_tucker(p, "hada_t1", out.w1_a, out.w1_b);
    unfold_tucker(p, "hada_t2", out.w2_a, out.w2_b);
    p.agree(out.w1_a.cols() == out.w1_b.rows() && out.w2_a.cols() == out.w2_b.rows() &&
            out.w1_a.rows() == out.w2_a.rows() && out.w1_b.cols() == out.w2_b.cols());
    p.agree(!r || out.w1_b.rows() == *r);
    p.agree(out.w1_a.size() != 0 && out.w1_b.size() != 0 && out.w2_a.size() != 0 && out.w2_b.size() != 0);
    return out;
}

template <class = on_use>
lokr_factor<float> join_lokr_factor(relative_parts& p, const char* whole, const char* a, const char* b,
                                    std::optional<index> r) {
    if (p.has(whole)) {
        lokr_factor<float> out{.left = p.take(whole)};
        p.agree(out.left.size() != 0);
        return out;
    }
    lokr_factor<float> out{.left = p.take(a), .right = p.take(b)};
    if (std::string_view(whole) == "lokr_w2") {
        unfold_tucker(p, "lokr_t2", out.left, out.right);
    }
    p.agree(out.left.cols() == out.right.rows() && (!r || out.left.cols() == *r));
    p.agree(out.left.size() != 0 && out.right.size() != 0);
    return out;
}

template <class = on_use>
lokr_adapter<float> join_lokr(relative_parts& p, const peft_rules& rules) {
    const index r = rules.r_for(p.module());
    return {.w1 = join_lokr_factor(p, "lokr_w1", "lokr_w1_a", "lokr_w1_b", r),
            .w2 = join_lokr_factor(p, "lokr_w2", "lokr_w2_a", "lokr_w2_b", r),
            .alpha = rules.alpha_for(p.module()),
            .r = r};
}

/// `in` is not in the file of a module: the base's weight says it. Until then it is that of the projection.
template <class = on_use>
vera_adapter<float> join_vera(relative_parts& p, const shared_projections& shared) {
    vera_adapter<float> out{
        .shared = shared.vera, .lambda_b = p.take_vector("vera_lambda_b"), .lambda_d = p.take_vector("vera_lambda_d")};
    if (shared.vera == nullptr) {
        p.fail(errc::unsupported,
               "needs the random projections vera_A and vera_B, which are not in the file; save the adapter again "
               "with save_projection=True");
        return out;
    }
    out.in = shared.vera->vera_A.cols();
    p.agree(out.lambda_d.size() == shared.vera->vera_A.rows() &&
            shared.vera->vera_B.cols() == shared.vera->vera_A.rows() &&
            out.lambda_b.size() <= shared.vera->vera_B.rows());
    return out;
}

template <class = on_use>
peft_ia3 join_ia3(relative_parts& p, const peft_lora_config& c) {
    peft_ia3 out{.scale = p.take_vector("ia3_l")};
    const tensor_info* t = p.find("ia3_l");
    if (!p.why || t == nullptr) {
        return out;
    }
    const bool named = std::any_of(c.feedforward_modules.begin(), c.feedforward_modules.end(),
                                   [&](const std::string& tail) { return p.module().ends_with(tail); });
    if (t->shape.size() > 2) {
        out.spatial_dimensions = static_cast<index>(t->shape.size()) - 2;
        out.is_feedforward = named;
    } else {
        out.is_feedforward = t->shape.size() == 2 && t->shape[0] == 1 && (t->shape[1] != 1 || named);
    }
    return out;
}

/// What peft_type a module needs; "LYCORIS", which is none, if PEFT has no such thing.
template <class = on_use>
[[nodiscard]] std::string_view type_of(const peft_module& module) {
    constexpr std::string_view types[] = {"LORA", "ADALORA", "LOHA", "LOKR", "VERA",     "IA3",  "OFT",
                                          "BOFT", "HRA",     "MISS", "MISS", "RANDLORA", "HIRA", "LYCORIS"};
    const auto* lora = std::get_if<peft_lora>(&module);
    return lora != nullptr && lora->magnitude_of_inputs ? types[std::size(types) - 1] : types[module.index()];
}
/// BONE is MISS under its older name.
template <class = on_use>
[[nodiscard]] bool is_of_type(const peft_module& module, std::string_view type) {
    return type_of(module) == (type == "BONE" ? "MISS" : type);
}

/// The tensors of a module as (last part of the name, shape, values), shapes as PEFT's.
class relative_tensors {
public:
    struct part {
        std::string tail;
        std::vector<std::uint64_t> shape;
        matrix<float> values;
    };
    std::vector<part> parts = {};

    void operator()(const peft_lora& m) {
        const char* dot_a = m.is_table ? ".lora_embedding_A" : ".lora_A.weight";
        const char* dot_b = m.is_table ? ".lora_embedding_B" : ".lora_B.weight";
        matrix<float> b = m.groups == 1 ? m.lora.lora_B : collect_groups(m.lora.lora_B, m.groups);
        std::vector<std::uint64_t> shape_a{extent(m.lora.lora_A.rows())};
        std::vector<std::uint64_t> shape_b{extent(b.rows()), extent(b.cols())};
        std::uint64_t taps = 1;
        for (const std::uint64_t n : m.kernel) {
            taps *= n;
        }
        shape_a.push_back(taps == 0 ? 0 : extent(m.lora.lora_A.cols()) / taps);
        shape_a.insert(shape_a.end(), m.kernel.begin(), m.kernel.end());
        shape_b.resize(shape_a.size(), 1);
        parts.push_back({dot_a, shape_a, m.lora.lora_A});
        parts.push_back({dot_b, shape_b, b});
        if (m.magnitude.size() != 0) {
            std::vector<std::uint64_t> shape{extent(m.magnitude.size())};
            if (!m.kernel.empty()) {
                shape.insert(shape.begin(), 1);
                shape.resize(2 + m.kernel.size(), 1);
            }
            parts.push_back({".lora_magnitude_vector", shape, m.magnitude});
        }
        if (m.bias.size() != 0) {
            parts.push_back({".lora_B.bias", {extent(m.bias.size())}, m.bias});
        }
    }
    void operator()(const adalora_adapter<float>& m) {
        add(".lora_A", m.lora_A);
        add(".lora_B", m.lora_B);
        add(".lora_E", m.lora_E);
    }
    void operator()(const loha_adapter<float>& m) {
        add(".hada_w1_a", m.w1_a);
        add(".hada_w1_b", m.w1_b);
        add(".hada_w2_a", m.w2_a);
        add(".hada_w2_b", m.w2_b);
    }
    void operator()(const lokr_adapter<float>& m) {
        const auto factor = [&](const std::string& name, const lokr_factor<float>& f) {
            add(f.whole() ? name : name + "_a", f.left);
            if (!f.whole()) {
                add(name + "_b", f.right);
            }
        };
        factor(".lokr_w1", m.w1);
        factor(".lokr_w2", m.w2);
    }
    void operator()(const vera_adapter<float>& m) {
        parts.push_back({".vera_lambda_b", {extent(m.lambda_b.size())}, m.lambda_b});
        parts.push_back({".vera_lambda_d", {extent(m.lambda_d.size())}, m.lambda_d});
    }
    /// What all VeRA modules share; these names have no module.
    void add_shared(const vera_projections<float>& p) {
        add("vera_A", p.vera_A);
        add("vera_B", p.vera_B);
    }
    void operator()(const peft_ia3& m) {
        std::vector<std::uint64_t> shape{extent(m.scale.size()), 1};
        if (m.is_feedforward || m.spatial_dimensions != 0) {
            shape = {1, extent(m.scale.size())};
            shape.resize(2 + static_cast<std::size_t>(m.spatial_dimensions), 1);
        }
        parts.push_back({".ia3_l", shape, m.scale});
    }
    void operator()(const oft_adapter<float>& m) { add(".oft_R.weight", m.oft_R); }
    void operator()(const peft_boft& m) {
        const std::uint64_t b = extent(m.boft.block_size());
        parts.push_back(
            {".boft_R", {extent(m.boft.factor_count()), b == 0 ? 0 : extent(m.boft.in) / b, b, b}, m.boft.boft_R});
        std::vector<std::uint64_t> shape{extent(m.boft.boft_s.size()), 1};
        if (m.is_convolution) {
            std::swap(shape[0], shape[1]);
        }
        parts.push_back({".boft_s", shape, m.boft.boft_s});
    }
    void operator()(const hra_adapter<float>& m) { add(".hra_u", m.hra_u); }
    void operator()(const miss_adapter<float>& m) { add(".miss_block", m.miss_block); }
    void operator()(const miss_bat_adapter<float>& m) {
        const std::uint64_t r = extent(m.rank());
        parts.push_back({".miss_block", {r == 0 ? 0 : extent(m.out()) / r, r, r}, m.miss_block});
    }
    void operator()(const peft_randlora& m) {
        add(".randlora_lambda", m.randlora.lambda);
        add(".randlora_gamma", m.randlora.gamma);
        if (m.repeats_bases && m.randlora.shared != nullptr) {
            add_bases(".", *m.randlora.shared);
        }
    }
    void add_shared(const randlora_projections<float>& p) { add_bases("", p); }
    void operator()(const lycoris_oft& m) {
        const std::uint64_t b = extent(m.block_size());
        std::vector<std::uint64_t> shape{extent(m.block_count), b, b};
        if (m.is_butterfly) {
            shape.insert(shape.begin(), extent(m.factor_count()));
        }
        parts.push_back({".oft_blocks", shape, m.oft_blocks});
        if (m.rescale.size() != 0) {
            shape.assign(m.rescale_dimensions, 1);
            shape[0] = extent(m.rescale.size());
            parts.push_back({".rescale", shape, m.rescale});
        }
    }
    void operator()(const hira_adapter<float>& m) {
        add(".hira_A", m.hira_A);
        add(".hira_B", m.hira_B);
    }

private:
    void add_bases(const std::string& dot, const randlora_projections<float>& p) {
        const std::uint64_t r = extent(p.randlora_A.rows());
        parts.push_back({dot + "randlora_A", {r, 1, extent(p.randlora_A.cols())}, p.randlora_A});
        parts.push_back({dot + "randlora_B",
                         {extent(p.randlora_B.rows()), r == 0 ? 0 : extent(p.randlora_B.cols()) / r, r},
                         p.randlora_B});
    }
    static std::uint64_t extent(index n) { return static_cast<std::uint64_t>(n); }
    void add(const std::string& tail, const matrix<float>& m) {
        parts.push_back({tail, {extent(m.rows()), extent(m.cols())}, m});
    }
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_RELATIVES_HPP
