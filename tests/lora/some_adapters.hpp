// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_LORA_SOME_ADAPTERS_HPP
#define LOWRANK_TESTS_LORA_SOME_ADAPTERS_HPP

/// \file
/// One adapter of every kind with parameters that change something, all for a weight of one shape.

#include <memory>
#include <vector>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/list.hpp>

#include "support.hpp"

namespace lowrank_tests {

inline constexpr lowrank::index some_out = 12;
inline constexpr lowrank::index some_in = 8;

template <class S>
std::vector<lowrank::any_adapter<S>> some_adapters(const lowrank::row_matrix<S>& w) {
    using namespace lowrank;
    const auto m = [](lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
        return random_matrix<S>(rows, cols, 300 + stream, S(0.4));
    };
    std::vector<any_adapter<S>> all;
    all.emplace_back(lora_adapter<S>{.lora_A = m(3, 8, 1), .lora_B = m(12, 3, 2), .lora_alpha = 5});
    all.emplace_back(
        merged_linear_adapter<S>{.lora_A = m(4, 8, 3), .lora_B = m(8, 2, 4), .enable = {true, false, true}});
    all.emplace_back(adalora_adapter<S>{.lora_A = m(3, 8, 5), .lora_B = m(12, 3, 6), .lora_E = m(3, 1, 7)});
    auto vera = make_vera(make_vera_projections<S>(14, 9, 4, 1), 12, 8);
    vera.lambda_b = m(12, 1, 8);
    all.emplace_back(vera);
    all.emplace_back(
        loha_adapter<S>{.w1_a = m(12, 2, 9), .w1_b = m(2, 8, 10), .w2_a = m(12, 2, 11), .w2_b = m(2, 8, 12)});
    all.emplace_back(lokr_adapter<S>{.w1 = {.left = m(3, 2, 13)}, .w2 = {.left = m(4, 2, 14), .right = m(2, 4, 15)}});
    all.emplace_back(lokr_adapter<S>{.w1 = {.left = m(3, 1, 16), .right = m(1, 2, 17)}, .w2 = {.left = m(4, 4, 18)}});
    auto dora = make_dora(w, {.r = 2, .seed = 5});
    dora.lora.lora_B = m(12, 2, 19);
    dora.magnitude += m(12, 1, 20);
    all.emplace_back(dora);
    for (const bool inputs : {false, true}) {
        auto ia3 = make_ia3<S>(12, 8, inputs);
        ia3.ia3_l += m(ia3.ia3_l.size(), 1, 21);
        all.emplace_back(ia3);
    }
    auto oft = make_oft<S>(12, 8, {.block_size = 4});
    oft.oft_R = m(2, 6, 22);
    all.emplace_back(oft);
    auto boft = make_boft<S>(12, 8, {.block_size = 2, .n_butterfly_factor = 2});
    boft.boft_R = m(16, 2, 23);
    boft.boft_s += m(12, 1, 24);
    all.emplace_back(boft);
    all.emplace_back(hra_adapter<S>{.hra_u = m(8, 3, 25)});
    auto miss = make_miss<S>(12, 8, {.r = 3});
    miss.miss_block = m(3, 12, 26);
    all.emplace_back(miss);
    auto rand = make_randlora(make_randlora_projections<S>(14, 9, {.r = 2, .seed = 1}), 12, 8, 4);
    rand.lambda = m(2, 4, 27);
    all.emplace_back(rand);
    all.emplace_back(
        kasa_adapter<S>{.lora_A = m(3, 8, 30), .lora_B = m(12, 3, 31), .lora_diag = m(3, 1, 32), .lora_alpha = 5});
    all.emplace_back(hira_adapter<S>{.hira_A = m(3, 8, 28), .hira_B = m(12, 3, 29)});
    all.emplace_back(alora_adapter<S>{.lora = {.lora_A = m(3, 8, 33), .lora_B = m(12, 3, 34), .lora_alpha = 5},
                                      .invocation_tokens = {7, 8}});
    all.emplace_back(conv_lora_adapter<S>{.lora_A = m(2, 16, 35), .lora_B = m(6, 2, 36), .out = 12, .in = 8, .r = 2});
    all.emplace_back(table_lora_adapter<S>{.lora = {.lora_A = m(3, 12, 37), .lora_B = m(8, 3, 38), .lora_alpha = 5}});
    all.emplace_back(miss_bat_adapter<S>{.miss_block = m(12, 4, 39), .in = 8});
    all.emplace_back(output_rotation_adapter<S>{
        .blocks = m(12, 4, 40), .block_count = 3, .rescale = (S(1) + m(12, 1, 41).array()).matrix()});
    all.emplace_back(
        output_rotation_adapter<S>{.blocks = m(24, 2, 42), .block_count = 6, .is_butterfly = true, .constraint = 0.05});
    all.emplace_back(replacement_adapter<S>{.weight = m(12, 8, 43)});
    auto shira = make_shira<S>(12, 8, {.r = 2, .seed = 3});
    shira.shira_weight = m(40, 1, 44);
    all.emplace_back(shira);
    auto c3a = make_c3a<S>(12, 8, {.block_size = 4});
    c3a.c3a_kernel = 4 * m(6, 4, 45);
    all.emplace_back(c3a);
    for (const lowrank::index variant : {1, 2, 4}) {
        auto road = make_road<S>(12, {.variant = variant, .group_size = 4});
        road.road_theta = m(6 * variant, 1, 46);
        road.road_alpha += m(6 * variant, 1, 47);
        all.emplace_back(road);
    }
    for (const lowrank::index n : {2, 40}) {  // of low rank, and in two panels of full rank
        auto fourierft = make_fourierft<S>(12, 8, {.n_frequency = n, .random_loc_seed = 3});
        fourierft.fourierft_spectrum = m(n, 1, 48);
        all.emplace_back(fourierft);
    }
    all.emplace_back(delora_adapter<S>{.delora_A = m(3, 8, 49),
                                       .delora_B = m(12, 3, 50),
                                       .delora_lambda = vector<S>::Constant(1, S(1.5)),
                                       .delora_w_norm = m(8, 1, 51)});
    all.emplace_back(bdlora_adapter<S>{.lora_A = m(4, 4, 44), .lora_B = m(12, 4, 45), .blocks_A = 2, .lora_alpha = 5});
    all.emplace_back(bdlora_adapter<S>{.lora_A = m(4, 8, 46), .lora_B = m(12, 2, 47), .blocks_B = 2, .lora_alpha = 5});
    all.emplace_back(
        qalora_adapter<S>{.lora = {.lora_A = m(3, 4, 48), .lora_B = m(12, 3, 49), .lora_alpha = 5}, .group_size = 2});
    for (const lowrank::index hybrid : {0, 2}) {
        auto gra = make_gralora<S>(12, 8, {.r = 4, .hybrid_r = hybrid, .alpha = 5});
        gra.gralora_B = m(8, 6, 50);
        gra.gralora_B_general = m(hybrid == 0 ? 0 : 12, hybrid, 51);
        all.emplace_back(gra);
    }
    all.emplace_back(vblora_adapter<S>{
        .A = {.logits = m(4, 6, 62)}, .B = {.logits = m(6, 6, 63)}, .bank = m(6, 4, 54), .r = 2, .topk = 3});
    all.emplace_back(tinylora_adapter<S>{
        .tinylora_A = m(3, 8, 55), .tinylora_B = m(12, 3, 56), .tinylora_P = m(15, 3, 57), .v = m(5, 1, 58), .r = 3});
    for (auto& a : all) {
        a.refresh(as_operator(w));
    }
    return all;
}

/// W + t (W' - W), by multiplying with the identity.
template <class S>
lowrank::matrix<double> adapted_weight(const lowrank::any_adapter<S>& a, const lowrank::row_matrix<S>& w, S strength) {
    lowrank::workspace ws;
    const lowrank::matrix<S> unit = lowrank::matrix<S>::Identity(w.cols(), w.cols());
    lowrank::matrix<S> y = lowrank::matrix<S>::Zero(w.rows(), w.cols());
    a.add_product(lowrank::as_operator(w), strength, unit, y, ws);
    return (a.additive() ? lowrank::matrix<S>(y + w) : y).template cast<double>();
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_LORA_SOME_ADAPTERS_HPP
