// SPDX-License-Identifier: MIT
// Writes a seed corpus for each fuzz target: make_seeds <folder>. Small valid files of every kind, and their parts.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/gguf_writer.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/formats/gguf_lora.hpp>
#include <lowrank/io/peft.hpp>

#include "adapter_script.hpp"
#include "quantized_script.hpp"

namespace {

namespace fs = std::filesystem;

void put(const fs::path& path, std::string_view text) {
    if (const lowrank::status why = lowrank::write_file(path, text); !why) {
        std::fprintf(stderr, "%s\n", why.message.c_str());
        std::exit(1);
    }
}

void put(const fs::path& path, std::vector<lowrank::tensor_to_write> tensors,
         const std::map<std::string, std::string>& metadata = {}) {
    if (const lowrank::status why = lowrank::write_safetensors(path, std::move(tensors), metadata); !why) {
        std::fprintf(stderr, "%s\n", why.message.c_str());
        std::exit(1);
    }
}

void safetensors_seeds(const fs::path& folder) {
    using namespace lowrank;
    const row_matrix<float> w = row_matrix<float>::Constant(2, 3, 0.5F);
    const vector<double> v = vector<double>::LinSpaced(3, 0, 1);
    put(folder / "empty", std::vector<tensor_to_write>{});
    put(folder / "matrix", {tensor_of("w", w)}, {{"format", "pt"}});
    put(folder / "several", {tensor_of("w", w), tensor_of("v", v), tensor_of("e", matrix<float>(0, 4))});
    std::vector<tensor_to_write> all;
    const std::vector<std::byte> bytes(8);
    for (std::size_t i = 0; i < detail::dtype_table.size(); ++i) {
        const auto type = static_cast<dtype>(i);
        const std::uint64_t n = bits_of(type) < 8 ? 4 : 1;
        all.push_back({"t." + std::string(name_of(type)), type, {n}, std::span(bytes).first(n * bits_of(type) / 8)});
    }
    put(folder / "types", std::move(all));
    put(folder / "unknown_field",
        std::string("\x50\0\0\0\0\0\0\0", 8) +
            R"({"a\u00e9":{"x":[1,{"y":null}],"dtype":"U8","shape":[],"data_offsets":[0,1]}}   a)");
}

void index_seeds(const fs::path& folder) {
    put(folder / "two", R"({"metadata":{"total_size":8},"weight_map":{"a":"model-00001-of-00002.safetensors",)"
                        R"("b":"model-00002-of-00002.safetensors"}})");
    put(folder / "empty", R"({"weight_map":{}})");
    put(folder / "nested",
        R"({"metadata":{"weight_map":[{"a":1.5e3}]},"weight_map":{"a\n":"m.safetensors"},"z":null})");
}

void config_seeds(const fs::path& folder) {
    using namespace lowrank;
    put(folder / "default", format_peft_config({}));
    put(folder / "full", format_peft_config({.r = 4,
                                             .lora_alpha = 0.5,
                                             .lora_dropout = 0.05,
                                             .fan_in_fan_out = true,
                                             .bias = "all",
                                             .target_pattern = ".*_proj",
                                             .rank_pattern = {{"layers\\.[0-3]\\.(q|k)_proj", 2}, {"up", 1}},
                                             .alpha_pattern = {{"^a{1,2}b+?$", 1e3}},
                                             .modules_to_save = {"score"},
                                             .base_model_name_or_path = "m",
                                             .task_type = "CAUSAL_LM"}));
    put(folder / "loha", format_peft_config({.peft_type = "LOHA", .r = 4, .target_modules = {"q"}}));
    put(folder / "adalora", R"({"peft_type":"ADALORA","init_r":6,"rank_pattern":{"q.lora_E":[true,false]}})");
    peft_lora_config oft{.peft_type = "OFT"};
    oft.options.set("oft_block_size", std::int64_t{8});
    oft.options.set("coft", true);
    put(folder / "oft", format_peft_config(oft));
    put(folder / "boft", R"({"peft_type":"BOFT","boft_block_num":4,"boft_block_size":0,"bias":"boft_only"})");
    put(folder / "miss", R"({"peft_type":"MISS","init_weights":"mini","mini_r":2,"r":4})");
    put(folder / "hira", R"({"peft_type":"HIRA","r":4,"rank_pattern":{"q":2}})");
    put(folder / "c3a", R"({"peft_type":"C3A","block_size":4,"block_size_pattern":{"q":2},"bias":"c3a_only"})");
    put(folder / "road", R"({"peft_type":"ROAD","variant":"road_4","group_size":2})");
    put(folder / "fourierft", R"({"peft_type":"FOURIERFT","n_frequency":3,"scaling":1.5,"random_loc_seed":9})");
    put(folder / "delora", R"({"peft_type":"DELORA","r":2,"lambda_pattern":{"q":3},"module_dropout":0.1})");
    put(folder / "shira", R"({"peft_type":"SHIRA","r":2,"random_seed":null,"mask_type":"random"})");
    put(folder / "ln_tuning", R"({"peft_type":"LN_TUNING","target_modules":["norm"]})");
    put(folder / "ia3", R"({"peft_type":"IA3","feedforward_modules":["down"],"fan_in_fan_out":true})");
    put(folder / "dora", R"({"peft_type":"LORA","use_dora":true,"lora_bias":true,"alpha_pattern":{"q":1}})");
    put(folder / "minimal", R"({"peft_type":"LORA","target_modules":["q"],"unknown":{"a":[1,2.5,"\ud83d\ude00"]}})");
}

void check(const lowrank::status& why) {
    if (!why) {
        std::fprintf(stderr, "%s\n", why.message.c_str());
        std::exit(1);
    }
}

void gguf_seeds(const fs::path& folder) {
    using namespace lowrank;
    peft_adapter adapter;
    adapter.modules["model.layers.0.self_attn.q_proj"] = make_lora<float>(4, 3, {.r = 1});
    adapter.config = peft_config_for(adapter.modules);
    check(write_gguf_lora(folder / "adapter", adapter, {.num_attention_heads = 1, .num_key_value_heads = 1}));
    check(write_gguf(folder / "empty", {}, {}));
    check(write_gguf(folder / "values",
                     {{"words", {.type = gguf_type::array, .element = gguf_type::string, .texts = {"", "a"}}},
                      {"numbers", {.type = gguf_type::array, .element = gguf_type::u16, .elements = {{}, {}, {}, {}}}},
                      {"b", gguf_value::of(true)},
                      {"general.alignment", gguf_value::of(8U)}},
                     {gguf_tensor_of("v", vector<float>(vector<float>::Ones(3)), ggml_type::bf16)}));
    std::vector<gguf_tensor_to_write> blocks;
    const std::vector<std::byte> zeros(256);
    for (std::int32_t i = 0; i < 40; ++i) {
        const auto type = static_cast<ggml_type>(i);
        if (is_decodable(type)) {
            blocks.push_back(
                {"t" + std::to_string(i), type, {facts_of(type).block}, std::span(zeros).first(facts_of(type).bytes)});
        }
    }
    check(write_gguf(folder / "blocks", {}, blocks));
}

/// The bytes of a script for `fuzzing::parse`.
class script_writer {
public:
    explicit script_writer(std::string_view type, char flags = 0, std::uint64_t block = 4, char form = 0,
                           std::uint64_t small = 3) {
        byte(place(fuzzing::types, type));
        byte(place(fuzzing::extents, 2));  // r
        byte(1);                           // alpha
        byte(static_cast<std::size_t>(flags));
        byte(place(fuzzing::extents, block));
        byte(0);  // one butterfly factor
        byte(static_cast<std::size_t>(form));
        byte(place(fuzzing::extents, small));
    }
    script_writer& operator()(std::string_view leaf, std::initializer_list<std::uint64_t> shape,
                              std::string_view module = "a", std::size_t numbers = 31, bool of_bytes = false) {
        const auto& leaves = fuzzing::all_leaves();
        std::size_t at = place(fuzzing::tails, leaf) + leaves.size();
        for (std::size_t i = 0; i < leaves.size(); ++i) {
            at = leaves[i] == leaf ? i : at;
        }
        byte(place(fuzzing::modules, module));
        byte(at);
        byte(shape.size() + (of_bytes ? 120 : 0));  // of type F32 or U8
        for (const std::uint64_t n : shape) {
            byte(place(fuzzing::extents, n));
        }
        byte(numbers);  // 0: zeros; 31: some
        return *this;
    }
    [[nodiscard]] const std::string& text() const { return text_; }

private:
    void byte(std::size_t value) { text_ += static_cast<char>(value); }
    template <class T, std::size_t N, class V>
    static std::size_t place(const T (&all)[N], const V& value) {
        return static_cast<std::size_t>(std::find(std::begin(all), std::end(all), value) - std::begin(all));
    }

    std::string text_ = {};
};

void adapter_seeds(const fs::path& folder) {
    using make = script_writer;
    const std::pair<const char*, script_writer> all[] = {
        {"lora", make("LORA")("lora_A.weight", {2, 4})("lora_B.weight", {6, 2})},
        {"experts",
         make("LORA", 4, 4, 2)("lora_A.weight", {6, 4}, "e.base_layer")("lora_B.weight", {8, 6}, "e.base_layer")(
             "lora_A.weight", {6, 4}, "e")("lora_B.weight", {4, 6}, "e")},
        {"one_stack", make("LORA", 0, 4, 2)("lora_A.weight", {6, 4}, "e")("lora_B.weight", {8, 6}, "e")},
        {"dora", make("LORA", 1)("lora_A.weight", {2, 4})("lora_B.weight", {6, 2})("lora_magnitude_vector", {6})},
        {"bias", make("LORA", 2)("lora_A.weight", {2, 4})("lora_B.weight", {6, 2})("lora_B.bias", {6})},
        {"conv", make("LORA")("lora_A.weight", {2, 4, 3, 3})("lora_B.weight", {6, 2, 1, 1})},
        {"groups", make("LORA")("lora_A.weight", {2, 4, 3, 3})("lora_B.weight", {6, 1, 1, 1})("weight", {4, 2}, "b.c")},
        {"table", make("LORA")("lora_embedding_A", {2, 5})("lora_embedding_B", {4, 2})},
        {"adalora", make("ADALORA")("lora_A", {2, 4})("lora_B", {6, 2})("lora_E", {2, 1})},
        {"loha", make("LOHA")("hada_w1_a", {6, 2})("hada_w1_b", {2, 4})("hada_w2_a", {6, 2})("hada_w2_b", {2, 4})},
        {"loha_tucker", make("LOHA")("hada_t1", {2, 2, 3, 3})("hada_w1_a", {2, 6})("hada_w1_b", {2, 4})(
                            "hada_t2", {2, 2, 3, 3})("hada_w2_a", {2, 6})("hada_w2_b", {2, 4})},
        {"lokr", make("LOKR")("lokr_w1", {2, 2})("lokr_w2_a", {3, 2})("lokr_w2_b", {2, 4})},
        {"lokr_tucker",
         make("LOKR")("lokr_w1", {2, 2})("lokr_t2", {2, 2, 3, 3})("lokr_w2_a", {2, 3})("lokr_w2_b", {2, 4})},
        {"vera", make("VERA")("vera_lambda_b", {6})("vera_lambda_d", {2})("vera_A", {2, 4}, "")("vera_B", {6, 2}, "")},
        {"ia3", make("IA3")("ia3_l", {6, 1})("ia3_l", {1, 8}, "b.c")},
        {"oft", make("OFT")("oft_R", {2, 6})},
        {"oft_shared", make("OFT", 16)("oft_R", {1, 6})},
        {"boft", make("BOFT")("boft_R", {1, 2, 4, 4})("boft_s", {6, 1})},
        {"hra", make("HRA")("hra_u", {8, 2})},
        {"miss", make("MISS")("miss_block", {2, 6})},
        {"miss_bat", make("MISS", 0, 4, 1)("miss_block", {3, 2, 2})},
        {"miss_mini", make("MISS", 0, 4, 2)("miss_block", {2, 3})},
        {"bone", make("BONE")("bone_block", {2, 6})},
        {"hira", make("HIRA")("hira_A", {2, 4})("hira_B", {6, 2})},
        {"hira_conv", make("HIRA")("hira_A", {2, 4, 3, 3})("hira_B", {6, 2, 1, 1})},
        {"hira_table", make("HIRA")("hira_embedding_A", {2, 5})("hira_embedding_B", {4, 2})},
        {"randlora", make("RANDLORA")("randlora_lambda", {2, 2})("randlora_gamma", {2, 4})("randlora_A", {2, 1, 6}, "")(
                         "randlora_B", {6, 2, 2}, "")},
        {"shira", make("SHIRA")("shira_weight", {16})("shira_indices", {2, 16}, "a", 0)},
        {"c3a", make("C3A")("c3a_kernel", {3, 4, 2})},
        {"road", make("ROAD")("road_theta", {4})("road_alpha", {4})},
        {"road_4", make("ROAD", 0, 4, 2)("road_theta", {16})("road_alpha", {16})},
        {"fourierft", make("FOURIERFT")("fourierft_spectrum", {2})},
        {"delora", make("DELORA")("delora_A", {2, 4})("delora_B", {6, 2})("delora_lambda", {1})("delora_w_norm", {4})},
        {"ln_tuning", make("LN_TUNING")("ln_tuning_layers.weight", {6})("ln_tuning_layers.bias", {6})},
        {"qalora", make("LORA", 0, 4, 3, 2)("lora_A.weight", {2, 4})("lora_B.weight", {6, 2})},
        {"bdlora_a", make("LORA", 0, 4, 4, 2)("lora_A.weight", {2, 4})("lora_B.weight", {6, 2})},
        {"bdlora_b", make("LORA", 0, 4, 5, 2)("lora_A.weight", {2, 4})("lora_B.weight", {6, 1})},
        {"gralora", make("GRALORA", 0, 4, 0, 2)("gralora_A", {2, 4, 2})("gralora_B", {2, 2, 3})},
        {"gralora_hybrid", make("GRALORA", 2, 4, 0, 2)("gralora_A", {2, 4, 2})("gralora_B", {2, 2, 3})(
                               "gralora_A_general.weight", {1, 8})("gralora_B_general.weight", {6, 1})},
        {"vblora", make("VBLORA", 0, 4, 0, 2)("vblora_logits_A", {2, 3, 4})("vblora_logits_B", {2, 2, 4})(
                       "vblora_vector_bank", {4, 4}, "")},
        {"vblora_topk",
         make("VBLORA", 0, 4, 6, 2)("vblora_logits_A_topk_indices", {2, 3, 2}, "a", 2, true)(
             "vblora_logits_A_topk_weights", {2, 3, 1})("vblora_logits_B_topk_indices", {2, 2, 2}, "a", 2, true)(
             "vblora_logits_B_topk_weights", {2, 2, 1})("vblora_vector_bank", {4, 4}, "")},
        {"tinylora", make("TINYLORA", 0, 4)("tinylora_A", {2, 8})("tinylora_B", {6, 2})("tinylora_P", {4, 2, 2})(
                         "tinylora_v.0", {4}, "")},
        {"kohya", make("")("lora_down.weight", {2, 4})("lora_up.weight", {6, 2})("alpha", {})("dora_scale", {6, 1})},
        {"diffusers", make("")("lora.down.weight", {2, 4})("lora.up.weight", {6, 2})},
        {"mlx", make("")("lora_a", {4, 2})("lora_b", {2, 6})("m", {6})},
        {"loralib", make("")("lora_A", {2, 4})("lora_B", {6, 2})},
        {"lycoris_lokr", make("")("lokr_w1", {2, 2})("lokr_w2", {3, 4})("alpha", {})},
        {"lycoris_loha", make("")("hada_w1_a", {6, 2})("hada_w1_b", {2, 4})("hada_w2_a", {6, 2})("hada_w2_b", {2, 4})},
        {"lycoris_oft", make("")("oft_blocks", {2, 3, 3})("rescale", {6, 1})("alpha", {})},
        {"lycoris_boft", make("")("oft_blocks", {2, 2, 4, 4})},
        {"foreign", make("")("oft_diag", {6})("diff", {6, 4}, "b.c")},
    };
    for (const auto& [name, script] : all) {
        put(folder / name, script.text());
    }
}

/// 3 special pieces, 256 bytes, a few words.
void tokenizer_seeds(const fs::path& folder) {
    std::string text;
    const auto append = [&](const auto& value) { text.append(reinterpret_cast<const char*>(&value), sizeof value); };
    append(std::int32_t{7});
    for (std::int32_t id = 0; id < 264; ++id) {
        const std::string piece = id < 3     ? "<s>"
                                  : id < 259 ? "<0x" + std::to_string(id - 3) + ">"
                                             : std::string(" abcde").substr(0, static_cast<std::size_t>(id - 258));
        append(id < 259 ? 0.0F : -static_cast<float>(id));
        append(static_cast<std::int32_t>(piece.size()));
        text += piece;
    }
    put(folder / "words", text);
    put(folder / "cut", text.substr(0, 1000));
}

void journal_seeds(const fs::path& folder) {
    const std::string head = "lowrank-journal 1 0123456789abcdef samples\n";
    put(folder / "head", head);
    put(folder / "scored", head + "scored 0 2 01 3ff00000000000004000000000000000 {\"a\":[1,2]}\nscored 2 3 1 " +
                               "3ff0000000000000 \nscored 0 1 ");
}

/// The bytes of a quantized checkpoint, as quantized_script.hpp reads them.
class quantized_writer {
public:
    explicit quantized_writer(std::size_t config) : text_(1, static_cast<char>(config)) {}

    quantized_writer& operator()(std::string_view part, lowrank::dtype type, std::vector<std::uint64_t> shape,
                                 std::vector<std::size_t> rest = {5}) {
        const auto put_place = [&](const auto& all, const auto& value) {
            const auto at = std::find(std::begin(all), std::end(all), value);
            if (at == std::end(all)) {
                std::fprintf(stderr, "a seed has what its script cannot say\n");
                std::exit(1);
            }
            text_ += static_cast<char>(at - std::begin(all));
        };
        text_ += '\1';  // of module a
        put_place(fuzzing::parts_of_codes, part);
        put_place(fuzzing::types_of_codes, type);
        text_ += static_cast<char>(shape.size());
        for (const std::uint64_t n : shape) {
            put_place(fuzzing::extents, n);
        }
        for (const std::size_t x : rest) {
            text_ += static_cast<char>(x);
        }
        return *this;
    }
    [[nodiscard]] const std::string& text() const { return text_; }

private:
    std::string text_;
};

void quantized_seeds(const fs::path& folder) {
    using enum lowrank::dtype;
    using make = quantized_writer;
    const std::pair<const char*, quantized_writer> all[] = {
        {"gptq",
         make(0)(".qweight", i32, {2, 8})(".qzeros", i32, {1, 1})(".scales", f16, {1, 8})(".g_idx", i32, {16}, {1})},
        {"awq", make(2)(".qweight", i32, {8, 1})(".qzeros", i32, {1, 1})(".scales", f16, {1, 8})},
        {"packed",
         make(0)(".weight_packed", i32, {2, 2})(".weight_scale", f32, {2, 1})(".weight_shape", i64, {2}, {5, 1, 9})},
        {"nvfp4",
         make(0)(".weight_packed", u8, {2, 8})(".weight_scale", f8_e4m3, {2, 1})(".weight_global_scale", f32, {1})},
        {"mxfp4", make(0)(".weight_packed", u8, {2, 16})(".weight_scale", u8, {2, 1})},
        {"experts", make(0)("_blocks", u8, {2, 3, 1, 16})("_scales", u8, {2, 3, 1})},
        {"four_bits", make(0)(".weight", u8, {32})(".weight.absmax", f32, {1})(".weight.quant_map", f32, {16})(
                          ".weight.quant_state.bitsandbytes__nf4", u8, {}, {0})},
        {"int8", make(0)(".weight", i8, {4, 8})(".SCB", f32, {4})},
        {"fp8", make(3)(".weight", f8_e4m3, {4, 9})(".weight_scale_inv", f32, {2, 3})},
        {"fp8_stack", make(0)(".weight", f8_e5m2, {2, 4, 9})(".weight_scale", f32, {2})},
        {"fp8_alone", make(0)(".weight", f8_e4m3, {4, 9})},
    };
    for (const auto& [name, made] : all) {
        put(folder / name, std::string_view(made.text()));
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) {
        std::fprintf(stderr, "usage: make_seeds <folder>\n");
        return 2;
    }
    const fs::path root = arguments[1];
    for (const auto& [name, make] : {std::pair{"safetensors", &safetensors_seeds}, std::pair{"index", &index_seeds},
                                     std::pair{"adapter_config", &config_seeds}, std::pair{"gguf", &gguf_seeds},
                                     std::pair{"tokenizer", &tokenizer_seeds}, std::pair{"journal", &journal_seeds},
                                     std::pair{"adapter", &adapter_seeds}, std::pair{"quantized", &quantized_seeds}}) {
        std::error_code error;
        fs::create_directories(root / name, error);
        make(root / name);
    }
    return 0;
}
