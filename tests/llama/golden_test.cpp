// SPDX-License-Identifier: MIT
// The engine against a real model: logits, text, losses, truncations and adapters that other implementations computed.

#include <llama/llama.hpp>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/lora/merge/merge.hpp>

#include "support/shared.hpp"

namespace {

std::string read_text(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    REQUIRE_MESSAGE(in.good(), path.string());
    return {std::istreambuf_iterator<char>(in), {}};
}

nlohmann::json read_json(const std::filesystem::path& path) {
    const auto value = nlohmann::json::parse(read_text(path), nullptr, false);
    REQUIRE_MESSAGE(!value.is_discarded(), path.string());
    return value;
}

/// A 2-d array of little-endian doubles or floats as NumPy saves it, one column per row of the file.
lowrank::matrix<double> read_npy(const std::filesystem::path& path) {
    const std::string file = read_text(path);
    REQUIRE(file.size() > 10);
    REQUIRE(file.substr(0, 6) == "\x93NUMPY");
    const std::size_t header = static_cast<unsigned char>(file[8]) + 256U * static_cast<unsigned char>(file[9]);
    const std::string text = file.substr(10, header);
    REQUIRE(text.find("'fortran_order': False") != std::string::npos);
    const bool is_double = text.find("'<f8'") != std::string::npos;
    REQUIRE((is_double || text.find("'<f4'") != std::string::npos));
    const std::size_t open = text.find('(');
    const std::size_t comma = text.find(',', open);
    const llama::index rows = std::stol(text.substr(open + 1));
    const llama::index cols = std::stol(text.substr(comma + 1));
    lowrank::matrix<double> out(cols, rows);
    const std::size_t width = is_double ? 8 : 4;
    REQUIRE(file.size() == 10 + header + width * static_cast<std::size_t>(out.size()));
    for (llama::index i = 0; i < out.size(); ++i) {
        const char* at = file.data() + 10 + header + width * static_cast<std::size_t>(i);
        if (is_double) {
            std::memcpy(out.data() + i, at, 8);
        } else {
            float value = 0;
            std::memcpy(&value, at, 4);
            out.data()[i] = static_cast<double>(value);
        }
    }
    return out;
}

llama::model<float> load_stories(const std::filesystem::path& shared) {
    auto m = llama::load(shared / "models/stories260K");
    REQUIRE_MESSAGE(m.has_value(), m.error().message);
    return *std::move(m);
}

llama::batch shakespeare(const std::filesystem::path& shared) {
    const auto ids = read_json(shared / "models/stories260K/golden/shakespeare_eval_ids.json").get<std::vector<int>>();
    return llama::windows(ids, 256, 1);
}

llama::batch tiny_stories(const std::filesystem::path& shared) {
    llama::batch b;
    for (const auto& story : read_json(shared / "models/stories260K/golden/tinystories_valid_ids.json")) {
        const auto ids = story.get<std::vector<int>>();
        b.append_next_token(std::span(ids).first(std::min<std::size_t>(ids.size(), 511)), 1);
    }
    return b;
}

double mean_nll(const llama::model<float>& m, const llama::batch& b) {
    const auto scores = llama::evaluate(m, b);
    REQUIRE_MESSAGE(scores.has_value(), scores.error().message);
    return scores->mean_nll();
}

double largest_difference(const lowrank::matrix<float>& a, const lowrank::matrix<double>& b) {
    REQUIRE(a.rows() == b.rows());
    REQUIRE(a.cols() == b.cols());
    return (a.cast<double>() - b).cwiseAbs().maxCoeff();
}

}  // namespace

TEST_CASE("stories260K: logits, text and losses are those of the reference") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto golden_folder = shared / "models/stories260K/golden";
    const auto golden = read_json(golden_folder / "golden.json");
    const auto m = load_stories(shared);
    const auto tokenizer = llama::read_tokenizer(shared / "models/stories260K/tok512.bin");
    REQUIRE(tokenizer.has_value());
    CHECK(tokenizer->size() == m.shape.vocab_size);
    lowrank::workspace ws;

    REQUIRE(golden["prompts"].size() == 3);
    llama::batch all;
    std::vector<lowrank::matrix<double>> expected;
    for (const auto& prompt : golden["prompts"]) {
        const auto text = prompt["text"].get<std::string>();
        const auto ids = prompt["ids"].get<std::vector<int>>();
        CAPTURE(text);
        CHECK(tokenizer->encode(text, {.bos = true}) == ids);
        CHECK(tokenizer->decode(ids) == text);
        const auto b = llama::prompt(ids);
        const auto logits = llama::logits(m, llama::forward(m, b, ws), ws);
        expected.push_back(read_npy(golden_folder / prompt["logits"].get<std::string>()));
        CHECK(largest_difference(logits, expected.back()) < 2e-4);
        all.append(ids);

        const auto more = llama::generate(m, ids, {.max_new_tokens = 48});
        REQUIRE(more.has_value());
        CHECK(tokenizer->decode(*more) == prompt["greedy_48_more"].get<std::string>());
    }
    const auto together = llama::logits(m, llama::forward(m, all, ws), ws);
    for (llama::index s = 0; s < 3; ++s) {
        CHECK(largest_difference(together.middleCols(all.first(s), all.length(s)),
                                 expected[static_cast<std::size_t>(s)]) < 2e-4);
    }

    const auto want = golden["greedy_ids"].get<std::vector<int>>();
    const auto prompt = golden["prompts"][0]["ids"].get<std::vector<int>>();
    const auto generated =
        llama::generate(m, prompt, {.max_new_tokens = static_cast<llama::index>(want.size() - prompt.size())});
    REQUIRE(generated.has_value());
    CHECK(*generated == want);
    CHECK(tokenizer->decode(*generated) == golden["greedy_text"].get<std::string>());

    CHECK(std::abs(mean_nll(m, shakespeare(shared)) - 5.02661) < 1e-4);
    CHECK(std::abs(mean_nll(m, tiny_stories(shared)) - 1.26644) < 1e-4);
}

TEST_CASE("stories260K in double agrees with the float64 reference to its last digits") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto m = llama::cast<double>(load_stories(shared));
    const auto golden = read_json(shared / "models/stories260K/golden/golden.json");
    lowrank::workspace ws;
    const auto ids = golden["prompts"][1]["ids"].get<std::vector<int>>();
    const lowrank::matrix<double> logits = llama::logits(m, llama::forward(m, llama::prompt(ids), ws), ws);
    const auto expected = read_npy(shared / "models/stories260K/golden" / golden["prompts"][1]["logits"]);
    CHECK((logits - expected).cwiseAbs().maxCoeff() < 1e-9);
}

TEST_CASE("the tokenizer cuts tiny Shakespeare like the reference") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto tokenizer = llama::read_tokenizer(shared / "models/stories260K/tok512.bin");
    REQUIRE(tokenizer.has_value());
    const std::string text = read_text(shared / "text/tinyshakespeare.txt").substr(1'000'000, 20'000);
    const auto ids = tokenizer->encode(text);
    CHECK(ids == read_json(shared / "models/stories260K/golden/shakespeare_eval_ids.json").get<std::vector<int>>());
    CHECK(tokenizer->decode(ids) == " " + text);
}

TEST_CASE("truncating its weights gives the losses of golden/laser.json") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto golden = read_json(shared / "models/stories260K/golden/laser.json");
    auto m = load_stories(shared);
    const auto b = tiny_stories(shared);
    std::map<std::string, lowrank::decomposition<float>> spectra;
    llama::for_each_projection(m, [&](const llama::projection<float>& p) {
        auto spectrum = lowrank::svd(p.weight);
        REQUIRE_MESSAGE(bool(spectrum), p.name);
        spectra.emplace(p.name + ".weight", std::move(spectrum));
    });
    REQUIRE(golden["singular_values"].size() == spectra.size());
    for (const auto& each : golden["singular_values"].items()) {
        const std::string name = each.key();
        CAPTURE(name);
        const auto want = each.value().get<std::vector<double>>();
        const auto& have = spectra.at(name).s;
        REQUIRE(have.size() == static_cast<llama::index>(want.size()));
        for (std::size_t i = 0; i < want.size(); ++i) {
            CHECK(std::abs(static_cast<double>(have(static_cast<llama::index>(i))) - want[i]) < 1e-5 * want[0]);
        }
    }

    // Layers below the truncated one are not run again.
    lowrank::workspace ws;
    const auto inputs = llama::layer_inputs(m, b, ws);
    const double base = llama::score(m, b, inputs.back(), ws).mean_nll();
    CHECK(std::abs(base - golden["base"].get<double>()) < 1e-4);
    for (const auto& single : golden["single"]) {
        const auto name = single["tensor"].get<std::string>();
        CAPTURE(name);
        const auto layer = static_cast<llama::index>(std::stol(name.substr(std::strlen("model.layers."))));
        auto w = *llama::find_weight(m, name);
        const lowrank::row_matrix<float> before = w;
        w = spectra.at(name).truncate(single["rank"].get<llama::index>()).dense();
        const auto hidden = llama::forward_from(m, b, layer, inputs[static_cast<std::size_t>(layer)], ws);
        CHECK(std::abs(llama::score(m, b, hidden, ws).mean_nll() - single["mean_nll"].get<double>()) < 1e-3);
        w = before;
    }
    CHECK(mean_nll(m, b) == doctest::Approx(base).epsilon(1e-6));

    // A family at once, as factors in the place of the weights.
    REQUIRE(golden["family"].size() == 21);
    for (const auto& family : golden["family"]) {
        const auto module = family["family"].get<std::string>();
        CAPTURE(module);
        const auto rank = family["rank"].get<llama::index>();
        CAPTURE(rank);
        llama::for_each_projection(m, [&](llama::projection<float>& p) {
            if (p.name.ends_with(module)) {
                p.base = lowrank::any_operator<float>(spectra.at(p.name + ".weight").truncate(rank));
            }
        });
        CHECK(std::abs(mean_nll(m, b) - family["mean_nll"].get<double>()) < 1e-3);
        llama::for_each_projection(m, [](llama::projection<float>& p) { p.base.reset(); });
    }
}

TEST_CASE("the PEFT adapter gives the reference's loss, logits and text, beside the weights and merged into them") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto folder = shared / "adapters/stories260K/shakespeare-lora-r4";
    const auto golden = read_json(folder / "golden.json");
    const auto peft = lowrank::read_peft(folder);
    REQUIRE_MESSAGE(peft.has_value(), peft.error().message);
    auto m = load_stories(shared);
    const auto original = m;
    const auto b = shakespeare(shared);
    const auto prompt = golden["prompt_ids"].get<std::vector<int>>();
    const auto expected_logits = read_npy(folder / "logits_prompt.npy");
    lowrank::workspace ws;

    const auto check_all = [&] {
        CHECK(std::abs(mean_nll(m, b) - 2.92356) < 1e-4);
        const auto logits = llama::logits(m, llama::forward(m, llama::prompt(prompt), ws), ws);
        CHECK(largest_difference(logits, expected_logits) < 2e-4);
        const auto text = llama::generate(m, prompt, {.max_new_tokens = 40});
        REQUIRE(text.has_value());
        CHECK(*text == golden["greedy_40_ids"].get<std::vector<int>>());
    };

    REQUIRE(llama::attach(m, lora_layers(*peft)));
    for (const auto& [name, scale] : golden["scales"].items()) {
        const auto* p = llama::find_projection(m, name);
        REQUIRE(p != nullptr);
        REQUIRE(p->adapters.size() == 1);
        CHECK(static_cast<double>(p->adapters[0].adapter->get<lowrank::lora_adapter<float>>()->scaling()) ==
              scale.get<double>());
    }
    check_all();

    llama::detach(m);
    std::map<std::string, lowrank::merge_receipt> receipts;
    for (const auto& [name, adapter] : lora_layers(*peft)) {
        auto* p = llama::find_projection(m, name);
        REQUIRE(p != nullptr);
        auto receipt = lowrank::merge<float>(p->weight, adapter.delta());
        REQUIRE(receipt.has_value());
        receipts.emplace(name, *std::move(receipt));
    }
    const auto merged = read_npy(folder / "merged_layer0_q_proj.npy");
    CHECK(largest_difference(m.layers[0].q_proj.weight.transpose(), merged) < 1e-6);
    check_all();

    for (const auto& [name, adapter] : lora_layers(*peft)) {
        auto* p = llama::find_projection(m, name);
        REQUIRE(lowrank::unmerge<float>(p->weight, receipts.at(name), adapter.delta()));
    }
    for (const auto& name : llama::weight_names(m)) {
        CHECK(*llama::find_weight(m, name) == *llama::find_weight(original, name));
    }
}

TEST_CASE("the DoRA adapter gives the reference loss, and mixtures equal their merged models") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto read = [&](const char* name) {
        const auto peft = lowrank::read_peft(shared / "adapters/stories260K" / name);
        REQUIRE_MESSAGE(peft.has_value(), peft.error().message);
        const auto plain = lora_layers(*peft);
        llama::adapter_operator<float> all(plain.begin(), plain.end());
        for (const auto& [module, held] : peft->modules) {
            if (plain.contains(module)) {
                continue;
            }
            const auto& dora = (*held.get<lowrank::peft_lora>());
            REQUIRE(dora.magnitude.size() > 0);
            all.emplace(module, lowrank::dora_adapter<float>{.lora = dora.lora, .magnitude = dora.magnitude});
        }
        return all;
    };
    const auto original = load_stories(shared);
    const auto ids = shakespeare(shared);
    auto m = original;
    REQUIRE(llama::attach(m, read("shakespeare-dora-r4")));
    CHECK(std::abs(mean_nll(m, ids) - 2.98213) < 2e-4);
    REQUIRE(llama::merge_adapters(m));
    CHECK(std::abs(mean_nll(m, ids) - 2.98213) < 2e-4);

    const auto mixture = [&](const std::vector<std::pair<const char*, float>>& parts) {
        auto mixed = original;
        for (const auto& [name, strength] : parts) {
            REQUIRE(llama::attach(mixed, read(name), strength));
        }
        const double apart = mean_nll(mixed, ids);
        REQUIRE(llama::merge_adapters(mixed));
        CHECK(std::abs(mean_nll(mixed, ids) - apart) < 1e-5);
        return apart;
    };
    mixture({{"shakespeare-lora-r4", 0.5F}, {"random-r4", 0.5F}});
    const double one_way =
        mixture({{"shakespeare-dora-r4", 0.7F}, {"shakespeare-lora-r4", 0.4F}, {"shakespeare-dora-r4", -0.2F}});
    const double other =
        mixture({{"shakespeare-dora-r4", -0.2F}, {"shakespeare-dora-r4", 0.7F}, {"shakespeare-lora-r4", 0.4F}});
    CHECK(std::abs(one_way - other) < 1e-5);
}

TEST_CASE("a short finetune on tiny Shakespeare lowers the loss on the part it has not seen") {
    LOWRANK_NEEDS_SHARED(shared);
    auto m = load_stories(shared);
    const auto tokenizer = llama::read_tokenizer(shared / "models/stories260K/tok512.bin");
    REQUIRE(tokenizer.has_value());
    const auto stream = tokenizer->encode(read_text(shared / "text/tinyshakespeare.txt").substr(0, 100'000));
    const auto tuned = llama::finetune(m, std::span<const int>(stream), {.sequences = 4, .training = {.steps = 15}});
    REQUIRE_MESSAGE(tuned.has_value(), tuned.error().message);
    CHECK(tuned->adapters.size() == 35);
    CHECK(mean_nll(m, shakespeare(shared)) < 3.7);  // from 5.03
    llama::detach(m);
    CHECK(std::abs(mean_nll(m, shakespeare(shared)) - 5.02661) < 1e-4);
}
