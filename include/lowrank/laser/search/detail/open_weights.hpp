// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_HPP
#define LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_HPP

/// \file
/// Weights while a search works on them: factorized, edited, and as they were when a scope ends.
///
///     detail::editor_cache<float> editors(model, factor_bytes);
///     detail::edits_in_place<float> in_place(model, editors);
///     lowrank::status why = in_place.put(candidate);            // its edits, and no others

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/named_weight.hpp>
#include <lowrank/laser/edits/weight_editor.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// One more weight into a fingerprint.
template <storage T>
std::uint64_t mix_weight(std::uint64_t hash, const std::string& name, const const_weight_view<T>& values) {
    for (const char c : name) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    }
    return (hash ^ bits_hash<T>(values)) * 0x9E3779B97F4A7C15U;
}

/// Names and bits of the weights a search starts from.
template <storage T>
std::uint64_t search_fingerprint(std::span<const named_weight<T>> weights) {
    std::uint64_t hash = 0;
    for (const auto& w : weights) {
        hash = mix_weight<T>(hash, w.name, w.values());
    }
    return hash;
}
/// The same of a model that may keep its weights elsewhere.
template <storage T>
result<std::uint64_t> search_fingerprint(const search_model<T>& model) {
    if (!model.read) {
        return search_fingerprint(std::span<const named_weight<T>>(model.weights));
    }
    std::uint64_t hash = 0;
    for (std::size_t i = 0; i < model.weights.size(); ++i) {
        const auto values = model.read(static_cast<index>(i));
        if (!values) {
            return values.error();
        }
        hash = mix_weight<T>(hash, model.weights[i].name, const_weight_view<T>(*values));
    }
    return hash;
}

/// Factorized weights, the least recently used ones dropped when they do not fit.
template <storage T>
class editor_cache {
public:
    /// Borrows the model.
    editor_cache(const search_model<T>& model, std::size_t budget)
        : model_(&model), budget_(budget), open_(model.weights.size()), used_(model.weights.size(), 0) {}

    /// \pre the weight is not edited at this time. The pointer is valid until the next call.
    [[nodiscard]] result<weight_editor<T>*> get(index weight) {
        const auto w = static_cast<std::size_t>(weight);
        used_[w] = ++clock_;
        if (open_[w] == nullptr) {
            make_room(w, bytes_of(weight));
            auto made = open(weight);
            if (!made) {
                return made.error();
            }
            open_[w] = std::make_unique<weight_editor<T>>(*std::move(made));
        }
        make_room(w);
        return open_[w].get();
    }

    /// How often a whole weight was decomposed.
    [[nodiscard]] index factorizations() const noexcept {
        index sum = closed_factorizations_;
        for (const auto& editor : open_) {
            sum += editor != nullptr ? editor->factorizations() : 0;
        }
        return sum;
    }
    /// About what a factorized weight of this shape holds.
    [[nodiscard]] std::size_t bytes_of(index weight) const {
        const auto& w = model_->weights[static_cast<std::size_t>(weight)].weight;
        const index r = std::min(w.rows(), w.cols());
        return static_cast<std::size_t>((w.rows() + w.cols() + 1) * r) * sizeof(compute_t<T>) +
               static_cast<std::size_t>(w.size()) * sizeof(T);
    }

private:
    [[nodiscard]] result<weight_editor<T>> open(index weight) const {
        const auto& w = model_->weights[static_cast<std::size_t>(weight)];
        if (!model_->read && !model_->decompose) {
            return weight_editor<T>::open(w);
        }
        result<row_matrix<T>> values = row_matrix<T>();
        if (model_->read) {
            values = model_->read(weight);
        } else {
            values->resize(w.weight.rows(), w.weight.cols());
            copy_bits<T>(w.values(), weight_view<T>(*values));
        }
        if (!values) {
            return values.error();
        }
        if (!model_->decompose) {
            return weight_editor<T>::open(w.name, *std::move(values));
        }
        auto known = model_->decompose(weight, const_weight_view<T>(*values));
        return weight_editor<T>::open(w.name, *std::move(values), std::move(known));
    }

    /// Drops others than `wanted` until all and `more` bytes fit.
    void make_room(std::size_t wanted, std::size_t more = 0) {
        while (true) {
            std::size_t total = more, oldest = open_.size();
            for (std::size_t i = 0; i < open_.size(); ++i) {
                if (open_[i] == nullptr) {
                    continue;
                }
                total += std::max(open_[i]->bytes(), bytes_of(static_cast<index>(i)));  // with what it may come to hold
                if (i != wanted && (oldest == open_.size() || used_[i] < used_[oldest])) {
                    oldest = i;
                }
            }
            if (total <= budget_ || oldest == open_.size()) {
                return;
            }
            closed_factorizations_ += open_[oldest]->factorizations();
            open_[oldest].reset();
        }
    }

    const search_model<T>* model_;
    std::size_t budget_;
    std::vector<std::unique_ptr<weight_editor<T>>> open_;
    std::vector<std::uint64_t> used_;
    std::uint64_t clock_ = 0;
    index closed_factorizations_ = 0;  ///< Of editors that were dropped.
};

/// The edits of one candidate at a time, written to the weights or handed to the engine. They are taken back when the
/// scope ends, however it ends.
template <storage T>
class edits_in_place {
public:
    edits_in_place(const search_model<T>& model, editor_cache<T>& editors) : model_(&model), editors_(&editors) {}
    ~edits_in_place() { keep_first(0); }
    edits_in_place(const edits_in_place&) = delete;
    edits_in_place& operator=(const edits_in_place&) = delete;

    /// Puts the candidate's edits in place and no others, and fills in their sizes. Edits that it shares with what is
    /// in place, from the first on, are not written again. An edit that cannot be written is said in `c.why`; then no
    /// more edits than those before it are in place.
    /// \pre    a weight is edited once at most
    /// \return What factorizing a weight says.
    [[nodiscard]] status put(search_candidate& c) {
        std::size_t same = 0;
        while (same < std::min(in_place_.size(), c.edits.size()) && in_place_[same].weight == c.edits[same].weight &&
               in_place_[same].what == c.edits[same].what) {
            ++same;
        }
        keep_first(same);
        for (std::size_t i = same; i < c.edits.size(); ++i) {
            const auto editor = editors_->get(c.edits[i].weight);  // the weight is not edited here
            if (!editor) {
                return editor.error();
            }
            const auto size = write(c.edits[i], **editor);
            if (!size) {
                c.why = size.error();
                keep_first(i);
                return {};
            }
            in_place_.back().size = *size;
        }
        for (std::size_t i = 0; i < c.edits.size(); ++i) {
            c.edits[i].size = in_place_[i].size;
        }
        return {};
    }

private:
    struct placed {
        index weight = 0;
        edit what = {};
        row_matrix<T> before = {};  ///< The bits of a weight that was written to.
        edit_size size = {};
    };

    [[nodiscard]] result<edit_size> write(const candidate_edit& e, weight_editor<T>& editor) {
        in_place_.push_back({.weight = e.weight, .what = e.what});
        if (model_->override_weight) {
            const auto made = editor.as_override(e.what);
            if (!made) {
                return made.error();
            }
            model_->override_weight(e.weight, &made->first);
            return made->second;
        }
        in_place_.back().before = editor.original();
        return editor.write(e.what, model_->weights[static_cast<std::size_t>(e.weight)].weight);
    }

    /// Takes back all edits but the first `count`.
    void keep_first(std::size_t count) {
        for (; in_place_.size() > count; in_place_.pop_back()) {
            const placed& last = in_place_.back();
            if (model_->override_weight) {
                model_->override_weight(last.weight, nullptr);
            } else if (last.before.size() > 0) {
                copy_bits<T>(const_weight_view<T>(last.before),
                             model_->weights[static_cast<std::size_t>(last.weight)].weight);
            }
        }
    }

    const search_model<T>* model_;
    editor_cache<T>* editors_;
    std::vector<placed> in_place_ = {};
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_HPP
