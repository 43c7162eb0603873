// SPDX-License-Identifier: MIT
#ifndef LLAMA_MAPPED_HPP
#define LLAMA_MAPPED_HPP

/// \file
/// A model that leaves its weights in the file: layers are read where they lie and let go of after use.
///
///     auto big = llama::mapped_model<float>::open("Llama-3-8B");       // reads every weight once, keeps none
///     if (!big) return report(big.error().message);
///     llama::searchable<float> engine(*big, batch, {.cache_bytes = std::size_t{1} << 30});
///     auto found = lowrank::gradient_search(engine.hooks(), options);
///
/// Every projection multiplies from the memory map, bfloat16 and half widened piece by piece inside the product, so that
/// what is held are norms, biases, and the factors of edits in place. The weights themselves cannot be written to.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <lowrank/core/finite.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/laser/edits/edit.hpp>

#include "batch.hpp"
#include "contract.hpp"
#include "load.hpp"
#include "model.hpp"

namespace llama {

/// A checkpoint as a model in memory of about one layer's weights: pages of a file that the system may take back.
template <real S>
class mapped_model {
public:
    /// \return As `load`.
    /// \cost   One pass over the file, for NaN and infinity.
    [[nodiscard]] static result<mapped_model> open(const std::filesystem::path& folder) {
        auto read_config = load_config(folder);
        if (!read_config) {
            return read_config.error();
        }
        auto file = lowrank::checkpoint::open(folder);
        if (!file) {
            return file.error();
        }
        if (status why = check_tensors(*read_config, *file); !why) {
            return why;
        }
        mapped_model out(zero_model<S>(*read_config, false), *std::move(file));
        status why = out.attach();
        if (!why) {
            return why;
        }
        return out;
    }
    mapped_model(mapped_model&&) noexcept = default;
    mapped_model& operator=(mapped_model&&) noexcept = default;

    /// The model whose projections multiply from the file. Its matrices are 0 x 0; do not call `embed` with it.
    [[nodiscard]] model<S>& net() noexcept { return net_; }
    [[nodiscard]] const model<S>& net() const noexcept { return net_; }

    /// Rows of the embedding matrix as columns: the input of layer 0, hidden x n.
    [[nodiscard]] matrix<S> embed(const batch& b) const {
        matrix<S> x(net_.shape.hidden_size, b.size());
        const auto [info, bytes] = tensor(embeddings);
        const std::size_t row = bytes.size() / static_cast<std::size_t>(net_.shape.vocab_size);
        for (index i = 0; i < b.size(); ++i) {
            const auto at = static_cast<std::size_t>(b.tokens[static_cast<std::size_t>(i)]) * row;
            lowrank::convert_elements<S>(info->type, bytes.subspan(at, row),
                                         {x.data() + i * x.outerStride(), static_cast<std::size_t>(x.rows())});
        }
        release(embeddings);
        return x;
    }

    /// A copy of a projection's own weight.
    [[nodiscard]] result<row_matrix<S>> read(const std::string& projection_name) const {
        auto values = file_.template matrix<S>(projection_name + ".weight");
        release(projection_name + ".weight");
        return values;
    }

    /// From now on the projection multiplies as this says; null: from the file again.
    void override_weight(const std::string& projection_name, const lowrank::weight_override<S>* edit) {
        projection<S>* p = find_projection(net_, projection_name);
        expects(p != nullptr, "mapped_model::override_weight: there is no projection of that name");
        const auto& own = own_.at(projection_name);
        if (edit == nullptr) {
            p->base = own;
        } else if (edit->additive) {
            p->base = lowrank::any_operator<S>(lowrank::operator_sum<S>({{.map = own}, {.map = edit->map}}));
        } else {
            p->base = edit->map;
        }
    }

    /// Lets the system take back the pages of a layer, or of the head: `number` = layers.
    void release_layer(index number) const {
        const auto layers = static_cast<index>(net_.layers.size());
        if (number == layers) {
            release(net_.shape.tie_word_embeddings ? embeddings : "lm_head.weight");
            return;
        }
        const auto& l = net_.layers[static_cast<std::size_t>(number)];
        for (const auto* p : {&l.q_proj, &l.k_proj, &l.v_proj, &l.o_proj, &l.gate_proj, &l.up_proj, &l.down_proj}) {
            release(p->name + ".weight");
        }
    }

private:
    static constexpr const char* embeddings = "model.embed_tokens.weight";

    mapped_model(model<S> net, lowrank::checkpoint file) : net_(std::move(net)), file_(std::move(file)) {
        for (std::size_t i = 0; i < file_.tensors().size(); ++i) {
            places_.emplace(file_.tensors()[i].info->name, i);
        }
    }

    [[nodiscard]] std::pair<const lowrank::tensor_info*, std::span<const std::byte>> tensor(
        const std::string& name) const {
        const auto& place = file_.tensors()[places_.at(name)];
        return {place.info, file_.bytes(place)};
    }
    void release(const std::string& name) const {
        const auto& place = file_.tensors()[places_.at(name)];
        file_.shards()[place.shard].file.release(*place.info);
    }

    /// The tensor as a map on the file's memory; one that cannot be viewed in place is converted and kept.
    template <lowrank::storage T>
    [[nodiscard]] std::optional<lowrank::any_operator<S>> view_as(const std::string& name) const {
        if constexpr (std::same_as<lowrank::compute_t<T>, S>) {
            if (const auto view = file_.template view<T>(name)) {
                return lowrank::any_operator<S>(lowrank::dense_operator<T>(*view));
            }
        }
        return std::nullopt;
    }
    [[nodiscard]] result<lowrank::any_operator<S>> map_of_tensor(const std::string& name) const {
        for (const auto& view : {view_as<S>(name), view_as<lowrank::bfloat16>(name), view_as<lowrank::half>(name)}) {
            if (view) {
                return *view;
            }
        }
        auto values = file_.template matrix<S>(name);
        if (!values) {
            return values.error();
        }
        return lowrank::any_operator<S>(lowrank::owned_operator<S>(*std::move(values)));
    }

    [[nodiscard]] status attach() {
        // Every value is looked at once, in pieces of a megabyte; nothing of it stays.
        constexpr std::size_t piece = std::size_t{1} << 18;
        vector<S> some(static_cast<index>(piece));
        status broken = {};
        for_each_tensor_shape(net_.shape, [&](const std::string& name, index, index) {
            const auto [info, bytes] = tensor(name);
            if (!lowrank::is_real(info->type)) {
                broken = {errc::unsupported, "the weight " + name + " has dtype " +
                                                 std::string(lowrank::name_of(info->type)) +
                                                 "; only F64, F32, F16 and BF16 hold weights"};
                return false;
            }
            const std::size_t size = lowrank::bits_of(info->type) / 8;
            for (std::size_t at = 0; broken && at < bytes.size(); at += piece * size) {
                const std::size_t count = std::min(piece, (bytes.size() - at) / size);
                lowrank::convert_elements<S>(info->type, bytes.subspan(at, count * size), {some.data(), count});
                if (!lowrank::all_finite(some.data(), static_cast<index>(count))) {
                    broken = {errc::non_finite, "the weight " + name + " contains NaN or infinity"};
                }
            }
            release(name);
            return static_cast<bool>(broken);
        });
        if (!broken) {
            return broken;
        }
        status why = {};
        for_each_weight(net_, [&](const std::string& name, weight_view<S> w) {
            if (why && w.size() > 0) {
                auto values = file_.template matrix<S>(name);
                why = values ? status{} : values.error();
                if (why) {
                    w = *values;
                }
            }
        });
        const auto take = [&](projection<S>& p, const std::string& name) {
            auto map = why ? map_of_tensor(name) : result<lowrank::any_operator<S>>(why);
            why = map ? status{} : map.error();
            if (why) {
                p.base = *map;
                own_.emplace(p.name, *std::move(map));
            }
        };
        for_each_projection(net_, [&](projection<S>& p) { take(p, p.name + ".weight"); });
        if (net_.shape.tie_word_embeddings) {
            take(net_.lm_head, embeddings);
        }
        return why;
    }

    model<S> net_;
    lowrank::checkpoint file_;
    std::map<std::string, std::size_t, std::less<>> places_ = {};
    std::map<std::string, lowrank::any_operator<S>> own_ = {};  ///< Each projection on the file.
};

}  // namespace llama

#endif  // LLAMA_MAPPED_HPP
