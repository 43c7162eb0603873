// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SYMMETRIC_EIGEN_IPP
#define LOWRANK_FACTOR_SYMMETRIC_EIGEN_IPP

#include <lowrank/factor/symmetric_eigen.hpp>

#include <algorithm>
#include <string>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/detail/divide_and_conquer.hpp>
#include <lowrank/factor/detail/tridiagonal.hpp>
#include <lowrank/factor/orthonormalize.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY symmetric_eigen_result detail::symmetric_eigen_of(const char* function, const matrix<double>& a,
                                                               bool want_vectors) {
    using S = double;
    symmetric_eigen_result out;
    const index n = a.rows();
    if (n == 0) {
        return out;
    }
    // Of magnitude one, so that no square overflows or underflows.
    S largest(0);
    for (index j = 0; j < n; ++j) {
        largest = std::max(largest, max_abs(dense_view<const S>(a).block(j, j, n - j, 1)));
    }
    const S unit = power_of_two_scale(largest);
    matrix<S> reduced(n, n);
    std::transform(a.data(), a.data() + n * n, reduced.data(), [unit](S x) { return x * unit; });
    const tridiagonal_form<S> t = tridiagonalize(reduced);
    vector<S> d = t.diagonal;
    vector<S> e = t.off;
    matrix<S> q;
    bool done = false;
    if (want_vectors) {
        done = divide_and_conquer<S>(d, e, q).run();
        if (!done) {  // slower by an order, but the more patient method
            d = t.diagonal;
            e = t.off;
            q.setIdentity(n, n);
            done = ql_iteration<S>(d, e, 0, n, &q);
            sort_columns<S>(d, q, 0, n);
        }
    } else {
        done = ql_iteration<S>(d, e, 0, n, nullptr);
        std::sort(d.data(), d.data() + n);
    }
    if (!done) {
        return {{.why = failed_in(function, errc::no_convergence,
                                  "the QL iteration used up its limit; scale the matrix or perturb it slightly")}};
    }
    out.values.resize(n);
    for (index i = 0; i < n; ++i) {
        out.values(i) = d(n - 1 - i) / unit;
    }
    if (want_vectors) {
        apply_reflections(reduced, t.scale, q);
        for (index i = 0; i < n / 2; ++i) {  // largest first
            std::swap_ranges(q.data() + i * n, q.data() + (i + 1) * n, q.data() + (n - 1 - i) * n);
        }
        out.vectors = std::move(q);
    }
    return out;
}

LOWRANK_BODY symmetric_eigen_result detail::checked_symmetric_eigen(const matrix<double>& g, bool want_vectors) {
    expects_shape("symmetric_eigen", "g", g.rows(), g.cols(), g.rows(), g.rows());
    for (index j = 0; j < g.cols(); ++j) {
        if (!all_finite(g.data() + j * g.rows() + j, g.rows() - j)) {
            return {{.why = {errc::non_finite, "symmetric_eigen: the matrix holds NaN or infinity"}}};
        }
    }
    return symmetric_eigen_of("symmetric_eigen", g, want_vectors);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SYMMETRIC_EIGEN_IPP
