// SPDX-License-Identifier: MIT
// What truncate says about what it wrote, in every type, and which tensors a pattern takes.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/containers/safetensors.hpp>

#include "process.hpp"
#include "tiny_checkpoint.hpp"

using namespace lowrank_tests;

namespace {

template <class T>
lowrank::row_matrix<T> truncate_test_weight(std::uint64_t stream) {
    lowrank::row_matrix<float> w(20, 12);
    lowrank::fill_normal(w, 0.05F, lowrank::philox(5, stream));
    return w.template cast<T>();
}

template <class T>
lowrank::tensor_to_write truncate_test_tensor(const std::string& name, lowrank::dtype type,
                                              const lowrank::row_matrix<T>& w) {
    return {name, type, {20, 12}, std::as_bytes(std::span(w.data(), static_cast<std::size_t>(w.size())))};
}

std::vector<double> numbers_of(const std::filesystem::path& file, const std::string& name) {
    const auto opened = lowrank::safetensors_file::open(file);
    REQUIRE(opened);
    const auto* t = opened->find(name);
    REQUIRE(t != nullptr);
    std::vector<double> out(static_cast<std::size_t>(t->shape[0] * t->shape[1]));
    lowrank::convert_numbers(t->type, opened->bytes(*t), out);
    return out;
}

}  // namespace

TEST_CASE("truncate states the error of the file it wrote, in every type") {
    temporary_folder folder;
    const auto model = folder / "model.safetensors";
    const auto of_f16 = truncate_test_weight<lowrank::half>(1);
    const auto of_bf16 = truncate_test_weight<lowrank::bfloat16>(2);
    const auto of_f32 = truncate_test_weight<float>(3);
    const auto of_f64 = truncate_test_weight<double>(4);
    REQUIRE(lowrank::write_safetensors(model, {truncate_test_tensor("a.weight", lowrank::dtype::f16, of_f16),
                                               truncate_test_tensor("b.weight", lowrank::dtype::bf16, of_bf16),
                                               truncate_test_tensor("c.weight", lowrank::dtype::f32, of_f32),
                                               truncate_test_tensor("d.weight", lowrank::dtype::f64, of_f64)}));
    for (const std::string rank : {"3", "11", "12", "0"}) {
        CAPTURE(rank);
        const auto out = folder / ("out" + rank);
        const auto done =
            run_tool({"truncate", model.string(), "--matrix", "*", "--rank", rank, "--output", out.string(), "--json"});
        CAPTURE(done.err);
        REQUIRE(done.exit_code == 0);
        const auto report = nlohmann::json::parse(done.out);
        REQUIRE(report.at("matrices").size() == 4);
        for (const auto& m : report.at("matrices")) {
            const std::string name = m.at("matrix");
            CAPTURE(name);
            const auto before = numbers_of(model, name), after = numbers_of(out / "model.safetensors", name);
            double moved = 0, norm = 0;
            for (std::size_t i = 0; i < before.size(); ++i) {
                moved += (before[i] - after[i]) * (before[i] - after[i]);
                norm += before[i] * before[i];
            }
            CHECK(m.at("error").get<double>() == doctest::Approx(std::sqrt(moved)).epsilon(1e-12));
            CHECK(m.at("norm").get<double>() == doctest::Approx(std::sqrt(norm)).epsilon(1e-12));
            CHECK(m.at("relative_error").get<double>() == doctest::Approx(std::sqrt(moved / norm)).epsilon(1e-12));
        }
    }
}

TEST_CASE("truncate passes over the vectors that a pattern meets, and says how many") {
    temporary_folder folder;
    const auto model = (folder / "model").string();
    write_tiny_checkpoint(model);
    const auto out = (folder / "out").string();
    const auto done = run_tool({"truncate", model, "--matrix", "model.layers.*", "--rho", "0.5", "--output", out});
    CAPTURE(done.err);
    REQUIRE(done.exit_code == 0);
    CHECK(done.out.find("passed over 4 that are no matrix") != std::string::npos);

    const auto again = run_tool(
        {"truncate", model, "--matrix", "model.layers.*", "--rho", "0.5", "--output", out, "--force", "--json"});
    REQUIRE(again.exit_code == 0);
    const auto report = nlohmann::json::parse(again.out);
    CHECK(report.at("matrices").size() == 14);
    CHECK(report.at("passed_over").size() == 4);
    CHECK(report.at("passed_over").at(0) == "model.layers.0.input_layernorm.weight");

    // One pattern that meets only vectors beside one that meets matrices.
    const auto both = run_tool({"truncate", model, "--matrix", "*norm.weight", "--matrix", "q_proj", "--rho", "0.5",
                                "--output", out, "--force", "--json"});
    REQUIRE(both.exit_code == 0);
    CHECK(nlohmann::json::parse(both.out).at("matrices").size() == 2);

    const auto none =
        run_tool({"truncate", model, "--matrix", "*norm.weight", "--rho", "0.5", "--output", out, "--force"});
    CHECK(none.exit_code != 0);
    CHECK(one_sentence(none.err));
    CHECK(none.err.find("meets no matrix") != std::string::npos);
}
