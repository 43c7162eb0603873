// SPDX-License-Identifier: MIT
// Any list of tensors as an adapter, in a PEFT folder or a file of another tool: refused with a sentence, or it is
// written and read again, merged and made plain LoRA without a crash. Writes its files to /dev/shm where that is.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/io/checkpoints/check_adapter.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/formats/adapter_programs.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft/kinds/experts.hpp>

#include "adapter_script.hpp"

namespace {

namespace fs = std::filesystem;
using namespace lowrank;

struct folder {
    fs::path path = (fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path()) /
                    fs::path("lowrank-fuzz-" + std::to_string(::getpid()));
    folder() {
        fs::remove_all(path);
        fs::create_directories(path / "adapter");
    }
    ~folder() { fs::remove_all(path); }
};

void require(const status& why) {
    if (why.message.empty() != static_cast<bool>(why)) {
        std::abort();
    }
}

/// A base of the shapes that the modules say, or small ones where they say nothing or too much.
std::vector<tensor_to_write> base_of(const peft_adapter& adapter, bool transposed) {
    std::vector<tensor_to_write> out;
    const auto add = [&](const std::string& module, lowrank::index rows, lowrank::index cols) {
        const auto small = [](lowrank::index n, lowrank::index otherwise) {
            return n > 0 && n <= 1024 ? n : otherwise;
        };
        row_matrix<float> w = row_matrix<float>::Constant(small(rows, 6), small(cols, 8), 0.5F);
        for (lowrank::index i = 0; i < w.size(); ++i) {
            w.data()[i] += static_cast<float>(i % 7) / 8;
        }
        out.push_back(tensor_of(module + ".weight", transposed ? row_matrix<float>(w.transpose()) : w));
    };
    for (const auto& [path, module] : adapter.modules) {
        if (const auto* stack = module.get<peft_experts>()) {
            const expert_lora<float>& lora = stack->lora;
            const lowrank::index rows = lora.experts * lora.rows();
            for (const std::string& name : stack->place.names()) {
                if (rows > 0 && lora.cols() > 0 && rows <= (lowrank::index{1} << 18) / lora.cols()) {
                    out.push_back(tensor_of(name, row_matrix<float>(row_matrix<float>::Ones(rows, lora.cols()))));
                    out.back().shape = {static_cast<std::uint64_t>(lora.experts),
                                        static_cast<std::uint64_t>(lora.rows()),
                                        static_cast<std::uint64_t>(lora.cols())};
                }
            }
        } else if (stored_tensor(module) == nullptr) {
            const auto says = shape_of(module);
            add(path, says.is_table ? says.in : says.out, says.is_table ? says.out : says.in);
        }
    }
    return out;
}

void use(const peft_adapter& adapter, const folder& home) {
    const model_config model{.num_attention_heads = 2, .num_key_value_heads = 1};
    for (const std::string format : {"kohya", "mlx", "gguf"}) {
        require(write_adapter(home.path / "other", adapter, format, {.model = &model}));
        fs::remove_all(home.path / "other");
    }
    if (!write_safetensors(home.path / "base", base_of(adapter, adapter.config.fan_in_fan_out))) {
        return;
    }
    const auto base = checkpoint::open(home.path / "base");
    if (!base) {
        std::abort();
    }
    const auto merged = merge_checkpoint(*base, adapter, home.path / "merged", {.check = true});
    if (!merged) {
        require(merged.error());
    }
    // What can be merged has a place, and the reasons of the others are sentences.
    const auto check = check_adapter(*base, adapter);
    if (!check) {
        require(check.error());
    } else {
        for (const checked_module& m : check->modules) {
            require(m.why);
        }
    }
    if (merged && !(check && check->maps() && check->merges)) {
        std::abort();
    }
    for (const adapter_program& program : adapter_programs()) {
        const auto support = support_by(program, adapter, {.model = &model});
        if (support.held + support.lost.size() != adapter.modules.size()) {
            std::abort();
        }
    }
    const auto plain = to_plain_lora(adapter, &*base);
    if (!plain) {
        require(plain.error());
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const folder home;
    const auto made = fuzzing::parse(std::span(data, size));
    std::vector<tensor_to_write> tensors;
    std::map<std::string, bool> names;
    for (const auto& t : made.tensors) {
        if (names.emplace(t.name, true).second) {
            tensors.push_back({t.name, t.type, t.shape, t.bytes});
        }
    }
    const fs::path file = home.path / "adapter/adapter_model.safetensors";
    if (!write_safetensors(file, std::move(tensors))) {
        return 0;
    }
    if (made.config.peft_type.empty()) {
        const auto adapter = read_adapter(file, {.lora_alpha = made.config.lora_alpha});
        if (adapter) {
            use(adapter->adapter, home);
        } else {
            require(adapter.error());
        }
        return 0;
    }
    if (!write_file(home.path / "adapter/adapter_config.json", format_peft_config(made.config))) {
        std::abort();
    }
    const auto adapter = read_peft(home.path / "adapter");
    if (!adapter) {
        require(adapter.error());
        return 0;
    }
    // What was read is written, and is the same when it is read again.
    const auto written = write_peft(home.path / "again", *adapter);
    const auto again = read_peft(home.path / "again");
    if (!written || !again) {
        std::fprintf(stderr, "%s\n", written ? again.error().message.c_str() : written.message.c_str());
        std::abort();
    }
    if (again->modules.size() != adapter->modules.size()) {
        std::abort();
    }
    use(*adapter, home);
    return 0;
}
