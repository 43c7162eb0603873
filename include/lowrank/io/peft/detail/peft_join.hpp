// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_JOIN_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_JOIN_HPP

/// \file
/// The tensors of one module of a PEFT adapter made into that module, by the kind that its peft_type names.
///
///     auto module = detail::join_relative(parts, {config, rules, shared});

#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/peft_names.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/kinds/list.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// True for the description whose `join` reads modules of a peft_type.
template <class Kind>
[[nodiscard]] constexpr bool reads_type(std::string_view type) {
    if constexpr (requires {
                      Kind::old_type;
                      Kind::leaves;
                  }) {
        return type == Kind::type || type == Kind::old_type;
    } else if constexpr (requires { Kind::leaves; }) {
        return type == Kind::type;
    } else {
        return false;
    }
}

/// The last parts of the names of a type's tensors; none of LORA, whose names are understood apart.
[[nodiscard]] inline std::span<const std::string_view> leaves_of(std::string_view type) {
    std::span<const std::string_view> out;
    find_peft_kind(peft_kinds(), [&]<class M>() {
        using kind = peft_kind<M>;
        const bool found = reads_type<kind>(type);
        if constexpr (requires { kind::leaves; }) {
            out = found ? std::span<const std::string_view>(kind::leaves) : out;
        }
        if constexpr (requires { kind::old_leaves; }) {
            out = found && type != kind::type ? std::span<const std::string_view>(kind::old_leaves) : out;
        }
        return found;
    });
    return out;
}

/// The leaves of all types.
[[nodiscard]] inline std::vector<std::string_view> all_leaves() {
    std::vector<std::string_view> all;
    find_peft_kind(peft_kinds(), [&]<class M>() {
        using kind = peft_kind<M>;
        if constexpr (requires { kind::leaves; }) {
            all.insert(all.end(), std::begin(kind::leaves), std::end(kind::leaves));
        }
        if constexpr (requires { kind::old_leaves; }) {
            all.insert(all.end(), std::begin(kind::old_leaves), std::end(kind::old_leaves));
        }
        return false;
    });
    return all;
}

/// Whether names of a type's tensors may end in ".weight".
[[nodiscard]] inline bool ends_in_weight(std::string_view type) {
    return find_peft_kind(peft_kinds(), [&]<class M>() {
        using kind = peft_kind<M>;
        if constexpr (requires { kind::ends_in_weight; }) {
            return reads_type<kind>(type);
        } else {
            return false;
        }
    });
}

/// A tensor's name under the type's older name, if that is what is written.
[[nodiscard]] inline std::string tail_of_type(std::string tail, std::string_view type) {
    find_peft_kind(peft_kinds(), [&]<class M>() {
        using kind = peft_kind<M>;
        if constexpr (requires { kind::old_leaves; }) {
            if (type == kind::old_type && tail.ends_with(kind::leaves[0])) {
                tail = "." + std::string(kind::old_leaves[0]);
            }
        }
        return false;
    });
    return tail;
}

/// One module of a type other than LORA.
LOWRANK_INLINE [[nodiscard]] result<peft_module> join_relative(relative_parts& p, const peft_context& c) {
    std::optional<peft_module> out;
    find_peft_kind(peft_kinds(), [&]<class M>() {
        using kind = peft_kind<M>;
        if constexpr (requires { kind::join(p, c); }) {
            if (reads_type<kind>(c.config.peft_type)) {
                auto joined = kind::join(p, c);
                if constexpr (requires { joined.index(); }) {
                    std::visit([&](auto& m) { out.emplace(std::move(m)); }, joined);
                } else {
                    out.emplace(std::move(joined));
                }
            }
        }
        return out.has_value();
    });
    if (!out) {
        p.fail(errc::unsupported, "is of the type " + in_quotes(c.config.peft_type) + ", which is not read");
    }
    return p.why ? result<peft_module>(std::move(*out)) : result<peft_module>(p.why);
}

/// Whether modules of a type share tensors, which belong to none.
[[nodiscard]] inline bool shares_tensors(std::string_view type) {
    return find_peft_kind(peft_kinds(), [&]<class M>() {
        using kind = peft_kind<M>;
        if constexpr (requires(relative_parts & p) { kind::join_shared(p); }) {
            return reads_type<kind>(type);
        } else {
            return false;
        }
    });
}

/// What all modules share, from the tensors that belong to none.
LOWRANK_INLINE [[nodiscard]] result<std::shared_ptr<const void>> join_shared(relative_parts& p, std::string_view type) {
    std::shared_ptr<const void> out;
    find_peft_kind(peft_kinds(), [&]<class M>() {
        using kind = peft_kind<M>;
        if constexpr (requires { kind::join_shared(p); }) {
            if (reads_type<kind>(type)) {
                out = kind::join_shared(p);
                return true;
            }
        }
        return false;
    });
    return p.why ? result<std::shared_ptr<const void>>(std::move(out)) : result<std::shared_ptr<const void>>(p.why);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_JOIN_HPP
