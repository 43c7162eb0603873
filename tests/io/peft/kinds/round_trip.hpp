// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_IO_PEFT_KINDS_ROUND_TRIP_HPP
#define LOWRANK_TESTS_IO_PEFT_KINDS_ROUND_TRIP_HPP

/// \file
/// Modules through a PEFT folder and back: the same modules, and the same bytes when they are written again.

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <lowrank/io/peft.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "io_support.hpp"

namespace lowrank_tests {

/// An adapter folder of some modules, and what it says.
struct written_adapter {
    std::unique_ptr<temporary_folder> folder = std::make_unique<temporary_folder>();
    nlohmann::json config = {};

    [[nodiscard]] std::filesystem::path path() const { return *folder / "a"; }
    /// Writes the configuration with one key changed.
    void set(const char* key, nlohmann::json value) const {
        nlohmann::json changed = config;
        changed[key] = std::move(value);
        REQUIRE(lowrank::write_file(path() / "adapter_config.json", changed.dump()));
    }
    void set_tensors(std::vector<lowrank::tensor_to_write> tensors) const {
        REQUIRE(lowrank::write_safetensors(path() / "adapter_model.safetensors", std::move(tensors)));
    }
    /// Why it is not read.
    [[nodiscard]] std::string refusal() const {
        const auto read = lowrank::read_peft(path());
        CHECK_FALSE(read);
        return read ? std::string() : read.error().message;
    }
    /// Whether the refusal has these words; says it if it has not.
    void refuses(const std::string& words) const {
        const std::string why = refusal();
        CHECK_MESSAGE(why.find(words) != std::string::npos, why);
    }
};

/// Writes modules, reads them back, and checks that nothing has changed; out x in is the shape of each weight.
inline written_adapter round_trip(const std::map<std::string, lowrank::peft_module>& modules, const std::string& type,
                                  const std::map<std::string, std::pair<lowrank::index, lowrank::index>>& shapes) {
    written_adapter out;
    lowrank::peft_adapter made;
    made.modules = modules;
    made.config = lowrank::peft_config_for(made, {.peft_type = type});
    const auto why = lowrank::write_peft(out.path(), made);
    REQUIRE_MESSAGE(why, why.message);
    out.config = nlohmann::json::parse(text_of(out.path() / "adapter_config.json"));
    CHECK(out.config["peft_type"] == type);
    auto read = lowrank::read_peft(out.path());
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    CHECK(read->warnings.empty());
    CHECK(lowrank::first_stored_tensor(*read) == nullptr);
    REQUIRE(read->modules.size() == modules.size());
    for (const auto& entry : modules) {
        CAPTURE(entry.first);
        lowrank::peft_module before = entry.second;
        lowrank::peft_module after = read->modules.at(entry.first);
        CHECK(kind_of(after) == kind_of(before));
        CHECK(parameter_count(after) == parameter_count(before));
        const auto [rows, cols] = shapes.at(entry.first);
        REQUIRE(fit_module(before, rows, cols));
        REQUIRE(fit_module(after, rows, cols));
        lowrank::matrix<double> w(rows, cols);
        lowrank::fill_normal(w, 1.0, lowrank::philox(7));
        CHECK(changed(change_of(after).weight, w) == changed(change_of(before).weight, w));
    }
    const auto tensors = text_of(out.path() / "adapter_model.safetensors");
    const auto said = text_of(out.path() / "adapter_config.json");
    REQUIRE(lowrank::write_peft(out.path(), *read));
    CHECK(text_of(out.path() / "adapter_model.safetensors") == tensors);
    CHECK(text_of(out.path() / "adapter_config.json") == said);
    return out;
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_IO_PEFT_KINDS_ROUND_TRIP_HPP
