// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ROTATIONS_OUTPUT_ROTATION_HPP
#define LOWRANK_LORA_KINDS_ROTATIONS_OUTPUT_ROTATION_HPP

/// \file
/// A rotation of the outputs of a layer, as LyCORIS trains it for diffusion models: W' = diag(rescale) G W.
///
///     const lowrank::output_rotation_adapter<float> a{.blocks = lora_B, .block_count = 4};
///     lowrank::any_adapter<float> any = a;                 // W' = blockdiag(R_k)^T W
///
/// KohakuBlueleaf/LyCORIS, the modules of its rotations.

#include <cstddef>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/algebra/block_rotation.hpp>
#include <lowrank/lora/change.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W' = diag(rescale) G W with an orthogonal G of the outputs. With Q = B - B^T of a block B, shortened together to the
/// length constraint * out, and R = (I + Q)(I - Q)^-1: G = blockdiag(R_k)^T (diagonal), or the product
/// G_{m-1} ... G_0 of block-diagonal factors blockdiag(R_ik) on butterfly orders of the outputs.
template <real S>
struct output_rotation_adapter {
    using scalar = S;

    matrix<S> blocks = {};  ///< (factors * block_count * b) x b, the blocks B below each other
    index block_count = 0;
    bool is_butterfly = false;
    vector<S> rescale = {};              ///< out; empty: none
    double constraint = 0;               ///< LyCORIS stores it as alpha; 0: none
    std::size_t rescale_dimensions = 2;  ///< 4 for a 2-d convolution: [out, 1, 1, 1]
    index in = 0;                        ///< Of the layer. 0: learned at the first refresh.

    [[nodiscard]] index block_size() const noexcept { return blocks.cols(); }
    [[nodiscard]] index out() const noexcept { return block_count * block_size(); }
    [[nodiscard]] index factor_count() const noexcept { return out() == 0 ? 0 : blocks.rows() / out(); }

    /// True if the blocks are those of a layer: whole factors, and of several an even b with b 2^(m-1) dividing out.
    [[nodiscard]] bool is_valid() const {
        const index b = block_size();
        const index m = factor_count();
        return b >= 1 && block_count >= 1 && blocks.rows() == m * out() && (is_butterfly || m == 1) && m >= 1 &&
               m < 62 && (!is_butterfly || (b % 2 == 0 && b <= out() >> (m - 1) && out() % (b << (m - 1)) == 0)) &&
               (rescale.size() == 0 || rescale.size() == out());
    }

    /// G. \pre is_valid(). \cost b^3 a block, in double.
    [[nodiscard]] block_rotation<double> rotation() const;
    /// What it does to a weight of any number of inputs.
    [[nodiscard]] row_change change() const;
    /// The gradients of the blocks, given that of G's, and of the scales.
    [[nodiscard]] output_rotation_adapter pull_back(const block_rotation<S>& g,
                                                    const vector<S>& rescale_gradient) const;

private:
    [[nodiscard]] matrix<double> skew(index first) const;
    [[nodiscard]] double norm() const;
    [[nodiscard]] double shrink(double norm) const;
    [[nodiscard]] std::vector<index> butterfly_index(index i) const;
};

/// y += diag(s) G (W x).
template <real S>
class applied_output_rotation {
public:
    using scalar = S;
    static constexpr bool additive = false;
    struct gradient {
        block_rotation<S> rotation = {};
        vector<S> rescale = {};
    };

    explicit applied_output_rotation(output_rotation_adapter<S> a) : adapter(std::move(a)) { make(); }

    output_rotation_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.out(); }
    [[nodiscard]] index cols() const { return adapter.in; }
    void refresh(operator_reference<S> base) {
        adapter.in = base.cols();
        make();
    }

    [[nodiscard]] gradient zero_gradient() const {
        gradient g{.rotation = rotation_.zero_gradient()};
        g.rescale.setZero(adapter.rescale.size());
        return g;
    }
    static std::vector<std::span<S>> spans(gradient& g) {
        auto all = rotation_spans(g.rotation);
        all.push_back(detail::entries(g.rescale));
        return all;
    }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const;
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const;
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
    void pull_back(const gradient& g, S* out) const {
        detail::add_parameters(adapter.pull_back(g.rotation, g.rescale), out);
    }
    [[nodiscard]] weight_change<S> change() const { return adapter.change(); }

private:
    void make() { rotation_ = adapter.rotation().template cast<S>(); }

    block_rotation<S> rotation_ = {};
};

/// A rotation of the outputs and, if it is there, a scale of them.
template <real S>
struct adapter_kind<output_rotation_adapter<S>> {
    static constexpr std::string_view name = "output_rotation";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("blocks"), a.blocks);
        if (a.rescale.size() != 0) {
            f(std::string_view("rescale"), a.rescale);
        }
    }
    using applied = applied_output_rotation<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/rotations/output_rotation.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_ROTATIONS_OUTPUT_ROTATION_HPP
