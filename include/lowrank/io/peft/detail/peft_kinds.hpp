// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_KINDS_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_KINDS_HPP

/// \file
/// What the adapter_config.json of single adapter types says besides rank, alpha and dropout.
///
///     lowrank::peft_kind_options o;
///     detail::read_kind_options(in, "OFT", o);         // o.block_size, o.use_cayley_neumann, ...
///
/// Keys and defaults follow huggingface/peft, tuners/{oft,boft,hra,miss,randlora,hira,adalora}/config.py.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/config_reader.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/lora/train/adalora_allocator.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Fields of single types; those of other types stay at their defaults.
struct peft_kind_options {
    // OFT and BOFT: one of the two is 0.
    std::int64_t block_size = 0;   ///< oft_block_size, boft_block_size.
    std::int64_t block_count = 0;  ///< OFT's r, boft_block_num.
    bool block_share = false;
    bool coft = false;
    double eps = 6e-5;
    bool use_cayley_neumann = true;
    std::int64_t num_cayley_neumann_terms = 5;
    std::int64_t butterfly_factors = 1;  ///< boft_n_butterfly_factor
    bool apply_GS = false;               ///< HRA.
    // MiSS and Bone.
    std::string form = {};    ///< "", "bat" or "mini": init_weights where it is a name.
    std::int64_t mini_r = 1;  ///< Of the form "mini".
    // AdaLoRA.
    adalora_schedule schedule = {};
    double orth_reg_weight = 0.5;
    /// Which of the init_r triplets a module has kept, by "<module>.lora_E". Empty: all of every module.
    std::map<std::string, std::vector<bool>> triplets = {};
};

namespace detail {

/// True if a version "0.17.1" is before major.minor; an absent one is before everything.
[[nodiscard]] inline bool is_version_before(std::string_view version, int major, int minor) {
    int parts[2] = {0, 0};
    std::size_t at = 0;
    for (int& part : parts) {
        while (at < version.size() && version[at] >= '0' && version[at] <= '9' && part < 1'000'000) {
            part = 10 * part + (version[at++] - '0');
        }
        at += at < version.size() && version[at] == '.' ? 1 : 0;
    }
    return std::pair(parts[0], parts[1]) < std::pair(major, minor);
}

inline void read_blocks(config_reader& in, const char* size_key, const char* count_key, std::int64_t usual_size,
                        peft_kind_options& o) {
    o.block_size = usual_size;
    in.count(size_key, o.block_size);
    in.count(count_key, o.block_count);
    if ((o.block_size == 0) == (o.block_count == 0) && in.why) {
        in.why = {errc::invalid_format,
                  std::string("one of ") + size_key + " and " + count_key + " must be 0 and the other positive"};
    }
}

/// rank_pattern of AdaLoRA: lists of true and false.
inline void read_triplets(config_reader& in, peft_kind_options& o) {
    const json* v = in.find("rank_pattern");
    if (v == nullptr) {
        return;
    }
    if (!v->is_object()) {
        return in.wrong("rank_pattern", "an object", *v);
    }
    for (const auto& [key, list] : v->items()) {
        auto& kept = o.triplets[key];
        for (const json& flag : list.is_array() ? list : json::array()) {
            if (!flag.is_boolean()) {
                return in.wrong("rank_pattern of " + in_quotes(key), "a list of true and false", list);
            }
            kept.push_back(flag.get<bool>());
        }
        if (!list.is_array()) {
            return in.wrong("rank_pattern of " + in_quotes(key), "a list of true and false", list);
        }
    }
}

/// Reads the fields of one type. What PEFT would read with a warning is in `warnings`.
inline void read_kind_options(config_reader& in, std::string_view type, peft_kind_options& o,
                              std::vector<std::string>& warnings) {
    if (type == "OFT") {
        if (in.find("oft_block_size") == nullptr && in.why) {
            in.why = {
                errc::unsupported,
                "the configuration has no oft_block_size: it is of PEFT before 0.14, whose OFT is another one and "
                "which PEFT does not read any more either"};
        }
        read_blocks(in, "oft_block_size", "r", 32, o);
        in.boolean("block_share", o.block_share);
        in.boolean("coft", o.coft);
        in.number("eps", o.eps);
        in.boolean("use_cayley_neumann", o.use_cayley_neumann);
        in.count("num_cayley_neumann_terms", o.num_cayley_neumann_terms);
        if (const json* v = in.find("num_cayley_neumann_terms");
            o.num_cayley_neumann_terms < 1 || o.num_cayley_neumann_terms > 64) {
            in.wrong("num_cayley_neumann_terms", "between 1 and 64", *v);
        }
        if (const json* v = in.find("eps"); !(o.eps >= 0)) {
            in.wrong("eps", "not negative", *v);
        }
        std::optional<std::string> version;
        in.text("peft_version", version);
        if (o.use_cayley_neumann && is_version_before(version.value_or(""), 0, 18)) {
            warnings.push_back(
                "PEFT before 0.18 summed the Cayley-Neumann series in another way; an adapter of that time gives "
                "slightly other results here, as it does in newer PEFT");
        }
    } else if (type == "BOFT") {
        read_blocks(in, "boft_block_size", "boft_block_num", 4, o);
        in.count("boft_n_butterfly_factor", o.butterfly_factors);
    } else if (type == "HRA") {
        in.boolean("apply_GS", o.apply_GS);
    } else if (type == "MISS" || type == "BONE") {
        in.count("mini_r", o.mini_r);
        const json* v = in.find("init_weights");
        if (v != nullptr && v->is_string()) {
            o.form = v->get<std::string>();
            if (o.form != "bat" && (o.form != "mini" || type == "BONE")) {
                in.wrong("init_weights", "true, false, \"bat\" or, for MiSS, \"mini\"", *v);
            }
        } else {
            bool ignored = true;
            in.boolean("init_weights", ignored);
        }
    } else if (type == "ADALORA") {
        std::int64_t target = o.schedule.target_r;
        in.count("target_r", target);
        o.schedule.target_r = static_cast<index>(target);
        in.count("tinit", o.schedule.tinit);
        in.count("tfinal", o.schedule.tfinal);
        in.count("deltaT", o.schedule.deltaT);
        in.count("total_step", o.schedule.total_step);
        in.number("beta1", o.schedule.beta1);
        in.number("beta2", o.schedule.beta2);
        in.number("orth_reg_weight", o.orth_reg_weight);
        read_triplets(in, o);
    }
}

/// Gives the fields of one type to `set(key, value, value if the key is absent)`; `old` is the document so far.
template <class Set>
void write_kind_options(std::string_view type, const peft_kind_options& o, const json& old, Set&& set) {
    if (type == "OFT") {
        set("oft_block_size", o.block_size, 32);
        set("r", o.block_count, 0);
        set("block_share", o.block_share, false);
        set("coft", o.coft, false);
        set("eps", o.eps, 6e-5);
        set("use_cayley_neumann", o.use_cayley_neumann, true);
        set("num_cayley_neumann_terms", o.num_cayley_neumann_terms, 5);
    } else if (type == "BOFT") {
        set("boft_block_size", o.block_size, 4);
        set("boft_block_num", o.block_count, 0);
        set("boft_n_butterfly_factor", o.butterfly_factors, 1);
    } else if (type == "HRA") {
        set("apply_GS", o.apply_GS, false);
    } else if (type == "MISS" || type == "BONE") {
        const auto at = old.find("init_weights");
        if (!o.form.empty() || (at != old.end() && at->is_string())) {
            set("init_weights", o.form.empty() ? json(true) : json(o.form), true);
        }
        if (type == "MISS") {
            set("mini_r", o.mini_r, 1);
        }
    } else if (type == "ADALORA") {
        set("target_r", o.schedule.target_r, 8);
        set("tinit", o.schedule.tinit, 0);
        set("tfinal", o.schedule.tfinal, 0);
        set("deltaT", o.schedule.deltaT, 1);
        set("total_step", o.schedule.total_step != 0 ? json(o.schedule.total_step) : json(nullptr), nullptr);
        set("beta1", o.schedule.beta1, 0.85);
        set("beta2", o.schedule.beta2, 0.85);
        set("orth_reg_weight", o.orth_reg_weight, 0.5);
        json pattern = o.triplets.empty() ? json(nullptr) : json::object();
        for (const auto& [key, kept] : o.triplets) {
            pattern[key] = kept;
        }
        if (const auto at = old.find("rank_pattern"); at == old.end() || !at->empty() || !o.triplets.empty()) {
            set("rank_pattern", std::move(pattern), nullptr);
        }
    }
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_KINDS_HPP
