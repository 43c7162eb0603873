// SPDX-License-Identifier: MIT
#include <lowrank/io/checkpoints/check_adapter.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/ia3.hpp>

#include "io_support.hpp"
#include "support/matrices.hpp"

using namespace lowrank;
using lowrank_tests::gaussian;
using lowrank_tests::temporary_folder;

namespace {

checkpoint write_checked_base(const temporary_folder& folder) {
    const row_matrix<float> w = gaussian<float>(10, 6, 1);
    REQUIRE(write_safetensors(folder / "model.safetensors",
                              {tensor_of("model.a.weight", row_matrix<bfloat16>(w.cast<bfloat16>())),
                               tensor_of("model.b.weight", w), tensor_of("model.c.weight", w),
                               tensor_of("model.embed_tokens.weight", row_matrix<float>(gaussian<float>(20, 6, 2)))}));
    const auto base = checkpoint::open(folder / "model.safetensors");
    REQUIRE(base);
    return *base;
}

lora_adapter<float> trained_lora(Eigen::Index rank, Eigen::Index used, std::uint64_t seed) {
    auto a = make_lora<float>(10, 6, {.r = rank, .lora_alpha = static_cast<double>(rank), .seed = seed});
    a.lora_B.setZero();
    a.lora_B.leftCols(used) = gaussian<float>(10, used, seed + 1);
    return a;
}

const checked_module& find_checked(const adapter_check& check, const std::string& path) {
    const auto at = std::find_if(check.modules.begin(), check.modules.end(), [&](auto& m) { return m.path == path; });
    REQUIRE(at != check.modules.end());
    return *at;
}

}  // namespace

TEST_CASE("checking an adapter says where it goes, how much it changes and how much of its rank is used") {
    temporary_folder folder;
    const checkpoint base = write_checked_base(folder);
    peft_adapter adapter;
    adapter.modules["model.a"] = trained_lora(4, 2, 5);
    adapter.modules["model.b"] = trained_lora(3, 0, 6);
    adapter.modules["module.model.c"] = trained_lora(2, 2, 7);
    adapter.modules["model.embed_tokens.weight"] =
        whole_tensor{tensor_of("model.embed_tokens.weight", row_matrix<float>(row_matrix<float>::Zero(20, 6)))};
    const auto check = check_adapter(base, adapter);
    REQUIRE_MESSAGE(check, (check ? std::string() : check.error().message));
    CHECK(check->maps());
    CHECK(check->merges);
    REQUIRE(check->modules.size() == 4);

    const auto& a = find_checked(*check, "model.a");
    CHECK(a.kind == "LoRA");
    CHECK(a.rank == 4);
    CHECK(a.rank_used == 2);
    CHECK(!a.changes_nothing());
    const auto& b = find_checked(*check, "model.b");
    CHECK(b.rank == 3);
    CHECK(b.rank_used == 0);
    CHECK(b.changes_nothing());
    CHECK(find_checked(*check, "module.model.c").tensors.at(0).name == "model.c.weight");
    CHECK(std::any_of(check->notes.begin(), check->notes.end(),
                      [](const std::string& note) { return note.find("\"module\"") != std::string::npos; }));

    // The figures are those of the files before and after a merge.
    REQUIRE(merge_checkpoint(base, adapter, folder / "merged"));
    const auto merged = checkpoint::open(folder / "merged");
    REQUIRE(merged);
    for (const checked_module& m : check->modules) {
        REQUIRE(m.tensors.size() == 1);
        const checked_tensor& t = m.tensors.front();
        const matrix<double> before = *base.matrix<double>(t.name);
        const matrix<double> after = *merged->matrix<double>(t.name);
        CHECK(t.norm == doctest::Approx(before.norm()).epsilon(1e-12));
        CHECK(t.change_norm == doctest::Approx((after - before).norm()).epsilon(1e-12));
        CHECK(t.relative() == doctest::Approx((after - before).norm() / before.norm()).epsilon(1e-12));
    }
    CHECK(find_checked(*check, "model.embed_tokens.weight").tensors.front().relative() == doctest::Approx(1.0));
}

TEST_CASE("checking goes on after a module without a place, and says why each has none") {
    temporary_folder folder;
    const checkpoint base = write_checked_base(folder);
    peft_adapter adapter;
    adapter.modules["model.a"] = trained_lora(2, 2, 5);
    adapter.modules["model.missing"] = trained_lora(2, 2, 6);
    adapter.modules["model.embed_tokens"] = trained_lora(2, 2, 7);  // 10 x 6 for a table of 20 x 6
    adapter.modules["score.weight"] =
        whole_tensor{tensor_of("score.weight", row_matrix<float>(row_matrix<float>::Ones(2, 6)))};
    const auto check = check_adapter(base, adapter);
    REQUIRE(check);
    CHECK(!check->maps());
    CHECK(!check->merges);
    CHECK(find_checked(*check, "model.a").why);
    CHECK(find_checked(*check, "model.a").tensors.size() == 1);
    CHECK(find_checked(*check, "model.missing").why.code == errc::mismatch);
    CHECK(find_checked(*check, "model.missing").tensors.empty());
    CHECK(find_checked(*check, "model.embed_tokens").why.code == errc::mismatch);
    CHECK(find_checked(*check, "score.weight").why.message.find("modules_to_save") != std::string::npos);

    adapter.config.modules_to_save = {"score"};
    const auto again = check_adapter(base, adapter);
    REQUIRE(again);
    CHECK(find_checked(*again, "score.weight").why);
    CHECK(find_checked(*again, "score.weight").is_new);
    CHECK(!find_checked(*again, "score.weight").changes_nothing());
}

TEST_CASE("a change below the rounding of the base is seen, as is one that is not finite") {
    temporary_folder folder;
    const checkpoint base = write_checked_base(folder);
    peft_adapter adapter;
    auto small = trained_lora(2, 2, 5);
    small.lora_B *= 1e-6F;
    adapter.modules["model.a"] = small;
    auto broken = trained_lora(2, 2, 6);
    broken.lora_B *= 1e38F;
    broken.lora_A *= 1e38F;
    adapter.modules["model.b"] = broken;
    const auto check = check_adapter(base, adapter);
    REQUIRE(check);
    const auto& a = find_checked(*check, "model.a");
    CHECK(a.changes_nothing());
    CHECK(a.rank_used == 2);
    CHECK(a.tensors.at(0).unchanged_fraction == 1.0);
    CHECK(find_checked(*check, "model.b").why.code == errc::non_finite);
    CHECK(!check_adapter(base, peft_adapter{}));
}

TEST_CASE(
    "a saved tensor that is not finite has no norm of its change, and one that replaces such has no norm before") {
    temporary_folder folder;
    const row_matrix<float> finite = gaussian<float>(4, 3, 1);
    row_matrix<float> broken = finite;
    broken(1, 2) = std::numeric_limits<float>::quiet_NaN();
    REQUIRE(write_safetensors(folder / "model.safetensors",
                              {tensor_of("a.weight", finite), tensor_of("b.weight", broken)}));
    const auto base = checkpoint::open(folder / "model.safetensors");
    REQUIRE(base);
    peft_adapter adapter;
    adapter.modules["a.weight"] = whole_tensor{tensor_of("a.weight", broken)};
    adapter.modules["b.weight"] = whole_tensor{tensor_of("b.weight", finite)};
    const auto check = check_adapter(*base, adapter);
    REQUIRE_MESSAGE(check, (check ? std::string() : check.error().message));
    const checked_tensor& a = find_checked(*check, "a.weight").tensors.at(0);
    CHECK(a.norm == doctest::Approx(finite.cast<double>().norm()));
    CHECK(std::isnan(a.change_norm));
    CHECK_FALSE(find_checked(*check, "a.weight").changes_nothing());
    const checked_tensor& b = find_checked(*check, "b.weight").tensors.at(0);
    CHECK(std::isnan(b.norm));
    CHECK(std::isnan(b.change_norm));
}

TEST_CASE("every kind of adapter is measured, an aLoRA is measured and not merged") {
    temporary_folder folder;
    const checkpoint base = write_checked_base(folder);
    peft_adapter adapter;
    peft_ia3 scales{.scale = vector<float>::Constant(10, 2.0F)};
    adapter.modules["model.b"] = scales;
    auto check = check_adapter(base, adapter);
    REQUIRE(check);
    CHECK(find_checked(*check, "model.b").rank == 0);
    CHECK(find_checked(*check, "model.b").tensors.at(0).relative() == doctest::Approx(1.0));

    peft_adapter alora;
    alora.modules["model.a"] = trained_lora(2, 2, 5);
    alora.config.alora_invocation_tokens = {1, 2};
    check = check_adapter(base, alora);
    REQUIRE(check);
    CHECK(check->maps());
    CHECK(check->merges.code == errc::unsupported);
    const auto stopped = check_adapter(base, alora, {.on_progress = [](const progress&) { return false; }});
    CHECK(stopped.why.code == errc::cancelled);
}
