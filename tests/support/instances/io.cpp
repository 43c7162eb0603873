// SPDX-License-Identifier: MIT
#include <lowrank/io/instantiate.hpp>

LOWRANK_INSTANTIATE_IO()
