// SPDX-License-Identifier: MIT
#include <lowrank/lora/layers/conv.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/kinds/lora.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

using lowrank::index;

/// The definition of a grouped cross-correlation, one multiplication at a time. y(position, out).
matrix<double> plain_conv(const conv_geometry& g, const matrix<double>& image, const extent3& size,
                          const row_matrix<double>& w, index groups) {
    const auto out = g.output_size(size);
    const index per_group = image.cols() / groups;
    matrix<double> y = matrix<double>::Zero(out[0] * out[1] * out[2], w.rows());
    const auto wrap = [&](std::size_t i, index at) -> index {
        if (at >= 0 && at < size[i]) {
            return at;
        }
        switch (g.mode) {
            case padding_mode::zeros: return -1;
            case padding_mode::reflect: return at < 0 ? -at : 2 * size[i] - 2 - at;
            case padding_mode::replicate: return std::clamp<index>(at, 0, size[i] - 1);
            case padding_mode::circular: return (at + size[i]) % size[i];
        }
        return -1;
    };
    for (index o = 0; o < w.rows(); ++o) {
        const index group = o / (w.rows() / groups);
        for (index p = 0; p < y.rows(); ++p) {
            const extent3 at{p / (out[1] * out[2]), p / out[2] % out[1], p % out[2]};
            for (index c = 0; c < per_group; ++c) {
                for (index k = 0; k < g.kernel_size(); ++k) {
                    const extent3 tap{k / (g.kernel[1] * g.kernel[2]), k / g.kernel[2] % g.kernel[1], k % g.kernel[2]};
                    extent3 from{};
                    for (std::size_t i = 0; i < 3; ++i) {
                        from[i] = wrap(i, at[i] * g.stride[i] - g.padding[i] + tap[i] * g.dilation[i]);
                    }
                    if (from[0] >= 0 && from[1] >= 0 && from[2] >= 0) {
                        y(p, o) += w(o, c * g.kernel_size() + k) *
                                   image((from[0] * size[1] + from[1]) * size[2] + from[2], group * per_group + c);
                    }
                }
            }
        }
    }
    return y;
}

struct layout {
    conv_geometry g;
    extent3 size;
    index channels;
    index groups;
};

const layout layouts[] = {
    {{.kernel = {1, 1, 3}, .padding = {0, 0, 1}}, {1, 1, 7}, 4, 1},
    {{.kernel = {1, 3, 3}, .stride = {1, 2, 2}, .padding = {0, 1, 1}}, {1, 9, 8}, 4, 2},
    {{.kernel = {1, 3, 5}, .stride = {1, 1, 2}, .padding = {0, 2, 1}, .dilation = {1, 2, 1}}, {1, 7, 11}, 3, 1},
    {{.kernel = {2, 3, 2}, .stride = {2, 1, 1}, .padding = {1, 1, 0}, .dilation = {1, 1, 2}}, {3, 4, 5}, 6, 3},
    {{.kernel = {1, 3, 3}, .padding = {0, 1, 2}, .mode = padding_mode::reflect}, {1, 5, 6}, 2, 1},
    {{.kernel = {1, 3, 3}, .padding = {0, 1, 2}, .mode = padding_mode::replicate}, {1, 5, 6}, 2, 1},
    {{.kernel = {1, 3, 3}, .padding = {0, 1, 2}, .mode = padding_mode::circular}, {1, 5, 6}, 2, 2},
};

}  // namespace

static_assert(linear_operator<grouped_operator<float>> && linear_operator<grouped_operator<bfloat16>>);

TEST_CASE("a weight times patches is the convolution: strides, padding modes, dilation, groups, 1 to 3 dimensions") {
    for (const auto& l : layouts) {
        const auto image = random_matrix<double>(l.size[0] * l.size[1] * l.size[2], l.channels, 1);
        const row_matrix<double> w = random_matrix<double>(6, l.channels / l.groups * l.g.kernel_size(), 2);
        const auto out = l.g.output_size(l.size);
        matrix<double> patches(l.channels * l.g.kernel_size(), out[0] * out[1] * out[2]);
        unfold<double>(l.g, image, l.size, patches);
        const grouped_operator<double> map(w, l.groups);
        const matrix<double> y = apply(map, patches).transpose();
        CHECK(relative_diff(y, plain_conv(l.g, image, l.size, w, l.groups)) < 1e-14);

        // add_folded is the transpose of unfold: <unfold(image), p> = <image, fold(p)>.
        const auto p = random_matrix<double>(patches.rows(), patches.cols(), 3);
        matrix<double> folded = matrix<double>::Zero(image.rows(), image.cols());
        add_folded<double>(l.g, p, l.size, folded);
        CHECK(std::abs(patches.cwiseProduct(p).sum() - image.cwiseProduct(folded).sum()) < 1e-11);
        const auto z = random_matrix<double>(6, patches.cols(), 4);
        CHECK(std::abs(apply(map, patches).cwiseProduct(z).sum() -
                       patches.cwiseProduct(apply_transposed(map, z)).sum()) < 1e-11);
    }
}

TEST_CASE("a grouped factor written out is the same adapter") {
    const auto compact = random_matrix<double>(6, 2, 1);
    const auto full = expand_groups(compact, 3);
    CHECK(full.cols() == 6);
    CHECK((full.array() != 0).count() == 12);
    CHECK(full(5, 5) == compact(5, 1));
    CHECK(same_bits(collect_groups(full, 3), compact));
    CHECK(same_bits(expand_groups(compact, 1), compact));
}

TEST_CASE("impossible geometries and wrong shapes are contract violations") {
    const conv_geometry g{.kernel = {1, 5, 5}};
    CHECK_THROWS_AS((void)g.output_size({1, 4, 4}), contract_violation);
    const conv_geometry zero{.stride = {1, 0, 1}};
    CHECK_THROWS_AS((void)zero.output_size({1, 4, 4}), contract_violation);
    const conv_geometry mirrored{.kernel = {1, 3, 3}, .padding = {0, 2, 2}, .mode = padding_mode::reflect};
    const matrix<double> image(4, 1);
    matrix<double> patches(9, 16);
    CHECK_THROWS_AS(unfold<double>(mirrored, image, {1, 2, 2}, patches), contract_violation);
    CHECK_THROWS_AS(unfold<double>({}, image, {1, 3, 3}, patches), contract_violation);
    const row_matrix<double> w(5, 2);
    CHECK_THROWS_AS(grouped_operator<double>(w, 2), contract_violation);
    CHECK_THROWS_AS((void)collect_groups<double>(matrix<double>(6, 5), 2), contract_violation);
}
