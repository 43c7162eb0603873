// SPDX-License-Identifier: MIT
#include <lowrank/io/quantized/quantized_weight.hpp>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <lowrank/core/scalar.hpp>
#include <lowrank/quant/formats/small_floats.hpp>

#include "quantized/quantized_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::decoded;
using lowrank_tests::quantized_checkpoint;
using lowrank_tests::random_codes;
using lowrank_tests::random_scales;
using lowrank_tests::raw_tensor;
using lowrank_tests::temporary_folder;

namespace {

/// The one quantized weight of a checkpoint.
quantized_weight only(const checkpoint& base) {
    auto found = quantized_weights(base);
    REQUIRE_MESSAGE(found.has_value(), (found ? "" : found.error().message));
    REQUIRE(found->size() == 1);
    return found->front();
}
std::string refusal(const checkpoint& base) {
    const auto found = quantized_weights(base);
    REQUIRE_FALSE(found.has_value());
    return found.error().message;
}
void check_equal(const std::vector<float>& got, const std::vector<float>& expected) {
    REQUIRE(got.size() == expected.size());
    std::size_t different = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        different += std::memcmp(&got[i], &expected[i], sizeof(float)) == 0 ? 0U : 1U;
    }
    CHECK(different == 0);
}

/// `codes` of `bits` bits in 32-bit words, the first lowest; a run of `per_run` codes fills whole words.
std::vector<std::int32_t> packed(const std::vector<unsigned>& codes, unsigned bits) {
    std::vector<std::uint32_t> words((codes.size() * bits + 31) / 32, 0);
    for (std::size_t i = 0; i < codes.size(); ++i) {
        for (unsigned b = 0; b < bits; ++b) {
            const std::size_t bit = i * bits + b;
            words[bit / 32] |= ((codes[i] >> b) & 1U) << (bit % 32);
        }
    }
    std::vector<std::int32_t> out(words.size());
    std::memcpy(out.data(), words.data(), words.size() * 4);
    return out;
}

struct gptq_case {
    unsigned bits = 4;
    bool v2 = false;
    bool permuted = false;
};

/// A GPTQ weight of 32 rows and 64 columns in groups of 16, and its elements by the definition.
std::vector<float> write_gptq(const std::filesystem::path& folder, const gptq_case& c) {
    constexpr std::size_t out = 32;
    constexpr std::size_t in = 64;
    constexpr std::size_t groups = 4;
    const auto codes = random_codes<unsigned>(out * in, 5, 1U << c.bits);      // [in, out]
    auto zeros = random_codes<unsigned>(groups * out, 6, (1U << c.bits) - 1);  // less one in the first format
    const auto scales = random_scales(groups * out, 7);
    std::vector<std::int32_t> g_idx(in);
    for (std::size_t i = 0; i < in; ++i) {
        g_idx[i] = static_cast<std::int32_t>(c.permuted ? (i * 7) % groups : i / 16);
    }
    std::vector<std::int32_t> qweight(in * c.bits / 32 * out);
    for (std::size_t o = 0; o < out; ++o) {
        std::vector<unsigned> column(in);
        for (std::size_t i = 0; i < in; ++i) {
            column[i] = codes[i * out + o];
        }
        const auto words = packed(column, c.bits);
        for (std::size_t k = 0; k < words.size(); ++k) {
            qweight[k * out + o] = words[k];
        }
    }
    std::vector<half> half_scales(scales.begin(), scales.end());
    std::vector<tensor_to_write> tensors{
        raw_tensor("up.qweight", dtype::i32, {in * c.bits / 32, out}, qweight),
        raw_tensor("up.qzeros", dtype::i32, {groups, out * c.bits / 32}, packed(zeros, c.bits)),
        raw_tensor("up.scales", dtype::f16, {groups, out}, half_scales),
        raw_tensor("up.g_idx", dtype::i32, {in}, g_idx)};
    (void)quantized_checkpoint(folder, tensors,
                               std::string(R"({"quantization_config":{"quant_method":"gptq","bits":)") +
                                   std::to_string(c.bits) + R"(,"checkpoint_format":")" + (c.v2 ? "gptq_v2" : "gptq") +
                                   "\"}}");
    std::vector<float> expected(out * in);
    for (std::size_t o = 0; o < out; ++o) {
        for (std::size_t i = 0; i < in; ++i) {
            const auto g = static_cast<std::size_t>(g_idx[i]);
            const float zero = static_cast<float>(zeros[g * out + o]) + (c.v2 ? 0.0F : 1.0F);
            expected[o * in + i] =
                static_cast<float>(half_scales[g * out + o]) * (static_cast<float>(codes[i * out + o]) - zero);
        }
    }
    return expected;
}

}  // namespace

TEST_CASE(
    "quantized weights: GPTQ of 2, 3, 4 and 8 bits, with zeros as both formats store them and columns in any order") {
    for (const unsigned bits : {2U, 3U, 4U, 8U}) {
        for (const bool v2 : {false, true}) {
            for (const bool permuted : {false, true}) {
                CAPTURE(bits);
                CAPTURE(v2);
                const temporary_folder folder;
                const auto expected = write_gptq(folder / "base", {bits, v2, permuted});
                const auto w = only(*checkpoint::open(folder / "base"));
                CHECK(w.name == "up.weight");
                CHECK(w.scheme == "GPTQ, " + std::to_string(bits) + " bits");
                CHECK(w.shape == std::vector<std::uint64_t>{32, 64});
                CHECK(w.parts.size() == 4);
                check_equal(decoded(w), expected);
            }
        }
    }
}

TEST_CASE("quantized weights: AWQ keeps eight columns in the order of its kernel") {
    constexpr std::size_t out = 16;
    constexpr std::size_t in = 32;
    constexpr std::size_t groups = 2;
    const auto codes = random_codes<unsigned>(in * out, 1, 16);
    const auto zeros = random_codes<unsigned>(groups * out, 2, 16);
    const auto scales = random_scales(groups * out, 3);
    const std::vector<half> half_scales(scales.begin(), scales.end());
    const std::size_t order[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // nibble n holds column order[n]
    const auto shuffled = [&](const std::vector<unsigned>& x) {
        std::vector<unsigned> y(x.size());
        for (std::size_t k = 0; k < x.size(); ++k) {
            y[k] = x[k / 8 * 8 + order[k % 8]];
        }
        return packed(y, 4);
    };
    const temporary_folder folder;
    const auto w = only(quantized_checkpoint(
        folder / "base",
        {raw_tensor("up.qweight", dtype::i32, {in, out / 8}, shuffled(codes)),
         raw_tensor("up.qzeros", dtype::i32, {groups, out / 8}, shuffled(zeros)),
         raw_tensor("up.scales", dtype::f16, {groups, out}, half_scales)},
        R"({"quantization_config":{"quant_method":"awq","bits":4,"group_size":16,"version":"GEMM"}})"));
    CHECK(w.scheme == "AWQ, 4 bits");
    std::vector<float> expected(out * in);
    for (std::size_t o = 0; o < out; ++o) {
        for (std::size_t i = 0; i < in; ++i) {
            const std::size_t g = i / 16;
            expected[o * in + i] = (static_cast<float>(codes[i * out + o]) - static_cast<float>(zeros[g * out + o])) *
                                   static_cast<float>(half_scales[g * out + o]);
        }
    }
    check_equal(decoded(w), expected);
}

TEST_CASE("quantized weights: compressed-tensors integers, with and without zeros and an order of columns") {
    constexpr std::size_t out = 10;
    constexpr std::size_t in = 48;
    constexpr std::size_t groups = 3;
    for (const unsigned bits : {4U, 8U}) {
        for (const bool has_zeros : {false, true}) {
            CAPTURE(bits);
            CAPTURE(has_zeros);
            const auto codes = random_codes<unsigned>(out * in, 4, 1U << bits);
            const auto scales = random_scales(out * groups, 5);
            const auto zeros = random_codes<unsigned>(out * groups, 6, 1U << bits);
            std::vector<std::int32_t> words;
            for (std::size_t o = 0; o < out; ++o) {
                const auto row = packed({codes.begin() + static_cast<std::ptrdiff_t>(o * in),
                                         codes.begin() + static_cast<std::ptrdiff_t>((o + 1) * in)},
                                        bits);
                words.insert(words.end(), row.begin(), row.end());
            }
            std::vector<std::int32_t> g_idx(in);
            for (std::size_t i = 0; i < in; ++i) {
                g_idx[i] = static_cast<std::int32_t>(i % groups);
            }
            std::vector<tensor_to_write> tensors{
                raw_tensor("up.weight_packed", dtype::i32, {out, in * bits / 32}, words),
                raw_tensor("up.weight_scale", dtype::f32, {out, groups}, scales),
                raw_tensor("up.weight_shape", dtype::i64, {2}, std::vector<std::int64_t>{out, in}),
                raw_tensor("up.weight_g_idx", dtype::i32, {in}, g_idx)};
            if (has_zeros) {
                const std::size_t rows = (out * bits + 31) / 32;
                std::vector<std::int32_t> packed_zeros(rows * groups);
                for (std::size_t g = 0; g < groups; ++g) {
                    std::vector<unsigned> column(rows * 32 / bits, 0);
                    for (std::size_t o = 0; o < out; ++o) {
                        column[o] = zeros[o * groups + g];
                    }
                    const auto run = packed(column, bits);
                    for (std::size_t k = 0; k < rows; ++k) {
                        packed_zeros[k * groups + g] = run[k];
                    }
                }
                tensors.push_back(raw_tensor("up.weight_zero_point", dtype::i32, {rows, groups}, packed_zeros));
            }
            const temporary_folder folder;
            const auto w = only(quantized_checkpoint(
                folder / "base", tensors,
                R"({"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized",)"
                R"("config_groups":{"group_0":{"weights":{"num_bits":)" +
                    std::to_string(bits) + "}}}}}"));
            std::vector<float> expected(out * in);
            for (std::size_t o = 0; o < out; ++o) {
                for (std::size_t i = 0; i < in; ++i) {
                    const std::size_t g = i % groups;
                    const float zero = has_zeros   ? static_cast<float>(zeros[o * groups + g])
                                       : bits == 4 ? 8.0F
                                                   : 128.0F;
                    expected[o * in + i] = (static_cast<float>(codes[o * in + i]) - zero) * scales[o * groups + g];
                }
            }
            check_equal(decoded(w), expected);
        }
    }
}

TEST_CASE("quantized weights: FP8 with a scale of the tensor, of rows, of blocks, of each matrix of a stack") {
    constexpr std::size_t out = 140;
    constexpr std::size_t in = 150;
    const auto codes = random_codes<std::uint8_t>(2 * out * in, 8, 0x7e);
    const auto values = float8_values(float8_format::e4m3);
    struct layout {
        std::vector<std::uint64_t> shape;
        std::vector<std::uint64_t> scales;
        std::size_t (*at)(std::size_t matrix, std::size_t o, std::size_t i);
        const char* end;
        const char* config;
    };
    const char* fp8 = R"({"quantization_config":{"quant_method":"fp8","weight_block_size":[64,32]}})";
    const layout layouts[] = {
        {{out, in}, {}, [](auto, auto, auto) -> std::size_t { return 0; }, "_scale", ""},
        {{out, in}, {1}, [](auto, auto, auto) -> std::size_t { return 0; }, "_scale", ""},
        {{out, in}, {out, 1}, [](auto, std::size_t o, auto) { return o; }, "_scale", ""},
        {{out, in}, {out}, [](auto, std::size_t o, auto) { return o; }, "_scale", ""},
        {{out, in}, {2, 2}, [](auto, std::size_t o, std::size_t i) { return o / 128 * 2 + i / 128; }, "_scale_inv", ""},
        {{out, in}, {3, 5}, [](auto, std::size_t o, std::size_t i) { return o / 64 * 5 + i / 32; }, "_scale_inv", fp8},
        {{out, in}, {out, 3}, [](auto, std::size_t o, std::size_t i) { return o * 3 + i / 50; }, "_scale", ""},
        {{2, out, in}, {2}, [](std::size_t m, auto, auto) { return m; }, "_scale", ""},
        {{2, out, in},
         {2, 2, 2},
         [](std::size_t m, std::size_t o, std::size_t i) { return m * 4 + o / 128 * 2 + i / 128; },
         "_scales_inv",
         ""},
    };
    for (const layout& l : layouts) {
        const auto& [shape, scale_shape, at, end, config] = l;
        CAPTURE(l.scales.size());
        const std::size_t matrices = shape.size() == 3 ? 2 : 1;
        std::size_t count = 1;
        for (const auto n : scale_shape) {
            count *= n;
        }
        const auto scales = random_scales(count, 9);
        const temporary_folder folder;
        const std::vector<std::uint8_t> mine(codes.begin(),
                                             codes.begin() + static_cast<std::ptrdiff_t>(matrices * out * in));
        const auto w =
            only(quantized_checkpoint(folder / "base",
                                      {raw_tensor("up.weight", dtype::f8_e4m3, shape, mine),
                                       raw_tensor(std::string("up.weight") + end, dtype::f32, scale_shape, scales),
                                       raw_tensor("up.input_scale", dtype::f32, {}, std::vector<float>{1.5F})},
                                      config));
        CHECK(w.parts.size() == 3);  // the scale of activations goes too
        std::vector<float> expected;
        for (std::size_t m = 0; m < matrices; ++m) {
            for (std::size_t o = 0; o < out; ++o) {
                for (std::size_t i = 0; i < in; ++i) {
                    expected.push_back(values[mine[expected.size()]] * scales[at(m, o, i)]);
                }
            }
        }
        check_equal(decoded(w), expected);
    }
}

TEST_CASE("quantized weights: codes of whole bytes in other types, with zeros, powers of two, or no scale at all") {
    const auto codes = random_codes<std::uint8_t>(8 * 32, 1, 0x7c);
    const auto values = float8_values(float8_format::e5m2);
    {
        const temporary_folder folder;
        const auto w =
            only(quantized_checkpoint(folder / "base", {raw_tensor("up.weight", dtype::f8_e5m2, {8, 32}, codes)}));
        CHECK(w.scheme == "F8_E5M2 without scales");
        std::vector<float> expected;
        for (const auto code : codes) {
            expected.push_back(values[code]);
        }
        check_equal(decoded(w), expected);
    }
    {
        const temporary_folder folder;
        const std::vector<std::int8_t> numbers(codes.begin(), codes.end());
        const auto w = only(quantized_checkpoint(
            folder / "base", {raw_tensor("up.weight", dtype::i8, {8, 32}, numbers),
                              raw_tensor("up.weight_scale", dtype::f32, {8, 1}, std::vector<float>(8, 0.5F)),
                              raw_tensor("up.weight_zero_point", dtype::i8, {8, 1}, std::vector<std::int8_t>(8, -3))}));
        std::vector<float> expected;
        for (const auto x : numbers) {
            expected.push_back((static_cast<float>(x) + 3) * 0.5F);
        }
        check_equal(decoded(w), expected);
    }
    {
        const temporary_folder folder;
        const auto w = only(quantized_checkpoint(
            folder / "base", {raw_tensor("up.weight", dtype::f8_e5m2, {8, 32}, codes),
                              raw_tensor("up.weight_scale", dtype::u8, {8, 1}, std::vector<std::uint8_t>(8, 124))}));
        std::vector<float> expected;
        for (const auto code : codes) {
            expected.push_back(values[code] * 0.125F);
        }
        check_equal(decoded(w), expected);
    }
    for (const char* end : {".scale_weight", ".qscale_weight"}) {
        const temporary_folder folder;
        const auto w = only(quantized_checkpoint(
            folder / "base", {raw_tensor("up.weight", dtype::f8_e5m2, {8, 32}, codes),
                              raw_tensor(std::string("up") + end, dtype::f32, {}, std::vector<float>{3})}));
        CHECK(decoded(w)[5] == values[codes[5]] * 3);
    }
}

TEST_CASE("quantized weights: the vectors of published definitions") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto vectors = [&](const char* name) {
        auto file = safetensors_file::open(shared / "quant" / (std::string(name) + ".safetensors"));
        REQUIRE(file);
        return *file;
    };
    const auto as = [](const safetensors_file& from, const char* source, std::string name, dtype type,
                       std::vector<std::uint64_t> shape) {
        return tensor_to_write{
            .name = std::move(name), .type = type, .shape = std::move(shape), .bytes = from.bytes(*from.find(source))};
    };
    const auto expected = [](const safetensors_file& from, const char* name) {
        const tensor_info& t = *from.find(name);
        std::vector<float> out((t.end - t.begin) / sizeof(float));
        std::memcpy(out.data(), from.bytes(t).data(), out.size() * sizeof(float));
        return out;
    };
    const temporary_folder folder;
    {
        const auto fp8 = vectors("fp8");
        check_equal(decoded(only(quantized_checkpoint(
                        folder / "tensor", {as(fp8, "e4m3fn.tensor.codes", "up.weight", dtype::f8_e4m3, {160, 200}),
                                            as(fp8, "e4m3fn.tensor.scale", "up.weight_scale", dtype::f32, {1})}))),
                    expected(fp8, "e4m3fn.tensor.decoded"));
        check_equal(decoded(only(quantized_checkpoint(
                        folder / "row", {as(fp8, "e4m3fn.row.codes", "up.weight", dtype::f8_e4m3, {160, 200}),
                                         as(fp8, "e4m3fn.row.scale", "up.weight_scale", dtype::f32, {160, 1})}))),
                    expected(fp8, "e4m3fn.row.decoded"));
        check_equal(decoded(only(quantized_checkpoint(
                        folder / "block",
                        {as(fp8, "e4m3fn.block128.codes", "up.weight", dtype::f8_e4m3, {160, 200}),
                         as(fp8, "e4m3fn.block128.weight_scale_inv", "up.weight_scale_inv", dtype::f32, {2, 2})}))),
                    expected(fp8, "e4m3fn.block128.decoded"));
        check_equal(decoded(only(quantized_checkpoint(
                        folder / "e5m2", {as(fp8, "e5m2.tensor.codes", "up.weight", dtype::f8_e5m2, {160, 200}),
                                          as(fp8, "e5m2.tensor.scale", "up.weight_scale", dtype::f32, {1})}))),
                    expected(fp8, "e5m2.tensor.decoded"));
    }
    {
        const auto int8 = vectors("int8_row");
        check_equal(decoded(only(quantized_checkpoint(
                        folder / "int8",
                        {as(int8, "CB", "up.weight", dtype::i8, {13, 512}), as(int8, "SCB", "up.SCB", dtype::f32, {13}),
                         raw_tensor("up.weight_format", dtype::u8, {}, std::vector<std::uint8_t>{0})}))),
                    expected(int8, "decoded"));
    }
    {
        const auto mx = vectors("mxfp4_ocp");
        check_equal(decoded(only(quantized_checkpoint(folder / "mxfp4",
                                                      {as(mx, "blocks", "up.weight_packed", dtype::u8, {12, 256}),
                                                       as(mx, "scales", "up.weight_scale", dtype::u8, {12, 16})}))),
                    expected(mx, "decoded"));
        // The experts of gpt-oss: [E, out, in / 32, 16] is the parameter [E, in, out].
        const auto w =
            only(quantized_checkpoint(folder / "experts", {as(mx, "blocks", "up_blocks", dtype::u8, {2, 6, 16, 16}),
                                                           as(mx, "scales", "up_scales", dtype::u8, {2, 6, 16})}));
        CHECK(w.name == "up");
        CHECK(w.shape == std::vector<std::uint64_t>{2, 512, 6});
        const auto of_rows = expected(mx, "decoded");
        std::vector<float> turned;
        for (std::size_t e = 0; e < 2; ++e) {
            for (std::size_t i = 0; i < 512; ++i) {
                for (std::size_t o = 0; o < 6; ++o) {
                    turned.push_back(of_rows[(e * 6 + o) * 512 + i]);
                }
            }
        }
        check_equal(decoded(w), turned);
    }
    {
        const auto nv = vectors("nvfp4_nvidia");
        check_equal(decoded(only(quantized_checkpoint(
                        folder / "nvfp4", {as(nv, "weight", "up.weight", dtype::u8, {12, 256}),
                                           as(nv, "weight_scale", "up.weight_scale", dtype::f8_e4m3, {12, 32}),
                                           as(nv, "weight_scale_2", "up.weight_scale_2", dtype::f32, {})}))),
                    expected(nv, "decoded"));
        // compressed-tensors divides by its global scale: powers of two make the two exactly equal.
        const auto with = [&](const char* name, float scale) {
            return decoded(only(quantized_checkpoint(
                folder / name, {as(nv, "weight", "up.weight_packed", dtype::u8, {12, 256}),
                                as(nv, "weight_scale", "up.weight_scale", dtype::f8_e4m3, {12, 32}),
                                raw_tensor("up.weight_global_scale", dtype::f32, {1}, std::vector<float>{scale})})));
        };
        auto quarter = with("quarter", 4.0F);
        const auto whole = with("whole", 1.0F);
        for (float& x : quarter) {
            x *= 4;
        }
        check_equal(quarter, whole);
    }
    for (const char* type : {"nf4", "fp4"}) {
        const auto bnb = vectors(type);
        const auto state = [&](const std::string& text) {
            return raw_tensor(std::string("up.weight.quant_state.bitsandbytes__") + type, dtype::u8, {text.size()},
                              std::vector<char>(text.begin(), text.end()));
        };
        const auto kind = std::string(R"({"quant_type":")") + type + "\",";
        const std::string of_b128 = kind + R"("blocksize":128,"shape":[13,512]})";
        check_equal(decoded(only(quantized_checkpoint(
                        folder / (std::string(type) + "128"),
                        {as(bnb, "packed.b128", "up.weight", dtype::u8, {3328, 1}),
                         as(bnb, "absmax.b128", "up.weight.absmax", dtype::f32, {52}),
                         as(bnb, "code", "up.weight.quant_map", dtype::f32, {16}), state(of_b128)}))),
                    expected(bnb, "decoded.b128"));
        const std::string of_ragged = kind + R"("blocksize":64,"shape":[7,37]})";
        check_equal(decoded(only(quantized_checkpoint(
                        folder / (std::string(type) + "ragged"),
                        {as(bnb, "ragged.packed", "up.weight", dtype::u8, {130, 1}),
                         as(bnb, "ragged.absmax", "up.weight.absmax", dtype::f32, {5}),
                         as(bnb, "code", "up.weight.quant_map", dtype::f32, {16}), state(of_ragged)}))),
                    expected(bnb, "ragged.decoded"));
        char offset[64];
        (void)std::snprintf(offset, sizeof offset, "%.17g",
                            static_cast<double>(expected(bnb, "weight.nested.offset").front()));
        const std::string of_nested =
            kind + R"("blocksize":64,"shape":[44,512],"nested_blocksize":256,"nested_offset":)" + offset + "}";
        check_equal(decoded(only(quantized_checkpoint(
                        folder / (std::string(type) + "nested"),
                        {as(bnb, "weight.packed", "up.weight", dtype::u8, {11264, 1}),
                         as(bnb, "weight.nested.absmax_codes", "up.weight.absmax", dtype::u8, {352}),
                         as(bnb, "weight.nested.absmax", "up.weight.nested_absmax", dtype::f32, {2}),
                         as(bnb, "dynamic_map", "up.weight.nested_quant_map", dtype::f32, {256}),
                         as(bnb, "code", "up.weight.quant_map", dtype::f32, {16}), state(of_nested)}))),
                    expected(bnb, "weight.nested.decoded"));
    }
}

TEST_CASE("quantized weights: floats and tables of integers are left alone") {
    const temporary_folder folder;
    const auto base = quantized_checkpoint(
        folder / "base", {tensor_of("up.weight", row_matrix<float>(row_matrix<float>::Ones(3, 4))),
                          raw_tensor("position_ids", dtype::i64, {2}, std::vector<std::int64_t>{0, 1}),
                          raw_tensor("steps.weight", dtype::i64, {1}, std::vector<std::int64_t>{0})});
    const auto found = quantized_weights(base);
    REQUIRE(found);
    CHECK(found->empty());
}

TEST_CASE("quantized weights: what no scheme decodes is refused by its name") {
    const temporary_folder folder;
    const std::vector<std::uint8_t> bytes(64, 1);
    const std::vector<std::int32_t> words(64, 1);
    const auto refused = [&](const char* name, std::vector<tensor_to_write> tensors, const std::string& config = "") {
        return refusal(quantized_checkpoint(folder / name, std::move(tensors), config));
    };
    CHECK(refused("hqq", {tensor_of("up.W_q", row_matrix<float>(row_matrix<float>::Ones(3, 4)))},
                  R"({"quantization_config":{"quant_method":"hqq"}})") ==
          "config.json says that the weights are quantized by \"hqq\", which no scheme decodes");
    CHECK(refused("codes", {raw_tensor("up.weight", dtype::u8, {8, 8}, bytes)}) ==
          "tensor \"up.weight\" holds codes of type U8 that no scheme decodes");
    CHECK(refused("sparse", {raw_tensor("up.weight", dtype::u8, {8, 8}, bytes)},
                  R"({"quantization_config":{"quant_method":"compressed-tensors","format":"marlin-24"}})")
              .find("\"marlin-24\"") != std::string::npos);
    CHECK(refused("alone", {raw_tensor("up.qweight", dtype::i32, {8, 8}, words)}) ==
          "GPTQ: tensor \"up.qweight\" holds codes, but there is no tensor \"up.qzeros\" beside it");
    CHECK(refused("marlin",
                  {raw_tensor("up.qweight", dtype::i32, {8, 8}, words),
                   raw_tensor("up.qzeros", dtype::i32, {1, 1}, std::vector<std::int32_t>{1}),
                   raw_tensor("up.scales", dtype::f32, {1, 8}, std::vector<float>(8, 1.0F))},
                  R"({"quantization_config":{"quant_method":"gptq","checkpoint_format":"marlin"}})")
              .find("\"marlin\"") != std::string::npos);
    CHECK(refused("gemv",
                  {raw_tensor("up.qweight", dtype::i32, {8, 2}, std::vector<std::int32_t>(16, 1)),
                   raw_tensor("up.qzeros", dtype::i32, {1, 2}, std::vector<std::int32_t>(2, 1)),
                   raw_tensor("up.scales", dtype::f32, {1, 16}, std::vector<float>(16, 1.0F))},
                  R"({"quantization_config":{"quant_method":"awq","version":"gemv"}})")
              .find("\"gemv\"") != std::string::npos);
    CHECK(refused("order",
                  {raw_tensor("up.qweight", dtype::i32, {1, 8}, std::vector<std::int32_t>(8, 1)),
                   raw_tensor("up.qzeros", dtype::i32, {1, 1}, std::vector<std::int32_t>{1}),
                   raw_tensor("up.scales", dtype::f32, {1, 8}, std::vector<float>(8, 1.0F)),
                   raw_tensor("up.g_idx", dtype::i32, {8}, std::vector<std::int32_t>{0, 0, 0, 0, 0, 0, 0, 1})}) ==
          "GPTQ: tensor \"up.g_idx\" gives column 7 a group that is not among the 1");
    CHECK(refused("huge", {raw_tensor("up.weight_packed", dtype::i32, {1, 8}, std::vector<std::int32_t>(8, 1)),
                           raw_tensor("up.weight_scale", dtype::f32, {1, 1}, std::vector<float>{1}),
                           raw_tensor("up.weight_shape", dtype::i64, {2}, std::vector<std::int64_t>{1, INT64_MAX})})
              .find("columns of 1 to 2^24") != std::string::npos);
    CHECK(refused("two", {raw_tensor("up.weight_packed", dtype::u8, {1, 16}, std::vector<std::uint8_t>(16, 1)),
                          raw_tensor("up.weight_scale", dtype::u8, {1, 1}, std::vector<std::uint8_t>{127}),
                          raw_tensor("up.weight", dtype::f8_e4m3, {1, 16}, std::vector<std::uint8_t>(16, 1))}) ==
          "the checkpoint holds codes of \"up.weight\" twice");
    CHECK(refused("turing", {raw_tensor("up.weight", dtype::i8, {8, 8}, bytes),
                             raw_tensor("up.SCB", dtype::f32, {8}, std::vector<float>(8, 1.0F)),
                             raw_tensor("up.weight_format", dtype::u8, {}, std::vector<std::uint8_t>{2})})
              .find("laid out for one kind of processor") != std::string::npos);
    CHECK(
        refused("shapes", {raw_tensor("up.weight", dtype::f8_e4m3, {8, 8}, bytes),
                           raw_tensor("up.weight_scale", dtype::f32, {3}, std::vector<float>(3, 1.0F))}) ==
        "FP8 and int8 with scales: tensor \"up.weight_scale\" has shape [3] and type F32; expected one scale, one per "
        "row, or one per block of [8, 8]");
    CHECK(refused("twice", {raw_tensor("up.weight_packed", dtype::u8, {8, 16}, std::vector<std::uint8_t>(128, 1)),
                            raw_tensor("up.weight_scale", dtype::u8, {8, 1}, std::vector<std::uint8_t>(8, 127)),
                            tensor_of("up.weight", row_matrix<float>(row_matrix<float>::Ones(8, 32)))}) ==
          "the checkpoint holds tensor \"up.weight\" and its codes \"up.weight_packed\"");
    CHECK(refused("state",
                  {raw_tensor("up.weight", dtype::u8, {32, 1}, std::vector<std::uint8_t>(32, 1)),
                   raw_tensor("up.weight.absmax", dtype::f32, {1}, std::vector<float>{1}),
                   raw_tensor("up.weight.quant_map", dtype::f32, {16}, std::vector<float>(16, 1.0F)),
                   raw_tensor("up.weight.quant_state.bitsandbytes__nf4", dtype::u8, {2}, std::vector<char>{'{', '}'})})
              .find("with the shape in") != std::string::npos);
}

TEST_CASE("quantized weights: a scheme of a program's own takes part") {
    static const std::vector<quantization_scheme> mine{
        {"negated bytes",
         [](const checkpoint& base, const quantization_config&,
            const tensor_info& t) -> result<std::optional<quantized_weight>> {
             if (!t.name.ends_with(".negated")) {
                 return std::optional<quantized_weight>();
             }
             quantized_weight w{.name = t.name.substr(0, t.name.size() - 8) + ".weight",
                                .scheme = "negated",
                                .shape = t.shape,
                                .parts = {t.name}};
             w.decode = [base, bytes = base.bytes(*base.locate(t.name)), cols = w.cols()](
                            Eigen::Index first, Eigen::Index count, float* out) {
                 for (Eigen::Index k = first * cols; k < (first + count) * cols; ++k) {
                     *out++ = -static_cast<float>(bytes[static_cast<std::size_t>(k)]);
                 }
             };
             return std::optional(std::move(w));
         }}};
    const temporary_folder folder;
    const auto base = quantized_checkpoint(
        folder / "base", {raw_tensor("up.negated", dtype::u8, {2, 2}, std::vector<std::uint8_t>{1, 2, 3, 4})});
    const auto found = quantized_weights(base, mine);
    REQUIRE(found);
    REQUIRE(found->size() == 1);
    CHECK(decoded(found->front()) == std::vector<float>{-1, -2, -3, -4});
}
