// SPDX-License-Identifier: MIT
// File formats of the test alone, a scheme of names and a format that is no safetensors: adapters are read, converted
// and written in them through the list that the built-in formats are in.

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/peft.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

namespace {

/// "toy/M/down" and "toy/M/up", scaling 1.
lora_name parse_toy(std::string_view name) {
    for (const auto& [end, part] :
         {std::pair{std::string_view("/down"), lora_name::part::a}, {std::string_view("/up"), lora_name::part::b}}) {
        if (name.starts_with("toy/") && name.ends_with(end)) {
            return {.what = part, .module = std::string(name.substr(4, name.size() - end.size() - 4))};
        }
    }
    return {};
}
status emit_toy(lora_tensors& out, const std::string& module, const lora_adapter<float>& lora,
                const lora_write_options&) {
    out.tensors.push_back(tensor_of("toy/" + module + "/down", lora.lora_A));
    out.tensors.push_back(tensor_of("toy/" + module + "/up", matrix<float>(lora.delta().left)));
    return {};
}

/// One module of rank 1 in a text: "TINY name a b", for the 1 x 1 change a b.
result<adapter_file> read_tiny(const std::filesystem::path& path, const adapter_read_options&) {
    const std::string text = lowrank_tests::text_of(path);
    char name[32];
    float a = 0, b = 0;
    if (std::sscanf(text.c_str(), "TINY %31s %f %f", name, &a, &b) != 3) {
        return status{errc::invalid_format, "expected TINY name a b"};
    }
    adapter_file out{.format = "tiny"};
    auto lora = make_lora<float>(1, 1, {.r = 1, .lora_alpha = 1});
    lora.lora_A(0, 0) = a;
    lora.lora_B(0, 0) = b;
    out.adapter.modules[name] = lora;
    out.adapter.config = peft_config_for(out.adapter);
    return out;
}
status write_tiny(const std::filesystem::path& path, const peft_adapter& adapter, const adapter_write_options& opt) {
    const auto& [name, module] = *adapter.modules.begin();
    const auto& lora = lora_of(module);
    return write_file(
        path, "TINY " + name + " " + std::to_string(lora.lora_A(0, 0)) + " " + std::to_string(lora.delta().left(0, 0)),
        opt.write);
}

std::vector<adapter_format> with_toy_formats() {
    std::vector<adapter_format> all = {
        {.name = "toy", .parse = parse_toy, .emit = emit_toy},
        {.name = "tiny",
         .recognizes = [](const adapter_source& source) { return source.head.starts_with("TINY "); },
         .read = read_tiny,
         .write = write_tiny}};
    all.insert(all.end(), adapter_formats().begin(), adapter_formats().end());
    return all;
}

}  // namespace

TEST_CASE("a toy scheme of names is read, converted and written like a built-in one") {
    const auto all = with_toy_formats();
    temporary_folder folder;
    peft_adapter made;
    auto lora = make_lora<float>(3, 4, {.r = 2, .lora_alpha = 4});  // scaling 2
    lora.lora_B.setConstant(0.5F);
    made.modules["a.b"] = lora;
    made.config = peft_config_for(made);
    CHECK(write_adapter(folder / "x", made, "toy").message.find("no adapter format \"toy\"") != std::string::npos);
    REQUIRE(write_adapter(folder / "x", made, "toy", {}, all));
    CHECK(read_adapter(folder / "x").error().message.find("no LoRA tensors") != std::string::npos);
    auto read = read_adapter(folder / "x", {}, all);
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    CHECK(read->format == "toy");
    CHECK(read->unmapped.empty());
    CHECK(lora_of(read->adapter.modules.at("a.b")).delta().dense() == lora.delta().dense());
    for (const char* format : {"peft", "kohya", "mlx", "diffusers", "toy"}) {
        REQUIRE(write_adapter(folder / format, read->adapter, format, {}, all));
        const auto back = read_adapter(folder / format, {.modules = {"a.b"}}, all);
        REQUIRE_MESSAGE(back, format);
        CHECK(back->format == format);
        CHECK_MESSAGE(lora_of(back->adapter.modules.at("a.b")).delta().dense() == lora.delta().dense(), format);
    }
}

TEST_CASE("what a toy format cannot hold is refused, naming the module") {
    const auto all = with_toy_formats();
    temporary_folder folder;
    peft_adapter dora;
    dora.modules["m"] = peft_lora{.lora = make_lora<float>(3, 4, {.r = 2}), .magnitude = vector<float>::Ones(3)};
    CHECK(can_hold(all[0], dora).message == "module \"m\" is adapted by DoRA, which toy cannot represent");
    CHECK(write_adapter(folder / "x", dora, "toy", {}, all).code == errc::unsupported);
    CHECK(folder.listing().empty());
    // Names of two formats in one file.
    REQUIRE(write_safetensors(folder / "mixed", {lowrank_tests::tensor_of_ones("toy/m/down", {1, 2}),
                                                 lowrank_tests::tensor_of_ones("m.lora_up.weight", {2, 1})}));
    CHECK(read_adapter(folder / "mixed", {}, all).error().message.find("others as in") != std::string::npos);
}

TEST_CASE("a toy format of its own container is recognized and converted") {
    const auto all = with_toy_formats();
    temporary_folder folder;
    REQUIRE(write_file(folder / "t", "TINY m 3 2"));
    const auto read = read_adapter(folder / "t", {}, all);
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    CHECK(read->format == "tiny");
    CHECK(lora_of(read->adapter.modules.at("m")).delta().dense()(0, 0) == 6);
    REQUIRE(write_adapter(folder / "k", read->adapter, "kohya", {}, all));
    const auto kohya = read_adapter(folder / "k", {.modules = {"m"}}, all);
    REQUIRE(kohya);
    REQUIRE(write_adapter(folder / "back", kohya->adapter, "tiny", {}, all));
    CHECK(lora_of(read_adapter(folder / "back", {}, all)->adapter.modules.at("m")).delta().dense()(0, 0) == 6);
    CHECK_FALSE(read_adapter(folder / "back"));
}
