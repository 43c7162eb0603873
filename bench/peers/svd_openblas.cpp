// SPDX-License-Identifier: MIT

/// \file
/// The full SVD against LAPACK's divide and conquer (gesdd) on OpenBLAS and Eigen's BDCSVD, one thread, in one run.
///
///     peer_svd_openblas [rounds [largest size for Eigen [noise|slow|fast]]]
///
/// Times are medians of CPU time. `x gesdd` and `x Eigen` are the peer's time over ours. Residual and orthogonality are
/// in units of eps sqrt(m), errors of the values in units of eps times the largest value, against `svd` in double
/// (for float input) of the same matrix. Spectra: noise, slow i^-0.5, fast 10^(-i/20).

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include <Eigen/SVD>

#include <lowrank/core/philox.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/svd.hpp>

#include "../roofline.hpp"

extern "C" {
void openblas_set_num_threads(int);
void sgesdd_(const char*, const int*, const int*, float*, const int*, float*, float*, const int*, float*, const int*,
             float*, const int*, int*, int*);
void dgesdd_(const char*, const int*, const int*, double*, const int*, double*, double*, const int*, double*,
             const int*, double*, const int*, int*, int*);
}

namespace {

using namespace lowrank;
using idx = lowrank::index;

void gesdd(const char* job, int m, int n, float* a, float* s, float* u, float* vt, float* work, int size, int* iwork) {
    int info = 0;
    sgesdd_(job, &m, &n, a, &m, s, u, &m, vt, &n, work, &size, iwork, &info);
}
void gesdd(const char* job, int m, int n, double* a, double* s, double* u, double* vt, double* work, int size,
           int* iwork) {
    int info = 0;
    dgesdd_(job, &m, &n, a, &m, s, u, &m, vt, &n, work, &size, iwork, &info);
}

template <class S>
struct lapack_svd {
    explicit lapack_svd(const matrix<S>& a) : copy(a), u(a.rows(), a.cols()), vt(a.cols(), a.cols()), s(a.cols()) {
        iwork.resize(static_cast<std::size_t>(8 * a.cols()));
        S size = S(0);
        gesdd("S", m(), n(), copy.data(), s.data(), u.data(), vt.data(), &size, -1, iwork.data());
        work.resize(static_cast<std::size_t>(size));
    }
    void run(const matrix<S>& a, const char* job) {
        copy = a;
        gesdd(job, m(), n(), copy.data(), s.data(), u.data(), vt.data(), work.data(), static_cast<int>(work.size()),
              iwork.data());
    }
    [[nodiscard]] int m() const { return static_cast<int>(copy.rows()); }
    [[nodiscard]] int n() const { return static_cast<int>(copy.cols()); }

    matrix<S> copy, u, vt;
    vector<S> s;
    std::vector<S> work;
    std::vector<int> iwork;
};

enum class decay { noise, slow, fast };

template <class S>
matrix<S> weight_of(idx m, idx n, decay kind) {
    matrix<S> a(m, n);
    fill_normal(a, S(1), philox(1));
    if (kind == decay::noise) {
        return a;
    }
    matrix<S> v(n, n);
    fill_normal(v, S(1), philox(2));
    orthonormalize(a);
    orthonormalize(v);
    for (idx i = 0; i < n; ++i) {
        a.col(i) *= static_cast<S>(kind == decay::slow ? std::pow(static_cast<double>(i + 1), -0.5)
                                                       : std::pow(10.0, -static_cast<double>(i) / 20.0));
    }
    return a * v.transpose();
}

template <class S>
void table(idx m, idx n, decay kind, int rounds, idx most_for_eigen) {
    const matrix<S> a = weight_of<S>(m, n, kind);
    decomposition<S> ours;
    lapack_svd<S> theirs(a);
    const auto t = lowrank_bench::compare({[&] { ours = svd(a); }, [&] { theirs.run(a, "S"); },
                                           [&] {
                                               auto s = singular_values(a);
                                               if (!s) {
                                                   std::puts("failed");
                                               }
                                           },
                                           [&] { theirs.run(a, "N"); }},
                                          rounds);
    double eigen = std::nan("");
    if (n <= most_for_eigen) {
        eigen =
            lowrank_bench::compare({[&] {
                                       const Eigen::BDCSVD<matrix<S>> f(a, Eigen::ComputeThinU | Eigen::ComputeThinV);
                                       if (f.info() != Eigen::Success) {
                                           std::puts("Eigen failed");
                                       }
                                   }},
                                   1)[0];
    }
    theirs.run(a, "S");
    const double eps = static_cast<double>(std::numeric_limits<S>::epsilon());
    const double unit = eps * std::sqrt(static_cast<double>(m));
    const auto defect = [&](const matrix<S>& q) {
        const matrix<double> wide = q.template cast<double>();
        return (wide.transpose() * wide - matrix<double>::Identity(n, n)).norm() / unit;
    };
    const auto residual = [&](const matrix<S>& u, const vector<S>& s, const matrix<S>& v) {
        const matrix<double> us = u.template cast<double>() * s.template cast<double>().asDiagonal();
        const matrix<double> wide = a.template cast<double>();
        return (wide - us * v.template cast<double>().transpose()).norm() / wide.norm() / unit;
    };
    double ours_off = 0.0;
    double theirs_off = 0.0;
    if (sizeof(S) == 4) {
        const auto exact = svd(matrix<double>(a.template cast<double>()));
        const auto off = [&](const vector<S>& s) {
            return (s.template cast<double>() - exact.s).cwiseAbs().maxCoeff() / exact.s(0) / eps;
        };
        ours_off = off(ours.s);
        theirs_off = off(theirs.s);
    }
    const char* names[] = {"noise", "slow", "fast"};
    std::printf(
        "| %s | %lld x %lld | %s | %.3f | %.2f | %.2f | %.3f | %.2f | %.1f / %.1f | %.1f / %.1f | %.1f / %.1f |\n",
        sizeof(S) == 4 ? "f32" : "f64", static_cast<long long>(m), static_cast<long long>(n),
        names[static_cast<int>(kind)], t[0], t[1] / t[0], eigen / t[0], t[2], t[3] / t[2],
        residual(ours.u, ours.s, ours.v), residual(theirs.u, theirs.s, theirs.vt.transpose()),
        std::max(defect(ours.u), defect(ours.v)), std::max(defect(theirs.u), defect(theirs.vt)), ours_off, theirs_off);
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 3;
    const idx most_for_eigen = argc > 2 ? std::atoi(argv[2]) : 1024;
    const char* const names[] = {"noise", "slow", "fast"};
    const auto wanted = [&](decay kind) {
        return argc < 4 || std::strcmp(argv[3], names[static_cast<int>(kind)]) == 0;
    };
    openblas_set_num_threads(1);
    std::puts(
        "| scalar | W | spectrum | svd s | x gesdd | x Eigen | values s | x gesdd values | residual ours / gesdd "
        "| orthogonality | value error |");
    std::puts("|---|---|---|---|---|---|---|---|---|---|---|");
    for (const auto kind : {decay::noise, decay::slow, decay::fast}) {
        if (!wanted(kind)) {
            continue;
        }
        table<float>(1024, 1024, kind, rounds, most_for_eigen);
        table<float>(4096, 1024, kind, rounds, most_for_eigen);
        table<float>(2048, 2048, kind, rounds, most_for_eigen);
    }
    if (wanted(decay::slow)) {
        table<double>(1024, 1024, decay::slow, rounds, most_for_eigen);
    }
}
