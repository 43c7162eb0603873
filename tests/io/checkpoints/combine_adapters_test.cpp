// SPDX-License-Identifier: MIT
#include <lowrank/core/philox.hpp>
#include <lowrank/io/checkpoints/combine_adapters.hpp>
#include <lowrank/io/peft/kinds/lokr.hpp>

#include <cmath>
#include <string>
#include <vector>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

namespace {

/// The change of a module; none of one the adapter lacks.
matrix<double> dense_of(const peft_adapter& a, const std::string& module, const lora_adapter<float>& like) {
    if (!a.modules.contains(module)) {
        return matrix<double>::Zero(like.rows(), like.cols());
    }
    const auto change = lora_of(a.modules.at(module)).delta();
    return change.left.cast<double>() * change.right.cast<double>();
}

matrix<double> dense_of(const peft_adapter& a, const std::string& module) {
    return dense_of(a, module, lora_of(a.modules.at(module)));
}

peft_adapter made_adapter(const std::vector<std::string>& modules, lowrank::index r, std::uint64_t seed,
                          bool use_rslora = false) {
    peft_adapter a;
    for (const auto& module : modules) {
        auto lora = make_lora<float>(7, 6, {.r = r, .lora_alpha = 3, .use_rslora = use_rslora, .seed = seed});
        fill_normal(lora.lora_B, 0.5F, philox(seed, 9));
        a.modules.emplace(module, lora);
    }
    a.config = peft_config_for(a.modules);
    return a;
}

}  // namespace

TEST_CASE("cat and svd of full rank are the weighted sum of real adapters, in every module") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto home = shared / "adapters" / "stories260K";
    const auto poet = read_peft(home / "shakespeare-lora-r4");
    const auto noise = read_peft(home / "random-r4");
    REQUIRE(poet);
    REQUIRE(noise);
    const adapter_to_combine parts[] = {{&*poet, 0.5}, {&*noise, -0.25}};
    temporary_folder folder;
    for (const combination_type type : {combination_type::cat, combination_type::svd}) {
        const auto both = combine_adapters(parts, {.type = type, .rule = weighted_rule::fixed, .svd_rank = 8});
        REQUIRE_MESSAGE(both, (both ? std::string() : both.error().message));
        REQUIRE(write_peft(folder / "both", both->adapter));
        const auto read = read_peft(folder / "both");
        REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
        REQUIRE(read->modules.size() == poet->modules.size());
        for (const auto& [module, held] : poet->modules) {
            const auto& lora = lora_of(held);
            const matrix<double> expected = 0.5 * dense_of(*poet, module) - 0.25 * dense_of(*noise, module, lora);
            const matrix<double> got = dense_of(*read, module);
            CHECK((got - expected).norm() < 2e-6 * expected.norm());
            const auto& report = both->modules.at(module);
            CHECK(report.parts == (noise->modules.contains(module) ? 2U : 1U));
            CHECK(report.rank == (type == combination_type::svd || report.parts == 2 ? 8 : 4));
            CHECK(report.norm == doctest::Approx(expected.norm()).epsilon(1e-5));
            CHECK(report.distance < 2e-6);
        }
    }
    const auto linear = combine_adapters(parts, {.type = combination_type::linear});
    REQUIRE(linear);
    for (const auto& [module, report] : linear->modules) {  // cross terms
        const auto& lora = lora_of(poet->modules.at(module));
        const matrix<double> sum = 0.5 * dense_of(*poet, module) - 0.25 * dense_of(*noise, module, lora);
        const double off = (dense_of(linear->adapter, module) - sum).norm() / sum.norm();
        CHECK(std::abs(report.distance - off) < 1e-3 * off + 1e-5);
        CHECK((report.distance > 0.05) == (report.parts == 2));
    }
}

TEST_CASE("a LoKr of full rank is combined whole") {
    const auto normal = [](lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
        matrix<float> m(rows, cols);
        fill_normal(m, 1.0F, philox(6, stream));
        return m;
    };
    const lokr_adapter<float> lokr{
        .w1 = {.left = normal(4, 3, 0)}, .w2 = {.left = normal(5, 4, 1)}, .alpha = 1, .r = 1};
    peft_adapter a;
    a.modules["l"] = lokr;
    a.config = peft_config_for(a);
    peft_adapter b;
    b.modules["l"] = lora_adapter<float>{.lora_A = normal(2, 12, 2), .lora_B = normal(20, 2, 3), .lora_alpha = 2};
    b.config = peft_config_for(b);
    const adapter_to_combine parts[] = {{&a, 1}, {&b, 0.5}};
    const auto both = combine_adapters(parts, {.type = combination_type::cat, .rule = weighted_rule::fixed});
    REQUIRE_MESSAGE(both, (both ? std::string() : both.error().message));
    const matrix<double> expected = lokr.delta().dense().cast<double>() + 0.5 * dense_of(b, "l");
    CHECK((dense_of(both->adapter, "l") - expected).cwiseAbs().maxCoeff() < 1e-5 * expected.cwiseAbs().maxCoeff());
}

TEST_CASE("a module that one adapter lacks is made of the others") {
    const auto one = made_adapter({"a.q", "a.k"}, 2, 1);
    const auto two = made_adapter({"a.k", "a.v"}, 3, 2, true);
    const adapter_to_combine parts[] = {{&one, 2}, {&two, 0.5}};
    const auto cat = combine_adapters(parts, {.type = combination_type::cat, .rule = weighted_rule::fixed});
    REQUIRE_MESSAGE(cat, (cat ? std::string() : cat.error().message));
    CHECK(cat->modules.at("a.q").parts == 1);
    CHECK(cat->modules.at("a.k").rank == 5);
    CHECK((dense_of(cat->adapter, "a.q") - 2 * dense_of(one, "a.q")).norm() < 1e-6);
    CHECK((dense_of(cat->adapter, "a.v") - 0.5 * dense_of(two, "a.v")).norm() < 1e-6);
    CHECK(lora_of(cat->adapter.modules.at("a.v")).use_rslora == false);  // of the first adapter
    temporary_folder folder;
    REQUIRE(write_peft(folder / "cat", cat->adapter));
    CHECK(read_peft(folder / "cat"));
    const adapter_to_combine turned[] = {{&two, 0.5}, {&one, 2}};
    const auto other = combine_adapters(turned, {.type = combination_type::cat, .rule = weighted_rule::fixed});
    REQUIRE(other);
    CHECK(other->adapter.config.options.get<bool>("use_rslora"));
    CHECK((dense_of(other->adapter, "a.k") - dense_of(cat->adapter, "a.k")).norm() < 1e-5);
    // Pruning applies to a module of one adapter too, as there are two in all.
    const auto pruned = combine_adapters(
        parts,
        {.type = combination_type::magnitude_prune_svd, .rule = weighted_rule::fixed, .svd_rank = 6, .density = 0.3});
    REQUIRE(pruned);
    CHECK(pruned->modules.at("a.q").distance > 0.1);
}

TEST_CASE("adapters that do not fit each other are refused with a reason") {
    const auto one = made_adapter({"a.q"}, 2, 1);
    const auto two = made_adapter({"a.q"}, 3, 2);
    const adapter_to_combine ranks[] = {{&one, 1}, {&two, 1}};
    CHECK(combine_adapters(ranks, {.type = combination_type::ties}).error().message.find("use cat") !=
          std::string::npos);
    auto wide = one;
    wide.modules.at("a.q") = make_lora<float>(7, 9, {.r = 2});
    const adapter_to_combine shapes[] = {{&one, 1}, {&wide, 1}};
    CHECK(combine_adapters(shapes).error().code == errc::mismatch);
    auto flipped = one;
    flipped.config.fan_in_fan_out = true;
    const adapter_to_combine layouts[] = {{&one, 1}, {&flipped, 1}};
    CHECK(combine_adapters(layouts).error().message.find("fan_in_fan_out") != std::string::npos);
    peft_adapter dora;
    dora.modules["a.q"] = peft_lora{.lora = lora_of(one.modules.at("a.q")), .magnitude = vector<float>::Ones(7)};
    const adapter_to_combine kinds[] = {{&one, 1}, {&dora, 1}};
    CHECK(combine_adapters(kinds).error().code == errc::unsupported);
    auto saved = one;
    saved.modules["head.weight"] =
        whole_tensor{tensor_of("base_model.model.head.weight", row_matrix<float>(row_matrix<float>::Ones(2, 2)))};
    const adapter_to_combine heads[] = {{&saved, 1}, {&saved, 1}};
    CHECK(combine_adapters(heads, {.type = combination_type::linear}).error().message.find("modules_to_save") !=
          std::string::npos);
    const adapter_to_combine head[] = {{&saved, 1}, {&one, 1}};
    const auto kept = combine_adapters(head, {.type = combination_type::linear});
    REQUIRE(kept);
    CHECK(kept->adapter.modules.count("head.weight") == 1);
}
