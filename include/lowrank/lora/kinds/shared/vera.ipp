// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_SHARED_VERA_IPP
#define LOWRANK_LORA_KINDS_SHARED_VERA_IPP

#include <lowrank/lora/kinds/shared/vera.hpp>

#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
std::shared_ptr<const vera_projections<S>> make_vera_projections(index max_out, index max_in, index r,
                                                                 std::uint64_t seed) {
    detail::expects(max_out >= 1 && max_in >= 1 && r >= 1, "make_vera_projections: sizes must be positive");
    vera_projections<S> p{.vera_A = matrix<S>(r, max_in), .vera_B = matrix<S>(max_out, r)};
    const auto bound = [](index fan_in) { return static_cast<S>(std::sqrt(6.0 / static_cast<double>(fan_in))); };
    fill_uniform(p.vera_A, -bound(max_in), bound(max_in), philox(seed, 0));
    fill_uniform(p.vera_B, -bound(r), bound(r), philox(seed, 1));
    return std::make_shared<const vera_projections<S>>(std::move(p));
}

template <real S>
void vera_adapter<S>::check() const {
    detail::expects(shared != nullptr, "vera_adapter: needs its shared projections");
    detail::expects(lambda_d.size() == shared->vera_A.rows() && lambda_d.size() == shared->vera_B.cols() &&
                        in <= shared->vera_A.cols() && lambda_b.size() <= shared->vera_B.rows(),
                    "vera_adapter: the shared projections are too small or of another rank");
}

template <real S>
low_rank<S> vera_adapter<S>::delta() const {
    check();
    low_rank<S> d{.left = copy_in<S>(dense_view<const S>(shared->vera_B).middle_rows(0, lambda_b.size())),
                  .right = columns_of(shared->vera_A, 0, in)};
    scale_rows(lambda_b, d.left);
    scale_rows(lambda_d, d.right);
    return d;
}

template <real S>
vera_adapter<S> vera_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    check();
    vera_adapter d = detail::with_zero_parameters(*this);
    add_row_dots(g.left, dense_view<const S>(shared->vera_B).middle_rows(0, lambda_b.size()), d.lambda_b);
    add_row_dots(g.right, dense_view<const S>(shared->vera_A).middle_cols(0, in), d.lambda_d);
    return d;
}

template <real S>
vera_adapter<S> make_vera(std::shared_ptr<const vera_projections<S>> shared, index out, index in, double d_initial) {
    detail::expects(shared != nullptr, "make_vera: needs shared projections");
    vera_adapter<S> a{.in = in};
    a.lambda_b.setZero(out);
    a.lambda_d.setConstant(shared->vera_A.rows(), static_cast<S>(d_initial));
    a.shared = std::move(shared);
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_VERA_OF(S)                                                                                            \
    template std::shared_ptr<const vera_projections<S>> make_vera_projections<S>(index, index, index, std::uint64_t); \
    template struct vera_adapter<S>;                                                                                  \
    template vera_adapter<S> make_vera<S>(std::shared_ptr<const vera_projections<S>>, index, index, double);
LOWRANK_VERA_OF(float)
LOWRANK_VERA_OF(double)
#undef LOWRANK_VERA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_SHARED_VERA_IPP
