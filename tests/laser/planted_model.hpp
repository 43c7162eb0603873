// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_LASER_PLANTED_MODEL_HPP
#define LOWRANK_TESTS_LASER_PLANTED_MODEL_HPP

/// \file
/// A model of which the best edit is known by construction.

#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/edits/edit_list.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/search/search_model.hpp>

namespace lowrank_tests {

using namespace lowrank;

/// logits = head (mixer x). The mixer is orthogonal, so that every truncation of it loses information. The head is a
/// rank-3 signal with singular values 10, 9, 8 plus four directions of size 5 that only mislead; the label of x is what
/// the signal alone says. Truncating the head to rank 3 is therefore the one edit that makes every answer right.
template <class T>
struct planted_model {
    static constexpr lowrank::index size = 12;
    static constexpr lowrank::index planted_rank = 3;
    row_matrix<T> head, mixer;
    matrix<compute_t<T>> samples;
    std::vector<lowrank::index> labels;
    mutable std::atomic<int> calls{0};

    planted_model(std::uint64_t seed, lowrank::index count) {
        using S = compute_t<T>;
        matrix<S> noise(size, size);
        fill_normal(noise, S(1), philox(seed, 1));
        const auto left = svd(noise);
        fill_normal(noise, S(1), philox(seed, 2));
        const auto right = svd(noise);
        vector<S> signal = vector<S>::Zero(size), all = vector<S>::Zero(size);
        signal.head(3) << S(10), S(9), S(8);
        all = signal;
        all.segment(3, 4).setConstant(S(5));
        const matrix<S> truth = left.u * signal.asDiagonal() * right.u.transpose();
        head = (left.u * all.asDiagonal() * right.u.transpose()).template cast<T>();
        mixer = left.v.template cast<T>();
        samples.resize(size, count);
        fill_normal(samples, S(1), philox(seed, 3));
        const matrix<S> logits = truth * (mixer.template cast<S>() * samples);
        for (lowrank::index i = 0; i < count; ++i) {
            lowrank::index label = 0;
            logits.col(i).maxCoeff(&label);
            labels.push_back(label);
        }
    }

    [[nodiscard]] sample_scores operator()(sample_range r) const {
        using S = compute_t<T>;
        ++calls;
        return scores_of(r,
                         head.template cast<S>() * (mixer.template cast<S>() * samples.middleCols(r.begin, r.size())));
    }

    [[nodiscard]] sample_scores scores_of(sample_range r, const matrix<compute_t<T>>& logits) const {
        using S = compute_t<T>;
        sample_scores s;
        for (lowrank::index i = 0; i < r.size(); ++i) {
            const auto label = labels[static_cast<std::size_t>(r.begin + i)];
            lowrank::index answer = 0;
            const S largest = logits.col(i).maxCoeff(&answer);
            const double log_sum = std::log((logits.col(i).array() - largest).template cast<double>().exp().sum());
            s.add(answer == label, log_sum + static_cast<double>(largest - logits(label, i)));
        }
        return s;
    }

    /// The backward pass of the cross-entropy: every column is a sample.
    [[nodiscard]] status gradients(sample_range r, const gradient_sink<compute_t<T>>& sink) const {
        using S = compute_t<T>;
        ++calls;
        const matrix<S> x = samples.middleCols(r.begin, r.size());
        const matrix<S> mixed = mixer.template cast<S>() * x;
        matrix<S> dy = head.template cast<S>() * mixed;
        std::vector<lowrank::index> starts = {0};
        for (lowrank::index i = 0; i < r.size(); ++i) {
            auto z = dy.col(i);
            z = (z.array() - z.maxCoeff()).exp().matrix().eval();
            z /= z.sum();
            z(labels[static_cast<std::size_t>(r.begin + i)]) -= S(1);
            starts.push_back(i + 1);
        }
        const matrix<S> dmixed = head.template cast<S>().transpose() * dy;
        sink(0, x, dmixed, starts);
        sink(1, mixed, dy, starts);
        return {};
    }

    /// Two layers, the mixer below the head.
    [[nodiscard]] search_model<T> searchable() {
        search_model<T> out{.weights = weights(), .evaluate = evaluate(), .layers = 2, .layer_of = {0, 1}};
        out.evaluate_from_layer = [this](sample_range r, lowrank::index) { return (*this)(r); };
        out.gradients = [this](sample_range r, const gradient_sink<compute_t<T>>& sink) { return gradients(r, sink); };
        return out;
    }

    [[nodiscard]] std::vector<named_weight<T>> weights() { return {{"mixer", mixer}, {"head", head}}; }
    [[nodiscard]] evaluator evaluate() const {
        return [this](sample_range r) { return (*this)(r); };
    }
};

/// The same model as an engine that keeps its weights to itself: views without data, edits placed, all ranks at once.
template <class T>
struct kept_elsewhere {
    using S = compute_t<T>;
    planted_model<T>& model;
    bool all_ranks = true;
    std::array<std::optional<weight_override<S>>, 2> placed = {};
    int rank_calls = 0;

    [[nodiscard]] const row_matrix<T>& own(lowrank::index weight) const {
        return weight == 0 ? model.mixer : model.head;
    }
    [[nodiscard]] matrix<S> product(lowrank::index weight, const matrix<S>& x) const {
        const auto& edit = placed[static_cast<std::size_t>(weight)];
        matrix<S> y = matrix<S>::Zero(own(weight).rows(), x.cols());
        if (!edit || edit->additive) {
            y += own(weight).template cast<S>() * x;
        }
        if (edit) {
            y += apply(edit->map, x);
        }
        return y;
    }
    [[nodiscard]] search_model<T> hooks() {
        const auto nothing = [](const char* name) {
            return named_weight<T>(name, weight_view<T>(nullptr, planted_model<T>::size, planted_model<T>::size));
        };
        search_model<T> out{.weights = {nothing("mixer"), nothing("head")}, .layers = 2, .layer_of = {0, 1}};
        out.evaluate = [this](sample_range r) -> result<sample_scores> {
            ++model.calls;
            return model.scores_of(r, product(1, product(0, model.samples.middleCols(r.begin, r.size()))));
        };
        out.evaluate_from_layer = [evaluate = out.evaluate](sample_range r, lowrank::index) { return evaluate(r); };
        out.gradients = [this](sample_range r, const gradient_sink<S>& sink) { return model.gradients(r, sink); };
        out.read = [this](lowrank::index w) -> result<row_matrix<T>> { return own(w); };
        out.override_weight = [this](lowrank::index w, const weight_override<S>* edit) {
            auto& at = placed[static_cast<std::size_t>(w)];
            edit == nullptr ? at.reset() : (void)(at = *edit);
        };
        if (all_ranks) {
            out.evaluate_ranks = [this](sample_range r, lowrank::index w, const nested_ranks<S>& nested,
                                        lowrank::index) {
                ++rank_calls;
                matrix<S> x = model.samples.middleCols(r.begin, r.size());
                x = w == 1 ? product(0, x) : x;
                std::vector<sample_scores> scores(nested.ranks().size());
                workspace ws;
                nested.for_each(
                    x, [&](column_view<S> y) { y = own(w).template cast<S>() * x; }, ws,
                    [&](lowrank::index i, const_column_view<S> y) {
                        scores[static_cast<std::size_t>(i)] = model.scores_of(r, w == 1 ? matrix<S>(y) : product(1, y));
                    });
                return result<std::vector<sample_scores>>(std::move(scores));
            };
        }
        return out;
    }
};

template <class T>
bool same_bits(const row_matrix<T>& a, const row_matrix<T>& b) {
    return std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(T)) == 0;
}

/// What must hold after every search, however it ended.
template <class T>
struct untouched {
    planted_model<T>& model;
    row_matrix<T> head = model.head, mixer = model.mixer;
    [[nodiscard]] bool now() const { return same_bits(head, model.head) && same_bits(mixer, model.mixer); }
};

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_LASER_PLANTED_MODEL_HPP
