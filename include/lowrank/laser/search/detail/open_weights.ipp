// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_IPP
#define LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_IPP

#include <lowrank/laser/search/detail/open_weights.hpp>

#include <algorithm>
#include <string>
#include <utility>

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

template <storage T>
std::uint64_t search_fingerprint(std::span<const named_weight<T>> weights) {
    std::uint64_t hash = 0;
    for (const auto& w : weights) {
        hash = mix_weight<T>(hash, w.name, w.values());
    }
    return hash;
}

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

template <storage T>
result<weight_editor<T>*> editor_cache<T>::get(index weight) {
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

template <storage T>
index editor_cache<T>::factorizations() const noexcept {
    index sum = closed_factorizations_;
    for (const auto& editor : open_) {
        sum += editor != nullptr ? editor->factorizations() : 0;
    }
    return sum;
}

template <storage T>
std::size_t editor_cache<T>::bytes_of(index weight) const {
    const auto& w = model_->weights[static_cast<std::size_t>(weight)].weight;
    const index r = std::min(w.rows(), w.cols());
    return static_cast<std::size_t>((w.rows() + w.cols() + 1) * r) * sizeof(compute_t<T>) +
           static_cast<std::size_t>(w.size()) * sizeof(T);
}

template <storage T>
result<weight_editor<T>> editor_cache<T>::open(index weight) const {
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

template <storage T>
void editor_cache<T>::make_room(std::size_t wanted, std::size_t more) {
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

template <storage T>
status edits_in_place<T>::put(search_candidate& c) {
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

template <storage T>
result<edit_size> edits_in_place<T>::write(const candidate_edit& e, weight_editor<T>& editor) {
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

template <storage T>
void edits_in_place<T>::keep_first(std::size_t count) {
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

#ifdef LOWRANK_COMPILED
#define LOWRANK_OPEN_WEIGHTS_OF(T)                                               \
    template class editor_cache<T>;                                              \
    template class edits_in_place<T>;                                            \
    template std::uint64_t search_fingerprint(std::span<const named_weight<T>>); \
    template result<std::uint64_t> search_fingerprint(const search_model<T>&);
LOWRANK_OPEN_WEIGHTS_OF(float)
LOWRANK_OPEN_WEIGHTS_OF(double)
LOWRANK_OPEN_WEIGHTS_OF(half)
LOWRANK_OPEN_WEIGHTS_OF(bfloat16)
#undef LOWRANK_OPEN_WEIGHTS_OF
#endif

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_IPP
