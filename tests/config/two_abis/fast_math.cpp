// SPDX-License-Identifier: MIT
#include "see.hpp"

seen see_with_fast_math() { return see(); }
