// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXTERN_TEMPLATES
#define LOWRANK_EXTERN_TEMPLATES  // only what is named below is compiled here
#endif
#include <lowrank/instantiate.hpp>

LOWRANK_INSTANTIATE_SVD(float)
LOWRANK_INSTANTIATE_TRUNCATED_SVD(float)
