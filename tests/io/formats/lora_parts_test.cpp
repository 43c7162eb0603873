// SPDX-License-Identifier: MIT
// Parts of modules in single files: a part that is not known leaves out its module, whatever else there is of it.
// LyCORIS #22, ComfyUI #8683, InvokeAI PR #9517, vllm #34186.
#include <lowrank/io/formats/detail/lora_parts.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/peft/peft_modules.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::tensor_of_ones;

namespace {

tensor_to_write numbers(std::string name, std::vector<std::uint64_t> shape, float first = 0.5F) {
    std::uint64_t size = 1;
    for (const std::uint64_t n : shape) {
        size *= n;
    }
    const vector<float> x = vector<float>::LinSpaced(static_cast<lowrank::index>(size), first, -first);
    auto t = tensor_of(std::move(name), x);
    t.shape = std::move(shape);
    return t;
}

result<lora_file> read(const temporary_folder& folder, std::vector<tensor_to_write> tensors) {
    REQUIRE(write_safetensors(folder / "f", std::move(tensors)));
    return read_lora_file(folder / "f");
}

template <class T>
tensor_to_write scalar_of_type(std::string name, dtype type, T value) {
    tensor_to_write t{.name = std::move(name), .type = type};
    const auto* raw = reinterpret_cast<const std::byte*>(&value);
    auto copy = std::make_shared<std::vector<std::byte>>(raw, raw + sizeof value);
    t.bytes = *copy;
    t.owned = copy;
    return t;
}

}  // namespace

TEST_CASE("an unknown tensor under a known module leaves it out whole, and the others stay") {
    temporary_folder folder;
    for (const char* part : {"m.lora_foo.weight", "m.diff_b", "m.reshape_weight", "m.scalar", "m.lora_B.extra"}) {
        const auto file = read(folder, {numbers("m.lora_A.weight", {2, 4}), numbers("m.lora_B.weight", {3, 2}),
                                        numbers("n.lora_A.weight", {2, 4}), numbers("n.lora_B.weight", {3, 2}),
                                        tensor_of_ones(part, {3})});
        REQUIRE_MESSAGE(file, part);
        CHECK_MESSAGE(file->modules.size() == 1, part);
        CHECK(file->modules.contains("n"));
        CHECK_MESSAGE(file->unmapped.size() == 3, part);
    }
}

TEST_CASE("a file of which nothing can be read is refused with the reason") {
    temporary_folder folder;
    const auto refused = [&](std::string_view reason, std::vector<tensor_to_write> tensors) {
        const auto file = read(folder, std::move(tensors));
        REQUIRE_MESSAGE(!file, reason);
        CHECK(file.error().code == errc::unsupported);
        CHECK_MESSAGE(file.error().message.find("no module of the file can be read") != std::string::npos,
                      file.error().message);
        CHECK_MESSAGE(file.error().message.find(reason) != std::string::npos, file.error().message);
    };
    refused("multiplied by a scalar", {numbers("m.lora_down.weight", {2, 4}), numbers("m.lora_up.weight", {3, 2}),
                                       tensor_of_ones("m.scalar", {})});
    refused("kernel in this factor",
            {numbers("m.lora_down.weight", {2, 4, 1, 1}), numbers("m.lora_up.weight", {3, 2, 3, 3})});
    refused("stack of experts", {numbers("m.lora_a", {3, 4, 2}), numbers("m.lora_b", {3, 4, 2})});
    const auto strange = read(folder, {tensor_of_ones("x.weight", {1}), tensor_of_ones("y.weight", {1})});
    CHECK(strange.error().message.find("its tensors are \"x.weight\", \"y.weight\"") != std::string::npos);
}

TEST_CASE("every spelling of a folder is known in a file, and some of other trainers") {
    temporary_folder folder;
    const auto a = numbers("", {2, 4});
    const auto b = numbers("", {3, 2});
    const std::pair<const char*, const char*> spellings[] = {
        {"m.lora_A.weight", "m.lora_B.weight"},
        {"m.lora_A.default.weight", "m.lora_B.default.weight"},
        {"m.lora_linear_layer.down.weight", "m.lora_linear_layer.up.weight"},
        {"m.lora.down.weight", "m.lora.up.weight"},
        {"m.lora_A", "m.lora_B"},
        {"m.lora_down.weight", "m.lora_up.weight"}};
    for (const auto& names : spellings) {
        auto first = a;
        auto second = b;
        first.name = names.first;
        second.name = names.second;
        const auto file = read(folder, {first, second});
        REQUIRE_MESSAGE(file, names.first);
        CHECK(lora_of(file->modules.at("m")).rows() == 3);
    }
    for (const char* magnitude : {"m.magnitude", "m.lora_magnitude_vector", "m.lora_magnitude_vector.weight",
                                  "m.lora_magnitude_vector.default.weight", "m.dora_scale"}) {
        const auto file = read(
            folder, {numbers("m.lora_A.weight", {2, 4}), numbers("m.lora_B.weight", {3, 2}), numbers(magnitude, {3})});
        REQUIRE_MESSAGE(file, magnitude);
        CHECK_MESSAGE(file->modules.at("m").get<peft_lora>()->magnitude.size() == 3, magnitude);
    }
    const auto rest = read(
        folder, {numbers("m.lora_A.weight", {2, 4}), numbers("m.lora_B.weight", {3, 2}), numbers("m.lora_B.bias", {3}),
                 numbers("t.lora_embedding_A", {2, 9}), numbers("t.lora_embedding_B", {4, 2})});
    REQUIRE(rest);
    CHECK(rest->modules.at("m").get<peft_lora>()->bias.size() == 3);
    CHECK(is_table_module(rest->modules.at("t")));
    CHECK(lora_of(read_adapter(folder / "f")->adapter.modules.at("t")).cols() == 9);
}

TEST_CASE("alpha may be of any type of numbers") {
    temporary_folder folder;
    const auto scaling = [&](const tensor_to_write& alpha) {
        const auto file =
            read(folder, {numbers("m.lora_down.weight", {2, 4}), numbers("m.lora_up.weight", {3, 2}), alpha});
        REQUIRE_MESSAGE(file, (file ? std::string() : file.error().message));
        return lora_of(file->modules.at("m")).scaling();
    };
    CHECK(scaling(scalar_of_type("m.alpha", dtype::i64, std::int64_t{16})) == 8);
    CHECK(scaling(scalar_of_type("m.alpha", dtype::i32, std::int32_t{-4})) == -2);
    CHECK(scaling(scalar_of_type("m.alpha", dtype::u8, std::uint8_t{3})) == 1.5F);
    CHECK(scaling(scalar_of_type("m.alpha", dtype::f64, 5.0)) == 2.5F);
}

TEST_CASE("the core of a LoCon is folded into its right factor") {
    temporary_folder folder;
    const auto file =
        read(folder, {numbers("m.lora_down.weight", {2, 4, 1, 1}), numbers("m.lora_mid.weight", {2, 2, 3, 3}),
                      numbers("m.lora_up.weight", {3, 2, 1, 1}), numbers("m.alpha", {}, -4)});
    REQUIRE_MESSAGE(file, (file ? std::string() : file.error().message));
    CHECK(file->unmapped.empty());
    const auto& m = *file->modules.at("m").get<peft_lora>();
    CHECK(m.kernel == std::vector<std::uint64_t>{3, 3});
    CHECK(m.lora.scaling() == 2);
    const auto at = [](const tensor_to_write& t, std::size_t i) {
        return static_cast<double>(reinterpret_cast<const float*>(t.bytes.data())[i]);
    };
    const auto down = numbers("", {2, 4});
    const auto mid = numbers("", {2, 2, 3, 3});
    const auto up = numbers("", {3, 2});
    double farthest = 0;
    for (std::size_t o = 0; o < 3; ++o) {
        for (std::size_t i = 0; i < 4; ++i) {
            for (std::size_t k = 0; k < 9; ++k) {
                double sum = 0;
                for (std::size_t p = 0; p < 2; ++p) {
                    for (std::size_t q = 0; q < 2; ++q) {
                        sum += at(up, o * 2 + p) * at(mid, (p * 2 + q) * 9 + k) * at(down, q * 4 + i);
                    }
                }
                const double got = static_cast<double>((m.lora.lora_B.row(static_cast<lowrank::index>(o)) *
                                                        m.lora.lora_A.col(static_cast<lowrank::index>(i * 9 + k)))
                                                           .value());
                farthest = std::max(farthest, std::abs(got - sum));
            }
        }
    }
    CHECK(farthest < 1e-6);
    CHECK_FALSE(read(folder, {numbers("m.lora_down.weight", {2, 4}), numbers("m.lora_mid.weight", {3, 2}),
                              numbers("m.lora_up.weight", {3, 2})}));
}

TEST_CASE("a convolution of one tap keeps its shape") {
    temporary_folder folder;
    const auto file =
        read(folder, {numbers("m.lora_down.weight", {2, 4, 1, 1}), numbers("m.lora_up.weight", {3, 2, 1, 1})});
    REQUIRE(file);
    REQUIRE(write_lora_file(folder / "again", file->modules, {.format = "kohya"}));
    const auto again = checkpoint::open(folder / "again");
    REQUIRE(again);
    CHECK(again->find("lora_unet_m.lora_down.weight")->shape == std::vector<std::uint64_t>{2, 4, 1, 1});
    CHECK(again->find("lora_unet_m.lora_up.weight")->shape == std::vector<std::uint64_t>{3, 2, 1, 1});
}

TEST_CASE("an MLX adapter of a table is one of a table") {
    temporary_folder folder;
    REQUIRE(
        write_file(folder / "adapter_config.json", std::string(R"({"lora_parameters": {"rank": 2, "scale": 3.0}})")));
    REQUIRE(write_safetensors(folder / "adapters.safetensors", {numbers("model.embed_tokens.lora_a", {9, 2}),
                                                                numbers("model.embed_tokens.lora_b", {2, 4})}));
    const auto read = read_adapter(folder.path());
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    const auto& table = lora_of(read->adapter.modules.at("model.embed_tokens"));
    CHECK(table.lora_A.cols() == 9);
    CHECK(table.lora_B.rows() == 4);
    CHECK(table.scaling() == 3);
}
