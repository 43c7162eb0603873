// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LIST_IPP
#define LOWRANK_IO_PEFT_KINDS_LIST_IPP

#include <lowrank/io/peft/kinds/list.hpp>

#include <lowrank/io/peft/kinds/adalora.hpp>
#include <lowrank/io/peft/kinds/delora.hpp>
#include <lowrank/io/peft/kinds/experts.hpp>
#include <lowrank/io/peft/kinds/hira.hpp>
#include <lowrank/io/peft/kinds/ia3.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>
#include <lowrank/io/peft/kinds/lokr.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/kinds/lora_forms/bdlora.hpp>
#include <lowrank/io/peft/kinds/lora_forms/kasa.hpp>
#include <lowrank/io/peft/kinds/lora_forms/qalora.hpp>
#include <lowrank/io/peft/kinds/miss.hpp>
#include <lowrank/io/peft/kinds/rotations/boft.hpp>
#include <lowrank/io/peft/kinds/rotations/hra.hpp>
#include <lowrank/io/peft/kinds/rotations/oft.hpp>
#include <lowrank/io/peft/kinds/rotations/road.hpp>
#include <lowrank/io/peft/kinds/shared/randlora.hpp>
#include <lowrank/io/peft/kinds/shared/tinylora.hpp>
#include <lowrank/io/peft/kinds/shared/vblora.hpp>
#include <lowrank/io/peft/kinds/shared/vera.hpp>
#include <lowrank/io/peft/kinds/structured/c3a.hpp>
#include <lowrank/io/peft/kinds/structured/fourierft.hpp>
#include <lowrank/io/peft/kinds/structured/gralora.hpp>
#include <lowrank/io/peft/kinds/structured/shira.hpp>
#include <lowrank/io/peft/kinds/whole_tensor.hpp>
#include <lowrank/lora/adapter_kind.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The list.
using described_kinds =
    kind_list<lora_adapter<float>, peft_lora, bdlora_adapter<float>, qalora_adapter<float>, kasa_adapter<float>,
              adalora_adapter<float>, loha_adapter<float>, lokr_adapter<float>, vera_adapter<float>, peft_ia3,
              oft_adapter<float>, output_rotation_adapter<float>, peft_boft, hra_adapter<float>, miss_adapter<float>,
              miss_bat_adapter<float>, peft_randlora, hira_adapter<float>, peft_hira, shira_adapter<float>,
              c3a_adapter<float>, road_adapter<float>, fourierft_adapter<float>, delora_adapter<float>,
              gralora_adapter<float>, peft_vblora, tinylora_adapter<float>, whole_tensor, peft_experts>;

template <class... M>
[[nodiscard]] peft_kind_list descriptions_of(kind_list<M...>) {
    static constexpr const peft_description* all[] = {&peft_description_of<M>...};
    return all;
}
template <class... M>
[[nodiscard]] peft_application_list applications_of(kind_list<M...>) {
    static constexpr const peft_application* all[] = {&peft_application_of<M>...};
    return all;
}

}  // namespace detail

LOWRANK_BODY peft_kind_list peft_kinds() { return detail::descriptions_of(detail::described_kinds()); }
LOWRANK_BODY peft_application_list peft_applications() { return detail::applications_of(detail::described_kinds()); }

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_LIST_IPP
