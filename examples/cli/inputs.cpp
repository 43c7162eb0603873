// SPDX-License-Identifier: MIT
#include "inputs.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <limits>
#include <system_error>

#include <nlohmann/json.hpp>

#include <lowrank/io/containers/mapped_file.hpp>

#include "console.hpp"

namespace tool {
namespace fs = std::filesystem;

std::string read_text(const fs::path& file) {
    const auto mapped = take(lowrank::mapped_file::open(file, {.map = false}));
    const auto bytes = mapped.bytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

namespace {

std::vector<int> parse_json_list(const nlohmann::json& list, const std::string& name) {
    std::vector<int> ids;
    ids.reserve(list.size());
    for (const auto& x : list) {
        if (!x.is_number_integer() || x < 0 || x > std::numeric_limits<int>::max()) {
            fail(name + ": entry " + std::to_string(ids.size()) + " of a list is not a token id");
        }
        ids.push_back(x.get<int>());
    }
    return ids;
}

std::vector<int> parse_plain_list(const std::string& text, const std::string& name) {
    std::vector<int> ids;
    const char* at = text.data();
    const char* const end = at + text.size();
    const auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0 || c == ','; };
    for (;;) {
        at = std::find_if_not(at, end, space);
        if (at == end) {
            return ids;
        }
        int id = 0;
        const auto [after, error] = std::from_chars(at, end, id);
        if (error != std::errc() || id < 0 || (after != end && !space(*after))) {
            const auto stop = std::find_if(at, std::min(end, at + 24), space);
            fail(name + ": " + in_quotes({at, static_cast<std::size_t>(stop - at)}) + " is not a token id");
        }
        ids.push_back(id);
        at = after;
    }
}

}  // namespace

token_lists parse_ids(const std::string& text, const std::string& name) {
    token_lists out;
    const auto first = std::find_if_not(text.begin(), text.end(),
                                        [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; });
    if (first == text.end() || *first != '[') {
        out.lists.push_back(parse_plain_list(text, name));
    } else {
        const auto json_lists = nlohmann::json::parse(text, nullptr, false);
        if (!json_lists.is_array()) {
            fail(name + ": not a JSON list of token ids");
        }
        out.documents = !json_lists.empty() && json_lists.front().is_array();
        if (out.documents) {
            for (const auto& list : json_lists) {
                if (!list.is_array()) {
                    fail(name + ": lists and numbers are mixed, expected a list of token ids for each document");
                }
                out.lists.push_back(parse_json_list(list, name));
            }
        } else {
            out.lists.push_back(parse_json_list(json_lists, name));
        }
    }
    if (std::all_of(out.lists.begin(), out.lists.end(), [](const auto& list) { return list.empty(); })) {
        fail(name + " holds no tokens");
    }
    return out;
}

llama::tokenizer load_tokenizer(const fs::path& chosen, const fs::path& model, const llama::config& config) {
    fs::path file = chosen;
    if (file.empty()) {
        std::error_code error;
        if (fs::exists(model / "tokenizer.bin", error)) {
            file = model / "tokenizer.bin";
        } else {
            std::vector<fs::path> found;
            for (fs::directory_iterator it(model, error), end; !error && it != end; it.increment(error)) {
                if (glob_match("tok*.bin", it->path().filename().string())) {
                    found.push_back(it->path());
                }
            }
            std::sort(found.begin(), found.end());
            if (found.empty()) {
                fail("no tokenizer.bin or tok*.bin in " + model.string() +
                         ", name a llama2.c tokenizer with --tokenizer or bring token ids with --ids",
                     lowrank::errc::not_found);
            }
            file = found.front();
        }
    }
    auto tokenizer = llama::read_tokenizer(file);
    if (!tokenizer) {
        const std::string& why = tokenizer.error().message;
        fail(why.find(file.string()) == std::string::npos ? file.string() + ": " + why : why, tokenizer.error().code);
    }
    if (tokenizer->size() > config.vocab_size) {
        fail("the tokenizer " + file.string() + " has " + std::to_string(tokenizer->size()) +
                 " tokens but the model only " + std::to_string(config.vocab_size) + ", so it belongs to another model",
             lowrank::errc::mismatch);
    }
    return std::move(*tokenizer);
}

std::string cut_range(const std::string& text, const std::string& range) {
    if (range.empty()) {
        return text;
    }
    const auto colon = range.find(':');
    const auto number = [&](std::string_view part, std::size_t otherwise) {
        std::size_t value = otherwise;
        const auto [after, error] = std::from_chars(part.data(), part.data() + part.size(), value);
        if (!part.empty() && (error != std::errc() || after != part.data() + part.size())) {
            throw usage_error("--range " + range + ": expected BEGIN:END, two byte positions");
        }
        return value;
    };
    if (colon == std::string::npos) {
        throw usage_error("--range " + range + ": expected BEGIN:END, two byte positions");
    }
    const std::string_view view(range);
    std::size_t begin = std::min(number(view.substr(0, colon), 0), text.size());
    std::size_t end = std::min(number(view.substr(colon + 1), text.size()), text.size());
    const auto inside_character = [&](std::size_t at) {
        return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0U) == 0x80U;
    };
    while (inside_character(begin)) {
        ++begin;
    }
    while (inside_character(end)) {
        ++end;
    }
    if (begin >= end) {
        fail("--range " + range + " selects nothing from a text of " + std::to_string(text.size()) + " bytes");
    }
    return text.substr(begin, end - begin);
}

llama::batch load_batch(const text_options& options, const fs::path& model, const llama::config& config) {
    token_lists tokens;
    const fs::path& source = options.ids.empty() ? options.text : options.ids;
    if (!options.ids.empty()) {
        tokens = parse_ids(read_text(options.ids), options.ids.string());
    } else if (!options.text.empty()) {
        const auto tokenizer = load_tokenizer(options.tokenizer, model, config);
        tokens.lists.push_back(tokenizer.encode(cut_range(read_text(options.text), options.range)));
        if (tokens.lists.front().empty()) {
            fail(options.text.string() + " holds no text");
        }
    } else {
        throw usage_error("say what to read: --ids FILE or --text FILE");
    }
    llama::batch batch;
    if (tokens.documents) {
        const auto longest = static_cast<std::size_t>(std::max<lowrank::index>(1, config.max_position_embeddings - 1));
        for (const auto& list : tokens.lists) {
            batch.append_next_token(std::span(list).first(std::min(list.size(), longest)), config.bos_token_id);
        }
    } else {
        const auto length = options.window > 0 ? static_cast<lowrank::index>(options.window)
                                               : std::min<lowrank::index>(256, config.max_position_embeddings);
        batch = llama::windows(tokens.lists.front(), length, config.bos_token_id);
    }
    if (const auto why = llama::check(batch, config); !why) {
        fail(source.string() + ": " + why.message, why.code);
    }
    return batch;
}

}  // namespace tool
