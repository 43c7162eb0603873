// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_GOLDEN_LAYER_HPP
#define LOWRANK_TESTS_GOLDEN_LAYER_HPP

/// \file
/// A layer of a golden case as a weight out x in and columns it multiplies, whatever kind of layer it is.
///
///     layer<S> l(c, "l0");
///     matrix<S> y = apply(l.base(), l.x());          // patches for a convolution
///     l.put_output(out, y);  l.put_input_gradient(out, dx);  l.put_weight(out, "merged.l0.weight", w);

#include <string>
#include <vector>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/layers/conv.hpp>

#include "golden_case.hpp"

namespace lowrank_tests {

inline const std::string peft_prefix = "base_model.model.";

/// A tensor of the layer: of the active adapter that replaces it (modules_to_save, trained biases), else the base's.
inline const tensor* layer_tensor(const golden_case& c, const std::string& name, const std::string& key) {
    const tensor* found = nullptr;
    if (const auto base = c.base.find(name + "." + key); base != c.base.end()) {
        found = &base->second;
    }
    for (const auto& active : c.info.value("active", json::array())) {
        const auto adapter = c.adapters.find(active);
        if (adapter == c.adapters.end()) {
            continue;
        }
        for (const std::string& spelling :
             {peft_prefix + name + "." + key, peft_prefix + name + ".base_layer." + key}) {
            if (const auto own = adapter->second.weights.find(spelling); own != adapter->second.weights.end()) {
                found = &own->second;
            }
        }
    }
    return found;
}

template <class S>
class layer {
public:
    layer(const golden_case& c, const std::string& name) : name_(name), info_(c.info.at("layers").at(name)) {
        type_ = info_.at("type");
        transposed_ = type_ == "Conv1D" || info_.value("fan_in_fan_out", false);
        const tensor& w = *layer_tensor(c, name, "weight");
        weight_ = transposed_ || type_ == "Embedding" ? lowrank::row_matrix<S>(w.template weight<S>().transpose())
                                                      : w.template weight<S>();
        if (const auto* b = layer_tensor(c, name, "bias")) {
            bias_ = b->template vector<S>();
        } else {
            bias_ = lowrank::vector<S>::Zero(weight_.rows());
        }
        if (is_conv()) {
            const auto pair = [&](const char* key, index fallback) {
                const json value = info_.value(key, json(fallback));
                return value.is_array() ? lowrank::extent3{fallback, value.at(0), value.at(1)}
                                        : lowrank::extent3{fallback, value, value};
            };
            geometry_ = {.kernel = pair("kernel_size", 1),
                         .stride = pair("stride", 1),
                         .padding = pair("padding", 0),
                         .dilation = pair("dilation", 1)};
            geometry_.padding[0] = 0;
            groups_ = info_.value("groups", 1);
        }
        read(c.inputs, "x." + name, "g." + name);
    }

    [[nodiscard]] bool is_conv() const { return type_ == "Conv2d"; }
    [[nodiscard]] bool is_embedding() const { return type_ == "Embedding"; }
    /// The weight is stored in x out.
    [[nodiscard]] bool is_transposed() const { return transposed_; }
    [[nodiscard]] const json& info() const { return info_; }
    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] index groups() const { return groups_; }
    /// Columns of the weight per input channel: more than one for a convolution.
    [[nodiscard]] index taps() const { return is_conv() ? geometry_.kernel_size() : 1; }

    /// Of an embedding; -1 without.
    [[nodiscard]] index padding_index() const {
        const json value = info_.value("padding_idx", json());
        return value.is_null() ? -1 : value.get<index>();
    }

    /// out x in, patches as inputs; for a grouped convolution out x in / groups.
    [[nodiscard]] const lowrank::row_matrix<S>& weight() const { return weight_; }
    void set_weight(const lowrank::row_matrix<S>& w) { weight_ = w; }
    [[nodiscard]] const lowrank::vector<S>& bias() const { return bias_; }
    [[nodiscard]] bool has_bias() const { return info_.value("bias", false); }
    [[nodiscard]] lowrank::any_operator<S> base() const { return lowrank::grouped_operator<S>(weight_, groups_); }

    [[nodiscard]] const lowrank::matrix<S>& x() const { return x_; }
    [[nodiscard]] bool has_gradient() const { return dy_.size() > 0; }
    [[nodiscard]] const lowrank::matrix<S>& dy() const { return dy_; }
    [[nodiscard]] const std::vector<std::int64_t>& ids() const { return ids_; }
    /// Which row of the batch a column belongs to.
    [[nodiscard]] index row_of_column(index column) const { return column * batch_ / columns_; }

    void put_output(computed<S>& out, const lowrank::matrix<S>& y) const { put_columns(out, "y." + name_, y); }
    void put_columns(computed<S>& out, const std::string& name, const lowrank::matrix<S>& y) const {
        if (!is_conv()) {
            out.put_columns(name, y);
            return;
        }
        const index positions = columns_ / batch_;
        std::vector<double> values;
        for (index b = 0; b < batch_; ++b) {
            for (index o = 0; o < y.rows(); ++o) {
                for (index p = 0; p < positions; ++p) {
                    values.push_back(static_cast<double>(y(o, b * positions + p)));
                }
            }
        }
        out.put_values(name, std::move(values));
    }
    /// `dx` is the gradient of x(): of patches for a convolution.
    void put_input_gradient(computed<S>& out, const lowrank::matrix<S>& dx) const {
        if (!is_conv()) {
            out.put_columns("grad.x." + name_, dx);
            return;
        }
        const index positions = columns_ / batch_;
        const index channels = dx.rows() / geometry_.kernel_size();
        std::vector<double> values;
        for (index b = 0; b < batch_; ++b) {
            lowrank::matrix<S> image = lowrank::matrix<S>::Zero(size_[0] * size_[1] * size_[2], channels);
            lowrank::add_folded<S>(geometry_, dx.middleCols(b * positions, positions), size_, image);
            values.insert(values.end(), image.data(), image.data() + image.size());
        }
        out.put_values("grad.x." + name_, std::move(values));
    }
    /// `w` is out x in; it goes out in the layer's own storage.
    void put_weight(computed<S>& out, const std::string& name, const lowrank::row_matrix<S>& w) const {
        if (transposed_ || is_embedding()) {
            out.put(name, lowrank::row_matrix<S>(w.transpose()));
        } else {
            out.put(name, w);
        }
    }

private:
    void read(const tensors& inputs, const std::string& x_name, const std::string& g_name) {
        const auto x = inputs.find(x_name);
        if (x == inputs.end()) {
            return;
        }
        const tensor& t = x->second;
        batch_ = t.dim(0);
        if (is_embedding()) {
            ids_.assign(t.values.begin(), t.values.end());
            columns_ = static_cast<index>(ids_.size());
        } else if (!is_conv()) {
            x_ = t.template columns<S>();
            columns_ = x_.cols();
        } else {
            const index channels = t.dim(1);
            size_ = {1, t.dim(2), t.dim(3)};
            const auto out = geometry_.output_size(size_);
            const index positions = out[0] * out[1] * out[2];
            columns_ = batch_ * positions;
            x_.resize(channels * geometry_.kernel_size(), columns_);
            const lowrank::row_matrix<S> images = t.template rows_of<S>(batch_ * channels);
            for (index b = 0; b < batch_; ++b) {
                const lowrank::matrix<S> image = images.middleRows(b * channels, channels).transpose();
                lowrank::unfold<S>(geometry_, image, size_, x_.middleCols(b * positions, positions));
            }
        }
        const auto g = inputs.find(g_name);
        if (g == inputs.end()) {
            return;
        }
        if (!is_conv()) {
            dy_ = g->second.template columns<S>();
            return;
        }
        const index outs = g->second.dim(1);
        const index positions = columns_ / batch_;
        dy_.resize(outs, columns_);
        const lowrank::row_matrix<S> planes = g->second.template rows_of<S>(batch_ * outs);
        for (index b = 0; b < batch_; ++b) {
            dy_.middleCols(b * positions, positions) = planes.middleRows(b * outs, outs);
        }
    }

    std::string name_;
    json info_;
    std::string type_;
    bool transposed_ = false;
    lowrank::row_matrix<S> weight_;
    lowrank::vector<S> bias_;
    lowrank::conv_geometry geometry_;
    lowrank::extent3 size_ = {1, 1, 1};
    index groups_ = 1;
    index batch_ = 1;
    index columns_ = 0;
    lowrank::matrix<S> x_;
    lowrank::matrix<S> dy_;
    std::vector<std::int64_t> ids_;
};

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_GOLDEN_LAYER_HPP
