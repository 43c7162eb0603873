// SPDX-License-Identifier: MIT
// A kind of modules that the library does not know, defined here alone: read from a PEFT folder, applied, trained, merged,
// unmerged, converted and written, through lists that the library's functions take.
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/io/peft/to_any_adapters.hpp>
#include <lowrank/lora/hold_adapter.hpp>
#include <lowrank/lora/merge/merge_change.hpp>
#include <lowrank/lora/train/trainer.hpp>

#include "io_support.hpp"

using namespace lowrank;

namespace {

/// The change gain * u v^T.
struct outer_adapter {
    using scalar = float;
    vector<float> u = {};  ///< out
    vector<float> v = {};  ///< in
    float gain = 1;

    [[nodiscard]] low_rank<float> delta() const { return {.left = gain * u, .right = v.transpose()}; }
    [[nodiscard]] outer_adapter pull_back(const delta_gradient<float>& g) const {
        return {.u = gain * g.left, .v = g.right.transpose(), .gain = gain};
    }
};

}  // namespace

template <>
struct lowrank::adapter_kind<outer_adapter> {
    static constexpr std::string_view name = "outer";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("u"), a.u);
        f(std::string_view("v"), a.v);
    }
    using applied = applied_factors<outer_adapter>;
};

template <>
struct lowrank::peft_kind<outer_adapter> {
    static std::vector<peft_type> types() {
        return {{.name = "OUTER",
                 .alpha_key = "outer_gain",
                 .alpha = 1,
                 .leaves = {"outer_u", "outer_v"},
                 .keys = {{"outer_norm", false}}}};
    }
    static const char* label(const outer_adapter&) { return "outer product"; }
    static module_shape shape(const outer_adapter& m) { return {m.u.size(), m.v.size()}; }
    static bool fit(outer_adapter& m, lowrank::index out, lowrank::index in) {
        return m.u.size() == out && m.v.size() == in;
    }
    static peft_facts facts(const outer_adapter& m) { return {.alpha = static_cast<double>(m.gain)}; }
    static peft_change change(const outer_adapter& m) { return {.weight = m.delta()}; }
    static outer_adapter join(peft_parts& parts, const peft_context& c) {
        return {
            .u = parts.take_vector("outer_u"), .v = parts.take_vector("outer_v"), .gain = static_cast<float>(c.alpha)};
    }
    static void write(const outer_adapter& m, peft_tensors& to) {
        to.add("outer_u", {static_cast<std::uint64_t>(m.u.size())}, m.u);
        to.add("outer_v", {static_cast<std::uint64_t>(m.v.size())}, m.v);
    }
};

TEST_CASE("a kind of a program's own goes from a PEFT folder through everything and back") {
    lowrank_tests::temporary_folder folder;
    std::vector<const peft_description*> kinds(peft_kinds().begin(), peft_kinds().end());
    kinds.push_back(&peft_description_of<outer_adapter>);
    const peft_application* applications[] = {&peft_application_of<outer_adapter>};

    peft_adapter made;
    outer_adapter outer{.u = vector<float>::LinSpaced(3, 1, 2), .v = vector<float>::LinSpaced(4, -1, 1), .gain = 0.5F};
    made.modules["l"] = outer;
    made.config = peft_config_for(made);
    CHECK(made.config.peft_type == "OUTER");
    REQUIRE(write_peft(folder / "a", made));
    CHECK(read_peft(folder / "a").error().message.find("\"OUTER\" is not supported") != std::string::npos);
    const auto read = read_peft(folder / "a", {.kinds = kinds});
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    CHECK(read->warnings.empty());
    CHECK(read->modules.at("l").get<outer_adapter>()->gain == 0.5F);

    // Applied and trained.
    const row_matrix<float> w = row_matrix<float>::Constant(3, 4, 0.25F);
    const auto layer = [](const std::string&) { return result<adapted_weight>({.out = 3, .in = 4}); };
    CHECK(to_any_adapters(*read, layer).error().code == errc::unsupported);
    auto adapters = to_any_adapters(*read, layer, applications);
    REQUIRE_MESSAGE(adapters, (adapters ? std::string() : adapters.error().message));
    trainer<float> t({.learning_rate = 1e-2});
    t.add("l", adapters->at("l"), as_operator(w));
    workspace ws;
    const matrix<float> x = matrix<float>::Identity(4, 4);
    double losses[2] = {};
    for (int step = 0; step < 50; ++step) {
        matrix<float> y = w * x;
        t.adapter(0).add_product(as_operator(w), 1, x, y, ws);
        const matrix<float> dy = y - matrix<float>::Ones(3, 4);
        losses[step == 0 ? 0 : 1] = static_cast<double>(dy.squaredNorm());
        auto gradient = t.adapter(0).zero_gradient();
        t.adapter(0).backward(as_operator(w), 1, x, dy, gradient, nullptr, ws);
        t.accumulate(0, gradient);
        REQUIRE(t.step());
    }
    CHECK(losses[1] < losses[0]);

    // Merged and unmerged, in memory and in a checkpoint.
    const any_adapter<float>& trained = t.adapter(0);
    row_matrix<float> merged = w;
    const auto receipt = merge(weight_view<float>(merged), trained, 1);
    REQUIRE(receipt.has_value());
    CHECK(merged != w);
    peft_adapter again;
    REQUIRE(put_module(again, "l", trained, applications));
    again.config = peft_config_for(again);
    REQUIRE(write_safetensors(folder / "model.safetensors", {tensor_of("l.weight", w)}));
    REQUIRE(merge_checkpoint(*checkpoint::open(folder / "model.safetensors"), again, folder / "merged"));
    CHECK(*checkpoint::open(folder / "merged")->matrix<float>("l.weight") == merged);
    REQUIRE(unmerge(weight_view<float>(merged), *receipt, trained, 1));
    CHECK(merged == w);

    // Converted to plain LoRA, and written as it is.
    const auto plain = to_plain_lora(again);
    REQUIRE(plain);
    CHECK(lora_of(plain->adapter.modules.at("l")).delta().dense() ==
          again.modules.at("l").get<outer_adapter>()->delta().dense());
    REQUIRE(write_peft(folder / "b", again));
    CHECK(read_peft(folder / "b", {.kinds = kinds})->modules.at("l").get<outer_adapter>()->u ==
          again.modules.at("l").get<outer_adapter>()->u);
}
