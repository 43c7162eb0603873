// SPDX-License-Identifier: MIT
#ifndef LOWRANK_INSTANTIATE_HPP
#define LOWRANK_INSTANTIATE_HPP

/// \file
/// Explicit instantiation of the heavy kernels, for programs that want to compile them once.
///
///     // in every file of the program, by the build system:   -DLOWRANK_EXTERN_TEMPLATES
///     // in one file:
///     #include <lowrank/instantiate.hpp>
///     LOWRANK_INSTANTIATE(float)
///     LOWRANK_INSTANTIATE(double)
///
/// With LOWRANK_EXTERN_TEMPLATES a header that includes an eigensolver, a QR, the skinny product or the cores
/// of the truncated SVDs only declares them; without the macro everything is header-only
/// as usual and this file is not needed. The two scalars may live in two files, to compile side by side;
/// LOWRANK_INSTANTIATE_KERNELS and its like split further.

#include <lowrank/core/skinny_product.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/krylov_svd.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>

/// The skinny product of one stored scalar: float, double, lowrank::half or lowrank::bfloat16. At namespace scope.
#define LOWRANK_INSTANTIATE_SKINNY(T) LOWRANK_INSTANTIATE_SKINNY_WAY(T, false) LOWRANK_INSTANTIATE_SKINNY_WAY(T, true)
#define LOWRANK_INSTANTIATE_SKINNY_WAY(T, Across)                                                                     \
    template void lowrank::detail::skinny_dispatch<T, Across>(                                                        \
        lowrank::compute_t<T>, const lowrank::detail::strided_view<const T, 1>&,                                      \
        const lowrank::const_column_view<lowrank::compute_t<T>>&, const lowrank::column_view<lowrank::compute_t<T>>&, \
        lowrank::workspace&);

/// QR and Cholesky kernels for one scalar. At namespace scope.
#define LOWRANK_INSTANTIATE_QR(S)                                                                                     \
    template void lowrank::detail::householder_qr<S>(lowrank::matrix<S>&, lowrank::matrix<S>*, bool, lowrank::index); \
    template lowrank::orthonormalization lowrank::detail::orthonormalize_columns<S>(lowrank::matrix<S>&);             \
    template lowrank::thin_qr_result<S> lowrank::detail::thin_qr_of<S>(lowrank::matrix<S>, bool);

/// The symmetric eigensolver, which exists in double only. Once per program.
#define LOWRANK_INSTANTIATE_EIGEN()                                                       \
    template lowrank::symmetric_eigen_result lowrank::detail::symmetric_eigen_of<double>( \
        const lowrank::matrix<double>&, bool);

/// The SVD of one scalar.
#define LOWRANK_INSTANTIATE_SVD(S)                                                       \
    template lowrank::svd_result<S> lowrank::detail::svd_of_tall<S>(lowrank::matrix<S>); \
    template lowrank::svd_result<S> lowrank::detail::values_of_tall<S>(lowrank::matrix<S>);

/// The parts of the randomized and the Krylov SVD that no longer see the map, for one scalar.
#define LOWRANK_INSTANTIATE_TRUNCATED_SVD(S)                                                                         \
    template lowrank::truncated_svd_result<S> lowrank::detail::svd_within<S>(const lowrank::matrix<S>&,              \
                                                                             lowrank::matrix<S>, lowrank::index);    \
    template lowrank::error_evidence lowrank::detail::dense_evidence<lowrank::matrix<S>, S>(                         \
        const lowrank::matrix<S>&, const lowrank::matrix<S>&, const lowrank::vector<S>&, const lowrank::matrix<S>&); \
    template lowrank::matrix<S> lowrank::detail::orthonormal_remainder<S>(lowrank::const_column_view<S>,             \
                                                                          lowrank::matrix<S>, lowrank::workspace&);

/// The kernels of one scalar, float or double; the eigensolver comes with double.
#define LOWRANK_INSTANTIATE_KERNELS(S) LOWRANK_INSTANTIATE_KERNELS_##S
#define LOWRANK_INSTANTIATE_KERNELS_float         \
    LOWRANK_INSTANTIATE_SKINNY(float)             \
    LOWRANK_INSTANTIATE_SKINNY(lowrank::half)     \
    LOWRANK_INSTANTIATE_SKINNY(lowrank::bfloat16) \
    LOWRANK_INSTANTIATE_QR(float)                 \
    LOWRANK_INSTANTIATE_SVD(float) LOWRANK_INSTANTIATE_TRUNCATED_SVD(float)
#define LOWRANK_INSTANTIATE_KERNELS_double \
    LOWRANK_INSTANTIATE_SKINNY(double)     \
    LOWRANK_INSTANTIATE_QR(double)         \
    LOWRANK_INSTANTIATE_EIGEN()            \
    LOWRANK_INSTANTIATE_SVD(double) LOWRANK_INSTANTIATE_TRUNCATED_SVD(double)

/// Everything that depends on one scalar, float or double.
#define LOWRANK_INSTANTIATE(S) LOWRANK_INSTANTIATE_KERNELS(S)

#endif  // LOWRANK_INSTANTIATE_HPP
