// SPDX-License-Identifier: MIT
#pragma once
/// \file
/// Bytes as a list of what is in an adapter: random bytes are hardly ever a header of tensors that fit each other, and
/// what is done with tensors that were read would not be tried.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/peft/detail/peft_types.hpp>
#include <lowrank/io/peft/peft_config.hpp>

namespace fuzzing {

inline constexpr std::string_view types[] = {"LORA",     "ADALORA",   "LOHA",    "LOKR",   "VERA",    "IA3",
                                             "OFT",      "BOFT",      "HRA",     "MISS",   "BONE",    "HIRA",
                                             "RANDLORA", "",          "SHIRA",   "C3A",    "ROAD",    "FOURIERFT",
                                             "DELORA",   "LN_TUNING", "GRALORA", "VBLORA", "TINYLORA"};
/// Last parts of names: PEFT's of LORA, then those of other tools.
inline constexpr std::string_view tails[] = {
    "lora_A.weight",
    "lora_B.weight",
    "lora_B.bias",
    "lora_magnitude_vector",
    "lora_embedding_A",
    "lora_embedding_B",
    "weight",
    "lora_down.weight",
    "lora_up.weight",
    "alpha",
    "dora_scale",
    "m",
    "lora.down.weight",
    "lora.up.weight",
    "lora_a",
    "lora_b",
    "lora_A",
    "lora_B",
    "oft_blocks",
    "rescale",
    "oft_diag",
    "diff",
    "scalar",
    "token_adapter.trainable_tokens_delta",
    "default.hada_w1_a",
    "tinylora_v.0",
    "ln_tuning_layers.weight",
    "ln_tuning_layers.bias",
};
inline constexpr std::string_view modules[] = {"",  "a",           "b.c", "lora_unet_d", "model.layers.0.mlp.up_proj",
                                               "e", "e.base_layer"};
inline constexpr std::uint64_t extents[] = {1, 2, 3, 4, 0, 5, 6, 8, 9, 12, 16, 32, 64, 1024, 4096, 8192};
inline constexpr lowrank::dtype dtypes[] = {lowrank::dtype::f32, lowrank::dtype::f16, lowrank::dtype::bf16,
                                            lowrank::dtype::f64, lowrank::dtype::i32, lowrank::dtype::u8};

struct tensor {
    std::string name = {};
    lowrank::dtype type = lowrank::dtype::f32;
    std::vector<std::uint64_t> shape = {};
    std::vector<std::byte> bytes = {};
};

/// What the bytes say. An empty type is a file of another tool.
struct adapter {
    lowrank::peft_lora_config config = {};
    std::vector<tensor> tensors = {};
};

class script {
public:
    explicit script(std::span<const std::uint8_t> bytes) : left_(bytes) {}

    std::size_t below(std::size_t n) {
        if (left_.empty()) {
            return 0;
        }
        const std::size_t value = left_.front();
        left_ = left_.subspan(1);
        return value % n;
    }
    template <class T, std::size_t N>
    const T& one_of(const T (&all)[N]) {
        return all[below(N)];
    }
    [[nodiscard]] bool done() const { return left_.empty(); }

private:
    std::span<const std::uint8_t> left_;
};

/// \pre the elements of `shape` are few.
inline std::vector<std::byte> filled(lowrank::dtype type, std::uint64_t count, std::size_t how) {
    const std::size_t size = lowrank::bits_of(type) / 8;
    std::vector<std::byte> out(count * size);
    for (std::size_t i = 0; i < out.size(); i += size) {  // floats of all types: high bytes last
        const std::size_t step = how == 1 ? 0 : i / size * 5 % 11;
        if (size == 1) {
            out[i] = how == 3 ? std::byte{0xFF} : static_cast<std::byte>(step % 3);
            continue;
        }
        out[i + size - 1] = how == 3 ? std::byte{0xFF} : std::byte{0x3C};
        out[i + size - 2] = how == 3 ? std::byte{0xFF} : static_cast<std::byte>(step * 16);
    }
    return how == 0 ? std::vector<std::byte>(out.size()) : out;
}

/// Last parts of the names of tensors, of every kind.
inline const std::vector<std::string>& all_leaves() {
    static const std::vector<std::string> all = [] {
        std::vector<std::string> names;
        for (const auto& t : lowrank::detail::types_of(lowrank::peft_kinds())) {
            names.insert(names.end(), t.type.leaves.begin(), t.type.leaves.end());
        }
        return names;
    }();
    return all;
}

inline adapter parse(std::span<const std::uint8_t> bytes) {
    script from(bytes);
    adapter out;
    auto& c = out.config;
    c.peft_type = from.one_of(types);
    c.r = static_cast<lowrank::index>(extents[from.below(std::size(extents))]);
    c.lora_alpha = static_cast<double>(from.below(5));
    const std::size_t flags = from.below(256);
    c.fan_in_fan_out = (flags & 8U) != 0;
    const auto set = [&](const char* key, lowrank::peft_value value) { c.options.set(key, std::move(value)); };
    set("use_dora", (flags & 1U) != 0);
    set("lora_bias", (flags & 2U) != 0);
    set("use_rslora", (flags & 4U) != 0);
    set("block_share", (flags & 16U) != 0);
    set("coft", (flags & 32U) != 0);
    set("apply_GS", (flags & 64U) != 0);
    set("use_cayley_neumann", (flags & 128U) != 0);
    const auto size = static_cast<std::int64_t>(from.one_of(extents));
    const auto count = size == 0 ? static_cast<std::int64_t>(from.one_of(extents)) : 0;
    for (const char* key : {"oft_block_size", "boft_block_size"}) {
        set(key, size);
    }
    for (const char* key : {"r", "boft_block_num"}) {
        set(key, count);
    }
    set("boft_n_butterfly_factor", 1 + static_cast<std::int64_t>(from.below(4)));
    constexpr const char* forms[] = {
        "", "bat", "mini", "use_qalora", "target_modules_bd_a", "target_modules_bd_b", "save_only_topk_weights"};
    const std::string form = from.one_of(forms);
    set("init_weights", form == "bat" || form == "mini" ? lowrank::peft_value(form) : lowrank::peft_value(true));
    const auto small = static_cast<std::int64_t>(from.one_of(extents));
    for (const char* key : {"mini_r", "gralora_k", "qalora_group_size", "topk"}) {
        set(key, small);
    }
    for (const char* key : {"num_vectors", "vector_length", "u"}) {
        set(key, size);
    }
    set("hybrid_r", std::int64_t{(flags & 2U) != 0 ? 1 : 0});
    set("weight_tying", 1.0);
    set("use_qalora", form == "use_qalora");
    set("save_only_topk_weights", form == "save_only_topk_weights");
    if (form.starts_with("target_modules")) {
        set("use_bdlora", lowrank::peft_fields{{form, std::vector<std::string>{"a"}}, {"nblocks", small}});
    }
    set("variant", std::string(form.empty() ? "road_1" : form == "bat" ? "road_2" : "road_4"));
    set("group_size", size);
    set("random_loc_seed", count);
    c.target_modules = {"a"};
    if (form == "mini" && c.peft_type == "LORA") {
        c.target_parameters = {"e.gate_up_proj", "e.down_proj"};
        c.target_parameters.resize(1 + flags / 4 % 2);
    }
    const std::vector<std::string>& leaves = all_leaves();
    while (!from.done() && out.tensors.size() < 20) {
        tensor t;
        const std::string module(from.one_of(modules));
        const std::size_t leaf = from.below(leaves.size() + std::size(tails));
        t.name = module + (module.empty() ? "" : ".") +
                 (leaf < leaves.size() ? leaves[leaf] : std::string(tails[leaf - leaves.size()]));
        const std::size_t facts = from.below(256);
        t.type = dtypes[facts / 6 % 21 < 16 ? 0 : facts / 6 % 21 - 15];
        std::uint64_t elements = 1;
        t.shape.resize(facts % 6);
        for (std::uint64_t& n : t.shape) {
            n = from.one_of(extents);
            n = elements * n > 8192 ? 1 : n;
            elements *= n;
        }
        const std::size_t how = from.below(32);
        t.bytes = filled(t.type, elements, how < 4 ? how : 2);
        out.tensors.push_back(std::move(t));
    }
    return out;
}

}  // namespace fuzzing
