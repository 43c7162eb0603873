// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_STRUCTURED_FOURIERFT_HPP
#define LOWRANK_LORA_KINDS_STRUCTURED_FOURIERFT_HPP

/// \file
/// FourierFT: the change is the real part of an inverse Fourier transform of a few trained coefficients at random
/// frequencies.
///
///     auto a = lowrank::make_fourierft<float>(out, in, {.n_frequency = 1000});      // zero: changes nothing yet
///     lowrank::workspace ws;
///     a.add_product(1.0F, x, y, ws);                                                // y += change x
///     if (a.rank() < in) auto exact = a.delta();                                    // two factors
///
/// Gao et al., Parameter-Efficient Fine-Tuning with Discrete Fourier Transform, arXiv 2405.03003; parameters and
/// positions as in PEFT. Each frequency is two products of a wave along the outputs with one along the inputs: rank 2.

#include <cstdint>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/structured/entry_positions.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults.
struct fourierft_options {
    index n_frequency = 1000;
    double scaling = 150;
    std::uint64_t random_loc_seed = 777;
};

/// Frequencies and the waves that they are made of. A frequency i and its mirror image `length` - i have one cosine, and one
/// sine up to its sign, so that there are at most `length` / 2 + 1 waves along a side.
struct fourierft_waves {
    entry_positions positions = {};           ///< 2 x n: i and j. Files do not hold them; the seed says them.
    matrix<std::int32_t> along_outputs = {};  ///< 1 x I: frequencies of the waves along the outputs, ascending
    matrix<std::int32_t> along_inputs = {};   ///< 1 x J
    entry_positions places = {};              ///< 2 x n: which of them belong to a frequency
    matrix<std::int32_t> signs = {};          ///< 1 x n: of the product of the sines
};

/// The waves of some positions of an out x in matrix. \pre The positions lie inside.
LOWRANK_API [[nodiscard]] fourierft_waves make_fourierft_waves(index out, index in, entry_positions positions);

/// The change D(p, q) = scaling / (out in) sum_k c_k cos(2 pi (i_k p / out + j_k q / in)), an `operator_adapter`.
template <real S>
struct fourierft_adapter {
    using scalar = S;

    fourierft_waves waves = {};
    vector<S> fourierft_spectrum = {};  ///< c
    double scaling = 150;
    std::uint64_t random_loc_seed = 777;
    index out = 0;
    index in = 0;

    [[nodiscard]] index rows() const noexcept { return out; }
    [[nodiscard]] index cols() const noexcept { return in; }

    /// A position inside of the weight for each coefficient: what all of the following expect.
    void check() const;

    /// Y += alpha D X. \cost 4 (J in + I out + n) flops for each column, with I, J at most n and half of the side: never more
    /// than twice a dense square change. Scratch: 2 (I + J) numbers for each column, and 32 waves, made anew.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    /// Y += alpha D^T X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    /// The gradient of c_k is scaling / (out in) times <dY, the waves of k times X>. \cost As two products.
    void backward(const_column_view<S> x, const_column_view<S> dy, fourierft_adapter& gradient, column_view<S>* dx,
                  workspace& ws) const;

    /// Columns of `delta()`: two for each wave along the outputs.
    [[nodiscard]] index rank() const noexcept { return 2 * waves.along_outputs.cols(); }
    /// The change as a product of waves along the outputs and rows of the inputs. \cost rank() (out + in) scalars.
    [[nodiscard]] low_rank<S> delta() const;
    /// The same, of which no more than a few rows are formed at a time.
    [[nodiscard]] added_rows_change row_sums() const;
    /// As two factors where they have less entries than the weight, else as rows.
    [[nodiscard]] weight_change<S> change() const;
    /// Adds rows first, first + 1, ... of D, one a column, times a factor. \cost 4 J in flops a row.
    void add_rows(double factor, index first, column_view<double> to) const;
};

/// A new adapter for an out x in weight: zero at n random frequencies, so that it changes nothing yet.
/// \pre n_frequency is at least 1 and at most out in, which is below `torch_positions_limit`.
template <real S>
[[nodiscard]] fourierft_adapter<S> make_fourierft(index out, index in, const fourierft_options& options = {});

/// The coefficients.
template <real S>
struct adapter_kind<fourierft_adapter<S>> {
    static constexpr std::string_view name = "fourierft";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("fourierft_spectrum"), a.fourierft_spectrum);
    }
    static constexpr double learning_rate = 1e-2;
    static status check_layers(const adapted_layers& all) {
        return all.max_out < torch_positions_limit / all.max_in
                   ? status{}
                   : status{errc::unsupported,
                            "fourierft needs weights below 214 million entries: for larger ones releases of PyTorch "
                            "draw other frequencies; choose lora"};
    }
    /// 1000 frequencies for rank 8, which PEFT's documentation calls as good.
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [n = 125 * options.r, seed = options.seed](const target_layer<S>& layer) {
            const index out = layer.base.rows();
            const index in = layer.base.cols();
            return make_fourierft<S>(out, in, {.n_frequency = n < out * in ? n : out * in, .random_loc_seed = seed});
        };
    }
    using applied = applied_operator<fourierft_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/structured/fourierft.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_STRUCTURED_FOURIERFT_HPP
