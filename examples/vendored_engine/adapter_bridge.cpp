// SPDX-License-Identifier: MIT
// The one C++20 file of the engine.
#include "adapter_bridge.hpp"

#include <lowrank.hpp>

namespace engine {

struct adapter::state {
    lowrank::lora_adapter<float> lora;
    lowrank::workspace scratch = {};
};

adapter::adapter(std::unique_ptr<state> s) : state_(std::move(s)) {}
adapter::~adapter() = default;

std::unique_ptr<adapter> adapter::make(const float* lora_A, const float* lora_B, std::size_t out, std::size_t in,
                                       std::size_t r, float lora_alpha, std::string& why) {
    const auto rows = static_cast<lowrank::index>(out);
    const auto cols = static_cast<lowrank::index>(in);
    const auto rank = static_cast<lowrank::index>(r);
    const lowrank::const_weight_view<float> a(lora_A, rank, cols);
    const lowrank::const_weight_view<float> b(lora_B, rows, rank);
    if (!lowrank::all_finite(a) || !lowrank::all_finite(b)) {
        why = "the adapter holds NaN or infinity";
        return nullptr;
    }
    std::unique_ptr<state> s(new state{lowrank::make_lora<float>(rows, cols, {.r = rank, .lora_alpha = lora_alpha})});
    s->lora.lora_A = a;
    s->lora.lora_B = b;
    return std::unique_ptr<adapter>(new adapter(std::move(s)));
}

void adapter::apply(float strength, const float* x, float* y, std::size_t tokens) const {
    const auto n = static_cast<lowrank::index>(tokens);
    const auto& lora = state_->lora;
    lora.add_product(strength, lowrank::const_column_view<float>(x, lora.cols(), n),
                     lowrank::column_view<float>(y, lora.rows(), n), state_->scratch);
}

}  // namespace engine
