// SPDX-License-Identifier: MIT
// Family "laser": truncated SVD, rank rules, magnitude pruning.
#include <cmath>
#include <sstream>

#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/prune/magnitude.hpp>

#include "golden_case.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

/// A number as the names of the case spell it: 5, 2.5.
std::string spelled(double x) {
    std::ostringstream text;
    text << x;
    return text.str();
}

template <class S>
void run(const golden_case& c, computed<S>& out) {
    std::map<std::string, decomposition<S>> spectra;
    for (const auto& entry : c.info.at("low_rank")) {
        const std::string name = entry.at("matrix");
        if (spectra.count(name) == 0) {
            spectra[name] = svd(c.inputs.at("W." + name).weight<S>()).value();
            out.put("singular_values." + name, spectra[name].s);
        }
        const auto& s = spectra[name];
        const auto k = rank_from_fraction(entry.at("fraction").get<double>(), s.rows(), s.cols());
        if (k != entry.at("rank").get<lowrank::index>()) {
            out.fail("rank of fraction " + spelled(entry.at("fraction")) + " of " + name);
        }
        out.put("exact." + name + ".rank" + std::to_string(k), s.truncate(k).dense());
        const double want = entry.at("frobenius_error_exact");
        if (std::abs(s.error_at(k) - want) > 1e-5 * want + 1e-6) {
            out.fail("error of " + name + " at rank " + std::to_string(k));
        }
    }
    for (const auto& entry : c.info.value("fraction_to_rank", json::array())) {
        const lowrank::index n = entry.at("max_rank");
        if (rank_from_fraction(entry.at("fraction").get<double>(), n, n + 1) !=
            entry.at("rank").get<lowrank::index>()) {
            out.fail("rank of fraction " + spelled(entry.at("fraction")) + " of " + std::to_string(n));
        }
    }
    for (const auto& entry : c.info.value("rate_to_rank", json::array())) {
        const lowrank::index n = entry.at("max_rank");
        if (rank_from_laser_rate(entry.at("rate").get<double>(), n, n + 1) != entry.at("rank").get<lowrank::index>()) {
            out.fail("rank of rate " + spelled(entry.at("rate")) + " of " + std::to_string(n));
        }
    }
    for (const auto& check : c.info.at("checks")) {
        const std::string name = check.at("tensor");
        if (name.rfind("pruned.rate", 0) == 0) {
            auto w = c.inputs.at("W.prune").weight<S>();
            throw_if_failed(prune_to_rate(weight_view<S>(w), std::stod(name.substr(11))));
            out.put(name, w);
        }
    }
}

const register_family laser("laser", run<float>, run<double>);

}  // namespace
