// What the examples in headers use without declaring it. Nothing of this is defined: the examples are compiled, not run.
#ifndef LOWRANK_TESTS_HEADER_EXAMPLES_HPP
#define LOWRANK_TESTS_HEADER_EXAMPLES_HPP

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <lowrank/lowrank.hpp>

extern lowrank::row_matrix<float> w, base, tuned;  // weights, out x in
extern lowrank::matrix<float> x, y, dy;            // inputs, outputs and their gradient, one column per token
extern lowrank::column_view<float> dx;
extern lowrank::matrix<float> lora_A, lora_B;
extern lowrank::lora_adapter<float> adapter;
extern lowrank::workspace ws;
extern const lowrank::index out, in, tokens, rank, m, n;
extern const std::uint64_t seed, step;

template <class... A>
void log(const A&...);
template <class... A>
void use(const A&...);

// core
namespace examples_of_core {
extern const bool stop_requested;
extern const std::size_t bytes;
struct thread_pool {
    void parallel_for(lowrank::index n, const lowrank::task& body);
};
extern thread_pool pool;
}  // namespace examples_of_core

namespace examples_of_factor {
extern lowrank::decomposition<float> spec;
extern std::vector<lowrank::decomposition<float>> spectra;
extern const lowrank::index parameters;
extern lowrank::low_rank<float> a, b;
extern std::vector<lowrank::matrix<float>> batches;
extern std::vector<lowrank::row_matrix<float>> panels;
extern lowrank::matrix<float> new_rows;
extern lowrank::moment_accumulator statistics;
extern lowrank::gram_accumulator c;
extern lowrank::qr_accumulator t;
}  // namespace examples_of_factor

namespace examples_of_quant {}
namespace examples_of_prune {}

namespace examples_of_lora {
extern lowrank::decomposition<float> spec;
extern lowrank::lora_adapter<float> poet, coder, at_start;
extern lowrank::loha_adapter<float> factored;
extern lowrank::oft_adapter<float> rotating;
extern lowrank::matrix<float> small, core, factor, image, dw;
extern lowrank::vector<float> magnitude;
extern lowrank::row_matrix<float> table;
extern std::vector<std::int64_t> ids;
extern std::vector<lowrank::trainable<float>> list;
}  // namespace examples_of_lora

namespace examples_of_laser {
extern lowrank::decomposition<float> spec;
extern lowrank::search_model<float> model;
extern lowrank::row_matrix<float> up, down;
extern std::vector<lowrank::edit> edits;
extern std::vector<lowrank::weight_shape> shapes;
extern lowrank::edit_receipt<float> edited;
extern lowrank::sample_scores before, after;
extern lowrank::matrix<float> logits;
extern std::vector<std::int64_t> targets;
extern const std::string old_text, generated;
bool predicts_right(lowrank::index sample);
double log_loss(lowrank::index sample);
lowrank::result<lowrank::sample_scores> score_samples(lowrank::sample_range samples);
}  // namespace examples_of_laser

#endif
