// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_TENSORS_HPP
#define LOWRANK_IO_PEFT_PEFT_TENSORS_HPP

/// \file
/// The tensors of one module of an adapter, while they are read and while they are written: what the description of a
/// kind (peft_kind.hpp) works with.
///
///     struct my_kind {
///         static lowrank::lora_adapter<float> join(lowrank::peft_parts& parts, const lowrank::peft_context&) {
///             lowrank::lora_adapter<float> m{.lora_A = parts.take("my_A"), .lora_B = parts.take("my_B")};
///             parts.agree(m.lora_A.rows() == m.lora_B.cols());
///             return m;
///         }
///         static void write(const lowrank::lora_adapter<float>& m, lowrank::peft_tensors& to) {
///             to.add("my_A", m.lora_A), to.add("my_B", m.lora_B);
///         }
///     };

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/safetensors_header.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/peft/peft_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Which module of an adapter one is, for kinds whose files say it by an order.
struct peft_place {
    const peft_options& options;
    std::string_view module = {};
    std::span<const std::string_view> modules = {};  ///< All of the adapter's type, sorted.
};

/// What the configuration says about a module while it is read.
struct peft_context {
    const peft_options& options;
    std::string_view type = {};  ///< peft_type
    index r = 0;                 ///< Of this module.
    double alpha = 0;            ///< Of this module.
    double dropout = 0;
    std::shared_ptr<const void> shared = {};  ///< What the kind's `join_shared` made; null where the file has none.
    std::span<const std::string_view> modules = {};  ///< All of the adapter, sorted.
};

/// The tensors of one module while they are read. The first thing that is wrong stays in `why`.
class peft_parts {
public:
    explicit peft_parts(std::string module) : module_(std::move(module)) {}

    status why = {};

    /// False if the leaf is there already, under another spelling. The bytes are borrowed.
    bool add(std::string_view leaf, const tensor_info& info, std::span<const std::byte> bytes) {
        return leaves_.emplace(leaf, part{&info, bytes}).second;
    }
    [[nodiscard]] bool has(std::string_view leaf) const { return leaves_.find(leaf) != leaves_.end(); }
    /// Name, type and shape of a tensor, or null.
    [[nodiscard]] const tensor_info* find(std::string_view leaf) const {
        const auto at = leaves_.find(leaf);
        return at != leaves_.end() ? at->second.info : nullptr;
    }
    /// The leaves that there are.
    LOWRANK_API [[nodiscard]] std::vector<std::string_view> leaves() const;
    /// Any of the tensors. \pre there is one.
    [[nodiscard]] const tensor_info& first() const { return *leaves_.begin()->second.info; }
    [[nodiscard]] const std::string& module() const noexcept { return module_; }

    /// "module "l0" " and the text.
    LOWRANK_API void fail(errc code, const std::string& text);
    /// "tensor "l0.lora_A.weight" " and the text.
    LOWRANK_API void fail(errc code, const tensor_info& tensor, const std::string& text);
    /// Fails unless the configuration says what the tensors say.
    LOWRANK_API void expect_of_config(bool yes, const std::string& what);
    /// Fails unless the shapes fit each other.
    LOWRANK_API void agree(bool yes);

    /// Fails, naming it, if there is another tensor than these.
    LOWRANK_API void expect_only(std::initializer_list<std::string_view> leaves);

    /// A matrix, dimensions beyond the second counted as columns.
    LOWRANK_API matrix<float> take(std::string_view leaf);
    /// A vector, however its shape is written; of `size` numbers if that is given.
    LOWRANK_API vector<float> take_vector(std::string_view leaf, index size = 0);
    /// A tensor of `dimensions` dimensions as a matrix of its last one's columns.
    LOWRANK_API matrix<float> take_blocks(std::string_view leaf, std::size_t dimensions);
    /// Indices below `end` <= 2^24, a tensor of `dimensions` dimensions as a matrix of its last one's columns; of `rows` rows if
    /// that is given. Integers, or F32 that are whole numbers.
    LOWRANK_API matrix<std::int32_t> take_indices(std::string_view leaf, std::size_t dimensions, index end,
                                                  index rows = 0);
    /// Taps of a kernel: the product of the dimensions beyond the second.
    LOWRANK_API [[nodiscard]] index taps(std::string_view leaf) const;
    /// "Effective" kernels: sum_ij t[i, j, k] a[i, p] b[j, q] as the product of a^T and one wide factor.
    LOWRANK_API void unfold_tucker(std::string_view t, matrix<float>& left, matrix<float>& right);

private:
    struct part {
        const tensor_info* info;
        std::span<const std::byte> bytes;
    };
    LOWRANK_API const part* find_or_fail(std::string_view leaf);
    LOWRANK_API matrix<float> finite_matrix(const part& p, std::uint64_t rows, std::uint64_t cols);

    std::string module_;
    std::map<std::string, part, std::less<>> leaves_ = {};
};

/// The tensors of a module as leaf (the last part of the name), shape and values, shapes as PEFT's.
class peft_tensors {
public:
    struct part {
        std::string leaf;
        std::vector<std::uint64_t> shape;
        matrix<float> values;
        std::optional<dtype> integers = std::nullopt;  ///< The type that whole numbers are stored in.
    };
    std::vector<part> parts = {};
    std::optional<tensor_to_write> whole = std::nullopt;  ///< Instead: a tensor that is written as it is.

    void add(std::string_view leaf, std::vector<std::uint64_t> shape, matrix<float> values) {
        parts.push_back({std::string(leaf), std::move(shape), std::move(values)});
    }
    /// A matrix.
    void add(std::string_view leaf, const matrix<float>& m) {
        add(leaf, {static_cast<std::uint64_t>(m.rows()), static_cast<std::uint64_t>(m.cols())}, m);
    }
};

namespace detail {

[[nodiscard]] inline std::uint64_t extent(index n) { return static_cast<std::uint64_t>(n); }

/// Factors that a file stores compactly (a convolution's blocks by groups, a kernel apart from its factors) are not
/// unfolded to more than 128 times what the file holds of them: whether `rows` x `cols` entries may be made of `stored`.
LOWRANK_API [[nodiscard]] bool may_unfold(std::uint64_t rows, std::uint64_t cols, std::uint64_t stored);

/// The alpha that LyCORIS's file says: 0 there means the rank, so an alpha of 0 turns the first factor to zeros.
[[nodiscard]] inline double alpha_or_rank(double alpha, index rank, peft_tensors& tensors) {
    if (alpha == 0) {
        tensors.parts.front().values.setZero();
    }
    return alpha != 0 ? alpha : static_cast<double>(rank);
}

/// Columns of a tensor's shape, dimensions beyond the second counted as columns.
[[nodiscard]] inline std::uint64_t flat_columns(const std::vector<std::uint64_t>& shape) {
    std::uint64_t columns = 1;
    for (std::size_t i = 1; i < shape.size(); ++i) {
        columns *= shape[i];  // at most the elements of the tensor, which were counted
    }
    return columns;
}

/// The shape of a right factor as it is stored: the taps of its kernel are dimensions of their own.
[[nodiscard]] inline std::vector<std::uint64_t> kernel_shape(const matrix<float>& a,
                                                             const std::vector<std::uint64_t>& kernel) {
    std::uint64_t taps = 1;
    for (const std::uint64_t n : kernel) {
        taps *= n;
    }
    std::vector<std::uint64_t> shape{extent(a.rows()), taps == 0 ? 0 : extent(a.cols()) / taps};
    shape.insert(shape.end(), kernel.begin(), kernel.end());
    return shape;
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft/peft_tensors.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_PEFT_TENSORS_HPP
