// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_TENSORS_IPP
#define LOWRANK_IO_PEFT_PEFT_TENSORS_IPP

#include <lowrank/io/peft/peft_tensors.hpp>

#include <algorithm>
#include <cmath>

#include <lowrank/core/finite.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/lora/algebra/tucker.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY bool detail::may_unfold(std::uint64_t rows, std::uint64_t cols, std::uint64_t stored) {
    std::uint64_t wanted = 0;
    return checked_multiply(rows, cols, wanted) && wanted / 128 <= stored;
}

LOWRANK_BODY void peft_parts::fail(errc code, const std::string& text) {
    if (why) {
        why = {code, "module " + detail::in_quotes(module_) + " " + text};
    }
}
LOWRANK_BODY void peft_parts::fail(errc code, const tensor_info& tensor, const std::string& text) {
    if (why) {
        why = {code, "tensor " + detail::in_quotes(tensor.name) + " " + text};
    }
}
LOWRANK_BODY void peft_parts::expect_of_config(bool yes, const std::string& what) {
    if (!yes) {
        fail(errc::mismatch, "has " + what + ", the configuration says otherwise");
    }
}
LOWRANK_BODY void peft_parts::agree(bool yes) {
    if (!yes) {
        fail(errc::mismatch, "has factors whose shapes do not fit each other");
    }
}

LOWRANK_BODY void peft_parts::expect_only(std::initializer_list<std::string_view> leaves) {
    for (const auto& [leaf, stored] : leaves_) {
        if (std::find(leaves.begin(), leaves.end(), std::string_view(leaf)) == leaves.end()) {
            fail(errc::unsupported, *stored.info, "has no place in a module of its form");
        }
    }
}

LOWRANK_BODY const peft_parts::part* peft_parts::find_or_fail(std::string_view leaf) {
    const auto at = leaves_.find(leaf);
    if (at == leaves_.end()) {
        fail(errc::invalid_format, "lacks " + std::string(leaf));
        return nullptr;
    }
    return &at->second;
}

LOWRANK_BODY matrix<float> peft_parts::finite_matrix(const part& p, std::uint64_t rows, std::uint64_t cols) {
    tensor_info flat = *p.info;
    flat.shape = {rows, cols};
    auto m = detail::matrix_from<float>(flat, p.bytes);
    if (!m) {
        why = why ? m.error() : why;
        return {};
    }
    if (!all_finite(*m)) {
        fail(errc::non_finite, flat, "holds NaN or infinity");
        return {};
    }
    return matrix<float>(*m);
}

LOWRANK_BODY matrix<float> peft_parts::take(std::string_view leaf) {
    const part* p = find_or_fail(leaf);
    if (p == nullptr) {
        return {};
    }
    const auto& shape = p->info->shape;
    if (shape.size() < 2 || shape.size() > 5) {
        fail(errc::invalid_format,
             "has a " + std::string(leaf) + " of shape " + detail::shape_in_words(shape) + ", expected a matrix");
        return {};
    }
    return finite_matrix(*p, shape[0], detail::flat_columns(shape));
}

LOWRANK_BODY vector<float> peft_parts::take_vector(std::string_view leaf, index size) {
    const part* p = find_or_fail(leaf);
    if (p == nullptr) {
        return {};
    }
    const tensor_info& t = *p->info;
    std::uint64_t count = 1;
    int extended = 0;
    for (const std::uint64_t n : t.shape) {
        count *= n;  // at most one is not 1
        extended += n != 1 ? 1 : 0;
    }
    if (extended > 1 || (size != 0 && count != detail::extent(size))) {
        fail(errc::mismatch, t,
             "has shape " + detail::shape_in_words(t.shape) + ", expected " +
                 (size != 0 ? std::to_string(size) + " numbers" : "a vector"));
        return {};
    }
    const matrix<float> m = finite_matrix(*p, count, 1);
    return m.cols() == 1 ? vector<float>(m.col(0)) : vector<float>();
}

LOWRANK_BODY matrix<float> peft_parts::take_blocks(std::string_view leaf, std::size_t dimensions) {
    const part* p = find_or_fail(leaf);
    if (p == nullptr) {
        return {};
    }
    const auto& shape = p->info->shape;
    if (shape.size() != dimensions) {
        fail(errc::mismatch, "has a " + std::string(leaf) + " of shape " + detail::shape_in_words(shape) +
                                 ", expected " + std::to_string(dimensions) + " dimensions");
        return {};
    }
    std::uint64_t rows = 1;
    for (std::size_t i = 0; i + 1 < dimensions; ++i) {
        rows *= shape[i];
    }
    return finite_matrix(*p, rows, shape.back());
}

LOWRANK_BODY std::vector<std::string_view> peft_parts::leaves() const {
    std::vector<std::string_view> all;
    for (const auto& [leaf, stored] : leaves_) {
        all.push_back(leaf);
    }
    return all;
}

LOWRANK_BODY matrix<std::int32_t> peft_parts::take_indices(std::string_view leaf, std::size_t dimensions, index end,
                                                           index rows) {
    const part* p = find_or_fail(leaf);
    if (p == nullptr) {
        return {};
    }
    const tensor_info& t = *p->info;
    constexpr dtype whole[] = {dtype::u8,  dtype::i8,  dtype::u16, dtype::i16, dtype::u32,
                               dtype::i32, dtype::u64, dtype::i64, dtype::f32};
    std::uint64_t count = 1;
    for (std::size_t i = 0; i + 1 < t.shape.size(); ++i) {
        count *= t.shape[i];
    }
    if (t.shape.size() != dimensions || (rows != 0 && count != detail::extent(rows)) ||
        std::find(std::begin(whole), std::end(whole), t.type) == std::end(whole)) {
        fail(errc::mismatch, t,
             "has shape " + detail::shape_in_words(t.shape) + " and type " + std::string(name_of(t.type)) +
                 ", expected " +
                 (rows != 0 ? "[" + std::to_string(rows) + ", n] and I32"
                            : std::to_string(dimensions) + " dimensions and integers"));
        return {};
    }
    matrix<std::int32_t> out(static_cast<index>(count), static_cast<index>(t.shape.back()));
    std::vector<double> numbers(static_cast<std::size_t>(out.size()));
    convert_numbers(t.type, p->bytes, numbers);
    auto next = numbers.begin();
    for (index i = 0; i < out.rows(); ++i) {
        for (index j = 0; j < out.cols(); ++j) {
            const double value = *next++;
            if (!(value >= 0 && value < static_cast<double>(end) && value == std::floor(value))) {
                fail(errc::invalid_format, t,
                     "holds " + detail::in_words(value) + ", which is no index below " +
                         (end == index{1} << 24 ? "2^24" : std::to_string(end)));
                return {};
            }
            out(i, j) = static_cast<std::int32_t>(value);
        }
    }
    return out;
}

LOWRANK_BODY index peft_parts::taps(std::string_view leaf) const {
    const auto& shape = find(leaf)->shape;
    std::uint64_t n = 1;
    for (std::size_t i = 2; i < shape.size(); ++i) {
        n *= shape[i];
    }
    return static_cast<index>(n);
}

LOWRANK_BODY void peft_parts::unfold_tucker(std::string_view t, matrix<float>& left, matrix<float>& right) {
    if (!has(t) || !why) {
        return;
    }
    const matrix<float> core = take(t);
    const index n = why && core.size() != 0 ? taps(t) : 0;
    agree(why && n != 0 && core.rows() == left.rows() && core.cols() / n == right.rows() && core.cols() % n == 0);
    if (why && !detail::may_unfold(detail::extent(core.rows() * n), detail::extent(right.cols()),
                                   detail::extent(core.size()) + detail::extent(right.size()))) {
        fail(errc::unsupported, "has a " + std::string(t) + " of " + std::to_string(n) +
                                    " taps, which would make its factors too large for what the file holds of them");
    }
    if (why) {
        right = tucker_right(core, right, n);
        left = matrix<float>(left.transpose());
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_PEFT_TENSORS_IPP
