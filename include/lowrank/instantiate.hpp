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
/// With LOWRANK_EXTERN_TEMPLATES a header that includes an eigensolver, a QR, the skinny product
/// or the adapters behind `any_adapter` only declares them; without the macro everything is header-only
/// as usual and this file is not needed. The two scalars may live in two files, to compile side by side;
/// LOWRANK_INSTANTIATE_KERNELS, LOWRANK_INSTANTIATE_ADAPTERS and their like split further.

#include <lowrank/core/skinny_product.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>
#include <lowrank/lora/any_adapter.hpp>

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

/// What `any_adapter` calls of every kind of adapter, for one scalar.
#define LOWRANK_INSTANTIATE_ADAPTERS(S) LOWRANK_FOR_EACH_ADAPTER(LOWRANK_INSTANTIATE_ADAPTER, S)
#define LOWRANK_INSTANTIATE_ADAPTER(S, kind)                                                                      \
    template std::unique_ptr<lowrank::any_adapter<S>::interface> lowrank::any_adapter<S>::hold<lowrank::kind<S>>( \
        lowrank::kind<S>);

/// The kernels of one scalar, float or double; the eigensolver comes with double.
#define LOWRANK_INSTANTIATE_KERNELS(S) LOWRANK_INSTANTIATE_KERNELS_##S
#define LOWRANK_INSTANTIATE_KERNELS_float         \
    LOWRANK_INSTANTIATE_SKINNY(float)             \
    LOWRANK_INSTANTIATE_SKINNY(lowrank::half)     \
    LOWRANK_INSTANTIATE_SKINNY(lowrank::bfloat16) \
    LOWRANK_INSTANTIATE_QR(float)                 \
    LOWRANK_INSTANTIATE_SVD(float)
#define LOWRANK_INSTANTIATE_KERNELS_double \
    LOWRANK_INSTANTIATE_SKINNY(double)     \
    LOWRANK_INSTANTIATE_QR(double)         \
    LOWRANK_INSTANTIATE_EIGEN()            \
    LOWRANK_INSTANTIATE_SVD(double)

/// Everything that depends on one scalar, float or double.
#define LOWRANK_INSTANTIATE(S) LOWRANK_INSTANTIATE_KERNELS(S) LOWRANK_INSTANTIATE_ADAPTERS(S)

#endif  // LOWRANK_INSTANTIATE_HPP
