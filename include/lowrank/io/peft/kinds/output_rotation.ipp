// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_OUTPUT_ROTATION_IPP
#define LOWRANK_IO_PEFT_KINDS_OUTPUT_ROTATION_IPP

#include <cmath>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/io/peft/kinds/output_rotation.hpp>
#include <lowrank/lora/algebra/cayley.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY matrix<double> output_rotation::skew(index first) const {
    const matrix<double> block = blocks.middleRows(first, block_size()).cast<double>();
    return block - block.transpose();
}
/// "(c g k) -> (c k g)" with g = 2 and k = 2^i b / 2.
LOWRANK_BODY std::vector<index> output_rotation::butterfly_index(index i) const {
    const index k = (index{1} << i) * (block_size() / 2);
    std::vector<index> order(static_cast<std::size_t>(out()));
    for (index at = 0; at < out(); ++at) {
        const index in_pair = at % (2 * k);
        order[static_cast<std::size_t>(at)] = at - in_pair + (in_pair % 2) * k + in_pair / 2;
    }
    return order;
}

LOWRANK_BODY block_rotation<double> output_rotation::rotation() const {
    detail::expects(is_valid(), "output_rotation: the blocks do not fit each other");
    const index b = block_size();
    double squares = 0;
    for (index first = 0; first < blocks.rows(); first += b) {
        squares += skew(first).squaredNorm();
    }
    const double norm = std::sqrt(squares) + 1e-8;
    const double most = constraint * static_cast<double>(out());
    const double shrink = constraint > 0 && norm > most ? most / norm : 1.0;
    block_rotation<double> g{.size = out()};
    for (index i = 0; i < factor_count(); ++i) {
        rotation_factor<double> factor{.blocks = matrix<double>(b, out())};
        for (index first = 0; first < out(); first += b) {
            const matrix<double> q = shrink * skew(i * out() + first);
            factor.blocks.middleCols(first, b) = cayley(is_butterfly ? q : matrix<double>(-q));
        }
        if (is_butterfly) {
            factor.places = butterfly_index(i);
        }
        g.factors.push_back(std::move(factor));
    }
    return g;
}

namespace detail {

LOWRANK_BODY any_row_transform rotate_outputs(const output_rotation& a) {
    struct turn {
        block_rotation<double> rotation;
        vector<double> scale;

        [[nodiscard]] bool fits(index, index outputs) const { return outputs == rotation.cols(); }
        void forward(index, column_view<double> columns, workspace& ws) const {
            const workspace::frame scope(ws);
            auto turned = ws.take<double>(columns.rows(), columns.cols());
            turned.setZero();
            rotation.add_product(1.0, columns, turned, ws);
            columns = turned;
            if (scale.size() != 0) {
                columns.array().colwise() *= scale.array();
            }
        }
        void backward(index, column_view<double> columns, workspace& ws) const {
            for (index i = 0; i < scale.size(); ++i) {
                columns.row(i) *= scale(i) == 0 ? 0.0 : 1 / scale(i);
            }
            const workspace::frame scope(ws);
            auto turned = ws.take<double>(columns.rows(), columns.cols());
            turned.setZero();
            rotation.add_transposed_product(1.0, columns, turned, ws);
            columns = turned;
        }
    };
    return turn{a.rotation(), a.rescale.cast<double>()};
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_OUTPUT_ROTATION_IPP
