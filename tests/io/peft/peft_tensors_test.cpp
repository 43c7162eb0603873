// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/peft_tensors.hpp>

#include <string>
#include <vector>

#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/ia3.hpp>
#include <lowrank/io/peft/kinds/lokr.hpp>

#include "io_support.hpp"

using namespace lowrank;

namespace {

std::vector<std::string> tails_of(const peft_module& module) {
    peft_tensors parts;
    module.kind().write(module.data(), parts);
    std::vector<std::string> tails;
    for (const auto& p : parts.parts) {
        tails.push_back(p.leaf + detail::shape_in_words(p.shape));
    }
    return tails;
}

using tails = std::vector<std::string>;

}  // namespace

TEST_CASE("modules become tensors of the names and shapes of PEFT") {
    const auto lora = make_lora<float>(8, 18, {.r = 4});
    CHECK(tails_of(peft_lora{.lora = lora, .magnitude = vector<float>::Ones(8), .kernel = {3, 3}}) ==
          tails{"lora_A.weight[4, 2, 3, 3]", "lora_B.weight[8, 4, 1, 1]", "lora_magnitude_vector[1, 8, 1, 1]"});
    CHECK(tails_of(peft_lora{.lora = lora, .kernel = {9}, .groups = 2}) ==
          tails{"lora_A.weight[4, 2, 9]", "lora_B.weight[8, 2, 1]"});
    CHECK(tails_of(peft_lora{.lora = lora, .bias = vector<float>::Ones(8)}) ==
          tails{"lora_A.weight[4, 18]", "lora_B.weight[8, 4]", "lora_B.bias[8]"});
    CHECK(tails_of(peft_lora{.lora = lora, .magnitude = vector<float>::Ones(8), .is_table = true}) ==
          tails{"lora_embedding_A[4, 18]", "lora_embedding_B[8, 4]", "lora_magnitude_vector[8]"});
    CHECK(tails_of(peft_ia3{.scale = vector<float>::Ones(5)}) == tails{"ia3_l[5, 1]"});
    CHECK(tails_of(peft_ia3{.scale = vector<float>::Ones(5), .is_feedforward = true}) == tails{"ia3_l[1, 5]"});
    CHECK(tails_of(peft_ia3{.scale = vector<float>::Ones(5), .spatial_dimensions = 2}) == tails{"ia3_l[1, 5, 1, 1]"});
    const matrix<float> m = matrix<float>::Ones(2, 3);
    CHECK(tails_of(lokr_adapter<float>{.w1 = {.left = m}, .w2 = {.left = m, .right = m.transpose()}}) ==
          tails{"lokr_w1[2, 3]", "lokr_w2_a[2, 3]", "lokr_w2_b[3, 2]"});
}

TEST_CASE("tensors that do not fit each other are refused, naming the module") {
    lowrank_tests::temporary_folder folder;
    const row_matrix<float> m = row_matrix<float>::Ones(2, 3);
    REQUIRE(write_safetensors(folder / "x.safetensors", {tensor_of("a", m), tensor_of("b", m)}));
    const auto file = checkpoint::open(folder / "x.safetensors");
    REQUIRE(file);
    const auto add = [&](peft_parts& to, const char* leaf, std::size_t i) {
        const auto& place = file->tensors()[i];
        return to.add(leaf, *place.info, file->bytes(place));
    };
    peft_parts parts("l");
    CHECK(add(parts, "a", 0));
    CHECK_FALSE(add(parts, "a", 1));
    CHECK(parts.take("a").rows() == 2);
    CHECK(parts.why);
    parts.take("b");
    CHECK(parts.why.message == "module \"l\" lacks b");
    parts.agree(false);
    CHECK(parts.why.code == errc::invalid_format);  // the first stays
    peft_parts vectors("l");
    CHECK(add(vectors, "v", 0));
    vectors.take_vector("v");
    CHECK(vectors.why.message.find("expected a vector") != std::string::npos);
    peft_parts blocks("l");
    CHECK(add(blocks, "t", 0));
    blocks.take_blocks("t", 3);
    CHECK(blocks.why.message.find("expected 3 dimensions") != std::string::npos);
}
