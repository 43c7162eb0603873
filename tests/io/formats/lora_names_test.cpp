// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/detail/lora_names.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using lora_part = detail::lora_name::part;

TEST_CASE("names of other tools say part, format and module") {
    struct name {
        const char* text;
        lora_part what;
        lora_format format;
        const char* module;
    };
    for (const name& n : {
             name{"lora_unet_x.lora_down.weight", lora_part::a, lora_format::kohya, "lora_unet_x"},
             {"lora_unet_x.alpha", lora_part::alpha, lora_format::kohya, "lora_unet_x"},
             {"lora_unet_x.dora_scale", lora_part::magnitude, lora_format::kohya, "lora_unet_x"},
             {"lora_unet_x.hada_t1", lora_part::relative, lora_format::kohya, "lora_unet_x"},
             {"lora_unet_x.lokr_w2_b", lora_part::relative, lora_format::kohya, "lora_unet_x"},
             {"a.attn1.processor.to_out_lora.up.weight", lora_part::b, lora_format::diffusers_old, "a.attn1.to_out.0"},
             {"a.to_k.lora.up.weight", lora_part::b, lora_format::diffusers, "a.to_k"},
             {"a.q_proj.lora_b", lora_part::b, lora_format::mlx, "a.q_proj"},
             {"a.q_proj.m", lora_part::magnitude, lora_format::mlx, "a.q_proj"},
             {"a.lora_A", lora_part::a, lora_format::loralib, "a"},
             {"hada_t1", lora_part::none, lora_format::peft, ""},
             {"lora_unet_x.oft_blocks", lora_part::relative, lora_format::kohya, "lora_unet_x"},
             {"x.oft_diag", lora_part::none, lora_format::peft, ""},
         }) {
        const auto parsed = detail::parse_lora_name(n.text);
        CHECK_MESSAGE(parsed.what == n.what, n.text);
        CHECK_MESSAGE(parsed.format == n.format, n.text);
        CHECK_MESSAGE(parsed.module == n.module, n.text);
    }
    CHECK(detail::parse_lora_name("m.lokr_w1_a").leaf == "lokr_w1_a");
}
