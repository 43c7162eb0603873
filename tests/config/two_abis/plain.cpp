// SPDX-License-Identifier: MIT
#include "see.hpp"

seen see_plain() { return see(); }
