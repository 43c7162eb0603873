// SPDX-License-Identifier: MIT
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/decomposition.hpp>
// Part of the folder first, then the single header, which fills in the rest.
#include <lowrank.hpp>

#include "form.hpp"

int main() { return truncate_something(); }
