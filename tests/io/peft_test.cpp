// SPDX-License-Identifier: MIT
#include <lowrank/io/peft.hpp>

#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/io/peft/kinds/whole_tensor.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::failing_disk;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

namespace {

peft_adapter two_modules() {
    peft_adapter out;
    out.modules["model.layers.0.q_proj"] = make_lora<float>(6, 4, {.r = 2, .lora_alpha = 4, .seed = 1, .stream = 0});
    out.modules["model.layers.1.up_proj"] = make_lora<float>(8, 4, {.r = 2, .lora_alpha = 4, .seed = 1, .stream = 1});
    for (auto& [path, module] : out.modules) {
        lora_of(module).lora_B.setConstant(0.5F);
    }
    out.config = peft_config_for(out.modules);
    return out;
}

/// Writes a folder from a configuration's members and tensors.
void write_folder(const temporary_folder& folder, std::string_view members, std::vector<tensor_to_write> tensors) {
    REQUIRE(write_file(folder / "adapter_config.json", "{\"peft_type\":\"LORA\"" + std::string(members) + "}"));
    REQUIRE(write_safetensors(folder / "adapter_model.safetensors", std::move(tensors)));
}

tensor_to_write filled(std::string name, Eigen::Index rows, Eigen::Index cols, float value = 1) {
    return tensor_of(std::move(name), row_matrix<float>(row_matrix<float>::Constant(rows, cols, value)));
}

void refuses(const temporary_folder& folder, errc code, std::string_view says) {
    const auto adapter = read_peft(folder.path());
    REQUIRE_MESSAGE(!adapter, says);
    CHECK_MESSAGE(adapter.error().code == code, adapter.error().message);
    CHECK_MESSAGE(adapter.error().message.find(says) != std::string::npos, adapter.error().message);
}

}  // namespace

TEST_CASE("an adapter we wrote reads back equal and is written to the same bytes") {
    temporary_folder folder;
    const peft_adapter made = two_modules();
    REQUIRE(write_peft(folder / "a", made));
    const auto read = read_peft(folder / "a");
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    CHECK(read->warnings.empty());
    REQUIRE(read->modules.size() == 2);
    for (const auto& [module, held] : made.modules) {
        const auto& lora = lora_of(held);
        const auto& again = lora_of(read->modules.at(module));
        CHECK(again.lora_A == lora.lora_A);
        CHECK(again.lora_B == lora.lora_B);
        CHECK(again.scaling() == 2);
    }
    CHECK(read->config.target_modules == std::vector<std::string>{"q_proj", "up_proj"});
    REQUIRE(write_peft(folder / "b", *read));
    for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
        CHECK(text_of(folder / "a" / name) == text_of(folder / "b" / name));
    }
}

TEST_CASE("real adapters keep their bytes") {
    LOWRANK_NEEDS_SHARED(shared);
    temporary_folder folder;
    int read = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(shared / "adapters")) {
        if (entry.path().filename() != "adapter_config.json") {
            continue;
        }
        const auto from = entry.path().parent_path();
        const auto adapter = read_peft(from);
        REQUIRE_MESSAGE(adapter, (adapter ? std::string() : adapter.error().message));
        REQUIRE(write_peft(folder / "copy", *adapter));
        CHECK_MESSAGE(
            text_of(folder / "copy" / "adapter_model.safetensors") == text_of(from / "adapter_model.safetensors"),
            from.string());
        const auto before = nlohmann::ordered_json::parse(text_of(entry.path()));
        const auto after = nlohmann::ordered_json::parse(text_of(folder / "copy" / "adapter_config.json"));
        CHECK(nlohmann::json::parse(before.dump()) == nlohmann::json::parse(after.dump()));
        std::vector<std::string> keys;
        for (const auto& [key, value] : before.items()) {
            keys.push_back(key);
        }
        if (std::is_sorted(keys.begin(), keys.end())) {  // then PEFT wrote it
            CHECK(text_of(folder / "copy" / "adapter_config.json") == text_of(entry.path()));
        }
        ++read;
    }
    CHECK(read >= 6);
}

TEST_CASE("patterns decide rank and scaling of each module") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto adapter = read_peft(lowrank_tests::golden_folder() / "lora-patterns" / "adapter");
    REQUIRE_MESSAGE(adapter, (adapter ? std::string() : adapter.error().message));
    const auto m = lora_layers(*adapter);
    CHECK(m.at("model.layers.0.attn.q_proj").rank() == 2);
    CHECK(m.at("model.layers.0.attn.q_proj").scaling() == 4);      // 8 / 2
    CHECK(m.at("model.layers.0.attn.v_proj").scaling() == 0.25F);  // 1 / 4
    CHECK(m.at("model.layers.0.mlp.up").scaling() == 5);           // 20 / 4
    CHECK(m.at("model.layers.1.mlp.up").rank() == 6);
    CHECK(m.at("model.layers.1.mlp.up").scaling() == 8.0F / 6);
}

TEST_CASE("other spellings of names are read") {
    temporary_folder folder;
    write_folder(folder, R"(,"r":1)",
                 {filled("base_model.model.l.lora_A.default.weight", 1, 3), filled("l.lora_B.weight", 2, 1),
                  filled("base_model.model.e.lora_embedding_A.weight", 1, 5),
                  filled("base_model.model.e.lora_embedding_B", 4, 1), filled("base_model.model.score.weight", 2, 2)});
    const auto adapter = read_peft(folder.path());
    REQUIRE_MESSAGE(adapter, (adapter ? std::string() : adapter.error().message));
    CHECK(lora_of(adapter->modules.at("l")).cols() == 3);
    CHECK(lora_of(adapter->modules.at("e")).rows() == 4);
    const auto* whole = adapter->modules.at("score.weight").get<whole_tensor>();
    REQUIRE(whole != nullptr);
    CHECK(whole->tensor.name == "base_model.model.score.weight");
    CHECK(adapter->warnings.size() == 1);
    REQUIRE(write_peft(folder / "again", *adapter));
    const auto again = safetensors_file::open(folder / "again" / "adapter_model.safetensors");
    REQUIRE(again);
    CHECK(again->find("base_model.model.e.lora_embedding_A") != nullptr);
    CHECK(again->find("base_model.model.l.lora_B.weight") != nullptr);
    CHECK(again->find("base_model.model.score.weight") != nullptr);

    write_folder(
        folder, R"(,"r":1)",
        {filled("l.lora_A.default.weight", 1, 3), filled("l.lora_A.weight", 1, 3), filled("l.lora_B.weight", 2, 1)});
    refuses(folder, errc::invalid_format, "another spelling");
}

TEST_CASE_TEMPLATE("narrow storage types survive", T, half, bfloat16) {
    temporary_folder folder;
    const row_matrix<T> a = row_matrix<float>::Constant(1, 3, 0.3F).cast<T>();
    write_folder(folder, R"(,"r":1)",
                 {tensor_of("base_model.model.l.lora_A.weight", a), filled("base_model.model.l.lora_B.weight", 2, 1)});
    const auto adapter = read_peft(folder.path());
    REQUIRE(adapter);
    CHECK(lora_of(adapter->modules.at("l")).lora_A(0, 1) == static_cast<float>(a(0, 1)));
    peft_adapter copy = *adapter;
    copy.metadata.clear();
    REQUIRE(write_peft(folder / "again", copy));
    CHECK(text_of(folder / "again" / "adapter_model.safetensors") == text_of(folder / "adapter_model.safetensors"));
}

TEST_CASE("broken adapters are refused, naming the tensor") {
    temporary_folder folder;
    const std::string a = "base_model.model.l.lora_A.weight";
    const std::string b = "base_model.model.l.lora_B.weight";
    const char* r2 = R"(,"r":2)";
    write_folder(folder, r2, {filled(a, 2, 3)});
    refuses(folder, errc::invalid_format, "lacks lora_B of module \"l\"");
    write_folder(folder, r2, {filled(b, 4, 2)});
    refuses(folder, errc::invalid_format, "lacks lora_A of module \"l\"");
    write_folder(folder, r2, {filled(a, 2, 3), filled(b, 4, 3)});
    refuses(folder, errc::mismatch, "must have the same r");
    write_folder(folder, r2, {filled(a, 3, 5), filled(b, 4, 3)});
    refuses(folder, errc::mismatch, "has rank 3, the configuration says 2");
    write_folder(folder, r2, {filled(a, 3, 2), filled(b, 2, 4)});
    refuses(folder, errc::mismatch, "looks transposed");
    write_folder(folder, r2, {filled(a, 2, 3, std::numeric_limits<float>::quiet_NaN()), filled(b, 4, 2)});
    refuses(folder, errc::non_finite, "lora_A.weight\" holds NaN");
    write_folder(folder, r2, {filled(a, 2, 3), filled(b, 4, 2, std::numeric_limits<float>::infinity())});
    refuses(folder, errc::non_finite, "lora_B.weight\" holds NaN");
    auto integers = filled(a, 2, 3);
    integers.type = dtype::i32;
    write_folder(folder, r2, {integers, filled(b, 4, 2)});
    refuses(folder, errc::unsupported, "has dtype I32");
    auto conv = filled(a, 2, 3);
    conv.shape = {2, 3, 1, 1};
    write_folder(folder, r2, {conv, filled(b, 4, 2)});
    refuses(folder, errc::mismatch, "a kernel belongs to lora_A alone");
    auto flat = filled(a, 2, 3);
    flat.shape = {6};
    write_folder(folder, r2, {flat, filled(b, 4, 2)});
    refuses(folder, errc::invalid_format, "expected a matrix");
    const auto magnitude = filled("base_model.model.l.lora_magnitude_vector", 4, 1);
    write_folder(folder, r2, {filled(a, 2, 3), filled(b, 4, 2), magnitude});
    refuses(folder, errc::mismatch, "has a lora_magnitude_vector");
    write_folder(folder, R"(,"r":2,"use_dora":true)", {filled(a, 2, 3), filled(b, 4, 2)});
    refuses(folder, errc::mismatch, "has no lora_magnitude_vector");
    write_folder(folder, R"(,"r":2,"use_dora":true)",
                 {filled(a, 2, 3), filled(b, 4, 2), filled("base_model.model.l.lora_magnitude_vector", 3, 1)});
    refuses(folder, errc::mismatch, "expected 4 numbers");
    write_folder(folder, r2, {filled(a, 2, 3), filled(b, 4, 2), filled("base_model.model.l.lora_B.bias", 4, 1)});
    refuses(folder, errc::mismatch, "and a lora_B.bias");
    write_folder(folder, R"(,"r":2,"alpha_pattern":{"q_porj":4})", {filled(a, 2, 3), filled(b, 4, 2)});
    refuses(folder, errc::mismatch, "\"q_porj\" of alpha_pattern matches no module");
    write_folder(folder, R"(,"r":"2")", {filled(a, 2, 3), filled(b, 4, 2)});
    refuses(folder, errc::invalid_format, "adapter_config.json: r must be");
    write_folder(folder, r2, {});
    refuses(folder, errc::invalid_format, "no LORA tensors");
    REQUIRE(write_file(folder / "adapter_model.safetensors", "version https://git-lfs.github.com/spec/v1\noid x\n"));
    refuses(folder, errc::invalid_format, "git lfs pull");
    REQUIRE(write_file(folder / "adapter_config.json", "version https://git-lfs.github.com/spec/v1\noid x\n"));
    refuses(folder, errc::invalid_format, "git lfs pull");
}

TEST_CASE("folders without an adapter get a sentence that says what to do") {
    temporary_folder folder;
    refuses(folder, errc::not_found, "no adapter_config.json");
    CHECK(read_peft(folder / "absent").error().code == errc::not_found);
    REQUIRE(write_file(folder / "adapter_config.json", R"({"peft_type":"LORA"})"));
    refuses(folder, errc::not_found, "no adapter_model.safetensors");
    REQUIRE(write_file(folder / "adapter_model.bin", "\x80\x02"));
    refuses(folder, errc::unsupported, "safe_serialization=True");
}

TEST_CASE("an adapter that is not named default lies in a sub-folder") {
    temporary_folder folder;
    CHECK(peft_folders(folder.path()).value().empty());
    CHECK(peft_folders(folder / "absent").error().code == errc::not_found);

    REQUIRE(write_peft(folder / "style", two_modules()));
    REQUIRE(std::filesystem::create_directory(folder / "logs"));
    std::filesystem::create_directory_symlink(folder / "style", folder / "link");
    const auto only = read_peft(folder.path());
    REQUIRE(only);
    CHECK(only->modules.size() == 2);
    REQUIRE(only->warnings.size() == 1);
    CHECK(only->warnings[0] == "read from its sub-folder \"style\"");

    REQUIRE(write_peft(folder / "french", two_modules()));
    refuses(folder, errc::not_found, "2 of its sub-folders have one: \"french\", \"style\"; name one of them");

    // Beside the adapter named "default" the others are not read.
    REQUIRE(write_peft(folder.path(), two_modules()));
    CHECK(read_peft(folder.path()).value().warnings.empty());
    CHECK(peft_folders(folder.path()).value() ==
          std::vector<std::filesystem::path>{folder.path(), folder / "french", folder / "style"});
}

TEST_CASE("a zero lora_B is worth a warning") {
    temporary_folder folder;
    peft_adapter adapter = two_modules();
    lora_of(adapter.modules.begin()->second).lora_B.setZero();
    REQUIRE(write_peft(folder / "a", adapter));
    const auto read = read_peft(folder / "a");
    REQUIRE(read);
    REQUIRE(read->warnings.size() == 1);
    CHECK(read->warnings[0].find("1 of 2 modules") != std::string::npos);
}

TEST_CASE("a configuration is made that fits modules of any rank and alpha") {
    temporary_folder folder;
    peft_adapter adapter = two_modules();
    // "a.b" and "x.a.b": a key must mean one and not the other.
    adapter.modules["a.b"] = make_lora<float>(3, 3, {.r = 1, .lora_alpha = 3});
    adapter.modules["x.a.b"] = make_lora<float>(3, 3, {.r = 3, .lora_alpha = 4});
    CHECK(write_peft(folder / "a", adapter).code == errc::mismatch);
    CHECK(folder.listing().empty());
    adapter.config = peft_config_for(adapter.modules, {.task_type = "CAUSAL_LM"});
    CHECK(adapter.config.r == 2);
    REQUIRE(write_peft(folder / "a", adapter));
    const auto read = read_peft(folder / "a");
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    CHECK(lora_of(read->modules.at("a.b")).scaling() == 3);
    CHECK(lora_of(read->modules.at("x.a.b")).rank() == 3);
    CHECK(read->config.task_type == "CAUSAL_LM");
}

TEST_CASE("what a configuration does not say is not written") {
    temporary_folder folder;
    const auto refused = [&](errc code, const std::function<void(peft_adapter&)>& change) {
        peft_adapter adapter = two_modules();
        change(adapter);
        const status why = write_peft(folder / "a", adapter);
        CHECK_MESSAGE(why.code == code, why.message);
    };
    refused(errc::mismatch, [](auto& a) { a.config.lora_alpha = 1; });
    refused(errc::mismatch, [](auto& a) { a.config.options.set("use_rslora", true); });
    refused(errc::mismatch, [](auto& a) { a.config.rank_pattern = {{"nothing", 2}}; });
    refused(errc::unsupported, [](auto& a) { a.config.rank_pattern = {{"(?=q)", 2}}; });
    refused(errc::mismatch, [](auto& a) { lora_of(a.modules.begin()->second).lora_B.resize(6, 3); });
    refused(errc::non_finite,
            [](auto& a) { lora_of(a.modules.begin()->second).lora_A(0, 0) = std::numeric_limits<float>::infinity(); });
    CHECK(folder.listing().empty());
}

TEST_CASE("a full disk leaves an older adapter whole and no new folder") {
    temporary_folder folder;
    const peft_adapter old = two_modules();
    REQUIRE(write_peft(folder / "a", old));
    const auto tensors = text_of(folder / "a" / "adapter_model.safetensors");
    const auto config = text_of(folder / "a" / "adapter_config.json");
    peft_adapter changed = old;
    lora_of(changed.modules.begin()->second).lora_A.setOnes();
    changed.config.task_type = "CAUSAL_LM";
    for (std::uint64_t room = 0; room < config.size() + tensors.size(); room += 37) {
        failing_disk disk;
        disk.room = room;
        CHECK_FALSE(write_peft(folder / "a", changed, {.calls = &disk}));
        CHECK(text_of(folder / "a" / "adapter_model.safetensors") == tensors);
        CHECK(text_of(folder / "a" / "adapter_config.json") == config);
        disk.room = room;
        CHECK_FALSE(write_peft(folder / "b", changed, {.calls = &disk}));
        CHECK(folder.listing() == std::vector<std::string>{"a"});
    }
}

TEST_CASE("both files of an adapter change, or none") {
    struct second_rename_fails : lowrank::file_calls {
        int renames = 0;
        int rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
            return ++renames == 2 ? -EIO : lowrank::file_calls::rename(from, to);
        }
    };
    temporary_folder folder;
    REQUIRE(write_peft(folder / "a", two_modules()));
    const auto tensors = text_of(folder / "a" / "adapter_model.safetensors");
    const auto config = text_of(folder / "a" / "adapter_config.json");
    peft_adapter changed = two_modules();
    lora_of(changed.modules.begin()->second).lora_A.setOnes();
    changed.config.task_type = "CAUSAL_LM";
    for (const char* name : {"a", "new"}) {
        second_rename_fails disk;
        CHECK(write_peft(folder / name, changed, {.calls = &disk}).code == errc::io_failure);
        CHECK(disk.renames == 2);
    }
    CHECK(text_of(folder / "a" / "adapter_model.safetensors") == tensors);
    CHECK(text_of(folder / "a" / "adapter_config.json") == config);
    CHECK(folder.listing() == std::vector<std::string>{"a"});
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder / "a")) {
        files += entry.is_regular_file() ? 1 : 0;
    }
    CHECK(files == 2);
}
