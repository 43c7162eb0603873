// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/rotations/oft.hpp>
#include <lowrank/lora/kinds/rotations/output_rotation.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <Eigen/LU>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::tensor_of_ones;

namespace {

matrix<float> oft_normals(Eigen::Index rows, Eigen::Index cols, std::uint64_t stream, float size = 0.3F) {
    matrix<float> m(rows, cols);
    fill_normal(m, size, philox(17, stream));
    return m;
}

output_rotation_adapter<float> diagonal_oft() {
    return {.blocks = oft_normals(12, 4, 1), .block_count = 3, .rescale = oft_normals(12, 1, 2).array() + 1};
}
output_rotation_adapter<float> butterfly_oft() {
    return {.blocks = oft_normals(3 * 16, 4, 3), .block_count = 4, .is_butterfly = true};
}

/// LyCORIS's make_weight, loop by loop, in double.
matrix<double> turned_by_lycoris(const output_rotation_adapter<float>& a, matrix<double> w) {
    const Eigen::Index b = a.block_size(), n = a.block_count, m = a.factor_count();
    std::vector<matrix<double>> q;
    double squares = 0;
    for (Eigen::Index k = 0; k < m * n; ++k) {
        const matrix<double> block = a.blocks.middleRows(k * b, b).cast<double>();
        q.emplace_back(block - block.transpose());
        squares += q.back().squaredNorm();
    }
    const double limit = a.constraint * static_cast<double>(n * b), norm = std::sqrt(squares) + 1e-8;
    const matrix<double> one = matrix<double>::Identity(b, b);
    for (auto& x : q) {
        if (a.constraint > 0 && norm > limit) {
            x *= limit / norm;
        }
        x = matrix<double>((one + x) * (one - x).inverse());  // now R
    }
    for (Eigen::Index i = 0; i < m; ++i) {
        matrix<double> out = w;
        if (!a.is_butterfly) {  // einsum "k n m, k n ... -> k m ..."
            for (Eigen::Index k = 0; k < n; ++k) {
                out.middleRows(k * b, b) = q[static_cast<std::size_t>(k)].transpose() * w.middleRows(k * b, b);
            }
        } else {
            const Eigen::Index half = (Eigen::Index{1} << i) * (b / 2);
            const auto from = [&](Eigen::Index c, Eigen::Index g, Eigen::Index k) { return (c * 2 + g) * half + k; };
            const auto to = [&](Eigen::Index c, Eigen::Index k, Eigen::Index g) { return (c * half + k) * 2 + g; };
            const auto permute = [&](const matrix<double>& x, bool back) {
                matrix<double> y = x;
                for (Eigen::Index c = 0; c < n * b / (2 * half); ++c) {
                    for (Eigen::Index g = 0; g < 2; ++g) {
                        for (Eigen::Index k = 0; k < half; ++k) {
                            back ? void(y.row(from(c, g, k)) = x.row(to(c, k, g)))
                                 : void(y.row(to(c, k, g)) = x.row(from(c, g, k)));
                        }
                    }
                }
                return y;
            };
            const matrix<double> mixed = permute(w, false);
            for (Eigen::Index k = 0; k < n; ++k) {
                out.middleRows(k * b, b) = q[static_cast<std::size_t>(i * n + k)] * mixed.middleRows(k * b, b);
            }
            out = permute(out, true);
        }
        w = out;
    }
    return a.rescale.size() != 0 ? matrix<double>(a.rescale.cast<double>().asDiagonal() * w) : w;
}

peft_adapter adapter_with(const peft_module& module) {
    peft_adapter adapter;
    adapter.modules["l"] = module;
    return adapter;
}

}  // namespace

TEST_CASE("the outputs are turned as LyCORIS turns them, and back") {
    auto shortened = diagonal_oft();
    shortened.constraint = 0.05;
    auto loose = butterfly_oft();
    loose.constraint = 1e3;  // no effect
    for (const output_rotation_adapter<float>& a : {diagonal_oft(), butterfly_oft(), shortened, loose}) {
        REQUIRE(a.is_valid());
        const matrix<double> w = oft_normals(a.out(), 5, 4).cast<double>();
        const any_row_transform rows = a.change().rows;
        CHECK(rows.fits(5, a.out()));
        CHECK_FALSE(rows.fits(5, a.out() + 1));
        matrix<double> turned = w;
        workspace ws;
        rows.forward(0, turned, ws);
        CHECK((turned - turned_by_lycoris(a, w)).norm() < 1e-12 * w.norm());
        CHECK((turned - w).norm() > 1e-2 * w.norm());
        rows.backward(0, turned, ws);
        CHECK((turned - w).norm() < 1e-12 * w.norm());
    }
}

TEST_CASE("a LyCORIS file of OFT is read, merged, made plain LoRA and written again") {
    temporary_folder folder;
    for (const output_rotation_adapter<float>& a : {diagonal_oft(), butterfly_oft()}) {
        const auto made = folder / "made.safetensors";
        auto constrained = a;
        constrained.constraint = 0.03125;
        REQUIRE(write_adapter(made, adapter_with(constrained), "kohya"));
        const auto read = read_adapter(made, {.modules = {"l"}});
        REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
        const auto& same = (*read->adapter.modules.at("l").get<output_rotation_adapter<float>>());
        CHECK(same.blocks == a.blocks);
        CHECK(same.rescale == a.rescale);
        CHECK(same.constraint == constrained.constraint);
        CHECK(same.is_butterfly == a.is_butterfly);
        REQUIRE(write_adapter(folder / "again.safetensors", read->adapter, "kohya"));
        CHECK(lowrank_tests::text_of(folder / "again.safetensors") == lowrank_tests::text_of(made));
        const status no_place = write_adapter(folder / "peft", read->adapter, "peft");
        CHECK_MESSAGE(no_place.code == errc::unsupported, no_place.message);

        // A linear layer and, with the same bytes, a convolution of 3 channels and 2 x 2 taps.
        const row_matrix<float> w = oft_normals(a.out(), 12, 5);
        const matrix<double> exact = turned_by_lycoris(constrained, w.cast<double>());
        for (const bool convolution : {false, true}) {
            auto stored = tensor_of("l.weight", w);
            if (convolution) {
                stored.shape = {static_cast<std::uint64_t>(a.out()), 3, 2, 2};
            }
            REQUIRE(write_safetensors(folder / "model.safetensors", {stored}));
            const auto base = checkpoint::open(folder / "model.safetensors");
            REQUIRE(base);
            const auto report = merge_checkpoint(*base, read->adapter, folder / "out", {.check = true});
            REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
            const auto out = checkpoint::open(folder / "out");
            REQUIRE(out);
            const auto bytes = *out->bytes("l.weight");
            row_matrix<float> merged(a.out(), 12);
            std::memcpy(merged.data(), bytes.data(), bytes.size());
            CHECK((merged.cast<double>() - exact).cwiseAbs().maxCoeff() < 1e-6);
            if (!convolution) {
                REQUIRE(merge_checkpoint(*base, read->adapter, folder / "half", {.strength = 0.5}));
                const matrix<double> middle = 0.5 * (exact + w.cast<double>());
                CHECK((checkpoint::open(folder / "half")->matrix<double>("l.weight").value() - middle).norm() < 1e-5);
                const auto plain = to_plain_lora(read->adapter, &*base, {.rank = fixed_rank(12)});
                REQUIRE_MESSAGE(plain, (plain ? std::string() : plain.error().message));
                const matrix<float> delta = lora_of(plain->adapter.modules.at("l")).delta().dense();
                CHECK((delta.cast<double>() - (exact - w.cast<double>())).norm() < 1e-5);
            }
        }
    }
}

TEST_CASE("DoRA by inputs is read, merged and written again") {
    temporary_folder folder;
    peft_lora dora{.lora = {.lora_A = oft_normals(2, 5, 6), .lora_B = oft_normals(7, 2, 7), .lora_alpha = 2},
                   .magnitude = oft_normals(5, 1, 8).cwiseAbs(),
                   .magnitude_of_inputs = true};
    REQUIRE(write_adapter(folder / "made", adapter_with(dora), "kohya"));
    const auto read = read_adapter(folder / "made", {.modules = {"l"}});
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    const auto& same = (*read->adapter.modules.at("l").get<peft_lora>());
    CHECK(same.magnitude_of_inputs);
    CHECK(same.magnitude == dora.magnitude);
    CHECK(write_adapter(folder / "peft", read->adapter, "peft").code == errc::unsupported);
    CHECK(write_adapter(folder / "mlx", read->adapter, "mlx").code == errc::unsupported);
    const row_matrix<float> w = oft_normals(7, 5, 9);
    REQUIRE(write_safetensors(folder / "model.safetensors", {tensor_of("l.weight", w)}));
    const auto base = checkpoint::open(folder / "model.safetensors");
    REQUIRE(base);
    REQUIRE(merge_checkpoint(*base, read->adapter, folder / "out", {.check = true}));
    matrix<double> exact = w.cast<double>() + dora.lora.delta().dense().cast<double>();
    for (Eigen::Index j = 0; j < 5; ++j) {
        exact.col(j) *= static_cast<double>(dora.magnitude(j)) / exact.col(j).norm();
    }
    CHECK((checkpoint::open(folder / "out")->matrix<double>("l.weight").value() - exact).cwiseAbs().maxCoeff() < 1e-6);
    const auto plain = to_plain_lora(read->adapter, &*base, {.rank = fixed_rank(5)});
    REQUIRE(plain);
    CHECK((lora_of(plain->adapter.modules.at("l")).delta().dense().cast<double>() - (exact - w.cast<double>())).norm() <
          1e-5);
}

TEST_CASE("broken OFT modules are refused, and so are files of several types") {
    temporary_folder folder;
    const auto refused = [&](std::vector<tensor_to_write> tensors) {
        REQUIRE(write_safetensors(folder / "f", std::move(tensors)));
        const auto read = read_adapter(folder / "f");
        REQUIRE_FALSE(read);
        CHECK_FALSE(read.error().message.empty());
    };
    refused({tensor_of_ones("x.oft_blocks", {2, 3, 2})});
    refused({tensor_of_ones("x.oft_blocks", {2, 3})});
    refused({tensor_of_ones("x.oft_blocks", {0, 3, 3})});
    refused({tensor_of_ones("x.oft_blocks", {2, 2, 3, 3})});  // an odd block of a butterfly
    refused({tensor_of_ones("x.oft_blocks", {3, 2, 4, 4})});  // three factors need four blocks
    refused({tensor_of_ones("x.oft_blocks", {2, 3, 3}), tensor_of_ones("x.rescale", {5, 1})});
    refused({tensor_of_ones("x.rescale", {5, 1})});
    refused({tensor_of_ones("x.oft_blocks", {2, 3, 3}), tensor_of_ones("y.lora_down.weight", {1, 4}),
             tensor_of_ones("y.lora_up.weight", {3, 1})});
    refused({tensor_of_ones("y.hada_w1_a", {4, 1}), tensor_of_ones("y.hada_w1_b", {1, 4}),
             tensor_of_ones("y.hada_w2_a", {4, 1}), tensor_of_ones("y.hada_w2_b", {1, 4}),
             tensor_of_ones("z.lora_down.weight", {1, 4}), tensor_of_ones("z.lora_up.weight", {3, 1})});
}
