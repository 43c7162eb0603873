// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_CONFIG_NO_EXCEPTIONS_SHARED_HPP
#define LOWRANK_TESTS_CONFIG_NO_EXCEPTIONS_SHARED_HPP

#include <string>

#include <lowrank/fwd.hpp>

using fail_function = void(const std::string&);

lowrank::lora_adapter<float> made_elsewhere();
fail_function* address_elsewhere();

#endif  // LOWRANK_TESTS_CONFIG_NO_EXCEPTIONS_SHARED_HPP
