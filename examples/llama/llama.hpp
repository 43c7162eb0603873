// SPDX-License-Identifier: MIT
#ifndef LLAMA_LLAMA_HPP
#define LLAMA_LLAMA_HPP

/// \file
/// The whole engine: a Llama-architecture model on the library's linear operators. See docs/llama-example.md.

#include "adapters.hpp"   // IWYU pragma: export
#include "backward.hpp"   // IWYU pragma: export
#include "batch.hpp"      // IWYU pragma: export
#include "config.hpp"     // IWYU pragma: export
#include "forward.hpp"    // IWYU pragma: export
#include "generate.hpp"   // IWYU pragma: export
#include "load.hpp"       // IWYU pragma: export
#include "model.hpp"      // IWYU pragma: export
#include "tokenizer.hpp"  // IWYU pragma: export
#include "train.hpp"      // IWYU pragma: export

#endif  // LLAMA_LLAMA_HPP
