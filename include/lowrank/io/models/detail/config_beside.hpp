// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_DETAIL_CONFIG_BESIDE_HPP
#define LOWRANK_IO_MODELS_DETAIL_CONFIG_BESIDE_HPP

/// \file
/// config.json in the folder of a checkpoint.
///
///     const auto objects = detail::config_beside(base);        // the document, then its text_config

#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/mapped_file.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The document and, of a model with other towers beside, its `text_config`. Empty where there is no such file.
/// \return `invalid_format` for broken JSON, naming the file.
LOWRANK_INLINE [[nodiscard]] result<std::vector<json>> config_beside(const checkpoint& base) {
    std::vector<json> out;
    if (base.shards().empty()) {
        return out;
    }
    const auto path = base.shards().front().path.parent_path() / "config.json";
    const auto file = mapped_file::open(path, {.map = false});
    if (!file) {
        return out;
    }
    auto document = read_json(file->bytes());
    if (!document) {
        return in_file(path, document.error());
    }
    if (document->is_object()) {
        const auto text_config = document->find("text_config");
        const json inner = text_config != document->end() ? *text_config : json();
        out.push_back(std::move(*document));
        if (inner.is_object()) {
            out.push_back(inner);
        }
    }
    return out;
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MODELS_DETAIL_CONFIG_BESIDE_HPP
