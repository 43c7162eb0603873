// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_GOLDEN_GOLDEN_CASE_HPP
#define LOWRANK_TESTS_GOLDEN_GOLDEN_CASE_HPP

/// \file
/// One golden case as read from its folder, what a computation makes of it, and the families that can compute one.
///
///     template <class S> void run(const golden_case& c, computed<S>& out) { out.put("y.l0", y); }
///     const register_family lora("lora", run<float>, run<double>);
///
/// Nothing here knows a particular case: shapes, names and seeds come from its files.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <regex>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/safetensors.hpp>

namespace lowrank_tests {

using lowrank::index;
using nlohmann::json;

/// A tensor of any shape, row major. Every stored type that occurs is exact in double.
struct tensor {
    std::vector<index> shape = {};
    std::vector<double> values = {};

    [[nodiscard]] index dim(std::size_t i) const { return shape.at(i); }
    [[nodiscard]] index size() const { return static_cast<index>(values.size()); }

    /// As a matrix of `rows` rows, in row-major order.
    template <class S>
    [[nodiscard]] lowrank::row_matrix<S> rows_of(index rows) const {
        const index cols = rows == 0 ? 0 : size() / rows;
        lowrank::row_matrix<S> m(rows, cols);
        for (index i = 0; i < m.size(); ++i) {
            m.data()[i] = static_cast<S>(values[static_cast<std::size_t>(i)]);
        }
        return m;
    }
    /// First dimension x all others: a weight.
    template <class S>
    [[nodiscard]] lowrank::row_matrix<S> weight() const {
        return rows_of<S>(shape.empty() ? 1 : shape[0]);
    }
    template <class S>
    [[nodiscard]] lowrank::vector<S> vector() const {
        return size() == 0 ? lowrank::vector<S>() : lowrank::vector<S>(rows_of<S>(size()));
    }
    /// Activations: last dimension x all others, one column per sample.
    template <class S>
    [[nodiscard]] lowrank::matrix<S> columns() const {
        const index rows = shape.empty() ? 1 : shape.back();
        return rows_of<S>(rows == 0 ? 0 : size() / rows).transpose();
    }
};

inline tensor read_tensor(const lowrank::safetensors_file& file, const std::string& name) {
    const auto* info = file.find(name);
    if (info == nullptr) {
        throw std::runtime_error("no tensor " + name);
    }
    tensor t;
    std::size_t count = 1;
    for (const auto extent : info->shape) {
        t.shape.push_back(static_cast<index>(extent));
        count *= static_cast<std::size_t>(extent);
    }
    t.values.resize(count);
    const auto bytes = file.bytes(*info);
    const auto read_integers = [&]<class I>(I value) {
        for (std::size_t i = 0; i < count; ++i) {
            std::memcpy(&value, bytes.data() + sizeof value * i, sizeof value);
            t.values[i] = static_cast<double>(value);
        }
    };
    if (info->type == lowrank::dtype::i64) {
        read_integers(std::int64_t{});
    } else if (info->type == lowrank::dtype::i32) {
        read_integers(std::int32_t{});
    } else if (info->type == lowrank::dtype::u8) {
        for (std::size_t i = 0; i < count; ++i) {
            t.values[i] = static_cast<double>(std::to_integer<unsigned>(bytes[i]));
        }
    } else {
        lowrank::convert_elements<double>(info->type, bytes, t.values);
    }
    return t;
}

/// The tensors of one file by name; empty if the case has no such file.
using tensors = std::map<std::string, tensor>;

inline tensors read_tensors(const std::filesystem::path& path) {
    tensors all;
    if (!std::filesystem::exists(path)) {
        return all;
    }
    const auto file = lowrank::safetensors_file::open(path).value();
    for (const auto& t : file.tensors()) {
        all[t.name] = read_tensor(file, t.name);
    }
    return all;
}

struct golden_adapter {
    json config = {};
    tensors weights = {};
};

struct golden_case {
    std::filesystem::path folder = {};
    std::string id = {};
    json info = {};
    tensors base = {};
    tensors inputs = {};
    tensors expected = {};
    tensors lora = {};  ///< loralib's state dictionary
    std::map<std::string, golden_adapter> adapters = {};

    /// Reads a golden_adapter from a folder of the case.
    [[nodiscard]] golden_adapter read_adapter(const std::string& path) const {
        std::ifstream text(folder / path / "adapter_config.json");
        return {.config = json::parse(text), .weights = read_tensors(folder / path / "adapter_model.safetensors")};
    }
};

inline golden_case read_case(const std::filesystem::path& folder) {
    golden_case c{.folder = folder};
    std::ifstream text(folder / "case.json");
    c.info = json::parse(text);
    c.id = c.info.at("id");
    c.base = read_tensors(folder / "base.safetensors");
    c.inputs = read_tensors(folder / "inputs.safetensors");
    c.expected = read_tensors(folder / "expected.safetensors");
    if (c.info.contains("adapter_file") && c.info["adapter_file"].is_string()) {
        c.lora = read_tensors(folder / c.info["adapter_file"].get<std::string>());
    }
    for (const auto& a : c.info.value("adapters", json::array())) {
        if (a.at("path").is_string()) {
            c.adapters[a.at("name")] = c.read_adapter(a.at("path"));
        }
    }
    return c;
}

/// What a run produced, by the names of expected.safetensors.
template <class S>
class computed {
public:
    /// Any dense matrix, in row-major order.
    template <class D>
    void put(const std::string& name, const D& m) {
        auto& out = values_[name];
        out.clear();
        for (index i = 0; i < m.rows(); ++i) {
            for (index j = 0; j < m.cols(); ++j) {
                out.push_back(static_cast<double>(m(i, j)));
            }
        }
    }
    /// Activations, one column per sample: the transpose in row-major order.
    template <class D>
    void put_columns(const std::string& name, const D& m) {
        put(name, lowrank::matrix<S>(m.transpose()));
    }
    void put_values(const std::string& name, std::vector<double> values) { values_[name] = std::move(values); }
    /// Says that a check without a tensor was made; what is wrong goes to `fail`.
    void checked(const std::string& kind) { kinds_.insert(kind); }
    /// Says why a law that no check of the case expresses does not hold.
    void fail(std::string why) { failures_.push_back(std::move(why)); }

    [[nodiscard]] const std::map<std::string, std::vector<double>>& values() const { return values_; }
    [[nodiscard]] bool has_checked(const std::string& kind) const { return kinds_.count(kind) != 0; }
    [[nodiscard]] const std::vector<std::string>& failures() const { return failures_; }

private:
    std::map<std::string, std::vector<double>> values_ = {};
    std::set<std::string> kinds_ = {};
    std::vector<std::string> failures_ = {};
};

struct family {
    void (*run_f32)(const golden_case&, computed<float>&);
    void (*run_f64)(const golden_case&, computed<double>&);
};

inline std::map<std::string, family>& families() {
    static std::map<std::string, family> all;
    return all;
}

struct register_family {
    register_family(const std::string& name, void (*f32)(const golden_case&, computed<float>&),
                    void (*f64)(const golden_case&, computed<double>&)) {
        families()[name] = {f32, f64};
    }
};

/// `rank_pattern` / `alpha_pattern`: the value of the first key k with ^(.*\.)?(k)$ matching the module, else `key`.
inline double pattern_value(const json& config, const std::string& pattern, const std::string& key,
                            const std::string& module) {
    if (config.contains(pattern) && config[pattern].is_object()) {
        for (const auto& [k, value] : config[pattern].items()) {
            if (std::regex_match(module, std::regex("(.*\\.)?(" + k + ")"))) {
                return value.get<double>();
            }
        }
    }
    return config.at(key).get<double>();
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_GOLDEN_GOLDEN_CASE_HPP
