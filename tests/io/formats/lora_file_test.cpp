// SPDX-License-Identifier: MIT
// Files of safetensors under the names of each format, as modules.

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/formats/kohya.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>
#include <lowrank/io/peft/kinds/lokr.hpp>
#include <lowrank/io/peft/kinds/rotations/oft.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

namespace {

using modules = std::map<std::string, peft_module>;

modules two_attention_modules(double alpha) {
    modules out;
    for (const char* name : {"down_blocks.0.attn1.to_k", "down_blocks.0.attn1.to_out.0"}) {
        auto lora = make_lora<float>(6, 4, {.r = 2, .lora_alpha = alpha, .seed = 2, .stream = out.size() + 1});
        lora.lora_B.reshaped().setLinSpaced(-1, 1);
        out[name] = lora;
    }
    return out;
}

tensor_to_write shaped(std::string name, std::vector<std::uint64_t> shape, float value = 1) {
    Eigen::Index count = 1;
    for (const auto n : shape) {
        count *= static_cast<Eigen::Index>(n);
    }
    auto t = tensor_of(std::move(name), lowrank::vector<float>(lowrank::vector<float>::Constant(count, value)));
    t.shape = std::move(shape);
    return t;
}

}  // namespace

TEST_CASE("every format reads back what was written, with the same change of the weight") {
    temporary_folder folder;
    for (const std::string format : {"peft", "kohya", "diffusers", "diffusers_old", "mlx", "loralib"}) {
        for (const double alpha : {2.0, 1.0, 3.0}) {  // scaling 1, 1/2 and 3/2
            const modules made = two_attention_modules(alpha);
            REQUIRE(write_lora_file(folder / "f", made, {.format = format}));
            lora_file_options opt;
            if (format == "peft" || format == "loralib") {
                opt.lora_alpha = alpha;
            }
            const auto read = read_lora_file(folder / "f", opt);
            REQUIRE_MESSAGE(read, format, ": ", read ? std::string() : read.error().message);
            CHECK(read->format == format);
            CHECK(read->unmapped.empty());
            REQUIRE(read->modules.size() == 2);
            for (const auto& [name, held] : made) {
                const auto& lora = lora_of(held);
                std::string found = name;
                if (format == "kohya") {
                    found = "lora_unet_" + name;
                    std::replace(found.begin(), found.end(), '.', '_');
                } else if (format == "peft") {
                    found = "base_model.model." + name;
                }
                REQUIRE_MESSAGE(read->modules.contains(found), found);
                const auto& again = lora_of(read->modules.at(found));
                CHECK(again.lora_A == lora.lora_A);
                CHECK(again.scaling() * again.lora_B == lora.scaling() * lora.lora_B);  // halves and 3/2: exact
            }
        }
    }
}

TEST_CASE("two modules of one flattened name are refused by their names") {
    temporary_folder folder;
    modules all;
    all["net.a_b.c"] = all["net.a.b_c"] = make_lora<float>(4, 4, {.r = 2});
    const status why = write_lora_file(folder / "k", all, {.format = "kohya"});
    CHECK(why.code == errc::unsupported);
    for (const char* name : {"\"net.a_b.c\"", "\"net.a.b_c\"", "lora_unet_net_a_b_c"}) {
        CHECK_MESSAGE(why.message.find(name) != std::string::npos, why.message);
    }
    CHECK(write_lora_file(folder / "k", all, {.format = "diffusers"}));
}

TEST_CASE("a real adapter travels through kohya without a changed bit") {
    LOWRANK_NEEDS_SHARED(shared);
    temporary_folder folder;
    const auto adapter = read_peft(shared / "adapters" / "stories260K" / "shakespeare-lora-r4");
    REQUIRE(adapter);
    REQUIRE(write_lora_file(folder / "k", adapter->modules, {.format = "kohya", .kohya_prefix = "lora_te_"}));
    const auto read = read_lora_file(folder / "k");
    REQUIRE(read);
    std::vector<std::string> paths;
    for (const auto& [module, lora] : adapter->modules) {
        paths.push_back(module);
    }
    modules back;
    for (const auto& entry : read->modules) {
        const std::string& name = entry.first;
        const auto path = unflatten_kohya_name(name, paths);
        REQUIRE_MESSAGE(path, name);
        back[*path] = entry.second;
    }
    REQUIRE(back.size() == adapter->modules.size());
    peft_adapter again = *adapter;
    again.modules = back;
    REQUIRE(write_peft(folder / "p", again));
    CHECK(lowrank_tests::text_of(folder / "p" / "adapter_model.safetensors") ==
          lowrank_tests::text_of(shared / "adapters" / "stories260K" / "shakespeare-lora-r4" /
                                 "adapter_model.safetensors"));
}

TEST_CASE("alpha is a tensor of its own, zero means the rank") {
    temporary_folder folder;
    const auto scaling = [&](const tensor_to_write& alpha) {
        REQUIRE(write_safetensors(folder / "f",
                                  {shaped("m.lora_down.weight", {2, 4}), shaped("m.lora_up.weight", {3, 2}), alpha}));
        const auto read = read_lora_file(folder / "f");
        REQUIRE(read);
        return lora_of(read->modules.at("m")).scaling();
    };
    CHECK(scaling(shaped("m.alpha", {}, 4)) == 2);
    CHECK(scaling(shaped("m.alpha", {1}, 1)) == 0.5F);
    CHECK(scaling(shaped("m.alpha", {}, 0)) == 1);
    CHECK(scaling(shaped("x.alpha", {}, 5)) == 1);
}

TEST_CASE("convolutions, DoRA, LoHa and LoKr are read from their names, the rest is reported") {
    temporary_folder folder;
    REQUIRE(write_safetensors(folder / "f", {shaped("one.lora_down.weight", {2, 4, 1, 1}),
                                             shaped("one.lora_up.weight", {3, 2, 1, 1}),
                                             shaped("conv.lora_down.weight", {2, 4, 3, 3}),
                                             shaped("conv.lora_up.weight", {3, 2, 1, 1}),
                                             shaped("h.hada_w1_a", {5, 2}),
                                             shaped("h.hada_w1_b", {2, 4}),
                                             shaped("h.hada_w2_a", {5, 2}),
                                             shaped("h.hada_w2_b", {2, 4}),
                                             shaped("h.alpha", {}, 4),
                                             shaped("k.lokr_w1", {2, 2}),
                                             shaped("k.lokr_w2", {3, 2}),
                                             shaped("k.alpha", {}, 7),
                                             shaped("d.lora_down.weight", {2, 4}),
                                             shaped("d.lora_up.weight", {3, 2}),
                                             shaped("d.dora_scale", {3, 1}),
                                             shaped("in.lora_down.weight", {2, 4}),
                                             shaped("in.lora_up.weight", {3, 2}),
                                             shaped("in.dora_scale", {1, 4}),
                                             shaped("channels.lora_down.weight", {2, 4, 3, 3}),
                                             shaped("channels.lora_up.weight", {3, 2, 1, 1}),
                                             shaped("channels.dora_scale", {1, 4, 1, 1}),
                                             shaped("o.oft_blocks", {2, 2, 2}),
                                             shaped("x.alpha", {})}));
    const auto read = read_lora_file(folder / "f");
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    REQUIRE(read->modules.size() == 7);
    CHECK(read->modules.at("one").get<peft_lora>()->kernel == std::vector<std::uint64_t>{1, 1});
    CHECK(lora_of(read->modules.at("one")).cols() == 4);
    CHECK((*read->modules.at("conv").get<peft_lora>()).kernel == std::vector<std::uint64_t>{3, 3});
    CHECK((*read->modules.at("h").get<loha_adapter<float>>()).scaling() == 2);
    CHECK((*read->modules.at("k").get<lokr_adapter<float>>()).scaling() == 1);  // both factors are whole
    CHECK((*read->modules.at("d").get<peft_lora>()).magnitude.size() == 3);
    const auto& by_inputs = (*read->modules.at("in").get<peft_lora>());
    CHECK(by_inputs.magnitude_of_inputs);
    CHECK(by_inputs.magnitude.size() == 4);
    CHECK((*read->modules.at("o").get<output_rotation_adapter<float>>()).out() == 4);
    CHECK(read->unmapped.size() == 4);  // the three of "channels" and one of no known kind
    const auto says = [&](const char* tensor, const char* reason) {
        return std::any_of(read->unmapped.begin(), read->unmapped.end(), [&](const std::string& line) {
            return line.starts_with(tensor) && line.find(reason) != std::string::npos;
        });
    };
    CHECK(says("channels.lora_down.weight: ", "wd_on_output=False"));
}

TEST_CASE("what changes a LyCORIS module beside its factors is never dropped in silence") {
    temporary_folder folder;
    const auto oft = shaped("o.oft_diag", {2, 3, 3});
    REQUIRE(write_safetensors(folder / "oft", {oft, shaped("o.alpha", {}, 1)}));
    const auto only = read_lora_file(folder / "oft");
    REQUIRE_FALSE(only);
    CHECK(only.error().code == errc::unsupported);
    CHECK_MESSAGE(only.error().message.find("turn the outputs") != std::string::npos, only.error().message);

    const auto down = shaped("m.lora_down.weight", {2, 4});
    const auto up = shaped("m.lora_up.weight", {1, 2});
    const auto fine = shaped("n.lora_down.weight", {2, 4});
    const auto fine_up = shaped("n.lora_up.weight", {1, 2});
    for (const auto& extra : {shaped("m.scalar", {}), shaped("m.rescale", {1, 1}), shaped("m.diff", {1, 4})}) {
        REQUIRE(write_safetensors(folder / "f", {down, up, fine, fine_up, extra}));
        const auto some = read_lora_file(folder / "f");
        REQUIRE_MESSAGE(some, (some ? std::string() : some.error().message));
        CHECK(some->modules.size() == 1);
        CHECK(some->modules.count("n") == 1);
        CHECK_MESSAGE(some->unmapped.size() == 3, extra.name);
    }
    REQUIRE(write_safetensors(folder / "f", {down, up, shaped("m.dora_scale", {1, 1})}));
    const auto one = read_lora_file(folder / "f");
    REQUIRE_MESSAGE(one, (one ? std::string() : one.error().message));
    CHECK((*one->modules.at("m").get<peft_lora>()).magnitude.size() == 1);  // one output
}

TEST_CASE("an adapter whose scaling is 0 changes nothing in any format, though kohya's alpha of 0 means the rank") {
    temporary_folder folder;
    auto lora = make_lora<float>(4, 4, {.r = 2, .lora_alpha = 0});
    lora.lora_B.setOnes();
    const matrix<float> m = lora.lora_A.transpose();
    const modules all = {
        {"a.lora", lora},
        {"a.dora", peft_lora{.lora = lora, .magnitude = vector<float>::Ones(4)}},
        {"a.loha", loha_adapter<float>{.w1_a = m, .w1_b = m.transpose(), .w2_a = m, .w2_b = m.transpose(), .alpha = 0}},
        {"a.lokr",
         lokr_adapter<float>{.w1 = {.left = m}, .w2 = {.left = m, .right = m.transpose()}, .alpha = 0, .r = 2}},
    };
    REQUIRE(write_lora_file(folder / "k", all, {.format = "kohya"}));
    const auto kohya = read_lora_file(folder / "k");
    REQUIRE_MESSAGE(kohya, (kohya ? std::string() : kohya.error().message));
    REQUIRE(kohya->modules.size() == 4);
    for (const auto& entry : kohya->modules) {
        CHECK_MESSAGE(factors_of(change_of(entry.second).weight)->dense().isZero(0), entry.first);
    }
    peft_adapter adapter;
    adapter.modules["a.lora"] = lora;
    adapter.config = peft_config_for(adapter);
    for (const std::string format : {"mlx", "diffusers"}) {
        REQUIRE(write_adapter(folder / format, adapter, format));
        const auto read = read_adapter(folder / format);
        REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
        CHECK(lora_of(read->adapter.modules.at("a.lora")).delta().dense().isZero(0));
    }
}

TEST_CASE("modules of other kinds travel through LyCORIS names, DoRA through MLX, without a changed bit") {
    temporary_folder folder;
    const matrix<float> m = make_lora<float>(1, 4, {.r = 2}).lora_A.transpose();
    const std::map<std::string, peft_module> made = {
        {"a.dora",
         peft_lora{.lora = make_lora<float>(6, 5, {.r = 2, .lora_alpha = 3}), .magnitude = vector<float>::Ones(6)}},
        {"a.loha", loha_adapter<float>{.w1_a = m, .w1_b = m.transpose(), .w2_a = m, .w2_b = m.transpose(), .alpha = 3}},
        {"a.lokr",
         lokr_adapter<float>{.w1 = {.left = m}, .w2 = {.left = m, .right = m.transpose()}, .alpha = 3, .r = 2}},
        {"a.conv", peft_lora{.lora = make_lora<float>(6, 8, {.r = 2, .lora_alpha = 3}),
                             .magnitude = vector<float>::Ones(6),
                             .kernel = {2, 2}}},
    };
    REQUIRE(write_lora_file(folder / "k", made, {.format = "kohya"}));
    const auto read = read_lora_file(folder / "k");
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    CHECK(read->unmapped.empty());
    for (const auto& [module, relative] : made) {
        const auto& again = read->modules.at("lora_unet_a_" + module.substr(2));
        CHECK(kind_of(again) == kind_of(relative));
        const auto before = change_of(relative).weight;
        const auto after = change_of(again).weight;
        CHECK(factors_of(after)->dense() == factors_of(before)->dense());
        REQUIRE(after.index() == before.index());
        if (const auto* lengths = std::get_if<magnitude_change<float>>(&before)) {
            CHECK(std::get<magnitude_change<float>>(after).magnitude == lengths->magnitude);
        }
    }
    CHECK(write_lora_file(folder / "d", made, {.format = "diffusers"}).code == errc::unsupported);
    CHECK(write_lora_file(folder / "m", made, {.format = "mlx"}).code == errc::unsupported);
    const std::map<std::string, peft_module> dora = {{"a.dora", made.at("a.dora")}};
    REQUIRE(write_lora_file(folder / "m", dora, {.format = "mlx", .mlx_scale = 1.5}));
    const auto mlx = read_lora_file(folder / "m", {.scaling = 1.5});
    REQUIRE(mlx);
    const auto& lora = (*mlx->modules.at("a.dora").get<peft_lora>());
    CHECK(lora.lora.lora_B == (*made.at("a.dora").get<peft_lora>()).lora.lora_B);
    CHECK(lora.lora.scaling() == 1.5F);
    CHECK(lora.magnitude.size() == 6);
}

TEST_CASE("broken files are refused with a sentence") {
    temporary_folder folder;
    const auto refused = [&](errc code, std::string_view says, std::vector<tensor_to_write> tensors) {
        REQUIRE(write_safetensors(folder / "f", std::move(tensors)));
        const auto read = read_lora_file(folder / "f");
        REQUIRE_MESSAGE(!read, says);
        CHECK_MESSAGE(read.error().code == code, read.error().message);
        CHECK_MESSAGE(read.error().message.find(says) != std::string::npos, read.error().message);
    };
    refused(errc::invalid_format, "no LoRA tensors", {shaped("w", {2, 2})});
    refused(errc::invalid_format, "no partner", {shaped("m.lora_down.weight", {2, 4})});
    refused(errc::mismatch, "rank 2 and 3", {shaped("m.lora_down.weight", {2, 4}), shaped("m.lora_up.weight", {3, 3})});
    refused(errc::invalid_format, "named as in",
            {shaped("m.lora_down.weight", {2, 4}), shaped("m.lora_up.weight", {3, 2}), shaped("n.lora_a", {4, 2})});
    refused(errc::non_finite, "NaN",
            {shaped("m.lora_A", {2, 4}, std::numeric_limits<float>::quiet_NaN()), shaped("m.lora_B", {3, 2})});
    refused(errc::invalid_format, "must be one number",
            {shaped("m.lora_down.weight", {2, 4}), shaped("m.lora_up.weight", {3, 2}), shaped("m.alpha", {2})});
    CHECK(read_lora_file(folder / "absent").error().code == errc::not_found);
    CHECK(write_lora_file(folder / "g", {{"mlp.up", make_lora<float>(2, 2, {.r = 1})}}, {.format = "diffusers_old"})
              .code == errc::unsupported);
}
