// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_CLI_MATRICES_HPP
#define LOWRANK_EXAMPLES_CLI_MATRICES_HPP

/// \file
/// Which matrices of a model a command means: `--matrix` patterns.
///
///     const tool::matrix_choice chosen({"mlp.*", "model.layers.0.self_attn.q_proj"});
///     if (chosen.contains("model.layers.3.mlp.up_proj.weight")) ...
///     chosen.require_all_used();

#include <string>
#include <string_view>
#include <vector>

namespace tool {

/// A pattern means a name if it matches all of it, or its end from a dot on, with or without ".weight".
class matrix_choice {
public:
    explicit matrix_choice(std::vector<std::string> patterns);

    /// True if a pattern means `name`. Remembers which patterns ever did.
    [[nodiscard]] bool contains(std::string_view name) const;

    /// Fails with a sentence that names the first pattern that meant nothing.
    void require_all_used() const;

private:
    std::vector<std::string> patterns_;
    mutable std::vector<bool> used_;
};

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_MATRICES_HPP
