// SPDX-License-Identifier: MIT
#include <lowrank.hpp>
// The single header first, then the folder: guards make the second a no-op.
#include <lowrank/core/philox.hpp>
#include <lowrank/fwd.hpp>
#include <lowrank/lowrank.hpp>

#include "form.hpp"

int main() { return truncate_something(); }
