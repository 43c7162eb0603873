// SPDX-License-Identifier: MIT
// The bodies of io, which are compiled where they are called, under -fno-exceptions -fno-rtti. Only compiled.
#include <lowrank/io/instantiate.hpp>

LOWRANK_INSTANTIATE_IO()
