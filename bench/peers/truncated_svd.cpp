// SPDX-License-Identifier: MIT

/// \file
/// Times and errors of our truncated decompositions, and of Spectra where it is installed, on a matrix from a file.
///
///     peer_truncated_svd W.f32 rows cols k rounds      one line per method: name, CPU seconds, file of U, s, V
///
/// `truncated_svd.py` writes the matrix, calls this program, runs the Python peers on the same matrix, and judges all
/// results by the same measure. The factors go to W.f32.<method>: rows x k, k and cols x k floats, column-major.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <lowrank/factor/sketched/krylov_svd.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/truncated_svd.hpp>

#ifdef LOWRANK_PEER_SPECTRA
#include <Spectra/contrib/PartialSVDSolver.h>
#endif

#include "../roofline.hpp"

namespace {

using namespace lowrank;
using idx = lowrank::index;

struct factors {
    matrix<float> u, v;
    vector<float> s;
};

void write(const std::string& path, const factors& f) {
    std::ofstream out(path, std::ios::binary);
    const auto put = [&](const float* data, idx count) {
        out.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(count * idx{sizeof(float)}));
    };
    put(f.u.data(), f.u.size());
    put(f.s.data(), f.s.size());
    put(f.v.data(), f.v.size());
}

factors taken(decomposition<float> f) { return {std::move(f.u), std::move(f.v), std::move(f.s)}; }

}  // namespace

int main(int argc, char** argv) {
    if (argc < 6) {
        std::puts("usage: peer_truncated_svd FILE rows cols k rounds");
        return 2;
    }
    const std::string file = argv[1];
    const idx rows = std::atoi(argv[2]), cols = std::atoi(argv[3]), k = std::atoi(argv[4]);
    const int rounds = std::atoi(argv[5]);
    row_matrix<float> w(rows, cols);
    std::ifstream(file, std::ios::binary)
        .read(reinterpret_cast<char*>(w.data()), static_cast<std::streamsize>(w.size() * idx{sizeof(float)}));

    struct method {
        std::string name;
        std::function<factors()> run;
    };
    std::vector<method> methods;
    for (const int q : {1, 2, 4}) {
        methods.push_back({"randomized q=" + std::to_string(q),
                           [&w, k, q] { return taken(randomized_svd(w, k, {.power_iterations = q})); }});
    }
    methods.push_back({"krylov default", [&w, k] { return taken(krylov_svd(w, k)); }});
    const idx block = k > 128 ? 64 : k > 32 ? 32 : 16;
    for (const double size : {1.5, 2.0, 3.0, 4.0}) {
        const int depth =
            std::max(2, static_cast<int>(size * static_cast<double>(k) / static_cast<double>(block) + 0.99));
        if (block * depth < cols && block * depth < rows) {
            methods.push_back(
                {"krylov b=" + std::to_string(block) + " d=" + std::to_string(depth),
                 [&w, k, block, depth] { return taken(krylov_svd(w, k, {.block = block, .depth = depth})); }});
        }
    }
    for (const auto& extra : {std::pair<idx, int>{k + 8, 4}, {k + 8, 6}, {k / 2 + 8, 6}, {k / 2 + 8, 10}}) {
        if (extra.first * extra.second < std::min(rows, cols)) {
            methods.push_back(
                {"krylov b=" + std::to_string(extra.first) + " d=" + std::to_string(extra.second),
                 [&w, k, extra] { return taken(krylov_svd(w, k, {.block = extra.first, .depth = extra.second})); }});
        }
    }
#ifdef LOWRANK_PEER_SPECTRA
    const matrix<float> dense = w;
    methods.push_back({"Spectra", [&] {
                           Spectra::PartialSVDSolver<matrix<float>> solver(
                               dense, k, std::min<idx>(2 * k + 1, std::min(rows, cols)));
                           solver.compute(300, 1e-5F);
                           return factors{solver.matrix_U(k), solver.matrix_V(k), solver.singular_values()};
                       }});
#else
    std::puts("# Spectra (libspectra-dev) was not found when this was built; skipped");
#endif
    std::vector<factors> results(methods.size());
    std::vector<std::function<void()>> work;
    for (std::size_t i = 0; i < methods.size(); ++i) {
        work.push_back([&, i] { results[i] = methods[i].run(); });
    }
    const auto seconds = lowrank_bench::compare(work, rounds);
    for (std::size_t i = 0; i < methods.size(); ++i) {
        if (results[i].s.size() != k) {
            std::printf("# %s found %d of %d values; skipped\n", methods[i].name.c_str(),
                        static_cast<int>(results[i].s.size()), static_cast<int>(k));
            continue;
        }
        const std::string path = file + "." + std::to_string(i);
        write(path, results[i]);
        std::printf("%s\t%.6f\t%s\n", methods[i].name.c_str(), seconds[i], path.c_str());
    }
}
