// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/adapter_format.hpp>

#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>

using namespace lowrank;
using lora_part = lora_name::part;

namespace {

/// The first format that knows a name, and what it says.
std::pair<std::string_view, lora_name> first_reading(std::string_view text) {
    for (const adapter_format& f : adapter_formats()) {
        const lora_name name = f.parse != nullptr ? f.parse(text) : lora_name{};
        if (name.what != lora_part::none) {
            return {f.name, name};
        }
    }
    return {};
}

}  // namespace

TEST_CASE("names of other tools say part, format and module") {
    struct name {
        const char* text;
        lora_part what;
        std::string_view format;
        const char* module;
    };
    for (const name& n : {
             name{"lora_unet_x.lora_down.weight", lora_part::a, "kohya", "lora_unet_x"},
             {"lora_unet_x.alpha", lora_part::alpha, "kohya", "lora_unet_x"},
             {"lora_unet_x.dora_scale", lora_part::magnitude, "kohya", "lora_unet_x"},
             {"lora_unet_x.hada_t1", lora_part::other, "kohya", "lora_unet_x"},
             {"lora_unet_x.lokr_w2_b", lora_part::other, "kohya", "lora_unet_x"},
             {"a.attn1.processor.to_out_lora.up.weight", lora_part::b, "diffusers_old", "a.attn1.to_out.0"},
             {"a.to_k.lora.up.weight", lora_part::b, "diffusers", "a.to_k"},
             {"a.q_proj.lora_b", lora_part::b, "mlx", "a.q_proj"},
             {"a.q_proj.m", lora_part::magnitude, "mlx", "a.q_proj"},
             {"a.lora_A", lora_part::a, "loralib", "a"},
             {"hada_t1", lora_part::none, "", ""},
             {"lora_unet_x.oft_blocks", lora_part::other, "kohya", "lora_unet_x"},
             {"x.oft_diag", lora_part::unsupported, "kohya", "x"},
             {".diff", lora_part::none, "", ""},
         }) {
        const auto [format, said] = first_reading(n.text);
        CHECK_MESSAGE(said.what == n.what, n.text);
        CHECK_MESSAGE(format == n.format, n.text);
        CHECK_MESSAGE(said.module == n.module, n.text);
    }
    CHECK(first_reading("m.lokr_w1_a").second.leaf == "lokr_w1_a");
}

TEST_CASE("what a format can hold is said before anything is written") {
    const adapter_format& kohya = **find_adapter_format("kohya");
    const adapter_format& loralib = **find_adapter_format("loralib");
    peft_adapter adapter;
    CHECK(can_hold(loralib, adapter));
    adapter.modules["m"] = loha_adapter<float>{};
    CHECK(can_hold(kohya, adapter));
    CHECK(can_hold(loralib, adapter).message == "module \"m\" is adapted by LoHa, which loralib cannot represent");
    CHECK_FALSE(can_hold(**find_adapter_format("mlx"), adapter));
    adapter.modules["t"] = peft_lora{.is_table = true};
    CHECK(can_hold(kohya, adapter).message.find("embedding table") != std::string::npos);
    CHECK(can_hold(**find_adapter_format("peft"), adapter));
}
