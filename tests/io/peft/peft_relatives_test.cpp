// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/detail/peft_relatives.hpp>

#include <lowrank/io/peft/detail/peft_join.hpp>

#include <string>
#include <vector>

#include "io_support.hpp"

using namespace lowrank;
using detail::relative_tensors;

namespace {

std::vector<std::string> tails_of(const peft_module& module) {
    relative_tensors parts;
    std::visit(parts, module);
    std::vector<std::string> tails;
    for (const auto& p : parts.parts) {
        tails.push_back(p.tail + detail::shape_in_words(p.shape));
    }
    return tails;
}

using tails = std::vector<std::string>;

}  // namespace

TEST_CASE("modules become tensors of the names and shapes of PEFT") {
    const auto lora = make_lora<float>(8, 18, {.r = 4});
    CHECK(tails_of(peft_lora{.lora = lora, .magnitude = vector<float>::Ones(8), .kernel = {3, 3}}) ==
          tails{".lora_A.weight[4, 2, 3, 3]", ".lora_B.weight[8, 4, 1, 1]", ".lora_magnitude_vector[1, 8, 1, 1]"});
    CHECK(tails_of(peft_lora{.lora = lora, .kernel = {9}, .groups = 2}) ==
          tails{".lora_A.weight[4, 2, 9]", ".lora_B.weight[8, 2, 1]"});
    CHECK(tails_of(peft_lora{.lora = lora, .bias = vector<float>::Ones(8)}) ==
          tails{".lora_A.weight[4, 18]", ".lora_B.weight[8, 4]", ".lora_B.bias[8]"});
    CHECK(tails_of(peft_lora{.lora = lora, .magnitude = vector<float>::Ones(8), .is_table = true}) ==
          tails{".lora_embedding_A[4, 18]", ".lora_embedding_B[8, 4]", ".lora_magnitude_vector[8]"});
    CHECK(tails_of(peft_ia3{.scale = vector<float>::Ones(5)}) == tails{".ia3_l[5, 1]"});
    CHECK(tails_of(peft_ia3{.scale = vector<float>::Ones(5), .is_feedforward = true}) == tails{".ia3_l[1, 5]"});
    CHECK(tails_of(peft_ia3{.scale = vector<float>::Ones(5), .spatial_dimensions = 2}) == tails{".ia3_l[1, 5, 1, 1]"});
    const matrix<float> m = matrix<float>::Ones(2, 3);
    CHECK(tails_of(lokr_adapter<float>{.w1 = {.left = m}, .w2 = {.left = m, .right = m.transpose()}}) ==
          tails{".lokr_w1[2, 3]", ".lokr_w2_a[2, 3]", ".lokr_w2_b[3, 2]"});
}

TEST_CASE("tensors that do not fit each other are refused, naming the module") {
    lowrank_tests::temporary_folder folder;
    const row_matrix<float> m = row_matrix<float>::Ones(2, 3);
    REQUIRE(write_safetensors(folder / "x.safetensors", {tensor_of("a", m), tensor_of("b", m)}));
    const auto file = checkpoint::open(folder / "x.safetensors");
    REQUIRE(file);
    const peft_lora_config c{.peft_type = "LOHA", .r = 3};
    const auto rules = detail::peft_rules::compile(c, {"l"});
    REQUIRE(rules);
    detail::relative_parts parts(*file, "l");
    CHECK(parts.add("hada_w1_a", file->tensors()[0]));
    CHECK_FALSE(parts.add("hada_w1_a", file->tensors()[1]));
    CHECK(parts.add("hada_w1_b", file->tensors()[1]));
    const auto lacks = detail::join_relative(parts, {c, *rules});
    REQUIRE_FALSE(lacks);
    CHECK(lacks.error().message == "module \"l\" lacks hada_w2_a");
    detail::relative_parts whole(*file, "l");
    for (const char* leaf : {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}) {
        CHECK(whole.add(leaf, file->tensors()[0]));
    }
    const auto unfit = detail::join_relative(whole, {c, *rules});
    REQUIRE_FALSE(unfit);
    CHECK(unfit.error().code == errc::mismatch);
    detail::relative_parts vera(*file, "l");
    CHECK(vera.add("vera_lambda_b", file->tensors()[0]));
    CHECK(vera.add("vera_lambda_d", file->tensors()[0]));
    const auto matrices = detail::join_relative(vera, {{.peft_type = "VERA"}, *rules});
    REQUIRE_FALSE(matrices);
    CHECK(matrices.error().message.find("expected a vector") != std::string::npos);
}
