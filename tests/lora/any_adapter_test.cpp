// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/any_adapter.hpp>

#include <set>
#include <string>
#include <vector>

#include "some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("the transposed product is the transpose", S, float, double) {
    const row_matrix<S> w = random_weight<S>(some_out, some_in, 1, 0.4);
    for (const auto& a : some_adapters<S>(w)) {
        CAPTURE(a.kind());
        workspace ws;
        const matrix<S> unit = matrix<S>::Identity(some_out, some_out);
        matrix<S> y = matrix<S>::Zero(some_in, some_out);
        a.add_transposed_product(as_operator(w), S(0.7), unit, y, ws);
        const matrix<S> back = a.additive() ? matrix<S>(y + w.transpose()) : y;
        CHECK(relative_diff(matrix<S>(back.transpose()), adapted_weight(a, w, S(0.7))) < 50 * epsilon<S>);
    }
}

TEST_CASE("forward and backward allocate nothing after the first call") {
    const row_matrix<float> w = random_weight<float>(some_out, some_in, 1, 0.4);
    const auto base = as_operator(w);
    const auto x = random_matrix<float>(some_in, 30, 2);
    const auto dy = random_matrix<float>(some_out, 30, 3);
    for (const auto& a : some_adapters<float>(w)) {
        CAPTURE(a.kind());
        for (const float t : {1.0F, 0.5F}) {
            workspace ws;
            auto g = a.zero_gradient();
            matrix<float> y = matrix<float>::Zero(some_out, 30);
            matrix<float> dx = matrix<float>::Zero(some_in, 30);
            column_view<float> dx_view = dx;
            const auto pass = [&] {
                a.add_product(base, t, x, y, ws);
                a.backward(base, t, x, dy, g, &dx_view, ws);
                g.set_zero();
            };
            pass();
            const auto before = allocation_count();
            pass();
            CHECK(allocation_count() == before);
        }
    }
}

TEST_CASE("kinds, parameters and copies") {
    const row_matrix<double> w = random_weight<double>(some_out, some_in, 1);
    std::set<std::string> kinds;
    for (auto& a : some_adapters<double>(w)) {
        kinds.insert(std::string(a.kind()));
        CHECK(a.rows() == some_out);
        CHECK(a.cols() == some_in);
        lowrank::index count = 0;
        for (const auto& p : a.parameters()) {
            CHECK(p.rows * p.cols == static_cast<lowrank::index>(p.values.size()));
            count += p.rows * p.cols;
        }
        CHECK(count == a.parameter_count());
        any_adapter<double> copy = a;
        copy.parameters().front().values.front() += 1;
        CHECK(copy.parameters().front().values.front() == a.parameters().front().values.front() + 1);
    }
    CHECK(kinds == std::set<std::string>{"adalora",     "alora",
                                         "bdlora",      "boft",
                                         "c3a",         "conv_lora",
                                         "delora",      "dora",
                                         "fourierft",   "gralora",
                                         "hira",        "hra",
                                         "ia3",         "kasa",
                                         "loha",        "lokr",
                                         "lora",        "merged_linear",
                                         "miss",        "miss_bat",
                                         "oft",         "output_rotation",
                                         "qalora",      "randlora",
                                         "replacement", "road",
                                         "shira",       "table_lora",
                                         "tinylora",    "vblora",
                                         "vera"});

    any_adapter<double> lora = random_adapter<double>(12, 8, {.r = 2, .lora_dropout = 0.25});
    CHECK(lora.dropout() == 0.25);
    CHECK(lora.get<lora_adapter<double>>()->rank() == 2);
    CHECK(lora.get<dora_adapter<double>>() == nullptr);
    CHECK(lora.parameters()[1].name == "lora_B.weight");
}

TEST_CASE("gradients add up, and one of another adapter is refused") {
    const row_matrix<double> w = random_weight<double>(some_out, some_in, 1, 0.4);
    const auto base = as_operator(w);
    const auto x = random_matrix<double>(some_in, 6, 2);
    const auto dy = random_matrix<double>(some_out, 6, 3);
    auto all = some_adapters<double>(w);
    workspace ws;
    for (const auto& a : all) {
        CAPTURE(a.kind());
        auto whole = a.zero_gradient();
        a.backward(base, 1, x, dy, whole, nullptr, ws);
        auto one = a.zero_gradient();
        auto two = a.zero_gradient();
        a.backward(base, 1, x.leftCols(2), dy.leftCols(2), one, nullptr, ws);
        a.backward(base, 1, x.rightCols(4), dy.rightCols(4), two, nullptr, ws);
        one.add(two);
        const auto flat = [&](const adapter_gradient<double>& g) {
            vector<double> out = vector<double>::Zero(a.parameter_count());
            a.pull_back(g, std::span(out.data(), static_cast<std::size_t>(out.size())));
            return out;
        };
        CHECK(relative_diff(flat(one), flat(whole)) < 1e-12);
    }
    auto wrong = all.back().zero_gradient();
    CHECK_THROWS_AS(all.front().backward(base, 1, x, dy, wrong, nullptr, ws), contract_violation);
    auto right = all.front().zero_gradient();
    CHECK_THROWS_AS(right.add(wrong), contract_violation);
    std::vector<double> too_few(3);
    CHECK_THROWS_AS(all.front().pull_back(right, too_few), contract_violation);
    const row_matrix<double> other = random_weight<double>(3, some_in, 1);
    CHECK_THROWS_AS(all.front().refresh(as_operator(other)), contract_violation);
}

TEST_CASE("rows in another order: the adapter of the reordered weight, or a sentence") {
    const row_matrix<double> w = random_weight<double>(some_out, some_in, 1, 0.4);
    const std::vector<lowrank::index> rows = {3, 1, 0, 2, 11, 10, 9, 8, 4, 5, 6, 7};
    row_matrix<double> other(some_out, some_in);
    for (lowrank::index i = 0; i < some_out; ++i) {
        other.row(i) = w.row(rows[static_cast<std::size_t>(i)]);
    }
    std::set<std::string> refused;
    for (auto& a : some_adapters<double>(w)) {
        CAPTURE(a.kind());
        const matrix<double> before = adapted_weight(a, w, 1.0);
        const status done = a.permute_rows(rows);
        if (!done) {
            CHECK(done.code == errc::unsupported);
            CHECK(done.message.find(a.kind()) != std::string::npos);
            CHECK(relative_diff(adapted_weight(a, w, 1.0), before) == 0);
            refused.insert(std::string(a.kind()));
            continue;
        }
        a.refresh(as_operator(other));
        const matrix<double> after = adapted_weight(a, other, 1.0);
        for (lowrank::index i = 0; i < some_out; ++i) {
            CHECK(relative_diff(after.row(i), matrix<double>(before.row(rows[static_cast<std::size_t>(i)]))) < 1e-12);
        }
    }
    CHECK(refused == std::set<std::string>{"bdlora", "c3a", "conv_lora", "fourierft", "gralora", "lokr",
                                           "merged_linear", "miss_bat", "output_rotation", "randlora", "road",
                                           "tinylora", "vblora", "vera"});
    any_adapter<double> lora = random_adapter<double>(12, 8, {.r = 2});
    CHECK_THROWS_AS((void)lora.permute_rows(std::vector<lowrank::index>{0, 1}), contract_violation);
    CHECK_THROWS_AS((void)lora.permute_rows(std::vector<lowrank::index>(12, 0)), contract_violation);
}
