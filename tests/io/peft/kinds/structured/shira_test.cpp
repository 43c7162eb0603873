// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/structured/shira.hpp>

#include <string>
#include <vector>

#include <lowrank/io/peft.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io_support.hpp"
#include "lora/support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

namespace {

/// Indices as a tensor of another type.
template <class T>
tensor_to_write indices_as(dtype type, const shira_adapter<float>& a) {
    auto bytes =
        std::make_shared<std::vector<std::byte>>(2 * static_cast<std::size_t>(a.shira_indices.cols()) * sizeof(T));
    std::byte* to = bytes->data();
    for (lowrank::index i = 0; i < 2; ++i) {
        for (lowrank::index k = 0; k < a.shira_indices.cols(); ++k, to += sizeof(T)) {
            const auto value = static_cast<T>(a.shira_indices(i, k));
            std::memcpy(to, &value, sizeof value);
        }
    }
    return {.name = "base_model.model.l.shira_indices",
            .type = type,
            .shape = {2, static_cast<std::uint64_t>(a.shira_indices.cols())},
            .bytes = *bytes,
            .owned = bytes};
}

std::string refusal(const std::filesystem::path& folder) {
    const auto read = read_peft(folder);
    CHECK_FALSE(read);
    return read ? std::string() : read.error().message;
}

}  // namespace

TEST_CASE("the description of SHiRA holds for a module of it") {
    lowrank_tests::check_kind(make_shira<float>(6, 4, {.r = 2}), 6, 4);
}

TEST_CASE("indices are read in every type that PEFT writes, and written again as they were") {
    temporary_folder folder;
    auto made = make_shira<float>(6, 8, {.r = 2, .seed = 3});
    made.shira_weight = lowrank_tests::random_matrix<float>(28, 1, 1);
    peft_adapter adapter;
    adapter.modules["l"] = made;
    adapter.config = peft_config_for(adapter);
    REQUIRE(write_peft(folder / "a", adapter));
    const auto weights = tensor_of("base_model.model.l.shira_weight", made.shira_weight);
    for (const auto& indices : {indices_as<std::int32_t>(dtype::i32, made), indices_as<std::int64_t>(dtype::i64, made),
                                indices_as<float>(dtype::f32, made)}) {
        CAPTURE(name_of(indices.type));
        const auto file = folder / "a" / "adapter_model.safetensors";
        REQUIRE(write_safetensors(file, {indices, weights}, {{"format", "pt"}}));
        const auto before = lowrank_tests::text_of(file);
        auto read = read_peft(folder / "a");
        REQUIRE(read);
        const auto* module = read->modules.at("l").get<shira_adapter<float>>();
        REQUIRE(module != nullptr);
        CHECK(module->shira_indices == made.shira_indices);
        CHECK(module->shira_weight == made.shira_weight);
        REQUIRE(write_peft(folder / "a", *read));
        CHECK(lowrank_tests::text_of(file) == before);
        peft_module fitted = read->modules.at("l");
        CHECK(fit_module(fitted, 6, 8));
        peft_module smaller = read->modules.at("l");
        CHECK(fit_module(smaller, 7, 8).message.find("r (out + in) entries") != std::string::npos);
        CHECK(fit_module(smaller, 1, 13).code == errc::mismatch);  // entries outside
    }
}

TEST_CASE("indices that are none, and as many of them as r does not say, are refused in a sentence") {
    temporary_folder folder;
    auto made = make_shira<float>(6, 8, {.r = 2, .seed = 3});
    peft_adapter adapter;
    adapter.modules["l"] = made;
    adapter.config = peft_config_for(adapter);
    const auto at = folder / "a";
    REQUIRE(write_peft(at, adapter));
    const auto weights = tensor_of("base_model.model.l.shira_weight", made.shira_weight);
    const auto with = [&](const tensor_to_write& indices, const tensor_to_write& values) {
        REQUIRE(write_safetensors(at / "adapter_model.safetensors", {indices, values}));
        return refusal(at);
    };
    auto bad = made;
    bad.shira_indices(0, 5) = -1;
    CHECK(with(indices_as<std::int32_t>(dtype::i32, bad), weights).find("no index") != std::string::npos);
    bad.shira_indices(0, 5) = 1 << 24;
    CHECK(with(indices_as<std::int64_t>(dtype::i64, bad), weights).find("no index") != std::string::npos);
    auto halves = tensor_of("base_model.model.l.shira_indices", lowrank_tests::random_matrix<float>(2, 28, 1));
    CHECK(with(halves, weights).find("no index") != std::string::npos);
    auto three = indices_as<std::int32_t>(dtype::i32, made);
    three.shape = {28, 2};
    CHECK(with(three, weights).find("expected [2, n]") != std::string::npos);
    auto fewer = made;
    fewer.shira_indices.conservativeResize(2, 27);
    CHECK(with(indices_as<std::int32_t>(dtype::i32, fewer), weights).find("shapes do not fit") != std::string::npos);
    fewer.shira_weight.conservativeResize(27);
    CHECK(with(indices_as<std::int32_t>(dtype::i32, fewer),
               tensor_of("base_model.model.l.shira_weight", fewer.shira_weight))
              .find("27 entries") != std::string::npos);
    auto real = tensor_of("base_model.model.l.shira_indices", row_matrix<double>(row_matrix<double>::Zero(2, 28)));
    CHECK(with(real, weights).find("I32") != std::string::npos);
}
