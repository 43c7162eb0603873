// SPDX-License-Identifier: MIT
// Write an adapter folder as PEFT does, read it back, and look inside. With an argument: read that folder instead.
#include <cstdio>

#include <lowrank/io/peft.hpp>

int main(int count, char** arguments) {
    const char* folder = count > 1 ? arguments[1] : "example-adapter";
    if (count == 1) {
        lowrank::peft_adapter made;
        made.config.r = 4;
        made.config.lora_alpha = 8;
        made.config.target_modules = {"q_proj", "v_proj"};
        made.config.base_model_name_or_path = "example/model";
        std::uint64_t stream = 0;
        for (const char* module : {"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"}) {
            auto lora = lowrank::make_lora<float>(64, 64, {.r = 4, .lora_alpha = 8, .stream = ++stream});
            lowrank::fill_normal(lora.lora_B, 0.02F, lowrank::philox(1, stream));
            made.modules.emplace(module, std::move(lora));
        }
        if (const lowrank::status why = lowrank::write_peft(folder, made); !why) {
            std::fprintf(stderr, "%s\n", why.message.c_str());
            return 1;
        }
    }

    const auto adapter = lowrank::read_peft(folder);
    if (!adapter) {
        std::fprintf(stderr, "%s\n", adapter.error().message.c_str());
        return 1;
    }
    for (const auto& [module, lora] : lowrank::lora_layers(*adapter)) {
        std::printf("%-34s r = %td, scaling %g, ||delta|| = %.4f\n", module.c_str(), lora.rank(),
                    static_cast<double>(lora.scaling()), lowrank::frobenius_norm(lora.delta()));
    }
    for (const auto& warning : adapter->warnings) {
        std::printf("note: %s\n", warning.c_str());
    }
    return adapter->modules.empty() ? 1 : 0;
}
