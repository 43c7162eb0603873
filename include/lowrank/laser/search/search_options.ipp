// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_SEARCH_OPTIONS_IPP
#define LOWRANK_LASER_SEARCH_SEARCH_OPTIONS_IPP

#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY const search_candidate* search_result::winning() const {
    return winner ? &candidates[static_cast<std::size_t>(*winner)] : nullptr;
}

LOWRANK_BODY std::vector<edit> search_result::edits() const {
    std::vector<edit> out;
    for (std::size_t i = 0; winner && i < winning()->edits.size(); ++i) {
        out.push_back(winning()->edits[i].what);
    }
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_SEARCH_OPTIONS_IPP
