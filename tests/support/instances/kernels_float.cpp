// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXTERN_TEMPLATES
#define LOWRANK_EXTERN_TEMPLATES  // only what is named below is compiled here
#endif
#include <lowrank/instantiate.hpp>

LOWRANK_INSTANTIATE_KERNELS(float)
