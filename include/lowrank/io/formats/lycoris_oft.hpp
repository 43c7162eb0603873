// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_LYCORIS_OFT_HPP
#define LOWRANK_IO_FORMATS_LYCORIS_OFT_HPP

/// \file
/// OFT and BOFT as LyCORIS has them: the outputs of a layer are turned, where PEFT turns the inputs.
///
///     const lowrank::lycoris_oft a{.oft_blocks = blocks, .block_count = out / b};   // W' = blockdiag(R_k)^T W
///     auto turned = lowrank::apply(a.rotation(), w);
///
/// KohakuBlueleaf/LyCORIS, modules/diag_oft.py and modules/boft.py.

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/algebra/block_rotation.hpp>
#include <lowrank/lora/algebra/cayley.hpp>
#include <lowrank/lora/change.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W' = diag(rescale) G W with an orthogonal G of the outputs. With Q = B - B^T of a block B, shortened together to the
/// length constraint * out, and R = (I + Q)(I - Q)^-1: G = blockdiag(R_k)^T ("diag-oft"), or the product
/// G_{m-1} ... G_0 of block-diagonal factors blockdiag(R_ik) on butterfly orders of the outputs ("boft").
struct lycoris_oft {
    matrix<float> oft_blocks = {};  ///< (factors * block_count * b) x b, the blocks B below each other
    index block_count = 0;
    bool is_butterfly = false;
    vector<float> rescale = {};          ///< out; empty: none
    double constraint = 0;               ///< LyCORIS stores it as alpha; 0: none
    std::size_t rescale_dimensions = 2;  ///< 4 for a 2-d convolution: [out, 1, 1, 1]

    [[nodiscard]] index block_size() const noexcept { return oft_blocks.cols(); }
    [[nodiscard]] index out() const noexcept { return block_count * block_size(); }
    [[nodiscard]] index factor_count() const noexcept { return out() == 0 ? 0 : oft_blocks.rows() / out(); }

    /// True if the blocks are those of a layer: whole factors, and of several an even b with b 2^(m-1) dividing out.
    [[nodiscard]] bool is_valid() const {
        const index b = block_size();
        const index m = factor_count();
        return b >= 1 && block_count >= 1 && oft_blocks.rows() == m * out() && (is_butterfly || m == 1) && m >= 1 &&
               m < 62 && (!is_butterfly || (b % 2 == 0 && b <= out() >> (m - 1) && out() % (b << (m - 1)) == 0)) &&
               (rescale.size() == 0 || rescale.size() == out());
    }

    /// G. \pre is_valid(). \cost b^3 a block, in double.
    [[nodiscard]] block_rotation<double> rotation() const {
        detail::expects(is_valid(), "lycoris_oft: the blocks do not fit each other");
        const index b = block_size();
        double squares = 0;
        for (index first = 0; first < oft_blocks.rows(); first += b) {
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

private:
    [[nodiscard]] matrix<double> skew(index first) const {
        const matrix<double> block = oft_blocks.middleRows(first, block_size()).cast<double>();
        return block - block.transpose();
    }
    /// "(c g k) -> (c k g)" with g = 2 and k = 2^i b / 2.
    [[nodiscard]] std::vector<index> butterfly_index(index i) const {
        const index k = (index{1} << i) * (block_size() / 2);
        std::vector<index> order(static_cast<std::size_t>(out()));
        for (index at = 0; at < out(); ++at) {
            const index in_pair = at % (2 * k);
            order[static_cast<std::size_t>(at)] = at - in_pair + (in_pair % 2) * k + in_pair / 2;
        }
        return order;
    }
};

namespace detail {

/// The map of the columns of W (the rows of its transpose), as `row_transform`.
template <class = on_use>
[[nodiscard]] any_row_transform rotate_outputs(const lycoris_oft& a) {
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

#endif  // LOWRANK_IO_FORMATS_LYCORIS_OFT_HPP
