// SPDX-License-Identifier: MIT
#include "see.hpp"

seen see_without_exceptions() { return see(); }
