// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/shared/vblora.hpp>
#include <lowrank/lora/train/trainer.hpp>

#include "lora/factored_gradient.hpp"
#include "lora/some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// 2 x 6 by 4 x 2 from a bank of 5 vectors of 2.
vblora_adapter<double> some_vblora(lowrank::index topk) {
    return {.A = {.logits = random_matrix<double>(6, 5, 1)},
            .B = {.logits = random_matrix<double>(4, 5, 2)},
            .bank = random_matrix<double>(5, 2, 3),
            .r = 2,
            .topk = topk};
}

/// The softmax-weighted sum of the vectors with the largest logits, by sorting all of them.
vector<double> mixed(const vblora_adapter<double>& a, const matrix<double>& logits, lowrank::index row) {
    std::vector<std::pair<double, lowrank::index>> all;
    for (lowrank::index j = 0; j < logits.cols(); ++j) {
        all.emplace_back(-logits(row, j), j);
    }
    std::sort(all.begin(), all.end());
    all.resize(static_cast<std::size_t>(a.topk));
    double sum = 0;
    vector<double> out = vector<double>::Zero(a.bank.cols());
    for (const auto& [negative, j] : all) {
        sum += std::exp(-negative);
        out += std::exp(-negative) * a.bank.row(j).transpose();
    }
    return out / sum;
}

}  // namespace

TEST_CASE("VB-LoRA: rows of A and columns of B are pieces mixed from the bank") {
    for (const lowrank::index topk : {1, 2, 5}) {
        auto a = some_vblora(topk);
        matrix<double> left(4, 2), right(2, 6);
        for (lowrank::index i = 0; i < 2; ++i) {
            for (lowrank::index t = 0; t < 3; ++t) {
                right.row(i).segment(2 * t, 2) = mixed(a, a.A.logits, 3 * i + t).transpose();
            }
            for (lowrank::index t = 0; t < 2; ++t) {
                left.col(i).segment(2 * t, 2) = mixed(a, a.B.logits, 2 * t + i);
            }
        }
        const auto change = a.delta();
        CHECK(max_abs_diff(change.left, left) < 1e-14);
        CHECK(max_abs_diff(change.right, right) < 1e-14);
        const auto g = probe_gradient(a);
        const auto loss = [&] { return probe_loss(a); };
        CHECK(relative_diff(g.bank, numeric_gradient(a.bank, loss)) < 1e-7);
        CHECK(relative_diff(g.A.logits, numeric_gradient(a.A.logits, loss)) < 1e-7);
        CHECK(relative_diff(g.B.logits, numeric_gradient(a.B.logits, loss)) < 1e-7);
    }
}

TEST_CASE("VB-LoRA: a choice that is fixed gives the same change, and trains the bank alone") {
    const auto a = some_vblora(2);
    vblora_adapter<double> fixed = a;
    const auto fix = [&](vblora_pieces<double>& p) {
        p.indices.resize(p.logits.rows(), 2);
        p.weights.resize(p.logits.rows(), 1);
        for (lowrank::index i = 0; i < p.logits.rows(); ++i) {
            vector<double> row = p.logits.row(i).transpose();
            lowrank::index at = 0;
            const double first = row.maxCoeff(&at);
            p.indices(i, 0) = static_cast<std::int32_t>(at);
            row(at) = -1e9;
            const double second = row.maxCoeff(&at);
            p.indices(i, 1) = static_cast<std::int32_t>(at);
            p.weights(i, 0) = 1 / (1 + std::exp(second - first));
        }
        p.logits.resize(0, 0);
    };
    fix(fixed.A);
    fix(fixed.B);
    CHECK(max_abs_diff(fixed.delta().dense(), a.delta().dense()) < 1e-14);
    any_adapter<double> any = fixed;
    CHECK(any.parameter_count() == 10);
    CHECK(any.parameters().front().shared == "vblora_vector_bank");
    const auto g = probe_gradient(fixed);
    CHECK(relative_diff(g.bank, numeric_gradient(fixed.bank, [&] { return probe_loss(fixed); })) < 1e-7);
    fixed.A.indices(0, 0) = 5;
    CHECK_THROWS_AS((void)fixed.delta(), contract_violation);
}

TEST_CASE("VB-LoRA: new adapters share a bank, change nothing, and layers train it together") {
    const row_matrix<double> w1 = random_weight<double>(8, 12, 1), w2 = random_weight<double>(4, 8, 2);
    const vblora_options options{.r = 2, .num_vectors = 8, .vector_length = 4, .bound = 0.5, .seed = 3};
    const auto with_stream = [&](std::uint64_t stream) {
        auto own = options;
        own.stream = stream;
        return own;
    };
    const auto one = make_vblora<double>(8, 12, with_stream(0));
    const auto two = make_vblora<double>(4, 8, with_stream(1));
    CHECK(same_bits(one.bank, two.bank));
    CHECK(detail::all_zero(one.delta().dense()));
    const double slope = probe_gradient(one).B.logits.norm();
    CHECK(slope > 1e-3);

    trainer<double> together({.optimizer = optimizer_kind::sgd, .learning_rate = 0.1});
    together.add("one", one, as_operator(w1));
    together.add("two", two, as_operator(w2));
    workspace ws;
    const auto x1 = random_matrix<double>(12, 3, 5), dy1 = random_matrix<double>(8, 3, 6);
    const auto x2 = random_matrix<double>(8, 3, 7), dy2 = random_matrix<double>(4, 3, 8);
    const auto bank_gradient = [&](const any_adapter<double>& a, const auto& w, const auto& x, const auto& dy) {
        auto g = a.zero_gradient();
        a.backward(as_operator(w), 1, x, dy, g, nullptr, ws);
        vector<double> flat = vector<double>::Zero(a.parameter_count());
        a.pull_back(g, std::span(flat.data(), static_cast<std::size_t>(flat.size())));
        return vector<double>(flat.tail(32));
    };
    const vector<double> sum =
        bank_gradient(together.adapter(0), w1, x1, dy1) + bank_gradient(together.adapter(1), w2, x2, dy2);
    CHECK(sum.norm() > 1e-3);
    const auto accumulate = [&](lowrank::index i, const auto& w, const auto& x, const auto& dy) {
        auto g = together.adapter(i).zero_gradient();
        together.adapter(i).backward(as_operator(w), 1, x, dy, g, nullptr, ws);
        together.accumulate(i, g);
    };
    accumulate(0, w1, x1, dy1);
    accumulate(1, w2, x2, dy2);
    REQUIRE(together.step());
    const auto& bank_one = together.adapter(0).get<vblora_adapter<double>>()->bank;
    CHECK(same_bits(bank_one, together.adapter(1).get<vblora_adapter<double>>()->bank));
    CHECK(max_abs_diff(matrix<double>(one.bank - 0.1 * sum.reshaped(8, 4)), bank_one) < 1e-14);
    // The state holds the bank once, and gives it back to both.
    const auto saved = together.state();
    CHECK(saved.tensors.contains("vblora_vector_bank"));
    CHECK(saved.tensors.size() == 5);
    accumulate(1, w2, x2, dy2);
    REQUIRE(together.step());
    REQUIRE(together.restore(saved));
    CHECK(same_bits(together.adapter(1).get<vblora_adapter<double>>()->bank,
                    together.adapter(0).get<vblora_adapter<double>>()->bank));
    CHECK(max_abs_diff(matrix<double>(one.bank - 0.1 * sum.reshaped(8, 4)),
                       together.adapter(1).get<vblora_adapter<double>>()->bank) < 1e-14);

    trainer<double> apart;
    apart.add("one", one, as_operator(w1));
    auto other = two;
    other.bank *= 2;
    apart.add("two", other, as_operator(w2));
    CHECK_THROWS_AS((void)apart.step(), contract_violation);
    CHECK_THROWS_AS((void)make_vblora<double>(8, 10, options), contract_violation);
    CHECK_THROWS_AS((void)make_vblora<double>(8, 12, {.num_vectors = 8, .vector_length = 4, .topk = 3}),
                    contract_violation);
}
