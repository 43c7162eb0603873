// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LIST_HPP
#define LOWRANK_LORA_KINDS_LIST_HPP

/// \file
/// Every adapter kind of the library.
///
///     lowrank::for_each_adapter_kind<float>([]<class A>() { std::puts(lowrank::adapter_kind<A>::name.data()); });
///
/// A new kind is a header beside this one, or in a folder of its own, and a line in each of the two lists here.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/adalora.hpp>
#include <lowrank/lora/kinds/delora.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/hira.hpp>
#include <lowrank/lora/kinds/ia3.hpp>
#include <lowrank/lora/kinds/loha.hpp>
#include <lowrank/lora/kinds/lokr.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/kinds/lora_forms/alora.hpp>
#include <lowrank/lora/kinds/lora_forms/bdlora.hpp>
#include <lowrank/lora/kinds/lora_forms/conv_lora.hpp>
#include <lowrank/lora/kinds/lora_forms/kasa.hpp>
#include <lowrank/lora/kinds/lora_forms/merged_linear.hpp>
#include <lowrank/lora/kinds/lora_forms/qalora.hpp>
#include <lowrank/lora/kinds/lora_forms/table_lora.hpp>
#include <lowrank/lora/kinds/miss.hpp>
#include <lowrank/lora/kinds/miss_bat.hpp>
#include <lowrank/lora/kinds/replacement.hpp>
#include <lowrank/lora/kinds/rotations/boft.hpp>
#include <lowrank/lora/kinds/rotations/hra.hpp>
#include <lowrank/lora/kinds/rotations/oft.hpp>
#include <lowrank/lora/kinds/rotations/output_rotation.hpp>
#include <lowrank/lora/kinds/rotations/road.hpp>
#include <lowrank/lora/kinds/shared/randlora.hpp>
#include <lowrank/lora/kinds/shared/tinylora.hpp>
#include <lowrank/lora/kinds/shared/vblora.hpp>
#include <lowrank/lora/kinds/shared/vera.hpp>
#include <lowrank/lora/kinds/structured/c3a.hpp>
#include <lowrank/lora/kinds/structured/fourierft.hpp>
#include <lowrank/lora/kinds/structured/gralora.hpp>
#include <lowrank/lora/kinds/structured/shira.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The adapter types of scalar S.
template <real S>
using adapter_kinds =
    kind_list<lora_adapter<S>, dora_adapter<S>, adalora_adapter<S>, vera_adapter<S>, loha_adapter<S>, lokr_adapter<S>,
              ia3_adapter<S>, oft_adapter<S>, boft_adapter<S>, hra_adapter<S>, miss_adapter<S>, randlora_adapter<S>,
              hira_adapter<S>, kasa_adapter<S>, alora_adapter<S>, conv_lora_adapter<S>, merged_linear_adapter<S>,
              table_lora_adapter<S>, miss_bat_adapter<S>, output_rotation_adapter<S>, replacement_adapter<S>,
              shira_adapter<S>, c3a_adapter<S>, road_adapter<S>, fourierft_adapter<S>, delora_adapter<S>,
              bdlora_adapter<S>, qalora_adapter<S>, gralora_adapter<S>, vblora_adapter<S>, tinylora_adapter<S>>;

namespace detail {

template <class F, class... A>
void for_each_kind(kind_list<A...>, F&& f) {
    (check_adapter_kind<A>(), ...);
    (f.template operator()<A>(), ...);
}

}  // namespace detail

/// Calls `f.operator()<A>()` for every adapter type A of scalar S.
template <real S, class F>
void for_each_adapter_kind(F&& f) {
    detail::for_each_kind(adapter_kinds<S>(), f);
}

/// Makes the adapter of one layer.
template <real S>
using new_adapter = std::function<any_adapter<S>(const target_layer<S>&)>;

/// A kind of which fresh adapters can be made for any layer.
template <real S>
struct makeable_kind {
    std::string_view name = {};
    double learning_rate = 1e-2;  ///< A peak rate that works; kinds with few or small parameters take larger ones.
    /// Ends of the module paths that it is usually put on; empty: every projection.
    std::vector<std::string_view> usual_modules = {};
    bool allocates_ranks = false;  ///< Its ranks may be allocated anew in training.
    /// Adapters that leave the layers as they are until they train.
    /// \pre    options.r >= 1
    /// \return `unsupported` if the options ask for a dropout that the kind does not have, or the layers have sizes
    ///         that it is not made for.
    std::function<result<new_adapter<S>>(const adapted_layers&, const lora_options&)> make = {};
};

/// All kinds of the list with a maker.
template <real S>
[[nodiscard]] const std::vector<makeable_kind<S>>& makeable_kinds();

/// The one of a name, else null.
template <real S>
[[nodiscard]] const makeable_kind<S>* find_makeable_kind(std::string_view name);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/list.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LIST_HPP
