// SPDX-License-Identifier: MIT
// A frozen layer with two adapters over it; one of them is trained.
#include <cstdio>
#include <memory>
#include <vector>

#include <lowrank/lowrank.hpp>

int main() {
    const lowrank::index out = 64, in = 48, tokens = 256;
    lowrank::row_matrix<float> w(out, in);
    lowrank::fill_normal(w, 0.1F, lowrank::philox(1));

    auto trained = lowrank::make_lora<float>(out, in, {.r = 4, .lora_alpha = 8});
    auto other = lowrank::make_lora<float>(out, in, {.r = 2, .seed = 9});
    lowrank::fill_normal(other.lora_B, 0.1F, lowrank::philox(4));

    // Which adapters apply, and how strongly, is said by the layer; the adapters know nothing of it. What serves is
    // immutable: a layer with the values of now costs a copy of the factors.
    const auto frozen = std::make_shared<const lowrank::any_adapter<float>>(other);
    const auto layer = [&] {
        const auto now = std::make_shared<const lowrank::any_adapter<float>>(trained);
        return lowrank::adapted_linear<float>{.base = lowrank::as_operator(w),
                                              .adapters = {{now, 1.0F}, {frozen, 0.5F}}};
    };

    // The task: what the layer does now, plus an unknown change of rank 3.
    lowrank::matrix<float> x(in, tokens);
    lowrank::fill_normal(x, 1.0F, lowrank::philox(2));
    lowrank::low_rank<float> change{.left = lowrank::matrix<float>(out, 3), .right = lowrank::matrix<float>(3, in)};
    lowrank::fill_normal(change.left, 0.2F, lowrank::philox(5));
    lowrank::fill_normal(change.right, 0.2F, lowrank::philox(6));
    const lowrank::matrix<float> target = lowrank::apply(layer(), x) + lowrank::apply(change, x);

    auto gradient = lowrank::zero_gradient(trained);
    std::vector<lowrank::trainable<float>> parameters;
    lowrank::append(parameters, trained, gradient);
    auto moments = lowrank::make_adamw_state(parameters);

    lowrank::workspace ws;
    float error = 1.0F;
    for (int step = 0; step <= 300; ++step) {
        const lowrank::matrix<float> dy = (lowrank::apply(layer(), x) - target) / float(tokens);  // of 1/2 mean ||.||^2
        error = dy.norm() * float(tokens) / target.norm();
        if (step % 100 == 0) {
            std::printf("step %3d: relative error %.5f\n", step, static_cast<double>(error));
        }
        gradient.set_zero();
        lowrank::lora_backward(trained, 1.0F, x, dy, gradient, nullptr, ws);
        lowrank::adamw_step(parameters, moments, {.groups = {{.learning_rate = 1e-2}}});
    }
    return error < 0.01F ? 0 : 1;
}
