// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_KIND_HPP
#define LOWRANK_IO_PEFT_PEFT_KIND_HPP

/// \file
/// The one description of an adapter kind as a module of an adapter file; one header per kind in kinds/.
///
///     std::vector<const lowrank::peft_description*> kinds(lowrank::peft_kinds().begin(), lowrank::peft_kinds().end());
///     kinds.push_back(&lowrank::peft_description_of<lowrank::hira_adapter<float>>);   // or yours, with its peft_kind
///     auto adapter = lowrank::read_peft("mine", {.kinds = kinds});
///
/// `peft_kind<M>` of a module type M has, as static members:
///
///     types()               the peft_types of its modules, with their keys and the names of their tensors
///     label(m)              what messages call it
///     shape(m)              what its tensors say of the weight
///     fit(m, out, in)       tells m the shape of its weight; whether it is for such a weight
///     facts(m)              rank, alpha and dropout as a configuration gives them
///     change(m)             what it does to a weight
///     join(parts, context)  a module from its tensors; the first thing that is wrong is told to `parts`
///     write(m, tensors)     its tensors
///     adapter(m, weight), from(any_adapter)   where M is no adapter with an `adapter_kind` itself, or not for each weight,
///     only_merges           or why there is no such adapter
///
/// and, where there is something to say:
///
///     check(options, type, warnings)   what is wrong with options that a file has; absent keys are absent
///     fit_options(options, names, modules)   options that describe all these modules
///     differs(options, name, m)        what of m the options say otherwise, or null
///     join_shared(parts), write_shared(m, tensors) or (m, place, tensors)   what modules share, with names of no module
///     shared_identity(m)               the address of what m shares
///     misfit(m, out, in)               why `fit` says no, where more is wrong than the shape; else null
///     formed_rank(m), change_without_factors(m)      where `change` forms factors larger than the parameters
///     constant(m)                      a number that its change depends on besides tensors and facts
///     in_peft(m)                       false for what PEFT's files cannot hold of the kind
///     path_in_file(path, m)            how its tensors' names begin, where that is not the module's path
///     is_second_form, claims(options, module)   the type's `join` makes these too, but those claimed; keys add to the type's
///     lycoris                          a struct with what LyCORIS calls it (kohya's files)
///
/// `check_peft_kind` names what is missing.

#include <algorithm>
#include <cstdint>
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
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/peft/peft_options.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/change.hpp>

namespace lowrank::inline LOWRANK_ABI {

class peft_module;
class peft_parts;
class peft_tensors;
struct peft_context;
struct peft_place;

/// How modules of type M stand in adapter files: specialized in kinds/. This one is of no module.
template <class M>
struct peft_kind;

/// One value of peft_type. An absent key is empty.
struct peft_type {
    std::string_view name = {};
    std::string_view r_key = {};
    index r = 0;  ///< If the key is absent.
    std::string_view alpha_key = {};
    double alpha = 0;
    bool alpha_of_zero_is_r = false;
    std::string_view dropout_key = {};
    bool has_rank_pattern = false;
    std::string_view rank_pattern_key = "rank_pattern";
    bool has_alpha_pattern = false;
    bool has_bias = false;
    std::string_view bias_only = {};  ///< The one value of bias beside "none" and "all"; empty: any "..._only".
    bool has_fan_in_fan_out = false;
    bool has_target_parameters = false;
    /// Last parts of the names of its tensors, in the order of writing: "lora_A.weight". A state dict has the adapter's
    /// name before ".weight" or ".bias", or at the end.
    std::vector<std::string_view> leaves = {};
    bool may_end_in_weight = false;  ///< Names without an ending may have ".weight".
    /// First part of a leaf that ends in a number, of what groups of modules share: "v" of "base_model.v.0".
    std::string_view numbered = {};
    /// Instead of leaves: what stands between a module and a parameter of it that the adapter replaces.
    std::string_view replaced_in = {};
    /// Those of them that hold indices below 2^24, which are I32 unless the file had another type.
    std::vector<std::string_view> integers = {};

    /// What a tensor is stored as, unless the file had another type.
    [[nodiscard]] dtype usual_type(std::string_view leaf) const {
        return std::find(integers.begin(), integers.end(), leaf) != integers.end() ? dtype::i32 : dtype::f32;
    }
    /// Leaves that are folded into others while they are read, and the key that says that there are such: false in what is
    /// written again.
    std::vector<std::string_view> folded = {};
    std::string_view folded_key = {};
    std::vector<peft_key> keys = {};           ///< Of its own.
    std::vector<std::string_view> known = {};  ///< Keys without effect on the result.
    /// Keys that would change the result, and how they would: refused unless they are off.
    std::vector<std::pair<const char*, const char*>> refused = {};
    std::string_view defaults = "{}";  ///< What a new file says besides, as JSON.
};

/// What a new file of most types says.
inline constexpr std::string_view usual_peft_defaults =
    R"({"bias":"none","exclude_modules":null,"init_weights":true,"layers_pattern":null,"layers_to_transform":null})";

/// The shape of the weight that a module is for, as far as its tensors say it; 0 where they do not.
struct module_shape {
    index out = 0;
    index in = 0;
    bool is_table = false;  ///< The weight is the transpose: tokens x dim.
};

/// A linear layer that a module is for.
struct adapted_weight {
    index out = 0;
    index in = 0;
    bool has_bias = false;
};

/// Rank and alpha of a module as its configuration gives them; 0 for kinds without.
struct peft_facts {
    index r = 0;
    double alpha = 0;
    std::optional<double> dropout = std::nullopt;
};

/// What a module does to its layer.
struct peft_change {
    /// Of the weight as out x in (of a convolution: out x (in * taps), an input scale per channel). Factors of no size
    /// stand in scales for none, and alone for a module that lacks the shape of its weight.
    weight_change<float> weight = {};
    vector<float> bias = {};    ///< Is added to the layer's bias.
    bool is_table = false;      ///< The weight is the transpose: tokens x dim.
    bool acts_on_bias = false;  ///< `weight` is a change of the outputs, and the layer's bias goes through it too.

    /// The module lacks the shape of its weight: `fit_module` tells it.
    [[nodiscard]] bool is_unknown() const {
        const auto* delta = std::get_if<low_rank<float>>(&weight);
        return delta != nullptr && delta->rows() == 0 && delta->cols() == 0;
    }
};

namespace detail {

/// True if an adapter of type M can be applied as it is.
template <class M>
concept is_adapter = requires {
    typename adapter_kind<M>::applied;
};
}  // namespace detail

/// Compiles if `peft_kind<M>` describes M completely; else the message names the part that is missing.
template <class M>
consteval void check_peft_kind() {
    using kind = peft_kind<M>;
    if constexpr (!requires { sizeof(kind); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M> is missing: describe the module in io/peft/kinds");
    } else if constexpr (!requires { std::vector<peft_type>(kind::types()); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::types() is missing: its peft_types, keys and tensors");
    } else if constexpr (!requires(const M& m) { std::string_view(kind::label(m)); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::label(m) is missing: what messages call it");
    } else if constexpr (!requires(const M& m) { module_shape(kind::shape(m)); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::shape(m) is missing: what its tensors say of the weight's shape");
    } else if constexpr (!requires(M & m) { bool(kind::fit(m, index{}, index{})); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::fit(m, out, in) is missing: it tells the shape of the weight");
    } else if constexpr (!requires(const M& m) { peft_facts(kind::facts(m)); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::facts(m) is missing: rank and alpha");
    } else if constexpr (!requires(const M& m) { peft_change(kind::change(m)); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::change(m) is missing: what it does to a weight");
    } else if constexpr (
        !requires(peft_parts & parts, const peft_context& c) { kind::join(parts, c); } &&
        !requires { kind::is_second_form; }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::join(parts, context) is missing: a module from its tensors");
    } else if constexpr (!requires(const M& m, peft_tensors& to) { kind::write(m, to); }) {
        static_assert(sizeof(M) == 0, "peft_kind<M>::write(m, tensors) is missing: its tensors");
    } else {
        static_assert(
            detail::is_adapter<M> || requires { kind::only_merges; } ||
                requires(const M& m, const any_adapter<float>& a) {
                    kind::adapter(m, adapted_weight{}), kind::from(a);
                },
            "peft_kind<M>::adapter and from, or only_merges, are missing: how it is applied");
    }
}

/// A description without its type: what the library asks of a kind. Functions that a kind does not have are null.
struct peft_description {
    const char* mark;  ///< Of the module type.
    bool is_second_form;
    std::vector<peft_type> (*types)();
    std::string_view (*label)(const void* m);
    module_shape (*shape)(const void* m);
    bool (*fit)(void* m, index out, index in);
    const char* (*misfit)(const void* m, index out, index in);
    peft_facts (*facts)(const void* m);
    peft_change (*change)(const void* m);
    peft_change (*change_without_factors)(const void* m);
    index (*formed_rank)(const void* m);
    double (*constant)(const void* m);
    bool (*in_peft)(const void* m);
    std::string (*path_in_file)(const std::string& path, const void* m);
    bool (*claims)(const peft_options& options, std::string_view module);
    void (*write)(const void* m, peft_tensors& to);
    status (*write_shared)(const void* m, const peft_place& place, peft_tensors& to);
    const void* (*shared_identity)(const void* m);
    peft_module (*join)(peft_parts& parts, const peft_context& context);
    std::shared_ptr<const void> (*join_shared)(peft_parts& parts);
    status (*check)(const peft_options& options, std::string_view type, std::vector<std::string>& warnings);
    void (*fit_options)(peft_options& options, const std::vector<std::string>& names,
                        std::span<const void* const> modules);
    const char* (*differs)(const peft_options& options, const std::string& name, const void* m);
    // LyCORIS (files of kohya's names).
    std::vector<std::string_view> (*lycoris_leaves)();
    std::vector<std::pair<std::string_view, const char*>> (*lycoris_refused)();  ///< Leaves that are not read, and why.
    bool (*lycoris_holds)(const void* m);
    peft_module (*lycoris_join)(peft_parts& parts, std::optional<double> alpha);
    double (*lycoris_write)(const void* m, peft_tensors& to);
    std::shared_ptr<void> (*copy)(const void* m);
};

/// How modules of a kind are applied: apart from its description, so that programs that only read and merge need not
/// compile it.
struct peft_application {
    const char* mark;  ///< Of the module type.
    result<any_adapter<float>> (*adapter)(const void* m, const adapted_weight& weight);
    std::optional<peft_module> (*from)(const any_adapter<float>& adapter);
};

namespace detail {
template <class M>
consteval peft_description describe();
template <class M>
consteval peft_application describe_application();
}  // namespace detail

/// The description of a module type. Does not compile if a part is missing.
template <class M>
inline constexpr peft_description peft_description_of = detail::describe<M>();
/// How it is applied.
template <class M>
inline constexpr peft_application peft_application_of = detail::describe_application<M>();

/// What changes one module of a model, in its own parameters: a value of any type that `peft_kind` describes.
///
///     lowrank::peft_module module = lowrank::make_lora<float>(out, in, {.r = 8});
///     if (const auto* hira = module.get<lowrank::hira_adapter<float>>()) ...
class peft_module {
public:
    /// An empty LoRA, to be assigned to.
    template <class M = lora_adapter<float>>
    peft_module() : peft_module(M()) {}
    template <class M>
    requires requires { sizeof(peft_kind<M>); }
    peft_module(M module)  // NOLINT: conversion is the point
        : kind_(&peft_description_of<M>), module_(std::make_shared<M>(std::move(module))) {}
    peft_module(const peft_module& other) : kind_(other.kind_), module_(other.kind_->copy(other.module_.get())) {}
    peft_module& operator=(const peft_module& other) { return *this = peft_module(other); }
    // A moved-from module may be assigned and destroyed.
    peft_module(peft_module&&) noexcept = default;
    peft_module& operator=(peft_module&&) noexcept = default;
    ~peft_module() = default;

    /// The module as an M, or null if it is of another type.
    template <class M>
    [[nodiscard]] const M* get() const noexcept {
        return kind_->mark == &detail::type_mark<M> ? static_cast<const M*>(module_.get()) : nullptr;
    }
    template <class M>
    [[nodiscard]] M* get() noexcept {
        return kind_->mark == &detail::type_mark<M> ? static_cast<M*>(module_.get()) : nullptr;
    }

    [[nodiscard]] const peft_description& kind() const noexcept { return *kind_; }
    [[nodiscard]] const void* data() const noexcept { return module_.get(); }
    [[nodiscard]] void* data() noexcept { return module_.get(); }

private:
    const peft_description* kind_;
    std::shared_ptr<void> module_;  ///< Of this one alone.
};

namespace detail {

/// The functions of `peft_description` for M.
template <class M>
struct described {
    using kind = peft_kind<M>;
    static const M& of(const void* m) { return *static_cast<const M*>(m); }

    static std::string_view label(const void* m) { return kind::label(of(m)); }
    static module_shape shape(const void* m) { return kind::shape(of(m)); }
    static bool fit(void* m, index out, index in) { return kind::fit(*static_cast<M*>(m), out, in); }
    static const char* misfit(const void* m, index out, index in) { return kind::misfit(of(m), out, in); }
    static peft_facts facts(const void* m) { return kind::facts(of(m)); }
    static peft_change change(const void* m) { return kind::change(of(m)); }
    static peft_change change_without_factors(const void* m) { return kind::change_without_factors(of(m)); }
    static index formed_rank(const void* m) { return kind::formed_rank(of(m)); }
    static bool in_peft(const void* m) { return kind::in_peft(of(m)); }
    static double constant(const void* m) { return kind::constant(of(m)); }
    static std::string path_in_file(const std::string& path, const void* m) { return kind::path_in_file(path, of(m)); }
    static bool claims(const peft_options& o, std::string_view module) { return kind::claims(o, module); }
    static void write(const void* m, peft_tensors& to) { kind::write(of(m), to); }
    static status write_shared(const void* m, [[maybe_unused]] const peft_place& place, peft_tensors& to) {
        if constexpr (requires { kind::write_shared(of(m), place, to); }) {
            return kind::write_shared(of(m), place, to);
        } else {
            return kind::write_shared(of(m), to), status();
        }
    }
    static const void* shared_identity(const void* m) { return kind::shared_identity(of(m)); }
    static peft_module join(peft_parts& parts, const peft_context& c) { return peft_module(kind::join(parts, c)); }
    static std::shared_ptr<const void> join_shared(peft_parts& parts) { return kind::join_shared(parts); }
    static std::vector<peft_type> types() { return kind::types(); }
    static status check(const peft_options& o, std::string_view type, std::vector<std::string>& warnings) {
        return kind::check(o, type, warnings);
    }
    static void fit_options(peft_options& o, const std::vector<std::string>& names,
                            std::span<const void* const> modules) {
        std::vector<const M*> all;
        for (const void* m : modules) {
            all.push_back(&of(m));
        }
        kind::fit_options(o, names, std::span<const M* const>(all));
    }
    static const char* differs(const peft_options& o, const std::string& name, const void* m) {
        return kind::differs(o, name, of(m));
    }
    static std::vector<std::string_view> lycoris_leaves() { return kind::lycoris::leaves(); }
    static std::vector<std::pair<std::string_view, const char*>> lycoris_refused() { return kind::lycoris::refused(); }
    static bool lycoris_holds(const void* m) { return kind::lycoris::holds(of(m)); }
    static peft_module lycoris_join(peft_parts& parts, std::optional<double> alpha) {
        return peft_module(kind::lycoris::join(parts, alpha));
    }
    static double lycoris_write(const void* m, peft_tensors& to) { return kind::lycoris::write(of(m), to); }
    static std::shared_ptr<void> copy(const void* m) { return std::make_shared<M>(of(m)); }

    static result<any_adapter<float>> adapter(const void* m, [[maybe_unused]] const adapted_weight& weight) {
        if constexpr (requires { kind::only_merges; }) {
            return status{errc::unsupported, std::string(kind::only_merges) + ", which is applied only by merging it"};
        } else if constexpr (requires { kind::adapter(of(m), weight); }) {
            return kind::adapter(of(m), weight);
        } else {
            return any_adapter<float>(of(m));
        }
    }
    static std::optional<peft_module> from([[maybe_unused]] const any_adapter<float>& a) {
        if constexpr (requires { kind::only_merges; }) {
            return std::nullopt;
        } else if constexpr (is_adapter<M>) {
            const M* m = a.get<M>();
            return m != nullptr ? std::optional<peft_module>(*m) : std::nullopt;
        } else {
            auto m = kind::from(a);
            return m ? std::optional<peft_module>(std::move(*m)) : std::nullopt;
        }
    }
};

template <class M>
consteval peft_description describe() {
    check_peft_kind<M>();
    using kind = peft_kind<M>;
    using d = described<M>;
    peft_description out{};
    out.mark = &type_mark<M>;
    out.types = &d::types;
    out.label = &d::label;
    out.shape = &d::shape;
    out.fit = &d::fit;
    out.facts = &d::facts;
    out.change = &d::change;
    out.write = &d::write;
    out.copy = &d::copy;
    if constexpr (requires(const M& m) { kind::misfit(m, index{}, index{}); }) {
        out.misfit = &d::misfit;
    }
    if constexpr (requires(const M& m) { kind::change_without_factors(m); }) {
        out.change_without_factors = &d::change_without_factors;
        out.formed_rank = &d::formed_rank;
    }
    if constexpr (requires(const M& m) { kind::constant(m); }) {
        out.constant = &d::constant;
    }
    if constexpr (requires(const M& m) { kind::in_peft(m); }) {
        out.in_peft = &d::in_peft;
    }
    if constexpr (requires(const M& m) { kind::path_in_file("", m); }) {
        out.path_in_file = &d::path_in_file;
    }
    out.is_second_form = requires { kind::is_second_form; };
    if constexpr (requires(const peft_options& o) { kind::claims(o, ""); }) {
        out.claims = &d::claims;
        out.join = &d::join;
    } else if constexpr (!requires { kind::is_second_form; }) {
        out.join = &d::join;
    }
    if constexpr (requires(peft_parts & p) { kind::join_shared(p); }) {
        out.join_shared = &d::join_shared;
        out.write_shared = &d::write_shared;
    }
    if constexpr (requires(const M& m) { kind::shared_identity(m); }) {
        out.shared_identity = &d::shared_identity;
    }
    if constexpr (requires(const peft_options& o, std::vector<std::string>& w) { kind::check(o, "", w); }) {
        out.check = &d::check;
    }
    if constexpr (requires(peft_options & o, const std::vector<std::string>& names) {
                      kind::fit_options(o, names, std::span<const M* const>());
                  }) {
        out.fit_options = &d::fit_options;
    }
    if constexpr (requires(const peft_options& o, const M& m) { kind::differs(o, "", m); }) {
        out.differs = &d::differs;
    }
    if constexpr (requires { typename kind::lycoris; }) {
        out.lycoris_leaves = &d::lycoris_leaves;
        out.lycoris_holds = &d::lycoris_holds;
        if constexpr (requires { kind::lycoris::refused(); }) {
            out.lycoris_refused = &d::lycoris_refused;
        }
        out.lycoris_join = &d::lycoris_join;
        out.lycoris_write = &d::lycoris_write;
    }
    return out;
}

template <class M>
consteval peft_application describe_application() {
    check_peft_kind<M>();
    return {.mark = &type_mark<M>, .adapter = &described<M>::adapter, .from = &described<M>::from};
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_PEFT_KIND_HPP
