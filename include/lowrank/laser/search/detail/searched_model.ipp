// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_SEARCHED_MODEL_IPP
#define LOWRANK_LASER_SEARCH_DETAIL_SEARCHED_MODEL_IPP

#include <lowrank/laser/search/detail/searched_model.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/laser/edits/nested_ranks.hpp>
#include <lowrank/laser/search/detail/open_weights.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

template <storage T>
class opened_model final : public searched_model {
public:
    opened_model(const search_model<T>& model, std::size_t budget)
        : model_(&model), budget_(budget), editors_(model, budget), in_place_(model, editors_) {
        for (index w = 0; w < static_cast<index>(model.weights.size()); ++w) {
            const auto& [name, view] = model.weights[static_cast<std::size_t>(w)];
            weights.push_back({name, view.rows(), view.cols(), model.layer(w)});
        }
        layers = model.layers;
        evaluate = &model.evaluate;
        evaluate_from_layer = &model.evaluate_from_layer;
        has_ranks = static_cast<bool>(model.evaluate_ranks);
        has_gradients = static_cast<bool>(model.gradients);
    }

    [[nodiscard]] result<std::uint64_t> fingerprint() const override { return search_fingerprint(*model_); }
    [[nodiscard]] status put(search_candidate& c) override { return in_place_.put(c); }
    [[nodiscard]] index factorizations() const override { return editors_.factorizations(); }

    [[nodiscard]] result<edit_size> size_of(index weight, const component_set& keep) override {
        const auto editor = editors_.get(weight);
        if (!editor) {
            return editor.error();
        }
        const auto& factors = (*editor)->components(keep.bound());
        return factors ? result<edit_size>((*editor)->size_of_components(keep)) : factors.why;
    }

    [[nodiscard]] result<std::vector<sample_scores>> evaluate_ranks(sample_range range, index weight,
                                                                    std::vector<index> ranks, index first,
                                                                    index samples_per_call) override {
        const auto editor = editors_.get(weight);
        if (!editor) {
            return editor.error();
        }
        const auto& factors = (*editor)->components(ranks.empty() ? 0 : ranks.back());
        if (!factors) {
            return factors.why;
        }
        std::vector<sample_scores> scores(ranks.size());
        const nested_ranks<compute_t<T>> nested(factors, std::move(ranks));
        for (index begin = range.begin; begin < range.end; begin += samples_per_call) {
            const sample_range part{begin, std::min(range.end, begin + samples_per_call)};
            const auto some = model_->evaluate_ranks(part, weight, nested, first);
            if (!some) {
                return some.error();
            }
            expects(some->size() == scores.size(), "search: evaluate_ranks must answer for every rank");
            for (std::size_t i = 0; i < scores.size(); ++i) {
                expects((*some)[i].size() == part.size(), "search: evaluate_ranks must score every sample");
                scores[i].append((*some)[i]);
            }
        }
        return scores;
    }

    [[nodiscard]] result<std::vector<sigma_scores>> gradients(sample_range range, index& passes) override {
        using S = compute_t<T>;
        const auto count = static_cast<index>(weights.size());
        std::vector<sigma_scores> out;
        workspace ws;
        for (index first = 0; first < count;) {
            index last = first;
            for (std::size_t bytes = 0; last < count; ++last) {
                bytes += editors_.bytes_of(last);
                if (bytes > budget_ && last > first) {
                    break;
                }
            }
            std::vector<sigma_gradient<S>> sums;
            for (index w = first; w < last; ++w) {
                const auto editor = editors_.get(w);
                if (!editor) {
                    return editor.error();
                }
                const auto& factors = (*editor)->whole();
                if (!factors) {
                    return factors.why;
                }
                sums.emplace_back(factors);
            }
            status refused;
            status why = model_->gradients(
                range, [&](index w, const_column_view<S> x, const_column_view<S> dy, std::span<const index> starts) {
                    if (w >= first && w < last) {
                        status added = sums[static_cast<std::size_t>(w - first)].add(x, dy, starts, ws);
                        if (!added && refused) {
                            refused = {added.code, weights[static_cast<std::size_t>(w)].name + ": " + added.message};
                        }
                    }
                });
            if (!why || !refused) {
                return why ? refused : why;
            }
            ++passes;
            for (const auto& sum : sums) {
                out.push_back(sum.scores());
            }
            first = last;
        }
        return out;
    }

private:
    const search_model<T>* model_;
    std::size_t budget_;
    editor_cache<T> editors_;
    edits_in_place<T> in_place_;
};

template <storage T>
std::unique_ptr<searched_model> open_model(const char* function, const search_model<T>& model,
                                           const search_options& options) {
    expects_search_model(function, model);
    return std::make_unique<opened_model<T>>(model, options.factor_bytes);
}

#ifdef LOWRANK_COMPILED
template std::unique_ptr<searched_model> open_model(const char*, const search_model<float>&, const search_options&);
template std::unique_ptr<searched_model> open_model(const char*, const search_model<double>&, const search_options&);
template std::unique_ptr<searched_model> open_model(const char*, const search_model<half>&, const search_options&);
template std::unique_ptr<searched_model> open_model(const char*, const search_model<bfloat16>&, const search_options&);
#endif

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_DETAIL_SEARCHED_MODEL_IPP
