// SPDX-License-Identifier: MIT
// The table "Formats and kinds" of docs/io.md: every cell of it is tried.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/experts.hpp>
#include <lowrank/io/peft/kinds/hira.hpp>
#include <lowrank/io/peft/kinds/list.hpp>
#include <lowrank/io/peft/to_any_adapters.hpp>
#include <lowrank/lora/kinds/list.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "io_support.hpp"
#include "lora/some_adapters.hpp"

#ifndef LOWRANK_DOCS
#define LOWRANK_DOCS "docs"
#endif

namespace {

using namespace lowrank;
using lowrank_tests::adapted_weight;
using lowrank_tests::some_in;
using lowrank_tests::some_out;
using lowrank_tests::temporary_folder;

constexpr const char* projection = "model.layers.0.self_attn.q_proj";
constexpr const char* attention = "down_blocks.0.attn1.to_q";
constexpr const char* table = "model.embed_tokens";
constexpr const char* convolution = "conv";
constexpr const char* owner = "model.layers.0.mlp.experts";
const model_config heads{.num_attention_heads = 2, .num_key_value_heads = 2};

row_matrix<float> base_weight() { return lowrank_tests::random_matrix<float>(some_out, some_in, 3); }

// ---- the page

using cells = std::map<std::string, std::string>;  ///< By column.

std::vector<std::string> split(std::string_view line, char at) {
    std::vector<std::string> out;
    while (true) {
        const std::size_t end = std::min(line.find(at), line.size());
        std::string_view part = line.substr(0, end);
        while (!part.empty() && part.front() == ' ') {
            part.remove_prefix(1);
        }
        while (!part.empty() && part.back() == ' ') {
            part.remove_suffix(1);
        }
        out.emplace_back(part);
        if (end == line.size()) {
            return out;
        }
        line.remove_prefix(end + 1);
    }
}

/// The rows of the table under the heading "Formats and kinds".
std::map<std::string, cells> rows_of_page() {
    const std::string page = lowrank_tests::text_of(std::filesystem::path(LOWRANK_DOCS) / "io.md");
    std::vector<std::string> columns;
    std::map<std::string, cells> rows;
    const std::size_t heading = page.find("\n## Formats and kinds\n");
    REQUIRE(heading != std::string::npos);
    for (const auto& line : split(std::string_view(page).substr(heading + 2), '\n')) {
        if (line.starts_with("## ") && !columns.empty()) {
            break;
        }
        if (!line.starts_with("| ")) {
            continue;
        }
        const auto parts = split(std::string_view(line).substr(1, line.size() - 2), '|');
        if (columns.empty()) {
            columns = parts;
            CHECK(columns == std::vector<std::string>{"", "read", "apply", "train", "merge", "write", "convert"});
            continue;
        }
        REQUIRE_MESSAGE(parts.size() == columns.size(), line);
        CHECK_MESSAGE(!rows.contains(parts[0]), line);
        for (std::size_t i = 1; i < parts.size(); ++i) {
            rows[parts[0]][columns[i]] = parts[i];
        }
    }
    return rows;
}

// ---- what can be tried

/// A kind of the table: modules of it in an adapter, or the adapter of one weight where no file holds such.
struct kind_row {
    std::string name;
    std::string module = projection;
    std::optional<peft_adapter> adapter = std::nullopt;
    std::optional<any_adapter<float>> alone = std::nullopt;
    bool by_hand = false;  ///< `alone` serves what `to_any_adapters` refuses.
};

peft_adapter adapter_of(const std::string& path, peft_module module) {
    peft_adapter out;
    out.modules.emplace(path, std::move(module));
    out.config = peft_config_for(out);
    return out;
}

lora_adapter<float> some_lora(std::uint64_t stream, lowrank::index out = some_out, lowrank::index in = some_in) {
    const auto m = [&](lowrank::index rows, lowrank::index cols, std::uint64_t s) {
        return lowrank_tests::random_matrix<float>(rows, cols, 700 + s, 0.4F);
    };
    return {.lora_A = m(3, in, stream), .lora_B = m(out, 3, stream + 1), .lora_alpha = 5};
}

std::vector<kind_row> kinds_of_table() {
    static const std::map<std::string_view, std::string> names = {
        {"lora", "LoRA"},
        {"adalora", "AdaLoRA"},
        {"vera", "VeRA"},
        {"loha", "LoHa"},
        {"lokr", "LoKr"},
        {"dora", "DoRA"},
        {"ia3", "(IA)^3"},
        {"oft", "OFT"},
        {"boft", "BOFT"},
        {"hra", "HRA"},
        {"miss", "MiSS"},
        {"randlora", "RandLoRA"},
        {"hira", "HiRA"},
        {"miss_bat", "MiSS, \"bat\""},
        {"kasa", "KaSA"},
        {"vblora", "VB-LoRA"},
        {"tinylora", "TinyLoRA"},
        {"gralora", "GraLoRA"},
        {"bdlora", "BD-LoRA"},
        {"qalora", "QA-LoRA"},
        {"alora", "aLoRA"},
        {"table_lora", "LoRA of a table"},
        {"conv_lora", "ConvLoRA of loralib"},
        {"merged_linear", "fused projection of loralib"},
        {"output_rotation", "OFT, BOFT of the outputs (LyCORIS)"},
        {"replacement", "saved module"},
        {"shira", "SHiRA"},
        {"c3a", "C3A"},
        {"road", "RoAd"},
        {"fourierft", "FourierFT"},
        {"delora", "DeLoRA"}};
    std::vector<kind_row> all;
    for (auto& a : lowrank_tests::some_adapters<float>(base_weight())) {
        const auto name = names.find(a.kind());
        REQUIRE_MESSAGE(name != names.end(), "a kind without a row: ", a.kind());
        if (const auto* lokr = a.get<lokr_adapter<float>>()) {
            auto of_rank = *lokr;
            of_rank.r = (lokr->w1.whole() ? lokr->w2 : lokr->w1).left.cols();
            a = of_rank;
        }
        kind_row row{.name = name->second, .alone = a};
        if (auto module = to_peft_module(a)) {
            row.adapter = adapter_of(projection, std::move(*module));
        } else if (a.kind() == "alora") {
            row.by_hand = true;
            row.adapter = adapter_of(projection, some_lora(1));
            row.adapter->config.alora_invocation_tokens = {7, 8};
        } else if (a.kind() == "table_lora") {
            row.module = table;
            row.adapter = adapter_of(table, peft_lora{.lora = some_lora(3), .is_table = true});
        } else if (a.kind() == "replacement") {
            row.adapter = adapter_of(projection, some_lora(5));
            const std::string head = "base_model.model.lm_head.weight";
            row.adapter->modules.emplace("lm_head.weight",
                                         whole_tensor{tensor_of(head, lowrank_tests::random_matrix<float>(8, 12, 9))});
            row.adapter->config = peft_config_for(*row.adapter, {.modules_to_save = {"lm_head"}});
        }
        all.push_back(std::move(row));
    }
    auto rs = some_lora(7);
    rs.use_rslora = true;
    all.push_back({.name = "rsLoRA", .adapter = adapter_of(projection, rs)});
    const vector<float> outs = lowrank_tests::random_matrix<float>(some_out, 1, 11).cwiseAbs();
    const vector<float> ins = lowrank_tests::random_matrix<float>(some_in, 1, 12).cwiseAbs();
    all.push_back({.name = "LoRA with a bias",
                   .adapter = adapter_of(projection, peft_lora{.lora = some_lora(13), .bias = outs})});
    all.push_back({.name = "LoRA of a convolution",
                   .module = convolution,
                   .adapter = adapter_of(convolution, peft_lora{.lora = some_lora(15), .kernel = {2, 2}})});
    peft_adapter of_inputs;  // no configuration of PEFT says such
    of_inputs.modules.emplace(projection,
                              peft_lora{.lora = some_lora(17), .magnitude = ins, .magnitude_of_inputs = true});
    all.push_back({.name = "DoRA of the inputs (LyCORIS)", .adapter = of_inputs});
    const hira_adapter<float> hira{.hira_A = some_lora(19).lora_A, .hira_B = some_lora(19).lora_B};
    all.push_back({.name = "HiRA of a convolution",
                   .module = convolution,
                   .adapter = adapter_of(convolution, peft_hira{.hira = hira, .kernel = {2, 2}})});
    all.push_back({.name = "HiRA of a table",
                   .module = table,
                   .adapter = adapter_of(table, peft_hira{.hira = hira, .is_table = true})});
    auto tokens = adapter_of(projection, some_lora(21));
    const std::string rows = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta";
    tokens.modules.emplace(std::string(table) + std::string(token_rows::tail),
                           token_rows{tensor_of(rows, lowrank_tests::random_matrix<float>(2, 12, 23)), {1, 5}});
    tokens.config = peft_config_for(tokens, {.trainable_token_indices = {{"embed_tokens", {1, 5}}}});
    all.push_back({.name = "trained tokens", .adapter = std::move(tokens)});
    peft_adapter norm;
    norm.modules.emplace("norm.ln_tuning_layers.weight",
                         whole_tensor{tensor_of("base_model.model.norm.ln_tuning_layers.weight", outs)});
    norm.config = peft_config_for(norm, {.peft_type = "LN_TUNING"});
    const peft_experts stack{.lora = stack_experts<float>(std::vector{some_lora(31), some_lora(33)}),
                             .place = {.module = owner, .parameter = "down_proj"}};
    all.push_back({.name = "LoRA of experts",
                   .module = stack.place.path() + ".0",
                   .adapter = adapter_of(stack.place.path(), stack)});
    all.push_back({.name = "layer norms (LN tuning)", .module = "norm", .adapter = std::move(norm)});
    return all;
}

/// A base with a weight for every sample.
class workshop {
public:
    workshop() {
        const auto w = base_weight();
        std::vector<tensor_to_write> tensors = {
            tensor_of(std::string(projection) + ".weight", w),
            tensor_of(std::string(attention) + ".weight", w),
            tensor_of(std::string(table) + ".weight", row_matrix<float>(w.transpose())),
            tensor_of(std::string(convolution) + ".weight", w),
            tensor_of(std::string(projection) + ".bias", vector<float>(vector<float>::Zero(some_out))),
            tensor_of("norm.weight", vector<float>(vector<float>::Ones(some_out))),
            tensor_of("lm_head.weight", row_matrix<float>(w.transpose())),
            tensor_of(std::string(owner) + ".down_proj", row_matrix<float>(w.replicate(2, 1)))};
        tensors[3].shape = {12, 2, 2, 2};
        tensors.back().shape = {2, some_out, some_in};
        std::filesystem::create_directory(folder_ / "base");
        REQUIRE(write_safetensors(folder_ / "base/model.safetensors", std::move(tensors)));
        REQUIRE(write_file(folder_ / "base/config.json", R"({"model_type":"llama","tie_word_embeddings":false})"));
        auto opened = checkpoint::open(folder_ / "base");
        REQUIRE(opened);
        base = std::make_unique<checkpoint>(std::move(*opened));
        reading.modules = {projection, attention, table, convolution};
        reading.model = &heads;
        reading.peft.activated_by_tokens = true;
        reading.peft.base_is_residual = true;
    }

    /// A path at which nothing lies.
    [[nodiscard]] std::filesystem::path place() { return folder_ / ("f" + std::to_string(++places_)); }

    std::unique_ptr<checkpoint> base;
    adapter_read_options reading;

private:
    temporary_folder folder_;
    int places_ = 0;
};

/// Every number of the tensors of a merged checkpoint, or why there is none.
result<std::vector<double>> merged(workshop& shop, const peft_adapter& adapter) {
    const auto out = shop.place();
    if (const auto report = merge_checkpoint(*shop.base, adapter, out); !report) {
        return report.error();
    }
    const auto file = checkpoint::open(out);
    REQUIRE(file);
    std::vector<double> all;
    for (const auto& place : file->tensors()) {
        std::uint64_t size = 1;
        for (const std::uint64_t n : place.info->shape) {
            size *= n;
        }
        std::vector<double> numbers(size);
        convert_elements<double>(place.info->type, file->bytes(place), numbers);
        all.insert(all.end(), numbers.begin(), numbers.end());
    }
    return all;
}

double difference(const std::vector<double>& a, const std::vector<double>& b) {
    REQUIRE(a.size() == b.size());
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        most = std::max(most, std::abs(a[i] - b[i]));
    }
    return most;
}

/// Written in a format and read again, or the first sentence that refuses it.
result<peft_adapter> through(workshop& shop, const peft_adapter& adapter, std::string_view format) {
    const auto path = shop.place();
    if (status why = write_adapter(path, adapter, format, {.model = &heads}); !why) {
        CHECK_FALSE(std::filesystem::exists(path));
        return why;
    }
    auto read = read_adapter(path, shop.reading);
    if (!read) {
        return read.error();
    }
    CHECK(read->format == (format == "diffusers_peft" ? "peft" : format));  // the same names
    CHECK(read->unmapped.empty());
    return std::move(read->adapter);
}

/// The same with modules where the names of a format are for.
peft_adapter at_module(const peft_adapter& adapter, const std::string& from, const std::string& to) {
    peft_adapter out = adapter;
    if (const auto at = out.modules.find(from); at != out.modules.end() && from != to) {
        auto node = out.modules.extract(at);
        node.key() = to;
        out.modules.insert(std::move(node));
        out.config.target_modules = {to.substr(to.rfind('.') + 1)};
    }
    return out;
}

/// Half the square of the outputs, of inputs that are the unit vectors, and its gradient.
struct measured {
    double loss = 0;
    vector<float> gradient = {};
};
measured measure(any_adapter<float>& a) {
    const auto w = base_weight();
    const auto base = as_operator(w);
    workspace ws;
    a.refresh(base);
    const matrix<float> x = matrix<float>::Identity(some_in, some_in);
    matrix<float> y = a.additive() ? matrix<float>(w) : matrix<float>(matrix<float>::Zero(some_out, some_in));
    a.add_product(base, 1.0F, x, y, ws);
    measured out{.loss = y.cast<double>().squaredNorm() / 2, .gradient = vector<float>::Zero(a.parameter_count())};
    auto gradient = a.zero_gradient();
    a.backward(base, 1.0F, x, y, gradient, nullptr, ws);
    a.pull_back(gradient, {out.gradient.data(), static_cast<std::size_t>(out.gradient.size())});
    return out;
}

/// One step down the gradient. \return whether the loss fell.
bool train(any_adapter<float>& a) {
    const measured before = measure(a);
    const double slope = before.gradient.cast<double>().squaredNorm();
    if (!(slope > 0)) {
        return false;
    }
    const auto rate = static_cast<float>(1e-3 * before.loss / slope);
    lowrank::index at = 0;
    for (auto& p : a.parameters()) {
        for (float& value : p.values) {
            value -= rate * before.gradient(at++);
        }
    }
    return measure(a).loss < before.loss;
}

result<any_adapter<float>> served(const peft_adapter& adapter, const std::string& module) {
    auto all = to_any_adapters(adapter, [](const std::string&) -> result<lowrank::adapted_weight> {
        return lowrank::adapted_weight{.out = some_out, .in = some_in};
    });
    return all ? result<any_adapter<float>>(all->at(module)) : result<any_adapter<float>>(all.error());
}

bool is_yes(const std::string& cell) {
    const std::string word = cell.substr(0, cell.find(';'));
    REQUIRE_MESSAGE((word == "yes" || word == "no"), cell);
    return word == "yes";
}

/// What a cell says and what happened are one; a refusal has a sentence.
void expect(const std::string& row, const std::string& column, bool says, const status& why) {
    CAPTURE(row);
    CAPTURE(column);
    CAPTURE(why.message);
    CHECK(says == static_cast<bool>(why));
    CHECK((why || why.message.size() > 20));
}
template <class T>
void expect(const std::string& row, const std::string& column, bool says, const result<T>& got) {
    expect(row, column, says, got ? status{} : got.error());
}

/// The formats that a cell names; "LoRA" among them is plain LoRA.
std::set<std::string> targets_of(const std::string& cell) {
    std::set<std::string> out;
    if (cell == "all") {
        for (const auto& f : adapter_formats()) {
            out.emplace(f.name);
        }
    } else if (cell != "no") {
        for (auto& name : split(cell, ',')) {
            CHECK_MESSAGE((name == "LoRA" || find_adapter_format(name)), name);
            out.insert(std::move(name));
        }
    }
    return out;
}

/// The format that holds an adapter, PEFT's if it can.
std::string home_of(const peft_adapter& adapter) {
    for (const std::string name : {"peft", "kohya"}) {
        if (can_hold(**find_adapter_format(name), adapter)) {
            return name;
        }
    }
    return "";
}

/// A kind in files: everything but conversion.
void try_file_row(workshop& shop, const kind_row& row, const cells& says) {
    const std::string home = home_of(*row.adapter);
    REQUIRE_FALSE(home.empty());
    const auto read = through(shop, *row.adapter, home);
    expect(row.name, "write", is_yes(says.at("write")), read);
    expect(row.name, "read", is_yes(says.at("read")), read);
    REQUIRE(read);
    for (const auto& entry : row.adapter->modules) {
        CAPTURE(entry.first);
        REQUIRE(read->modules.contains(entry.first));
        CHECK(kind_of(read->modules.at(entry.first)) == kind_of(entry.second));
    }
    const auto weights = merged(shop, *read);
    expect(row.name, "merge", is_yes(says.at("merge")), weights);
    if (weights) {
        CHECK(difference(*weights, *merged(shop, *row.adapter)) < 1e-5);
        peft_adapter nothing;
        nothing.modules.emplace(projection, make_lora<float>(some_out, some_in, {.r = 1}));
        nothing.config = peft_config_for(nothing);
        CHECK(difference(*weights, *merged(shop, nothing)) > 1e-3);
    }
    auto applied = served(*read, row.module);
    expect(row.name, "apply", is_yes(says.at("apply")), row.by_hand ? result<any_adapter<float>>(*row.alone) : applied);
    if (row.by_hand) {
        CHECK_FALSE(applied);
        return;
    }
    expect(row.name, "train", is_yes(says.at("train")), applied);
    if (!applied) {
        return;
    }
    const auto w = base_weight();
    applied->refresh(as_operator(w));
    if (weights) {  // one module, the first of which the numbers are
        row_matrix<float> in_place = w;
        REQUIRE(merge(weight_view<float>(in_place), *applied));
        CHECK((in_place.cast<double>() - adapted_weight(*applied, w, 1.0F)).norm() < 1e-4);
    }
    CHECK(train(*applied));
    peft_adapter trained;
    REQUIRE(put_module(trained, row.module, *applied));
    if (home == "peft") {
        trained.config = peft_config_for(trained);
    }
    const auto again = through(shop, trained, home);
    REQUIRE(again);
    auto loaded = served(*again, row.module);
    REQUIRE(loaded);
    loaded->refresh(as_operator(w));
    CHECK((adapted_weight(*loaded, w, 1.0F) - adapted_weight(*applied, w, 1.0F)).norm() < 1e-4);
}

/// What is said of a file of such an adapter, made as its tool does, when it is read or merged.
status refusal_of_file(workshop& shop, const any_adapter<float>& a) {
    const auto path = shop.place();
    // loralib's names
    const auto* fused = a.get<merged_linear_adapter<float>>();
    const auto* conv = a.get<conv_lora_adapter<float>>();
    REQUIRE((fused != nullptr || conv != nullptr));
    const std::string name = fused != nullptr ? projection : convolution;
    REQUIRE(write_safetensors(path, {tensor_of(name + ".lora_A", fused != nullptr ? fused->lora_A : conv->lora_A),
                                     tensor_of(name + ".lora_B", fused != nullptr ? fused->lora_B : conv->lora_B)}));
    const auto read = read_adapter(path, shop.reading);
    if (!read) {
        return read.error();
    }
    const auto weights = merged(shop, read->adapter);
    return weights ? status{} : weights.error();
}

/// A kind that no file holds.
void try_adapter_row(workshop& shop, const kind_row& row, const cells& says) {
    any_adapter<float> a = *row.alone;
    CHECK(is_yes(says.at("apply")));
    CHECK(is_yes(says.at("train")));
    CHECK(train(a));
    CHECK(is_yes(says.at("merge")));
    const auto w = base_weight();
    row_matrix<float> in_place = w;
    REQUIRE(merge(weight_view<float>(in_place), a));
    CHECK((in_place.cast<double>() - adapted_weight(a, w, 1.0F)).norm() < 1e-4);
    peft_adapter to;
    const status why = put_module(to, row.module, a);
    expect(row.name, "write", is_yes(says.at("write")), why);
    expect(row.name, "convert", says.at("convert") != "no", why);
    expect(row.name, "read", is_yes(says.at("read")), refusal_of_file(shop, a));
}

void try_conversions(workshop& shop, const kind_row& row, const cells& says) {
    const auto targets = targets_of(says.at("convert"));
    const std::string home = home_of(*row.adapter);
    const auto want = merged(shop, *row.adapter);
    for (const auto& format : adapter_formats()) {
        const std::string name(format.name);
        if (name == home) {
            CHECK_FALSE((targets.contains(name) && says.at("convert") != "all"));
            continue;
        }
        const std::string path = name == "diffusers_old" && row.module == projection ? attention : row.module;
        const auto moved = at_module(*row.adapter, row.module, path);
        const auto there = through(shop, moved, name);
        expect(row.name, "convert to " + name, targets.contains(name), there);
        if (there && want) {
            CHECK(difference(*merged(shop, *there), *merged(shop, moved)) < 1e-5);
        }
    }
    if (says.at("convert") == "all") {
        return;  // it is plain LoRA
    }
    const auto plain = to_plain_lora(*row.adapter, shop.base.get());
    const status why = !plain ? plain.error()
                       : std::all_of(plain->adapter.modules.begin(), plain->adapter.modules.end(),
                                     [](const auto& m) { return is_plain_lora(m.second); })
                           ? can_hold(**find_adapter_format(row.module == table ? "gguf" : "loralib"), plain->adapter)
                           : status{errc::unsupported, "some of its modules are no LoRA then"};
    expect(row.name, "convert to LoRA", targets.contains("LoRA"), why);
    if (plain && want && targets.contains("LoRA")) {
        CHECK(difference(*merged(shop, plain->adapter), *want) < 1e-2);
    }
}

}  // namespace

TEST_CASE("the table of formats and kinds: every cell of a kind") {
    const auto page = rows_of_page();
    workshop shop;
    std::set<std::string> tried;
    std::set<const char*> marks;
    for (const auto& row : kinds_of_table()) {
        const auto says = page.find(row.name);
        REQUIRE_MESSAGE(says != page.end(), "docs/io.md has no row ", row.name);
        tried.insert(row.name);
        if (!row.adapter) {
            try_adapter_row(shop, row, says->second);
            continue;
        }
        try_file_row(shop, row, says->second);
        try_conversions(shop, row, says->second);
        for (const auto& entry : row.adapter->modules) {
            marks.insert(entry.second.kind().mark);
        }
    }
    for (const auto* kind : peft_kinds()) {
        CHECK_MESSAGE(marks.contains(kind->mark), "a kind of PEFT files has no row: ", kind->types().front().name);
    }
    std::size_t formats = 0;
    for (const auto& [name, says] : page) {
        formats += tried.contains(name) ? 0 : 1;
    }
    CHECK(formats == adapter_formats().size() + 1);  // and PEFT's names in one file
}

TEST_CASE("the table of formats and kinds: every cell of a format") {
    const auto page = rows_of_page();
    workshop shop;
    const auto path_for = [](std::string_view from, std::string_view to) {
        return from == "diffusers_old" || (to == "diffusers_old" && from != "gguf") ? attention : projection;
    };
    std::map<std::string, std::string> formats = {{"PEFT's names in one file", "peft"}};
    for (const auto& format : adapter_formats()) {
        formats[std::string(format.name)] = format.name;
    }
    for (const auto& entry : formats) {
        const std::string &name = entry.first, &format = entry.second;
        const auto says = page.find(name);
        REQUIRE_MESSAGE(says != page.end(), "docs/io.md has no row ", name);
        const auto sample = [&](std::string_view to) -> result<peft_adapter> {
            const auto adapter = adapter_of(path_for(format, to), some_lora(31));
            if (name == format) {
                return through(shop, adapter, format);
            }
            const auto file = shop.place();
            if (status why = write_lora_file(file, adapter.modules, {.format = format}); !why) {
                return why;
            }
            auto read = read_adapter(file, shop.reading);
            return read ? result<peft_adapter>(std::move(read->adapter)) : result<peft_adapter>(read.error());
        };
        const auto read = sample("");
        expect(name, "write", is_yes(says->second.at("write")), read);
        expect(name, "read", is_yes(says->second.at("read")), read);
        REQUIRE(read);
        const std::string module = path_for(format, "");
        REQUIRE(read->modules.contains(module));
        const auto want = merged(shop, adapter_of(module, some_lora(31)));
        const auto got = merged(shop, *read);
        expect(name, "merge", is_yes(says->second.at("merge")), got);
        CHECK(difference(*got, *want) < 1e-5);
        auto applied = served(*read, module);
        expect(name, "apply", is_yes(says->second.at("apply")), applied);
        expect(name, "train", is_yes(says->second.at("train")), applied);
        CHECK(train(*applied));
        const auto targets = targets_of(says->second.at("convert"));
        for (const auto& to : adapter_formats()) {
            if (to.name == name) {
                continue;
            }
            auto source = sample(to.name);
            REQUIRE(source);
            const auto there = through(shop, *source, to.name);
            expect(name, "convert to " + std::string(to.name), targets.contains(std::string(to.name)), there);
            if (there) {
                CHECK(difference(*merged(shop, *there), *merged(shop, *source)) < 1e-5);
            }
        }
    }
}
