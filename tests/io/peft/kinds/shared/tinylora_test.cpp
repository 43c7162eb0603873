// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/shared/tinylora.hpp>

#include <map>
#include <string>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io/peft/kinds/round_trip.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

tinylora_adapter<float> some_tinylora(lowrank::index group, lowrank::index out = 12, lowrank::index r = 2) {
    row_matrix<float> w(out, 8);
    fill_normal(w, 0.3F, philox(3));
    auto a = make_tinylora<float>(as_operator(w), {.r = r, .u = 5, .group = group});
    fill_normal(a.v, 1.0F, philox(4, static_cast<std::uint64_t>(group)));
    return a;
}

lowrank::index group_of(const peft_adapter& adapter, const std::string& module) {
    return adapter.modules.at(module).get<tinylora_adapter<float>>()->group;
}

}  // namespace

TEST_CASE("the description of TinyLoRA holds for a module of it") { check_kind(some_tinylora(0), 12, 8); }

TEST_CASE("TinyLoRA travels through a PEFT folder: one vector for all, and one for each in the order of the model") {
    const auto one = round_trip({{"m.l0", some_tinylora(0)}, {"m.l1", some_tinylora(0, 6)}}, "TINYLORA",
                                {{"m.l0", {12, 8}}, {"m.l1", {6, 8}}});
    CHECK(one.config["weight_tying"] == 1.0);
    CHECK(one.config["u"] == 5);
    one.set("u", 6);
    one.refuses("a vector of 5");
    one.set("r", 3);
    one.refuses("rank 2");
    one.set("weight_tying", 1.5);
    one.refuses("weight_tying must be between 0 and 1");
    one.set("weight_tying", 0);
    one.refuses("needs tinylora_v.1");

    std::map<std::string, peft_module> modules;
    std::map<std::string, std::pair<lowrank::index, lowrank::index>> shapes;
    const std::vector<std::string> ordered = {"model.layers.2.self_attn.q_proj",  "model.layers.2.self_attn.v_proj",
                                              "model.layers.2.mlp.up_proj",       "model.layers.10.self_attn.q_proj",
                                              "model.layers.10.self_attn.v_proj", "model.layers.10.mlp.up_proj"};
    for (std::size_t i = 0; i < ordered.size(); ++i) {
        modules.emplace(ordered[i], some_tinylora(static_cast<lowrank::index>(i)));
        shapes[ordered[i]] = {12, 8};
    }
    const auto each = round_trip(modules, "TINYLORA", shapes);
    CHECK(each.config["weight_tying"] == 0.0);
    const auto read = read_peft(each.path());
    REQUIRE(read);
    for (std::size_t i = 0; i < ordered.size(); ++i) {
        CHECK(group_of(*read, ordered[i]) == static_cast<lowrank::index>(i));
    }
    // Two groups of three; the numbers that modules were made with do not matter, only who shares.
    for (std::size_t i = 0; i < ordered.size(); ++i) {
        modules.insert_or_assign(ordered[i], some_tinylora(i < 3 ? 7 : 4));
    }
    const auto two = round_trip(modules, "TINYLORA", shapes);
    CHECK(two.config["weight_tying"].get<double>() == doctest::Approx(1 - 2.0 / 6));
    const auto again = read_peft(two.path());
    REQUIRE(again);
    CHECK(group_of(*again, ordered[2]) == 0);
    CHECK(group_of(*again, ordered[3]) == 1);

    // Modules that share otherwise than the order says have no place in a file.
    peft_adapter other;
    modules.insert_or_assign(ordered[0], some_tinylora(4));
    modules.insert_or_assign(ordered[5], some_tinylora(7));
    other.modules = modules;
    other.config = peft_config_for(other);
    CHECK(write_peft(two.path(), other).message.find("another tinylora_v.") != std::string::npos);
}

TEST_CASE("TinyLoRA of several groups is refused where names do not tell the order of modules") {
    const std::map<std::string, peft_module> modules = {{"encoder.key", some_tinylora(0)},
                                                        {"encoder.query", some_tinylora(1)}};
    peft_adapter made;
    made.modules = modules;
    made.config = peft_config_for(made);
    temporary_folder folder;
    const status why = write_peft(folder / "a", made);
    CHECK(why.code == errc::unsupported);
    CHECK(why.message.find("names do not tell") != std::string::npos);
    // With one vector for all, the order does not matter.
    made.modules.insert_or_assign("encoder.query", some_tinylora(0));
    made.config = peft_config_for(made);
    REQUIRE(write_peft(folder / "a", made));
    CHECK(read_peft(folder / "a"));
    auto config = nlohmann::json::parse(text_of(folder / "a" / "adapter_config.json"));
    config["weight_tying"] = 0.0;
    REQUIRE(write_file(folder / "a" / "adapter_config.json", config.dump()));
    const auto read = read_peft(folder / "a");
    REQUIRE_FALSE(read);
    CHECK(read.error().message.find("names do not tell") != std::string::npos);
}

TEST_CASE("TinyLoRA: a rank that a small weight does not have, missing matrices and odd numbers of vectors") {
    const auto small = round_trip({{"m.l0", some_tinylora(0, 3, 4)}, {"m.l1", some_tinylora(0, 12, 4)}}, "TINYLORA",
                                  {{"m.l0", {3, 8}}, {"m.l1", {12, 8}}});
    CHECK(small.config["r"] == 4);
    const auto a = some_tinylora(0);
    const std::string name = "base_model.model.l.tinylora_";
    auto p = tensor_of(name + "P", a.tinylora_P);
    p.shape = {5, 2, 2};
    const auto file = round_trip({{"l", a}}, "TINYLORA", {{"l", {12, 8}}});
    const std::vector<tensor_to_write> factors = {tensor_of(name + "A", a.tinylora_A),
                                                  tensor_of(name + "B", a.tinylora_B)};
    auto all = factors;
    all.push_back(tensor_of("base_model.tinylora_v.0", a.v));
    file.set_tensors(all);
    file.refuses("save_projection=True");
    all = factors;
    all.push_back(p);
    file.set_tensors(all);
    file.refuses("needs tinylora_v.0");
    all.push_back(tensor_of("base_model.tinylora_v.00", a.v));
    file.set_tensors(all);
    file.refuses("is not the vector of a group");
    all.back() = tensor_of("base_model.tinylora_v.0", vector<float>(vector<float>::Ones(4)));
    file.set_tensors(all);
    file.refuses("a vector of 4");
}
