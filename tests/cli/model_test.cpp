// SPDX-License-Identifier: MIT
// The commands on the reference model: their numbers are those of the established implementations.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "process.hpp"
#include "support/shared.hpp"

using namespace lowrank_tests;
using nlohmann::json;

namespace {

/// The JSON object a command prints, and nothing but it.
json run_json(std::vector<std::string> arguments) {
    arguments.emplace_back("--json");
    const auto r = run_tool(arguments);
    CAPTURE(r.err);
    REQUIRE(r.exit_code == 0);
    CHECK(r.out.find('\n') == r.out.size() - 1);
    json object = json::parse(r.out, nullptr, false);
    REQUIRE(object.is_object());
    CHECK(object.at("command") == arguments.front());
    return object;
}

struct reference {
    explicit reference(const std::filesystem::path& shared)
        : model((shared / "models/stories260K").string()),
          shakespeare((shared / "models/stories260K/golden/shakespeare_eval_ids.json").string()),
          stories((shared / "models/stories260K/golden/tinystories_valid_ids.json").string()),
          adapter((shared / "adapters/stories260K/shakespeare-lora-r4").string()),
          text((shared / "text/tinyshakespeare.txt").string()) {}
    std::string model, shakespeare, stories, adapter, text;
};

}  // namespace

TEST_CASE("eval gives the reference losses of the plain model") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    const auto play = run_json({"eval", ref.model, "--ids", ref.shakespeare});
    CHECK(std::abs(play.at("mean_nll").get<double>() - 5.02661) < 1e-4);
    CHECK(play.at("tokens") == 12474);
    CHECK(std::abs(play.at("perplexity").get<double>() - std::exp(5.02661)) < 0.05);
    const auto stories = run_json({"eval", ref.model, "--ids", ref.stories, "--threads", "1"});
    CHECK(std::abs(stories.at("mean_nll").get<double>() - 1.26644) < 1e-4);
    CHECK(stories.at("tokens") == 1804);
    CHECK(stories.at("sequences") == 5);
}

TEST_CASE("eval reads ids as text, and text through the tokenizer, alike") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    const auto from_json = run_json({"eval", ref.model, "--ids", ref.shakespeare});
    auto plain = ref.shakespeare;
    plain.replace(plain.size() - 4, 4, "txt");
    const auto from_txt = run_json({"eval", ref.model, "--ids", plain});
    CHECK(from_txt.at("mean_nll") == from_json.at("mean_nll"));
    const auto from_text = run_json({"eval", ref.model, "--text", ref.text, "--range", "1000000:1020000"});
    CHECK(from_text.at("tokens") == from_json.at("tokens"));
    CHECK(from_text.at("mean_nll") == from_json.at("mean_nll"));
}

TEST_CASE("eval with an adapter, unmerged, merged and at half strength") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    const auto unmerged = run_json({"eval", ref.model, "--ids", ref.shakespeare, "--adapter", ref.adapter});
    const auto merged = run_json({"eval", ref.model, "--ids", ref.shakespeare, "--adapter", ref.adapter, "--merged"});
    CHECK(std::abs(unmerged.at("mean_nll").get<double>() - 2.92356) < 1e-4);
    CHECK(std::abs(merged.at("mean_nll").get<double>() - 2.92356) < 1e-4);
    const auto none = run_json({"eval", ref.model, "--ids", ref.shakespeare, "--adapter", ref.adapter + ":0"});
    CHECK(std::abs(none.at("mean_nll").get<double>() - 5.02661) < 1e-4);
    // Half twice is once.
    const auto halves = run_json({"eval", ref.model, "--ids", ref.shakespeare, "--adapter", ref.adapter + ":0.5",
                                  "--adapter", ref.adapter + ":0.5", "--merged"});
    CHECK(std::abs(halves.at("mean_nll").get<double>() - 2.92356) < 1e-4);
}

TEST_CASE("generate continues as the reference does") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    const auto golden = json::parse(read_text(shared / "models/stories260K/golden/golden.json"));
    const auto ids = golden.at("greedy_ids").get<std::vector<int>>();
    const auto prompt = golden.at("prompts").at(0);
    const auto news = std::to_string(ids.size() - prompt.at("ids").size());
    const auto out = run_json({"generate", ref.model, "--prompt", prompt.at("text"), "--tokens", news});
    CHECK(out.at("ids").get<std::vector<int>>() == ids);
    CHECK(out.at("text") == golden.at("greedy_text"));

    const auto plain = run_tool({"generate", ref.model, "--prompt", prompt.at("text"), "--tokens", news});
    CHECK(plain.exit_code == 0);
    CHECK(plain.out == golden.at("greedy_text").get<std::string>() + "\n");

    const auto adapted = json::parse(read_text(std::filesystem::path(ref.adapter) / "golden.json"));
    const auto play =
        run_json({"generate", ref.model, "--adapter", ref.adapter, "--prompt", adapted.at("prompt"), "--tokens", "40"});
    CHECK(play.at("ids") == adapted.at("greedy_40_ids"));
}

TEST_CASE("truncate reproduces the reference losses and says the exact error") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    const auto golden = json::parse(read_text(shared / "models/stories260K/golden/laser.json"));
    temporary_folder folder;
    std::size_t tried = 0;
    for (const auto& one : golden.at("single")) {
        const std::string name = one.at("tensor");
        if (name.find("layers.2.self_attn.k_proj") == std::string::npos &&
            name.find("layers.4.mlp.down_proj") == std::string::npos) {
            continue;
        }
        CAPTURE(name);
        const auto out = (folder / ("t" + std::to_string(tried++))).string();
        const int rank = one.at("rank");
        const auto report =
            run_json({"truncate", ref.model, "--matrix", name, "--rank", std::to_string(rank), "--output", out});
        REQUIRE(report.at("matrices").size() == 1);
        CHECK(report.at("matrices").at(0).at("rank") == rank);
        const auto measured = run_json({"eval", out, "--ids", ref.stories});
        CHECK(std::abs(measured.at("mean_nll").get<double>() - one.at("mean_nll").get<double>()) < 1e-3);

        if (golden.at("singular_values").contains(name)) {
            const auto s = golden.at("singular_values").at(name).get<std::vector<double>>();
            double tail = 0;
            for (std::size_t i = static_cast<std::size_t>(rank); i < s.size(); ++i) {
                tail += s[i] * s[i];
            }
            CHECK(std::abs(report.at("matrices").at(0).at("error").get<double>() - std::sqrt(tail)) < 1e-4);
        }
    }
    CHECK(tried >= 2);
}

TEST_CASE("truncate by fraction takes a whole family, and copies config and tokenizer") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    const auto golden = json::parse(read_text(shared / "models/stories260K/golden/laser.json"));
    temporary_folder folder;
    const auto out = (folder / "out").string();
    const auto report = run_json({"truncate", ref.model, "--matrix", "mlp.gate_proj", "--rho", "0.5", "--output", out});
    CHECK(report.at("matrices").size() == 5);
    for (const auto& one : golden.at("family")) {
        if (one.at("family") == "mlp.gate_proj" && one.at("keep") == 0.5) {
            const auto measured = run_json({"eval", out, "--ids", ref.stories});
            CHECK(std::abs(measured.at("mean_nll").get<double>() - one.at("mean_nll").get<double>()) < 1e-3);
        }
    }
    CHECK(std::filesystem::exists(folder / "out/tok512.bin"));
    CHECK(!std::filesystem::exists(folder / "out/stories260K.bin"));  // other weights would contradict the new ones
    CHECK(run_tool({"generate", out, "--prompt", "Once", "--tokens", "3"}).exit_code == 0);
    CHECK(listing(folder.path()) == std::vector<std::string>{"out"});
}

TEST_CASE("merge writes the checkpoint the adapter means, checked") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    temporary_folder folder;
    const auto out = (folder / "merged").string();
    const auto report = run_json({"merge", ref.model, "--adapter", ref.adapter, "--output", out, "--check"});
    CHECK(report.at("unmerge_restores_bits") == true);
    CHECK(report.at("matrices").size() == 35);
    CHECK(report.at("worst_relative_error").get<double>() < 1e-4);
    const auto measured = run_json({"eval", out, "--ids", ref.shakespeare});
    CHECK(std::abs(measured.at("mean_nll").get<double>() - 2.92356) < 1e-4);
}

TEST_CASE("inspect lists what a checkpoint and an adapter hold") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    const auto model = run_json({"inspect", ref.model, "--spectra", "--matrix", "layers.0.self_attn.q_proj"});
    CHECK(model.at("kind") == "checkpoint");
    std::uint64_t total = 0;
    std::size_t spectra = 0;
    const auto golden = json::parse(read_text(shared / "models/stories260K/golden/laser.json"));
    for (const auto& t : model.at("tensors")) {
        std::uint64_t n = 1;
        for (const auto& extent : t.at("shape")) {
            n *= extent.get<std::uint64_t>();
        }
        CHECK(t.at("parameters") == n);
        total += n;
        if (t.contains("spectrum")) {
            ++spectra;
            const auto s = golden.at("singular_values").at(t.at("name").get<std::string>()).get<std::vector<double>>();
            CHECK(std::abs(t.at("spectrum").at("sigma_1").get<double>() - s.front()) < 1e-4 * s.front());
            double norm2 = 0;
            for (const double x : s) {
                norm2 += x * x;
            }
            CHECK(std::abs(t.at("spectrum").at("stable_rank").get<double>() - norm2 / (s[0] * s[0])) < 1e-3);
        }
    }
    CHECK(spectra == 1);
    CHECK(model.at("parameters") == total);

    const auto adapter = run_json({"inspect", ref.adapter});
    CHECK(adapter.at("kind") == "adapter");
    CHECK(adapter.at("modules").size() == 35);
    for (const auto& m : adapter.at("modules")) {
        CHECK(m.at("r") == 4);
        CHECK(m.at("scaling") == 2.0);
        CHECK(m.at("delta_norm").get<double>() > 0);
    }
}

TEST_CASE("laser searches, reports on unseen windows, writes the edit and stays with the seed") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    temporary_folder folder;
    const std::vector<std::string> search = {"laser",          ref.model, "--ids",       ref.shakespeare, "--matrix",
                                             "layers.4.mlp.*", "--rho",   "0.9,0.5,0.1", "--seed",        "3"};
    auto with_output = search;
    with_output.insert(with_output.end(),
                       {"--output", (folder / "edited").string(), "--edit-adapter", (folder / "edit").string()});
    const auto first = run_json(with_output);
    const auto again = run_json(search);
    CHECK(first == again);
    CHECK(first.at("candidates").size() == 9);
    // The model was never trained on plays: some truncation helps it there.
    REQUIRE(!first.at("winner").is_null());
    CHECK(first.at("validation").at("after").at("nll") < first.at("validation").at("before").at("nll"));
    CHECK(first.at("held_out").at("before").at("samples").get<int>() +
              first.at("validation").at("before").at("samples").get<int>() ==
          49);
    // The edited checkpoint and the model with the edit as an adapter are the same model.
    const auto edited = run_json({"eval", (folder / "edited").string(), "--ids", ref.stories});
    const auto adapted = run_json({"eval", ref.model, "--ids", ref.stories, "--adapter", (folder / "edit").string()});
    const auto plain = run_json({"eval", ref.model, "--ids", ref.stories});
    CHECK(std::abs(edited.at("mean_nll").get<double>() - adapted.at("mean_nll").get<double>()) < 1e-5);
    CHECK(edited.at("mean_nll") != plain.at("mean_nll"));
    CHECK(listing(folder.path()) == std::vector<std::string>{"edit", "edited"});
}

TEST_CASE(
    "every method of laser ends with the same edit, counts its work, resumes from a journal and writes a report") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    temporary_folder folder;
    const auto run = [&](const std::string& method, std::vector<std::string> more = {}) {
        std::vector<std::string> arguments = {
            "laser", ref.model,  "--text",  ref.text,   "--range", "0:6000", "--window",    "64",       "--validation",
            "0.4",   "--matrix", "4.mlp.*", "--matrix", "3.mlp.*", "--rho",  "0.9,0.5,0.1", "--method", method};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_json(arguments);
    };
    const auto all = run("exhaustive");
    REQUIRE(!all.at("winner").is_null());
    const auto work = [](const auto& r) { return r.at("evaluated_sample_layers").template get<int>(); };
    for (const char* method : {"halving", "gradient"}) {
        CAPTURE(method);
        // With all windows in the first round, and all matrices, the race is the exhaustive search.
        const auto same = run(method, {"--first-samples", "1000", "--screen-matrices", "6"});
        CHECK(same.at("winner").at("edit") == all.at("winner").at("edit"));
        CHECK(same.at("held_out") == all.at("held_out"));
        const auto few = run(method, {"--first-samples", "2", "--screen-samples", "4", "--screen-matrices", "3"});
        CHECK(work(few) < work(all));
    }
    const auto greedy = run("greedy", {"--groups", "1,2"});
    CHECK(greedy.at("edits").size() >= 1);
    CHECK(greedy.at("validation").at("after").at("nll") <= all.at("validation").at("before").at("nll"));
    CHECK(greedy.at("candidates").size() == 6 * 3 * 2);

    // The mlps of two layers, each alone and both together.
    const auto modules = run("modules");
    CHECK(modules.at("candidates").size() == 3 * 3);
    CHECK(modules.at("candidates").at(8).at("matrix") == "mlp of all layers");
    CHECK(modules.at("validation").at("before") == all.at("validation").at("before"));
    CHECK((modules.at("winner").is_null() ? modules.at("edits").empty() : modules.at("edits").size() >= 3));

    // Magnitude pruning beside the truncations; a probe of the matrices the gradient names.
    const auto pruned = run("gradient", {"--density", "0.5", "--probe-matrices", "4", "--probe-samples", "2"});
    int by_entries = 0;
    for (const auto& c : pruned.at("candidates")) {
        by_entries += c.contains("density") ? 1 : 0;
    }
    CHECK(by_entries == 5);  // of each of the five matrices that are scanned

    const auto journal = (folder / "journal").string(), report = (folder / "report.html").string();
    const auto first = run("halving", {"--journal", journal, "--report", report});
    const auto again = run("halving", {"--journal", journal});
    CHECK(work(first) > 0);
    CHECK(work(again) == 0);
    CHECK(again.at("winner") == first.at("winner"));
    CHECK(again.at("held_out") == first.at("held_out"));
    const auto page = read_text(report);
    CHECK(page.find("<svg") != std::string::npos);
    CHECK(page.find("http") == std::string::npos);  // nothing from elsewhere
    CHECK(run_tool({"laser", ref.model, "--ids", ref.stories, "--journal", journal}).exit_code == 1);  // other samples
}

TEST_CASE("finetune, eval and merge fit together") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    temporary_folder folder;
    const auto adapter = (folder / "adapter").string();
    const auto trained = run_json(
        {"finetune", ref.model, "--text", ref.text, "--train-bytes", "200000", "--steps", "25", "--output", adapter});
    CHECK(trained.at("steps") == 25);
    const auto tuned = run_json({"eval", ref.model, "--ids", ref.shakespeare, "--adapter", adapter});
    CHECK(tuned.at("mean_nll").get<double>() < 4.6);  // from 5.03

    // What PEFT writes: the same tensor names and shapes as the reference adapter, which has the same targets.
    const auto ours = run_json({"inspect", adapter});
    const auto theirs = run_json({"inspect", ref.adapter});
    REQUIRE(ours.at("modules").size() == theirs.at("modules").size());
    for (std::size_t i = 0; i < ours.at("modules").size(); ++i) {
        for (const char* field : {"module", "r", "in", "out"}) {
            CHECK(ours.at("modules").at(i).at(field) == theirs.at("modules").at(i).at(field));
        }
    }
    const auto merged = (folder / "merged").string();
    run_json({"merge", ref.model, "--adapter", adapter, "--output", merged, "--check"});
    const auto after = run_json({"eval", merged, "--ids", ref.shakespeare});
    CHECK(std::abs(after.at("mean_nll").get<double>() - tuned.at("mean_nll").get<double>()) < 1e-4);
    CHECK(listing(folder.path()) == std::vector<std::string>{"adapter", "merged"});
}

TEST_CASE("finetune trains other kinds, and eval reads them back") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    temporary_folder scratch;
    for (const char* variant : {"dora", "ia3"}) {
        CAPTURE(variant);
        const std::string adapter = (scratch / variant).string();
        const auto tuned =
            run_json({"finetune", ref.model, "--text", ref.text, "--train-bytes", "40000", "--eval-bytes", "4000",
                      "--window", "128", "--steps", "6", "--batch", "4", "--variant", variant, "--output", adapter});
        CHECK(tuned.at("variant") == variant);
        CHECK(tuned.at("unseen_nll_after").get<double>() < tuned.at("unseen_nll_before").get<double>() - 0.05);
        const auto read = run_json(
            {"eval", ref.model, "--adapter", adapter, "--text", ref.text, "--range", "40000:44000", "--window", "128"});
        CHECK(read.at("mean_nll").get<double>() ==
              doctest::Approx(tuned.at("unseen_nll_after").get<double>()).epsilon(1e-4));
        const auto merged = run_json({"eval", ref.model, "--adapter", adapter, "--merged", "--text", ref.text,
                                      "--range", "40000:44000", "--window", "128"});
        CHECK(merged.at("mean_nll").get<double>() ==
              doctest::Approx(tuned.at("unseen_nll_after").get<double>()).epsilon(1e-4));
    }
}

TEST_CASE(
    "rotations, MiSS, RandLoRA, HiRA, AdaLoRA and structured changes travel from finetune through PEFT folders to eval "
    "and merge") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    temporary_folder scratch;
    for (const char* variant :
         {"oft", "boft", "hra", "miss", "randlora", "hira", "adalora", "road", "shira", "c3a", "fourierft", "delora"}) {
        CAPTURE(variant);
        const std::string adapter = (scratch / variant).string();
        const std::string merged = (scratch / "merged").string();
        const auto tuned =
            run_json({"finetune",  ref.model, "--text",   ref.text, "--train-bytes", "20000", "--eval-bytes", "1500",
                      "--window",  "64",      "--steps",  "4",      "--batch",       "2",     "--rank",       "4",
                      "--variant", variant,   "--output", adapter});
        const double nll = tuned.at("unseen_nll_after").get<double>();
        CHECK(nll != tuned.at("unseen_nll_before").get<double>());
        const auto measured = [&](std::vector<std::string> arguments) {
            arguments.insert(arguments.end(), {"--text", ref.text, "--range", "20000:21500", "--window", "64"});
            return run_json(arguments).at("mean_nll").get<double>();
        };
        CHECK(measured({"eval", ref.model, "--adapter", adapter}) == doctest::Approx(nll).epsilon(1e-5));
        run_json({"merge", ref.model, "--adapter", adapter, "--output", merged, "--check", "--force"});
        CHECK(measured({"eval", merged}) == doctest::Approx(nll).epsilon(1e-5));
    }
    // The pattern of AdaLoRA: 6 triplets of each of 35 modules at first, 4 on average in the end.
    const auto config = json::parse(read_text(scratch / "adalora" / "adapter_config.json"));
    CHECK(config.at("init_r") == 6);
    CHECK(config.at("target_r") == 4);
    CHECK(config.at("total_step") == 4);
    std::ptrdiff_t kept = 0;
    for (const auto& [key, list] : config.at("rank_pattern").items()) {
        CHECK(key.ends_with(".lora_E"));
        CHECK(list.size() == 6);
        kept += std::count(list.begin(), list.end(), true);
    }
    CHECK(kept == 4 * 35);
}

TEST_CASE("combine writes the weighted sum of two adapters, and says how far other ways are from it") {
    LOWRANK_NEEDS_SHARED(shared);
    const reference ref(shared);
    temporary_folder scratch;
    const std::string noise = (shared / "adapters" / "stories260K" / "random-r4").string();
    const std::string both = (scratch / "both").string();
    const auto report =
        run_json({"combine", ref.adapter, noise, "--weights", "0.5", "0.25", "--method", "cat", "--output", both});
    CHECK(report.at("modules").size() == 35);
    CHECK(report.at("largest_distance_from_sum").get<double>() < 1e-5);
    const auto sum = run_json(
        {"eval", ref.model, "--adapter", ref.adapter + ":0.5", "--adapter", noise + ":0.25", "--ids", ref.shakespeare});
    const auto one = run_json({"eval", ref.model, "--adapter", both, "--ids", ref.shakespeare});
    CHECK(one.at("mean_nll").get<double>() == doctest::Approx(sum.at("mean_nll").get<double>()).epsilon(1e-5));
    const auto linear = run_json({"combine", ref.adapter, noise, "--method", "linear", "--output", both, "--force"});
    CHECK(linear.at("largest_distance_from_sum").get<double>() > 0.05);
}
