// SPDX-License-Identifier: MIT

/// \file
/// The skinny product against OpenBLAS, one thread, in one run: prints a table of ratios.
///
///     peer_skinny_openblas [rounds]
///
/// `roofline` is our fraction of min(bandwidth, multiply-add peak), both probed in turn with the products; `x openblas`
/// is OpenBLAS's time over ours. All are medians of CPU time.

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <cblas.h>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>

#include "../roofline.hpp"

extern "C" void openblas_set_num_threads(int);

namespace {

using namespace lowrank;
using idx = lowrank::index;

/// C += A B or A^T B, column-major.
void gemm(bool transposed, idx m, idx n, idx k, const float* a, idx lda, const float* b, idx ldb, float* c, idx ldc) {
    cblas_sgemm(CblasColMajor, transposed ? CblasTrans : CblasNoTrans, CblasNoTrans, static_cast<int>(m),
                static_cast<int>(n), static_cast<int>(k), 1.0F, a, static_cast<int>(lda), b, static_cast<int>(ldb),
                1.0F, c, static_cast<int>(ldc));
}
void gemm(bool transposed, idx m, idx n, idx k, const double* a, idx lda, const double* b, idx ldb, double* c,
          idx ldc) {
    cblas_dgemm(CblasColMajor, transposed ? CblasTrans : CblasNoTrans, CblasNoTrans, static_cast<int>(m),
                static_cast<int>(n), static_cast<int>(k), 1.0, a, static_cast<int>(lda), b, static_cast<int>(ldb), 1.0,
                c, static_cast<int>(ldc));
}

template <class S>
void table(idx rows, idx cols, int rounds) {
    row_matrix<S> w(rows, cols);
    fill_uniform(w, S(-1), S(1), philox(1));
    workspace ws;
    for (const idx k : {1, 8, 16, 32, 64, 128}) {
        matrix<S> x(cols, k), z(rows, k), y = matrix<S>::Zero(rows, k), u = matrix<S>::Zero(cols, k);
        fill_uniform(x, S(-1), S(1), philox(2));
        fill_uniform(z, S(-1), S(1), philox(3));
        S sink = S(0);
        double peak_flops = 0;
        const double flops = 2.0 * static_cast<double>(w.size()) * static_cast<double>(k);
        const double bytes = static_cast<double>(w.size()) * sizeof(S);
        const auto t = lowrank_bench::compare(
            {[&] { add_product<S, 1>(S(1), w, x, y, ws); }, [&] { add_transposed_product<S, 1>(S(1), w, z, u, ws); },
             [&] { gemm(true, rows, k, cols, w.data(), cols, x.data(), cols, y.data(), rows); },
             [&] { gemm(false, cols, k, rows, w.data(), cols, z.data(), rows, u.data(), cols); },
             [&] { sink += lowrank_bench::read_once(w.data(), w.size()); },
             [&] { peak_flops = lowrank_bench::multiply_add<S>(200000, sink); }},
            rounds);
        const double peak = peak_flops / t[5], roof = std::min(peak, bytes / t[4] * flops / bytes);
        std::printf("| %lld x %lld | %s | %lld | %.0f | %.0f | %.0f | %.2f | %.2f | %.0f | %.2f | %.2f |\n",
                    static_cast<long long>(rows), static_cast<long long>(cols), sizeof(S) == 4 ? "f32" : "f64",
                    static_cast<long long>(k), 1e-9 * peak, 1e-9 * roof, 1e-9 * flops / t[0], flops / t[0] / roof,
                    t[2] / t[0], 1e-9 * flops / t[1], flops / t[1] / roof, t[3] / t[1]);
        std::fflush(stdout);
        if (sink == S(0.125)) {
            std::puts("");  // keeps the probes
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
    openblas_set_num_threads(1);
    std::puts(
        "| W | scalar | k | peak GFLOP/s | roof GFLOP/s | W X GFLOP/s | of roof | x openblas | W^T X GFLOP/s | of roof "
        "| x openblas |");
    std::puts("|---|---|---|---|---|---|---|---|---|---|---|");
    table<float>(4096, 4096, rounds);
    table<double>(4096, 4096, rounds);
    table<float>(4096, 11008, rounds);
    table<double>(4096, 11008, rounds);
}
