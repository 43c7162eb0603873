// SPDX-License-Identifier: MIT
#include <lowrank/io/checkpoints/detail/merge_experts.hpp>

#include <string>
#include <utility>
#include <vector>

#include <lowrank/io/checkpoints/check_adapter.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft.hpp>

#include "io/io_support.hpp"
#include "lora/support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

constexpr Eigen::Index experts = 3, features = 4, between = 6;
const std::string owner = "model.layers.0.mlp.experts";

/// LoRA of both stacks of a gated unit.
peft_adapter unit(std::uint64_t seed = 1) {
    peft_adapter made;
    const auto put = [&](const char* name, Eigen::Index depth, Eigen::Index out, Eigen::Index in,
                         std::uint64_t stream) {
        const peft_experts m{.lora = {.experts = experts,
                                      .lora_A = random_matrix<float>(2 * experts, in, stream),
                                      .lora_B = random_matrix<float>(out, 2 * experts, stream + 50),
                                      .lora_alpha = 4},
                             .place = {.module = owner, .parameter = name, .depth = depth}};
        made.modules.insert_or_assign(m.place.path(), m);
    };
    put("gate_up_proj", 1, 2 * between, features, seed);
    put("down_proj", 0, features, between, seed + 1);
    made.config = peft_config_for(made);
    return made;
}

/// The weights of one expert, out x in.
struct one_expert {
    matrix<double> gate_up, down;
};
std::vector<one_expert> weights_of_unit() {
    std::vector<one_expert> all;
    for (Eigen::Index e = 0; e < experts; ++e) {
        const auto stream = 300 + static_cast<std::uint64_t>(e);
        all.push_back({random_matrix<float>(2 * between, features, stream).cast<double>(),
                       random_matrix<float>(features, between, stream + 10).cast<double>()});
    }
    return all;
}

tensor_to_write stack_tensor(const std::string& name, const std::vector<matrix<double>>& all, bool in_by_out) {
    const Eigen::Index height = in_by_out ? all[0].cols() : all[0].rows();
    row_matrix<float> stack(static_cast<Eigen::Index>(all.size()) * height, in_by_out ? all[0].rows() : all[0].cols());
    for (std::size_t e = 0; e < all.size(); ++e) {
        stack.middleRows(static_cast<Eigen::Index>(e) * height, height) =
            in_by_out ? row_matrix<float>(all[e].transpose().cast<float>()) : row_matrix<float>(all[e].cast<float>());
    }
    auto t = tensor_of(name, stack);
    t.shape = {all.size(), static_cast<std::uint64_t>(height), static_cast<std::uint64_t>(stack.cols())};
    return t;
}

enum class form { fused, fused_in_by_out, split, mixtral };

checkpoint write_unit(const std::filesystem::path& path, form how, const std::string& prefix = "") {
    const auto all = weights_of_unit();
    std::vector<tensor_to_write> tensors;
    if (how == form::fused || how == form::fused_in_by_out) {
        std::vector<matrix<double>> gate_up, down;
        for (const auto& one : all) {
            gate_up.push_back(one.gate_up);
            down.push_back(one.down);
        }
        tensors.push_back(stack_tensor(prefix + owner + ".gate_up_proj", gate_up, how == form::fused_in_by_out));
        tensors.push_back(stack_tensor(prefix + owner + ".down_proj", down, how == form::fused_in_by_out));
    } else {
        const bool usual = how == form::split;
        for (std::size_t e = 0; e < all.size(); ++e) {
            const auto put = [&](const char* name, const matrix<double>& w) {
                tensors.push_back(tensor_of(prefix + owner + "." + std::to_string(e) + "." + name + ".weight",
                                            row_matrix<float>(w.cast<float>())));
            };
            put(usual ? "gate_proj" : "w1", all[e].gate_up.topRows(between));
            put(usual ? "up_proj" : "w3", all[e].gate_up.bottomRows(between));
            put(usual ? "down_proj" : "w2", all[e].down);
        }
    }
    REQUIRE(write_safetensors(path, tensors));
    return checkpoint::open(path).value();
}

/// The expert's weights in a checkpoint of any form.
one_expert read_expert(const checkpoint& file, form how, std::size_t e, const std::string& prefix = "") {
    if (how == form::fused || how == form::fused_in_by_out) {
        const auto take = [&](const std::string& name) {
            const auto bytes = *file.bytes(prefix + owner + "." + name);
            tensor_info t = *file.find(prefix + owner + "." + name);
            const Eigen::Index height = static_cast<Eigen::Index>(t.shape[1]);
            t.shape = {t.shape[0] * t.shape[1], t.shape[2]};
            const row_matrix<double> all = detail::matrix_from<double>(t, bytes).value();
            const matrix<double> one = all.middleRows(static_cast<Eigen::Index>(e) * height, height);
            return how == form::fused ? one : matrix<double>(one.transpose());
        };
        return {take("gate_up_proj"), take("down_proj")};
    }
    const bool usual = how == form::split;
    const auto take = [&](const char* name) {
        return *file.matrix<double>(prefix + owner + "." + std::to_string(e) + "." + name + ".weight");
    };
    one_expert out{matrix<double>(2 * between, features), take(usual ? "down_proj" : "w2")};
    out.gate_up << take(usual ? "gate_proj" : "w1"), take(usual ? "up_proj" : "w3");
    return out;
}

matrix<double> change_of_expert(const peft_adapter& adapter, const char* name, std::size_t e) {
    const auto d =
        adapter.modules.at(owner + "." + name).get<peft_experts>()->lora.expert(static_cast<Eigen::Index>(e)).delta();
    return d.left.cast<double>() * d.right.cast<double>();
}

std::string why_not(const checkpoint& base, const peft_adapter& adapter, const std::filesystem::path& out) {
    const auto report = merge_checkpoint(base, adapter, out);
    return report ? std::string() : report.error().message;
}

}  // namespace

TEST_CASE("LoRA of experts merges the same however the base keeps them") {
    temporary_folder folder;
    const peft_adapter adapter = unit(), other = unit(20);
    const auto plain = to_plain_lora(adapter);
    REQUIRE(plain);
    const auto weights = weights_of_unit();
    for (const std::string prefix : {"", "language_model."}) {
        for (const form how : {form::fused, form::fused_in_by_out, form::split, form::mixtral}) {
            CAPTURE(static_cast<int>(how));
            const checkpoint base = write_unit(folder / "base.safetensors", how, prefix);
            for (const bool by_layers : {false, true}) {  // the same adapter as layers of single experts
                if (by_layers && how == form::mixtral) {
                    continue;  // they have the other names
                }
                CAPTURE(by_layers);
                const adapter_to_merge both[] = {{by_layers ? &plain->adapter : &adapter, 0.5}, {&other, 1.0}};
                const auto report = merge_checkpoint(base, both, folder / "out", {.tile_bytes = 64, .check = true});
                REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
                const auto merged = checkpoint::open(folder / "out" / "base.safetensors");
                REQUIRE(merged);
                for (std::size_t e = 0; e < experts; ++e) {
                    const one_expert got = read_expert(*merged, how, e, prefix);
                    const auto want = [&](const matrix<double>& w, const char* name) {
                        return matrix<double>(w + 0.5 * change_of_expert(adapter, name, e) +
                                              change_of_expert(other, name, e));
                    };
                    CHECK((got.gate_up - want(weights[e].gate_up, "gate_up_proj")).cwiseAbs().maxCoeff() < 1e-5);
                    CHECK((got.down - want(weights[e].down, "down_proj")).cwiseAbs().maxCoeff() < 1e-5);
                }
                std::filesystem::remove_all(folder / "out");
            }
        }
    }
}

TEST_CASE("an adapter of a release before layouts changes what that release changed") {
    temporary_folder folder;
    const checkpoint base = write_unit(folder / "base.safetensors", form::fused);
    // A belongs to the second dimension of the tensor, B to the third: those of the transposed unit.
    peft_adapter old = unit();
    for (auto& [path, module] : old.modules) {
        auto& lora = module.get<peft_experts>()->lora;
        std::vector<lora_adapter<float>> all;
        for (Eigen::Index e = 0; e < experts; ++e) {
            all.push_back(detail::lora_of_expert(lora, e, 0, 1, true));
        }
        lora = stack_experts<float>(all);
    }
    old.config.document = R"({"peft_type":"LORA","peft_version":"0.18.1"})";
    const auto report = merge_checkpoint(base, old, folder / "out");
    REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
    const auto merged = checkpoint::open(folder / "out" / "base.safetensors");
    const auto weights = weights_of_unit();
    for (std::size_t e = 0; e < experts; ++e) {
        const one_expert got = read_expert(*merged, form::fused, e);
        CHECK((got.down - weights[e].down - change_of_expert(unit(), "down_proj", e)).cwiseAbs().maxCoeff() < 1e-5);
    }
    CHECK(to_plain_lora(old).error().message.find("before 0.19") != std::string::npos);
}

TEST_CASE("square experts are taken as the release that saved the adapter took them") {
    temporary_folder folder;
    const std::vector<matrix<double>> zero(2, matrix<double>::Zero(3, 3));
    REQUIRE(write_safetensors(folder / "base.safetensors", {stack_tensor("m.experts.weight", zero, false)}));
    const auto base = checkpoint::open(folder / "base.safetensors");
    REQUIRE(base);
    peft_adapter adapter;
    const peft_experts m{
        .lora = {.experts = 2, .lora_A = random_matrix<float>(2, 3, 1), .lora_B = random_matrix<float>(3, 2, 2)},
        .place = {.module = "m.experts", .parameter = "weight"}};
    adapter.modules.insert_or_assign(m.place.path(), m);
    adapter.config = peft_config_for(adapter);
    for (const char* version : {"0.18.0", "0.19.0"}) {
        adapter.config.document = R"({"peft_type":"LORA","peft_version":")" + std::string(version) + "\"}";
        const auto report = merge_checkpoint(*base, adapter, folder / "out");
        REQUIRE(report);
        CHECK(report->notes.size() == 1);
        const auto merged = checkpoint::open(folder / "out" / "base.safetensors");
        tensor_info t = *merged->find("m.experts.weight");
        t.shape = {6, 3};
        const matrix<double> got = detail::matrix_from<double>(t, *merged->bytes("m.experts.weight")).value();
        const auto d = m.lora.expert(1).delta();
        const matrix<double> want = d.left.cast<double>() * d.right.cast<double>();
        CHECK(
            (got.bottomRows(3) - (version[3] == '8' ? matrix<double>(want.transpose()) : want)).cwiseAbs().maxCoeff() <
            1e-6);
        std::filesystem::remove_all(folder / "out");
    }
}

TEST_CASE("experts that do not fit are refused, naming both sides") {
    temporary_folder folder;
    const checkpoint fused = write_unit(folder / "base.safetensors", form::fused);
    const auto out = folder / "out";
    peft_adapter adapter = unit();
    auto& down = *adapter.modules.at(owner + ".down_proj").get<peft_experts>();
    const expert_lora<float> right = down.lora;
    down.lora.experts = 2;
    down.lora.lora_A = right.lora_A.topRows(4);
    down.lora.lora_B = right.lora_B.leftCols(4);
    CHECK(why_not(fused, adapter, out).find("LoRA of 2 experts") != std::string::npos);
    CHECK(why_not(fused, adapter, out).find("[3, 4, 6]") != std::string::npos);
    const checkpoint split = write_unit(folder / "split.safetensors", form::split);
    CHECK(why_not(split, adapter, out).find("the base has more") != std::string::npos);
    down.lora = right;
    down.lora.lora_A = random_matrix<float>(6, 7, 3);
    CHECK(why_not(fused, adapter, out).find("of other sizes") != std::string::npos);
    CHECK(why_not(split, adapter, out).find("has shape [4, 6]") != std::string::npos);

    REQUIRE(write_safetensors(folder / "none.safetensors", {tensor_of_ones("a.weight", {2, 2})}));
    const auto none = checkpoint::open(folder / "none.safetensors");
    CHECK(why_not(*none, unit(), out).find("the base has no tensor \"" + owner) != std::string::npos);

    // A parameter that the file leaves open is the one that fits; two that fit are not guessed between.
    peft_adapter open = unit();
    auto m = *open.modules.at(owner + ".down_proj").get<peft_experts>();
    open.modules.clear();
    m.place.parameter.clear();
    m.place.may_be = {"gate_up_proj", "down_proj"};
    open.modules.insert_or_assign(m.place.path(), m);
    CHECK(why_not(fused, open, out).empty());
    std::filesystem::remove_all(out);
    m.place.may_be = {"down_proj", "twin"};
    open.modules.insert_or_assign(m.place.path(), m);
    const std::vector<matrix<double>> zero(experts, matrix<double>::Zero(features, between));
    REQUIRE(write_safetensors(folder / "twins.safetensors", {stack_tensor(owner + ".down_proj", zero, false),
                                                             stack_tensor(owner + ".twin", zero, false)}));
    const auto twins = checkpoint::open(folder / "twins.safetensors");
    CHECK(why_not(*twins, open, out).find("nothing tells") != std::string::npos);
}

TEST_CASE("one expert's change goes to its place in a stack, and nowhere else") {
    temporary_folder folder;
    const checkpoint base = write_unit(folder / "base.safetensors", form::fused);
    peft_adapter adapter;
    adapter.modules[owner + ".1.up_proj"] = random_adapter<float>(between, features, {.r = 1});
    adapter.config = peft_config_for(adapter);
    const auto report = merge_checkpoint(base, adapter, folder / "out");
    REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
    const auto merged = checkpoint::open(folder / "out" / "base.safetensors");
    const auto weights = weights_of_unit();
    for (std::size_t e = 0; e < experts; ++e) {
        const one_expert got = read_expert(*merged, form::fused, e);
        CHECK(got.gate_up.topRows(between) == weights[e].gate_up.topRows(between));
        CHECK((got.gate_up.bottomRows(between) == weights[e].gate_up.bottomRows(between)) == (e != 1));
        CHECK(got.down == weights[e].down);
    }
    const auto checked = check_adapter(base, adapter);
    REQUIRE(checked);
    REQUIRE(checked->modules.size() == 1);
    CHECK(checked->modules[0].why);
    CHECK(checked->modules[0].tensors.at(0).change_norm > 0);

    adapter.modules.clear();
    adapter.modules[owner + ".3.up_proj"] = random_adapter<float>(between, features, {.r = 1});
    CHECK(why_not(base, adapter, folder / "no").find("the stack of the base") != std::string::npos);
    adapter.modules.clear();
    adapter.modules[owner + ".1.up_proj"] = peft_lora{.lora = random_adapter<float>(between, features, {.r = 1}),
                                                      .magnitude = vector<float>::Ones(between)};
    CHECK(why_not(base, adapter, folder / "no").find("only a low-rank sum") != std::string::npos);
}
