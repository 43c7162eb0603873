// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_INSTANTIATE_HPP
#define LOWRANK_IO_INSTANTIATE_HPP

/// \file
/// Explicit instantiation of what this floor does with whole adapters and checkpoints, for programs that want to
/// compile it once.
///
///     // in every file of the program, by the build system:   -DLOWRANK_EXTERN_IO
///     // in one file:
///     #include <lowrank/io/instantiate.hpp>
///     LOWRANK_INSTANTIATE_IO()
///
/// With LOWRANK_EXTERN_IO the headers only declare these functions; without the macro everything is header-only as
/// usual and this file is not needed. The other floors have the same in lowrank/instantiate.hpp.

#include <lowrank/io/checkpoints/combine_adapters.hpp>
#include <lowrank/io/checkpoints/extract_adapter.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/peft.hpp>

/// Every heavy function of the floor. At namespace scope.
#define LOWRANK_INSTANTIATE_IO()                                              \
    namespace lowrank::inline LOWRANK_ABI {                                   \
                                                                              \
    LOWRANK_IO_COMBINE_ADAPTERS()                                             \
    LOWRANK_IO_EXTRACT_ADAPTER()                                              \
                                                                              \
    LOWRANK_IO_MERGE_CHECKPOINT() LOWRANK_IO_PEFT() LOWRANK_IO_PEFT_MODULES() \
    }

#endif  // LOWRANK_IO_INSTANTIATE_HPP
