// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/gguf.hpp>

#include <string>

#include <lowrank/io/containers/gguf_writer.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/models/model_config.hpp>
#include <lowrank/io/models/rope_rows.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

TEST_CASE("tensors are found, decoded and shaped as weights") {
    temporary_folder folder;
    row_matrix<float> w(2, 32);
    for (Eigen::Index i = 0; i < w.size(); ++i) {
        w.data()[i] = static_cast<float>(i) - 20;
    }
    lowrank::vector<float> v = w.row(0).transpose();
    gguf_tensor_to_write cube = gguf_tensor_of("cube", w);
    cube.ne = {4, 4, 4};
    gguf_tensor_to_write whole{.name = "i", .type = ggml_type::i32, .ne = {32, 2}, .bytes = cube.bytes};
    REQUIRE(write_gguf(folder / "f", {{"a.b", gguf_value::of("c")}},
                       {gguf_tensor_of("w", w), gguf_tensor_of("h", w, ggml_type::f16),
                        gguf_tensor_of("q", w, ggml_type::q8_0), gguf_tensor_of("v", v), cube, whole}));
    const auto file = gguf_file::open(folder / "f");
    REQUIRE_MESSAGE(file, (file ? std::string() : file.error().message));
    CHECK(*file->value("a.b")->as_string() == "c");
    CHECK(file->value("a") == nullptr);
    CHECK(file->find("x") == nullptr);
    CHECK(*file->matrix<float>("w") == w);
    CHECK(*file->matrix<double>("w") == w.cast<double>());
    CHECK(*file->matrix<float>("h") == w);
    CHECK((*file->matrix<float>("q") - w).cwiseAbs().maxCoeff() < 0.2F);
    CHECK(*file->matrix<float>("v") == v);
    CHECK(file->find("w")->ne == std::vector<std::uint64_t>{32, 2});
    CHECK(file->matrix<float>("x").error().code == errc::not_found);
    CHECK(file->matrix<float>("cube").error().code == errc::unsupported);
    CHECK(file->matrix<float>("i").error().message.find("I32") != std::string::npos);
    CHECK(gguf_file::open(folder / "absent").error().code == errc::not_found);
    CHECK_FALSE(gguf_file::from_bytes({}));
}

TEST_CASE("the model in GGUF is the model in safetensors, bit for bit in f32") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto hf = safetensors_file::open(shared / "models" / "stories260K" / "model.safetensors");
    const auto gguf = gguf_file::open(shared / "models" / "gguf" / "stories260K-f32.gguf");
    const auto layout = read_model_config(shared / "models" / "stories260K" / "config.json");
    REQUIRE(hf);
    REQUIRE(gguf);
    REQUIRE(layout);
    CHECK(hf->tensors().size() == gguf->tensors().size());
    for (const tensor_info& t : hf->tensors()) {
        const auto names = find_module(**find_architecture("llama"), t.name);
        REQUIRE_MESSAGE(names, t.name);
        const gguf_part& part = names->module->parts.front();
        const auto theirs = gguf->matrix<float>(names->gguf.front());
        const auto ours = hf->matrix<float>(t.name);
        REQUIRE(theirs);
        CHECK_MESSAGE(*theirs == (part.is_rotary ? rope_rows_to_gguf(*ours, heads_of(part, *layout)) : *ours), t.name);
    }
}

TEST_CASE("quantized models decode close to the original, and our encoders give llama.cpp's bytes") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto full = gguf_file::open(shared / "models" / "gguf" / "stories260K-f32.gguf");
    REQUIRE(full);
    struct kind {
        const char* name;
        double error;  // relative, of the coarsest type in the file
    };
    for (const kind& k : {kind{"f16", 1e-3}, {"Q8_0", 1e-2}, {"Q4_0", 0.12}, {"Q4_K_M", 0.1}}) {
        const auto file =
            gguf_file::open(shared / "models" / "gguf" / ("stories260K-" + std::string(k.name) + ".gguf"));
        REQUIRE(file);
        int encoded = 0;
        for (const gguf_tensor& t : file->tensors()) {
            const auto x = full->matrix<float>(t.name);
            const auto y = file->matrix<float>(t);
            REQUIRE(x);
            REQUIRE(y);
            CHECK_MESSAGE((*x - *y).norm() <= k.error * x->norm(), k.name, " ", t.name);
            if (t.type == ggml_type::q8_0 || t.type == ggml_type::q4_0 || t.type == ggml_type::f16) {
                const auto ours = gguf_tensor_of(t.name, *x, t.type);
                const auto theirs = file->bytes(t);
                CHECK_MESSAGE(std::equal(ours.bytes.begin(), ours.bytes.end(), theirs.begin(), theirs.end()), t.name);
                ++encoded;
            }
        }
        CHECK(encoded > 0);
    }
}
