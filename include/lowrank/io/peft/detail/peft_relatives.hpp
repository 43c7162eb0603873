// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_RELATIVES_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_RELATIVES_HPP

/// \file
/// The tensors of one module of an adapter, while they are read and while they are written.
///
///     detail::relative_tensors tensors;
///     std::visit(tensors, module);                     // tensors.parts: names, shapes, values

#include <cstdint>
#include <map>
#include <memory>
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
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/algebra/tucker.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

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

/// What a kind may ask for while it reads a module.
struct peft_context {
    const peft_lora_config& config;
    const peft_rules& rules;
    std::shared_ptr<const void> shared = {};  ///< What the kind's `join_shared` made; null where the file has none.
};

LOWRANK_INLINE void expect_of_config(relative_parts& p, bool yes, const std::string& what) {
    if (!yes) {
        p.fail(errc::mismatch, "has " + what + ", the configuration says otherwise");
    }
}

/// "Effective" kernels: sum_ij t[i, j, k] a[i, p] b[j, q] as the product of a^T and one wide factor.
LOWRANK_INLINE void unfold_tucker(relative_parts& p, std::string_view t, matrix<float>& left, matrix<float>& right) {
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

[[nodiscard]] inline std::uint64_t extent(index n) { return static_cast<std::uint64_t>(n); }

/// The tensors of a module as (last part of the name, shape, values), shapes as PEFT's.
class relative_tensors {
public:
    struct part {
        std::string tail;
        std::vector<std::uint64_t> shape;
        matrix<float> values;
    };
    std::vector<part> parts = {};

    /// Adds those of a module as its kind describes them.
    template <class M>
    void operator()(const M& m) {
        peft_kind<M>::write(m, *this);
    }

    void add(std::string tail, std::vector<std::uint64_t> shape, matrix<float> values) {
        parts.push_back({std::move(tail), std::move(shape), std::move(values)});
    }
    void add(std::string tail, const matrix<float>& m) {
        add(std::move(tail), {extent(m.rows()), extent(m.cols())}, m);
    }
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_RELATIVES_HPP
