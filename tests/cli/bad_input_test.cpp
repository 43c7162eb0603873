// SPDX-License-Identifier: MIT
// Everything a user can get wrong ends in one sentence, exit code 1 and an untouched folder.
#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "process.hpp"
#include "tiny_checkpoint.hpp"

using namespace lowrank_tests;

namespace {

/// A folder with a sound model, a text and an adapter for it.
struct workshop {
    workshop() {
        write_tiny_checkpoint(folder / "model");
        std::string words;
        for (int i = 0; i < 200; ++i) {
            words += "the cat sat, the dog ran. ";
        }
        write_text(folder / "text.txt", words);
        const auto r = run_tool({"finetune", model(), "--text", text(), "--output", adapter(), "--steps", "2",
                                 "--batch", "2", "--rank", "2", "--window", "32"});
        CAPTURE(r.err);
        REQUIRE(r.exit_code == 0);
        REQUIRE(r.err.empty());
    }
    [[nodiscard]] std::string model() const { return (folder / "model").string(); }
    [[nodiscard]] std::string text() const { return (folder / "text.txt").string(); }
    [[nodiscard]] std::string adapter() const { return (folder / "adapter").string(); }
    [[nodiscard]] std::string out() const { return (folder / "out").string(); }
    temporary_folder folder;
};

const workshop& the_workshop() {
    static const workshop one;
    return one;
}

/// Runs the tool; expects one sentence that has `words` in it, exit code 1, and no trace.
void expect_sentence(const std::vector<std::string>& arguments, const std::string& words,
                     const process_options& options = {}) {
    const auto& folder = the_workshop().folder.path();
    const auto before = listing(folder);
    const auto r = run_tool(arguments, options);
    std::string line;
    for (const auto& a : arguments) {
        line += a + " ";
    }
    CAPTURE(line);
    CAPTURE(r.err);
    CHECK(r.exit_code == 1);
    CHECK(r.out.empty());
    CHECK(one_sentence(r.err));
    CHECK(r.err.find(words) != std::string::npos);
    CHECK(listing(folder) == before);
}

/// A copy of the sound model that `change` has damaged.
std::string damaged_model(const std::string& name, const std::function<void(tiny_weights&)>& change,
                          const std::string& config = tiny_config()) {
    const auto folder = the_workshop().folder / name;
    write_tiny_checkpoint(folder, change, config);
    return folder.string();
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
}

void copy_folder(const std::filesystem::path& from, const std::filesystem::path& to) {
    std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
}

}  // namespace

TEST_CASE("missing files") {
    const auto& w = the_workshop();
    const auto nowhere = (w.folder / "nowhere").string();
    expect_sentence({"inspect", nowhere}, "no such file");
    expect_sentence({"eval", nowhere, "--text", w.text()}, "no such f");
    expect_sentence({"eval", w.model(), "--text", nowhere}, "no such file");
    expect_sentence({"eval", w.model(), "--text", w.text(), "--tokenizer", nowhere}, "no such file");
    expect_sentence({"eval", w.model(), "--text", w.text(), "--adapter", nowhere}, "no such f");
    expect_sentence({"merge", w.model(), "--adapter", nowhere, "--output", w.out()}, "no such f");
    expect_sentence({"truncate", nowhere, "--matrix", "*", "--rank", "1", "--output", w.out()}, "no such f");
    expect_sentence({"eval", w.text(), "--text", w.text()}, "is a file");

    const auto no_weights = w.folder / "no-weights";
    std::filesystem::create_directory(no_weights);
    write_text(no_weights / "config.json", tiny_config());
    expect_sentence({"eval", no_weights.string(), "--text", w.text()}, "model.safetensors");
    const auto no_config = w.folder / "no-config";
    std::filesystem::create_directory(no_config);
    std::filesystem::copy_file(w.folder / "model/model.safetensors", no_config / "model.safetensors");
    expect_sentence({"eval", no_config.string(), "--text", w.text()}, "config.json");
}

TEST_CASE("files of another kind") {
    const auto& w = the_workshop();
    const auto file = (w.folder / "strange.safetensors").string();
    write_text(file, "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4096\n");
    expect_sentence({"inspect", file}, "LFS");
    write_text(file, std::string("PK\x03\x04", 4) + std::string(64, '\0'));
    expect_sentence({"inspect", file}, "pickle");
    write_text(file, std::string("\x80\x02}q\x00.", 6) + std::string(64, 'x'));
    expect_sentence({"inspect", file}, "pickle");
    write_text(file, "");
    expect_sentence({"inspect", file}, "strange.safetensors");
    write_text(file, "hello, this is no tensor file at all");
    expect_sentence({"inspect", file}, "strange.safetensors");

    const auto pickled = w.folder / "pickled";
    std::filesystem::create_directory(pickled);
    write_text(pickled / "config.json", tiny_config());
    write_text(pickled / "pytorch_model.bin", "PK\x03\x04");
    expect_sentence({"eval", pickled.string(), "--text", w.text()}, "pickle");
    const auto pickled_adapter = w.folder / "pickled-adapter";
    copy_folder(w.adapter(), pickled_adapter);
    std::filesystem::remove(pickled_adapter / "adapter_model.safetensors");
    write_text(pickled_adapter / "adapter_model.bin", "PK\x03\x04");
    expect_sentence({"eval", w.model(), "--text", w.text(), "--adapter", pickled_adapter.string()}, "pickle");
}

TEST_CASE("models that are broken or of another kind") {
    const auto& w = the_workshop();
    const auto eval = [&](const std::string& model, const std::string& words) {
        expect_sentence({"eval", model, "--text", w.text()}, words);
    };
    eval(damaged_model("shape",
                       [](tiny_weights& t) {
                           t["model.layers.1.mlp.up_proj.weight"] =
                               lowrank::row_matrix<float>::Zero(tiny_inner, tiny_hidden + 1);
                       }),
         "up_proj");
    const auto nan = damaged_model("nan", [](tiny_weights& t) {
        t["model.layers.0.self_attn.v_proj.weight"](2, 3) = std::numeric_limits<float>::quiet_NaN();
    });
    eval(nan, "NaN");
    expect_sentence({"truncate", nan, "--matrix", "layers.0.self_attn.v_proj", "--rank", "2", "--output", w.out()},
                    "NaN");
    expect_sentence({"merge", nan, "--adapter", w.adapter(), "--output", w.out()}, "NaN");
    expect_sentence({"inspect", nan, "--spectra"}, "NaN");
    eval(damaged_model("absent", [](tiny_weights& t) { t.erase("model.layers.1.mlp.down_proj.weight"); }), "down_proj");
    eval(damaged_model(
             "extra",
             [](tiny_weights& t) { t["model.layers.0.mystery.weight"] = lowrank::row_matrix<float>::Ones(2, 2); }),
         "mystery");
    eval(damaged_model("not-llama", {}, replaced(tiny_config(), R"("model_type": "llama")", R"("model_type": "gpt2")")),
         "gpt2");
    eval(damaged_model("no-json", {}, "{\"hidden_size\": "), "config.json");
    eval(damaged_model("odd-heads", {},
                       replaced(tiny_config(), R"("num_attention_heads": 2)", R"("num_attention_heads": 3)")),
         "num_attention_heads");
    eval(damaged_model("wrong-type", {}, replaced(tiny_config(), R"("hidden_size": 16)", R"("hidden_size": "many")")),
         "hidden_size");
    eval(damaged_model("rope", {},
                       replaced(tiny_config(), R"("rope_theta": 10000.0)",
                                R"("rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0})")),
         "yarn");
    const auto cut = w.folder / "cut";
    copy_folder(w.folder / "model", cut);
    std::filesystem::resize_file(cut / "model.safetensors", 5000);
    eval(cut.string(), "model.safetensors");
}

TEST_CASE("adapters that are broken or belong elsewhere") {
    const auto& w = the_workshop();
    const auto both = [&](const std::string& adapter, const std::string& words) {
        expect_sentence({"eval", w.model(), "--text", w.text(), "--adapter", adapter}, words);
        expect_sentence({"merge", w.model(), "--adapter", adapter, "--output", w.out()}, words);
    };
    // The same architecture, one size larger.
    const auto larger = damaged_model(
        "larger",
        [](tiny_weights& t) {
            for (auto& [name, weight] : t) {
                const bool wide = weight.cols() == tiny_inner;
                if (weight.rows() == tiny_inner || wide) {
                    weight = lowrank::row_matrix<float>::Constant(wide ? weight.rows() : 32, wide ? 32 : weight.cols(),
                                                                  0.1F);
                }
            }
        },
        replaced(tiny_config(), R"("intermediate_size": 24)", R"("intermediate_size": 32)"));
    expect_sentence({"eval", larger, "--text", w.text(), "--adapter", w.adapter()}, "24");
    expect_sentence({"merge", larger, "--adapter", w.adapter(), "--output", w.out()}, "model of other sizes");
    const auto shallow = damaged_model(
        "shallow",
        [](tiny_weights& t) {
            std::erase_if(t, [](const auto& e) { return e.first.find("layers.1.") != std::string::npos; });
        },
        replaced(tiny_config(), R"("num_hidden_layers": 2)", R"("num_hidden_layers": 1)"));
    expect_sentence({"eval", shallow, "--text", w.text(), "--adapter", w.adapter()}, "layers.1");
    expect_sentence({"merge", shallow, "--adapter", w.adapter(), "--output", w.out()}, "layers.1");

    const auto variant = [&](const std::string& name, const std::string& key, const nlohmann::json& value) {
        const auto folder = w.folder / name;
        copy_folder(w.adapter(), folder);
        auto config = nlohmann::json::parse(read_text(folder / "adapter_config.json"));
        config[key] = value;
        write_text(folder / "adapter_config.json", config.dump());
        return folder.string();
    };
    both(variant("other-type", "peft_type", "PROMPT_TUNING"), "PROMPT_TUNING");
    both(variant("text-rank", "r", "four"), "r");
    both(variant("dora", "use_dora", true), "has no lora_magnitude_vector");
    // A key nobody knows may be harmless: it is named, and the adapter is used.
    const auto unknown = run_tool(
        {"eval", w.model(), "--text", w.text(), "--adapter", variant("unknown-key", "quantum_lora", true), "--json"});
    CHECK(unknown.exit_code == 0);
    CHECK(nlohmann::json::parse(unknown.out).contains("mean_nll"));
    CHECK(unknown.err.find("quantum_lora") != std::string::npos);
    both((w.folder / "model").string(), "adapter_config.json");
    const auto hollow = w.folder / "hollow";
    std::filesystem::create_directory(hollow);
    std::filesystem::copy_file(w.folder / "adapter/adapter_config.json", hollow / "adapter_config.json");
    both(hollow.string(), "adapter_model");
}

TEST_CASE("tokens and texts that do not fit") {
    const auto& w = the_workshop();
    const auto ids = (w.folder / "ids.json").string();
    const auto eval = [&](const std::string& content, const std::string& words) {
        write_text(ids, content);
        expect_sentence({"eval", w.model(), "--ids", ids}, words);
    };
    eval("[1, 2, 288]", "288");
    eval("[1, -2]", "ids.json");
    eval("[1, 2.5]", "ids.json");
    eval("[[1, 2], 3]", "ids.json");
    eval("[1, 2", "ids.json");
    eval("{\"ids\": [1]}", "ids.json");
    eval("[]", "no tokens");
    eval("", "no tokens");
    eval("5 6 seven", "seven");
    eval("5 99999999999999", "99999999999999");
    std::string many = "[5";
    for (int i = 0; i < 99; ++i) {
        many += ", 6";
    }
    write_text(ids, many + "]");
    expect_sentence({"eval", w.model(), "--ids", ids, "--window", "65"}, "64");
    CHECK(run_tool({"eval", w.model(), "--ids", ids, "--window", "64"}).exit_code == 0);
    expect_sentence({"eval", w.model(), "--text", w.text(), "--range", "9000000:"}, "nothing");
    expect_sentence({"generate", w.model(), "--prompt-ids", "1,999"}, "999");
    write_text(w.folder / "broken.bin", "not a tokenizer");
    expect_sentence({"eval", w.model(), "--text", w.text(), "--tokenizer", (w.folder / "broken.bin").string()},
                    "broken.bin");
}

TEST_CASE("ranks and matrices that are not there") {
    const auto& w = the_workshop();
    expect_sentence({"truncate", w.model(), "--matrix", "k_proj", "--rank", "9", "--output", w.out()}, "rank 9");
    expect_sentence({"truncate", w.model(), "--matrix", "z_proj", "--rank", "2", "--output", w.out()}, "z_proj");
    expect_sentence({"truncate", w.model(), "--matrix", "model.norm.weight", "--rank", "1", "--output", w.out()},
                    "model.norm");
    expect_sentence({"laser", w.model(), "--text", w.text(), "--matrix", "z_proj"}, "z_proj");
    expect_sentence({"finetune", w.model(), "--text", w.text(), "--rank", "900", "--output", w.out()}, "900");
    expect_sentence({"finetune", w.model(), "--text", w.text(), "--targets", "z_proj", "--output", w.out()}, "z_proj");
    expect_sentence({"inspect", w.model(), "--spectra", "--matrix", "z_proj"}, "z_proj");
}

TEST_CASE("an adapter whose initialization changed the base is applied only to the residual weights") {
    const auto& w = the_workshop();
    const auto pissa = w.folder / "pissa";
    copy_folder(w.adapter(), pissa);
    auto config = nlohmann::json::parse(read_text(pissa / "adapter_config.json"));
    config["init_lora_weights"] = "pissa";
    write_text(pissa / "adapter_config.json", config.dump());
    expect_sentence({"eval", w.model(), "--text", w.text(), "--adapter", pissa.string()}, "base_is_residual");
    expect_sentence({"merge", w.model(), "--adapter", pissa.string(), "--output", w.out()}, "base_is_residual");
    CHECK(run_tool({"inspect", pissa.string()}).exit_code == 0);

    const auto measured = [&](const std::string& adapter, const std::vector<std::string>& more) {
        std::vector<std::string> line = {"eval", w.model(), "--text", w.text(), "--adapter", adapter, "--json"};
        line.insert(line.end(), more.begin(), more.end());
        const auto r = run_tool(line);
        CAPTURE(r.err);
        REQUIRE(r.exit_code == 0);
        return nlohmann::json::parse(r.out).at("mean_nll").get<double>();
    };
    CHECK(measured(pissa.string(), {"--base-is-residual"}) == measured(w.adapter(), {}));
    const auto merged = w.folder / "merged-pissa";
    CHECK(run_tool({"merge", w.model(), "--adapter", pissa.string(), "--base-is-residual", "--output", merged.string(),
                    "--check"})
              .exit_code == 0);
    CHECK(std::filesystem::exists(merged / "model.safetensors"));
    CHECK(run_tool({"eval", w.model(), "--text", w.text(), "--base-is-residual"}).exit_code == 2);
}

TEST_CASE("outputs that exist are kept, and replaced with --force when they are ours") {
    const auto& w = the_workshop();
    const auto taken = w.folder / "taken";
    const std::vector<std::string> truncate = {"truncate", w.model(), "--matrix", "k_proj",
                                               "--rank",   "2",       "--output", taken.string()};
    auto forced = truncate;
    forced.emplace_back("--force");

    std::filesystem::create_directory(taken);
    write_text(taken / "diary.txt", "private");
    expect_sentence(truncate, "exists");
    expect_sentence(forced, "--force");
    CHECK(listing(taken) == std::vector<std::string>{"diary.txt"});

    std::filesystem::remove_all(taken);
    CHECK(run_tool(truncate).exit_code == 0);
    expect_sentence(truncate, "exists");
    CHECK(run_tool(forced).exit_code == 0);
    std::filesystem::remove_all(taken);
    write_text(taken, "a file");
    expect_sentence(truncate, "exists");
    expect_sentence(forced, "--force");
    CHECK(read_text(taken) == "a file");
    std::filesystem::remove(taken);

    // The input is never the output.
    expect_sentence({"truncate", w.model(), "--matrix", "k_proj", "--rank", "2", "--output", w.model(), "--force"},
                    "input");
    expect_sentence({"merge", w.model(), "--adapter", w.adapter(), "--output", w.adapter(), "--force"}, "input");
}

TEST_CASE("no permission") {
    const auto& w = the_workshop();
    // Places where even an administrator cannot create anything.
    expect_sentence({"truncate", w.model(), "--matrix", "k_proj", "--rank", "2", "--output", w.text() + "/out"},
                    "does not exist");
    expect_sentence({"merge", w.model(), "--adapter", w.adapter(), "--output", (w.folder / "no/such/place").string()},
                    "does not exist");
    if (std::filesystem::is_directory("/proc/self")) {
        expect_sentence({"finetune", w.model(), "--text", w.text(), "--steps", "1", "--output", "/proc/lowrank"},
                        "/proc/lowrank");
    }
}

TEST_CASE("a full disk") {
    const auto& w = the_workshop();
    process_options full;
    full.file_size_limit = 4096;  // the weights need more
    expect_sentence({"truncate", w.model(), "--matrix", "k_proj", "--rank", "2", "--output", w.out()}, "write", full);
    expect_sentence({"merge", w.model(), "--adapter", w.adapter(), "--output", w.out()}, "write", full);
    expect_sentence({"finetune", w.model(), "--text", w.text(), "--steps", "1", "--output", w.out()}, "write", full);
    expect_sentence({"laser", w.model(), "--text", w.text(), "--window", "64", "--matrix", "k_proj", "--rho",
                     "0.9,0.8,0.7", "--output", w.out(), "--edit-adapter", (w.folder / "edit").string()},
                    "write", full);
    // An old output survives the failed attempt to replace it.
    const auto kept = (w.folder / "kept").string();
    REQUIRE(run_tool({"merge", w.model(), "--adapter", w.adapter(), "--output", kept}).exit_code == 0);
    const auto bytes = read_text(std::filesystem::path(kept) / "model.safetensors");
    expect_sentence({"merge", w.model(), "--adapter", w.adapter() + ":2", "--output", kept, "--force"}, "write", full);
    CHECK(read_text(std::filesystem::path(kept) / "model.safetensors") == bytes);
}
