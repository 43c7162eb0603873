// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_DETAIL_LORA_PARTS_HPP
#define LOWRANK_IO_FORMATS_DETAIL_LORA_PARTS_HPP

/// \file
/// The tensors of one module of an adapter file while they are collected, and the module they make.
///
///     auto joined = detail::join_lora_parts(*file, parts, format.is_transposed);

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
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
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/formats/adapter_format.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/algebra/tucker.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The tensors of one module while they are collected.
struct lora_parts {
    const checkpoint::place* a = nullptr;
    const checkpoint::place* b = nullptr;
    const checkpoint::place* alpha = nullptr;
    const checkpoint::place* magnitude = nullptr;
    const checkpoint::place* bias = nullptr;
    const checkpoint::place* core = nullptr;
    std::optional<peft_parts> other = {};
    bool is_table = false;
    std::vector<const checkpoint::place*> all = {};
    std::string unsupported = {};  ///< Why the module cannot be read, whatever else there is of it.
};

/// The module that a tensor would be a part of: the longest beginning of its name, up to a dot, that is one.
template <class Parts>
[[nodiscard]] typename Parts::iterator owner_of(Parts& modules, std::string_view tensor) {
    for (std::size_t dot = tensor.rfind('.'); dot != std::string_view::npos && dot != 0;
         dot = tensor.rfind('.', dot - 1)) {
        if (const auto at = modules.find(std::string(tensor.substr(0, dot))); at != modules.end()) {
            return at;
        }
    }
    return modules.end();
}

/// The number of a tensor of one element of any type of numbers, if there is one.
LOWRANK_INLINE [[nodiscard]] result<std::optional<double>> scalar_of(const checkpoint& file,
                                                                     const checkpoint::place* p) {
    if (p == nullptr) {
        return std::optional<double>();
    }
    const tensor_info& t = *p->info;
    const bool is_one = std::all_of(t.shape.begin(), t.shape.end(), [](auto n) { return n == 1; });
    double value = 0;
    if (!is_one || !is_number(t.type)) {
        return status{errc::invalid_format, "tensor " + in_quotes(t.name) + " must be one number; it has shape " +
                                                shape_in_words(t.shape) + " and type " + std::string(name_of(t.type))};
    }
    convert_numbers(t.type, file.bytes(*p), {&value, 1});
    if (!is_finite(value)) {
        return status{errc::non_finite, "tensor " + in_quotes(t.name) + " must be a finite number"};
    }
    return std::optional(value);
}

/// The numbers of a tensor, however its shape is written: `size` of them, all finite.
LOWRANK_INLINE [[nodiscard]] result<vector<float>> finite_numbers(const checkpoint& file, const checkpoint::place& p,
                                                                  index size) {
    peft_parts parts(p.info->name);
    parts.add(p.info->name, *p.info, file.bytes(p));
    auto numbers = parts.take_vector(p.info->name, size);
    return parts.why ? result<vector<float>>(std::move(numbers)) : result<vector<float>>(parts.why);
}

/// A tensor as a matrix of finite numbers, dimensions beyond the second counted as columns.
LOWRANK_INLINE [[nodiscard]] result<matrix<float>> finite_factor(const checkpoint& file, const checkpoint::place& p) {
    peft_parts parts(p.info->name);
    parts.add(p.info->name, *p.info, file.bytes(p));
    auto factor = parts.take(p.info->name);
    return parts.why ? result<matrix<float>>(std::move(factor)) : result<matrix<float>>(parts.why);
}

/// A magnitude: lengths of rows, one per output, or of the columns of a matrix, as the shape says.
LOWRANK_INLINE [[nodiscard]] status read_magnitude(const checkpoint& file, const checkpoint::place& p, peft_lora& to) {
    const tensor_info& t = *p.info;
    const bool has_taps = std::any_of(to.kernel.begin(), to.kernel.end(), [](auto n) { return n != 1; });
    to.magnitude_of_inputs = t.shape.size() > 1 && t.shape[0] == 1 && t.shape[1] != 1;
    if (t.shape.empty() || (to.magnitude_of_inputs && has_taps)) {
        return status{errc::unsupported, "its " + std::string(magnitude_names::lycoris) + " of shape " +
                                             shape_in_words(t.shape) +
                                             " holds lengths of the channels of a convolution (LyCORIS's "
                                             "wd_on_output=False), which is not supported"};
    }
    auto lengths = finite_numbers(file, p, to.magnitude_of_inputs ? to.lora.cols() : to.lora.rows());
    if (!lengths) {
        return lengths.error();
    }
    to.magnitude = std::move(*lengths);
    return {};
}

/// The factor that a core makes of the one on the right: up mid down = up (mid down).
LOWRANK_INLINE [[nodiscard]] status fold_core(const checkpoint& file, const checkpoint::place& p, peft_lora& to) {
    const tensor_info& t = *p.info;
    const auto rank = static_cast<std::uint64_t>(to.lora.lora_A.rows());
    std::uint64_t taps = 1;
    for (std::size_t i = 2; i < t.shape.size(); ++i) {
        taps *= t.shape[i];
    }
    if (t.shape.size() != to.kernel.size() + 2 || t.shape[1] != rank || taps == 0 ||
        t.shape[0] != static_cast<std::uint64_t>(to.lora.lora_B.cols()) ||
        std::any_of(to.kernel.begin(), to.kernel.end(), [](auto n) { return n != 1; })) {
        return {errc::unsupported,
                "its lora_mid of shape " + shape_in_words(t.shape) + " does not lie between its factors"};
    }
    if (!may_unfold(t.shape[0] * taps, static_cast<std::uint64_t>(to.lora.cols()),
                    t.shape[0] * t.shape[1] * taps + static_cast<std::uint64_t>(to.lora.lora_A.size()))) {
        return {errc::unsupported, "its lora_mid would make its factors too large for what the file holds of them"};
    }
    auto core = finite_factor(file, p);
    if (!core) {
        return core.error();
    }
    to.lora.lora_A = tucker_right(*core, to.lora.lora_A, static_cast<index>(taps));
    to.kernel.assign(t.shape.begin() + 2, t.shape.end());
    return {};
}

/// Two factors as one module, shapes deciding: [r, in, k...] and [out, r, 1...], or transposed matrices (MLX), with
/// what may belong to them.
LOWRANK_INLINE [[nodiscard]] result<peft_lora> join_lora_parts(const checkpoint& file, const lora_parts& p,
                                                               bool transposed) {
    const tensor_info& a = *p.a->info;
    const tensor_info& b = *p.b->info;
    for (const tensor_info* t : {&a, &b}) {
        if (t->shape.size() < 2 || t->shape.size() > (transposed || p.is_table ? 2U : 5U)) {
            return status{errc::unsupported, "has shape " + shape_in_words(t->shape) + "; it is no layer" +
                                                 (t->shape.size() > 2 ? " (a stack of experts?)" : "")};
        }
    }
    const bool kernel_in_b = std::any_of(b.shape.begin() + 2, b.shape.end(), [](auto n) { return n != 1; });
    if (kernel_in_b || a.shape.size() != b.shape.size()) {
        return status{errc::unsupported,
                      "has shape " + shape_in_words(b.shape) + "; a kernel in this factor is not supported"};
    }
    peft_lora out;
    out.kernel.assign(a.shape.begin() + 2, a.shape.end());
    out.is_table = p.is_table;
    auto right = finite_factor(file, *p.a);
    auto left = finite_factor(file, *p.b);
    if (!right || !left) {
        return right ? left.error() : right.error();
    }
    out.lora.lora_A = std::move(*right);
    out.lora.lora_B = std::move(*left);
    if (transposed) {
        out.lora.lora_A.transposeInPlace();
        out.lora.lora_B.transposeInPlace();
    }
    out.lora.lora_alpha = static_cast<double>(out.lora.rank());
    if (p.core != nullptr) {
        if (status why = fold_core(file, *p.core, out); !why) {
            return why;
        }
    }
    if (out.lora.lora_A.rows() != out.lora.lora_B.cols()) {
        return status{errc::mismatch, "has factors of rank " + std::to_string(out.lora.lora_A.rows()) + " and " +
                                          std::to_string(out.lora.lora_B.cols())};
    }
    if (p.magnitude != nullptr) {
        if (status why = read_magnitude(file, *p.magnitude, out); !why) {
            return why;
        }
    }
    if (p.bias != nullptr) {
        auto bias = finite_numbers(file, *p.bias, out.lora.rows());
        if (!bias) {
            return bias.error();
        }
        out.bias = std::move(*bias);
    }
    return out;
}

/// Factors [experts, r, in] and [experts, out, r] as LoRA of each expert, whose alpha is still r.
LOWRANK_INLINE [[nodiscard]] result<std::vector<lora_adapter<float>>> join_expert_parts(const checkpoint& file,
                                                                                        const lora_parts& p) {
    const tensor_info& a = *p.a->info;
    const tensor_info& b = *p.b->info;
    if (a.shape.size() != 3 || b.shape.size() != 3 || a.shape[0] != b.shape[0] || a.shape[1] != b.shape[2] ||
        a.begin == a.end || b.begin == b.end) {
        return status{errc::unsupported, "has factors of shapes " + shape_in_words(a.shape) + " and " +
                                             shape_in_words(b.shape) +
                                             "; a stack of experts has [experts, r, in] and [experts, out, r]"};
    }
    if (p.magnitude != nullptr || p.bias != nullptr || p.core != nullptr) {
        return status{errc::unsupported, "is a stack of experts with parts besides its two factors"};
    }
    const auto left = finite_factor(file, *p.b);  // experts x (out r)
    const auto right = finite_factor(file, *p.a);
    if (!left || !right) {
        return left ? right.error() : left.error();
    }
    const auto rank = static_cast<index>(a.shape[1]);
    const auto factor_of = [](const matrix<float>& stack, index e, index rows) {
        const row_matrix<float> row = stack.row(e);
        return matrix<float>(Eigen::Map<const row_matrix<float>>(row.data(), rows, row.size() / rows));
    };
    std::vector<lora_adapter<float>> out;
    for (index e = 0; e < left->rows(); ++e) {
        out.push_back({.lora_A = factor_of(*right, e, rank),
                       .lora_B = factor_of(*left, e, static_cast<index>(b.shape[1])),
                       .lora_alpha = static_cast<double>(rank)});
    }
    return out;
}

/// Tensors of a file by the module that they are a part of, and the format whose names they have.
struct sorted_lora_file {
    const adapter_format* format = nullptr;
    std::map<std::string, lora_parts> modules = {};
    std::vector<const checkpoint::place*> foreign = {};  ///< Parts of no module.
};

LOWRANK_INLINE [[nodiscard]] result<sorted_lora_file> sort_lora_file(const checkpoint& file,
                                                                     std::span<const adapter_format> among) {
    using part = lora_name::part;
    sorted_lora_file out;
    std::vector<const checkpoint::place*> unknown;
    for (const checkpoint::place& p : file.tensors()) {
        const std::string& tensor = p.info->name;
        lora_name name;
        const adapter_format* of = nullptr;
        for (std::size_t i = 0; i < among.size() && name.what == part::none; ++i) {
            if (among[i].parse != nullptr) {
                of = &among[i];
                name = of->parse(tensor);
            }
        }
        if (name.what == part::none) {
            unknown.push_back(&p);
            continue;
        }
        auto& parts = out.modules[name.module];
        parts.all.push_back(&p);
        parts.is_table = parts.is_table || name.is_table;
        if (name.what == part::unsupported) {
            parts.unsupported = name.why;
            continue;
        }
        if (name.what != part::alpha && name.what != part::magnitude) {
            if (out.format != nullptr && out.format != of) {
                return status{errc::invalid_format, "tensor " + in_quotes(tensor) + " is named as in " +
                                                        std::string(of->name) + ", others as in " +
                                                        std::string(out.format->name)};
            }
            out.format = of;
        }
        if (name.what == part::other) {
            if (!parts.other) {
                parts.other.emplace(name.module);
            }
            parts.other->add(name.leaf, *p.info, file.bytes(p));
            continue;
        }
        auto& slot = name.what == part::a           ? parts.a
                     : name.what == part::b         ? parts.b
                     : name.what == part::alpha     ? parts.alpha
                     : name.what == part::magnitude ? parts.magnitude
                     : name.what == part::bias      ? parts.bias
                                                    : parts.core;
        if (slot != nullptr) {
            return status{errc::invalid_format,
                          "tensor " + in_quotes(tensor) + " is there a second time as " + in_quotes(slot->info->name)};
        }
        slot = &p;
    }
    for (const checkpoint::place* p : unknown) {  // may change what its module means, so that is left out whole
        const auto owner = owner_of(out.modules, p->info->name);
        if (owner == out.modules.end()) {
            out.foreign.push_back(p);
            continue;
        }
        owner->second.all.push_back(p);
        owner->second.unsupported =
            owner->second.unsupported.empty()
                ? "the module has a part that is not known, " + in_quotes(p->info->name.substr(owner->first.size() + 1))
                : owner->second.unsupported;
    }
    return out;
}

/// The first few of names, for a message.
LOWRANK_INLINE [[nodiscard]] std::string some_names(const checkpoint& file) {
    std::string text;
    for (std::size_t i = 0; i < std::min<std::size_t>(file.tensors().size(), 3); ++i) {
        text += (i == 0 ? "" : ", ") + in_quotes(file.tensors()[i].info->name);
    }
    return file.tensors().empty() ? std::string("none at all") : text + (file.tensors().size() > 3 ? ", ..." : "");
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_DETAIL_LORA_PARTS_HPP
