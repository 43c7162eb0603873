// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_HPP
#define LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_HPP

/// \file
/// Weights while a search works on them: opened, edited, and as they were when a scope ends.
///
///     detail::editor_cache<float> open(model.weights, factor_bytes, model.read);
///     detail::place_guard<float> placed(model);                // or bits_guard, restore_guard for weights in memory
///     auto size = placed.put(weight, **open.get(weight), edit);

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
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

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Gives a weight its bits back when the scope ends, however it ends.
template <storage T>
class bits_guard {
public:
    explicit bits_guard(weight_view<T> w) : weight_(w), before_(w.rows(), w.cols()) {
        copy_bits<T>(const_weight_view<T>(w.data(), w.rows(), w.cols(), w.outerStride()), weight_view<T>(before_));
    }
    ~bits_guard() { restore(); }
    bits_guard(const bits_guard&) = delete;
    bits_guard& operator=(const bits_guard&) = delete;

    void restore() { copy_bits<T>(const_weight_view<T>(before_), weight_); }

private:
    weight_view<T> weight_;
    row_matrix<T> before_;
};

/// The same from bits that somebody else keeps.
template <storage T>
class restore_guard {
public:
    restore_guard(weight_view<T> w, const weight_editor<T>& editor) : weight_(w), editor_(&editor) {}
    ~restore_guard() { copy_bits<T>(editor_->original(), weight_); }
    restore_guard(const restore_guard&) = delete;
    restore_guard& operator=(const restore_guard&) = delete;

private:
    weight_view<T> weight_;
    const weight_editor<T>* editor_;
};

/// Edits in place in a model that is not written to; they go when the scope ends.
template <storage T>
class place_guard {
public:
    explicit place_guard(const search_model<T>& model) : model_(&model) {}
    ~place_guard() { restore(); }
    place_guard(const place_guard&) = delete;
    place_guard& operator=(const place_guard&) = delete;

    [[nodiscard]] result<edit_size> put(index weight, weight_editor<T>& editor, const edit& e) {
        const auto made = editor.place(e);
        if (!made) {
            return made.error();
        }
        put(weight, made->first);
        return made->second;
    }
    void put(index weight, const placed_edit<compute_t<T>>& edit) {
        placed_.push_back(weight);
        model_->override_weight(weight, &edit);
    }
    void restore() {
        for (const index weight : placed_) {
            model_->override_weight(weight, nullptr);
        }
        placed_.clear();
    }

private:
    const search_model<T>* model_;
    std::vector<index> placed_ = {};
};

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

/// A weight's own values, from the engine if it keeps them elsewhere.
template <storage T>
using weight_reader = std::function<result<row_matrix<T>>(index)>;

/// Opened weights, the least recently used ones closed when they do not fit.
template <storage T>
class editor_cache {
public:
    editor_cache(std::span<const named_weight<T>> weights, std::size_t budget, weight_reader<T> read = {})
        : weights_(weights), budget_(budget), read_(std::move(read)), open_(weights.size()), used_(weights.size(), 0) {}

    /// \pre the weight has its own bits at this time. The pointer is good until the next call.
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
            ++factorizations_;
        }
        make_room(w);
        return open_[w].get();
    }

    [[nodiscard]] index factorizations() const noexcept { return factorizations_; }
    /// About what an opened weight of this shape holds.
    [[nodiscard]] std::size_t bytes_of(index weight) const {
        const auto& w = weights_[static_cast<std::size_t>(weight)].weight;
        const index r = std::min(w.rows(), w.cols());
        return static_cast<std::size_t>((w.rows() + w.cols() + 1) * r) * sizeof(compute_t<T>) +
               static_cast<std::size_t>(w.size()) * sizeof(T);
    }

private:
    [[nodiscard]] result<weight_editor<T>> open(index weight) const {
        const auto& w = weights_[static_cast<std::size_t>(weight)];
        if (!read_) {
            return weight_editor<T>::open(w);
        }
        auto values = read_(weight);
        if (!values) {
            return values.error();
        }
        return weight_editor<T>::open(w.name, *std::move(values));
    }

    /// Closes others than `wanted` until all and `more` bytes fit.
    void make_room(std::size_t wanted, std::size_t more = 0) {
        while (true) {
            std::size_t total = more, oldest = open_.size();
            for (std::size_t i = 0; i < open_.size(); ++i) {
                if (open_[i] == nullptr) {
                    continue;
                }
                total += open_[i]->bytes();
                if (i != wanted && (oldest == open_.size() || used_[i] < used_[oldest])) {
                    oldest = i;
                }
            }
            if (total <= budget_ || oldest == open_.size()) {
                return;
            }
            open_[oldest].reset();
        }
    }

    std::span<const named_weight<T>> weights_;
    std::size_t budget_;
    weight_reader<T> read_;
    std::vector<std::unique_ptr<weight_editor<T>>> open_;
    std::vector<std::uint64_t> used_;
    std::uint64_t clock_ = 0;
    index factorizations_ = 0;
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_HPP
