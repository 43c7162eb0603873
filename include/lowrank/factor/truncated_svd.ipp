// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_TRUNCATED_SVD_IPP
#define LOWRANK_FACTOR_TRUNCATED_SVD_IPP

#include <limits>

#include <lowrank/core/dense.hpp>
#include <lowrank/factor/truncated_svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
low_rank<S> truncated_svd_result<S>::product() const {
    low_rank<S> out{.left = u, .right = copy_in<S>(transposed(v))};
    scale_cols(out.left, s);
    return out;
}

template <real S>
truncated_svd_result<S> detail::truncated_svd_of(const result<spectrum<S>>& spec, index k) {
    truncated_svd_result<S> out;
    if (!spec) {
        out.why = spec.error();
        return out;
    }
    out.u = columns_of(spec->u(), 0, k);
    out.s = head_in<S>(spec->values(), k);
    out.v = columns_of(spec->v(), 0, k);
    out.error = {.frobenius = spec->error(k),
                 .relative = spec->relative_error(k),
                 .how = error_source::exact,
                 .deviation = static_cast<double>(std::numeric_limits<S>::epsilon())};
    return out;
}

#ifdef LOWRANK_COMPILED
template struct truncated_svd_result<float>;
template struct truncated_svd_result<double>;
template truncated_svd_result<float> detail::truncated_svd_of(const result<spectrum<float>>&, index);
template truncated_svd_result<double> detail::truncated_svd_of(const result<spectrum<double>>&, index);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_TRUNCATED_SVD_IPP
