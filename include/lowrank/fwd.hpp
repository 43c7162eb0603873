// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FWD_HPP
#define LOWRANK_FWD_HPP

/// \file
/// The name of every class, for headers that hold pointers and references only. Includes neither Eigen nor containers.
/// Written by cmake/names.cmake.
///
///     #include <lowrank/fwd.hpp>
///     class engine {
///         std::unique_ptr<lowrank::any_operator<float>> base_;
///     };

#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/scalar.hpp>

namespace lowrank::inline LOWRANK_ABI {

// core
class contract_violation;
template <class T>
class dense_view;
template <storage T, int Order>
class dense_operator;
template <storage T>
class owned_operator;
template <real S>
class any_operator;
template <real S>
class operator_sum;
template <real S>
class operator_reference;
class philox;
struct progress;
enum class errc;
struct status;
struct fallible;
class failure;
template <class T>
class result;
class workspace;

// factor
enum class sigma_split;
template <real S>
struct decomposition;
enum class error_source;
struct error_evidence;
template <real S>
struct low_rank;
template <real S>
struct thin_qr_result;
enum class orthonormalization;
template <real S>
class partitioned_low_rank;
struct cluster_options;
struct cluster_result;
template <real S>
struct partition_result;
template <real S>
struct row_group;
struct budget_item;
struct rank_plan;
enum class rank_rule;
struct rank_choice;
class singular_values_in;
struct adaptive_svd_options;
struct spectral_norm_options;
struct spectral_norm_result;
template <real S>
struct pivoted_qr_result;
struct pivoted_qr_options;
template <real S>
struct interpolative_result;
template <real S>
struct cur_result;
struct krylov_svd_options;
struct randomized_svd_options;
struct single_pass_options;
template <real S>
class single_pass_sketch;
struct symmetric_eigen_result;
template <real S>
struct shared_basis_result;
class gram_accumulator;
class qr_accumulator;
class moment_accumulator;
class fisher_accumulator;
struct weightings;
enum class weighting_kind;
class weighting;

// quant
struct quantized_type;
enum class ggml_type : std::int32_t;
struct normal_float_options;
struct normal_float_matrix;
enum class float8_format : std::uint8_t;
class float8_encoder;

// lora
template <real S>
struct adapted_linear;
template <real S>
struct delta_gradient;
template <real S>
struct used_adapter;
template <real S>
struct rotation_factor;
template <real S>
struct block_rotation;
template <real S>
struct tucker_gradient;
template <real S>
struct adapter_parameter;
template <real S>
class adapter_gradient;
template <real S>
class any_adapter;
class any_row_transform;
template <real S>
struct product_rows;
template <real S>
struct scaled_change;
template <real S>
struct magnitude_change;
struct row_change;
struct added_rows_change;
template <real S>
struct replacement;
enum class combine_rule;
enum class sign_election;
enum class ties_divisor;
struct combine_options;
enum class combination_type;
enum class weighted_rule;
struct weighted_options;
enum class masked_tensor;
template <real S>
struct lora_conversion;
struct extraction_options;
template <real S>
struct lora_extraction;
template <real S>
struct lora_resize;
template <real S>
struct change_diagnostics;
enum class direction_side;
struct amplification_result;
struct intruder;
struct intruder_options;
template <real S>
struct reduced_change;
template <class Model, real S>
struct typed_gradient;
template <class A>
struct holder;
enum class corda_weighting;
struct corda_options;
class input_statistics;
struct input_components;
struct eva_options;
enum class lora_ga_direction;
enum class lora_ga_scale;
struct lora_ga_options;
enum class random_init;
struct normal_float_quantizer;
struct ggml_quantizer;
struct loftq_options;
template <real S>
struct loftq_start;
enum class init_scaling;
template <real S>
struct adalora_adapter;
struct adalora_options;
struct delora_options;
template <real S>
struct delora_adapter;
template <real S>
struct dora_adapter;
template <real S>
struct dora_linear;
template <real S>
class applied_dora;
struct hira_options;
template <real S>
struct hira_adapter;
template <storage T>
class hira_operator;
class hira_rows;
template <real S>
class applied_hira;
template <real S>
struct scaled_operator;
template <real S>
struct ia3_adapter;
template <real S>
class applied_ia3;
template <real S>
struct makeable_kind;
template <real S>
struct loha_adapter;
struct loha_options;
template <real S>
struct lokr_factor;
template <real S>
struct kronecker_operator;
template <real S>
struct lokr_adapter;
struct lokr_options;
template <real S>
class applied_lokr;
template <real S>
struct lora_adapter;
template <real S>
struct lora_gradient;
template <real S, class A>
class applied_lora;
template <real S>
struct alora_adapter;
template <real S>
struct bdlora_adapter;
struct bdlora_options;
template <real S>
class applied_bdlora;
template <real S>
struct conv_lora_adapter;
template <real S>
class applied_conv_lora;
template <real S>
struct product_blocks;
enum class expert_layout;
template <real S>
struct expert_lora;
template <real S>
struct kasa_adapter;
template <real S>
struct kasa_start;
template <real S>
struct merged_linear_adapter;
template <real S>
struct qalora_adapter;
template <real S>
class applied_qalora;
template <real S>
struct table_lora_adapter;
struct miss_options;
template <real S>
struct miss_operator;
template <real S>
struct miss_adapter;
struct miss_bat_options;
template <real S>
struct miss_bat_adapter;
template <storage T>
class miss_bat_operator;
class miss_bat_rows;
template <real S>
class applied_miss_bat;
template <real S>
struct replacement_adapter;
template <real S>
class applied_replacement;
struct boft_options;
template <real S>
struct boft_adapter;
template <real S>
struct householder_rotation;
struct hra_options;
template <real S>
struct hra_adapter;
struct oft_options;
template <real S>
struct oft_adapter;
template <real S>
struct output_rotation_adapter;
template <real S>
class applied_output_rotation;
struct road_options;
template <real S>
struct road_adapter;
template <real S>
class applied_road;
template <real S>
struct randlora_projections;
enum class randlora_kind;
struct randlora_options;
template <real S>
struct randlora_adapter;
template <real S>
struct tinylora_adapter;
struct tinylora_options;
template <real S>
struct vblora_pieces;
template <real S>
struct vblora_adapter;
struct vblora_options;
template <real S>
struct vera_projections;
template <real S>
struct vera_adapter;
struct c3a_options;
template <real S>
struct c3a_adapter;
struct fourierft_options;
struct fourierft_waves;
template <real S>
struct fourierft_adapter;
template <real S>
struct gralora_adapter;
struct gralora_options;
template <real S>
class applied_gralora;
struct shira_options;
template <real S>
struct shira_adapter;
enum class padding_mode;
struct conv_geometry;
template <storage T>
class grouped_operator;
struct embedding_options;
struct merge_audit;
struct merge_receipt;
template <real S>
struct merge_options;
struct change_merge_options;
template <storage T>
class merge_stack;
struct transformed_merge_options;
struct lora_options;
struct adapted_layers;
template <real S>
struct target_layer;
struct adalora_schedule;
struct adalora_budget;
template <real S>
struct adalora_importance;
template <real S>
struct adalora_allocator;
struct adalora_allocation;
struct adamw_options;
template <real S>
struct adamw_state;
struct dropped_blocks;
struct dropout_key;
enum class decay;
struct learning_rate_schedule;
struct sgd_options;
template <real S>
struct sgd_state;
template <real S>
struct trainable;
struct parameter_group;
enum class optimizer_kind;
struct trainer_options;
struct training_step;
template <real S>
struct trainer_state;
template <real S>
class trainer;

// laser
class component_set;
struct kept_components;
struct kept_blocks;
struct kept_clusters;
struct kept_entries;
struct edit;
template <real S>
struct weight_override;
template <storage T>
struct edit_receipt;
template <storage T>
struct applied_edit;
struct weight_shape;
struct joint_plan;
class search_journal;
template <storage T>
struct named_weight;
template <real S>
class nested_ranks;
struct edit_size;
template <storage T>
class weight_editor;
struct sample_range;
struct sample_scores;
struct score;
struct evaluation_options;
struct interval;
struct paired_evidence;
enum class data_free_policy;
struct sigma_scores;
enum class screening_policy;
template <real S>
class sigma_gradient;
struct gradient_options;
struct greedy_options;
struct weight_group;
struct halving_options;
struct split_options;
struct sample_split;
struct exhaustive_options;
template <storage T>
struct search_model;
struct required_range;
struct search_options;
struct candidate_edit;
struct search_candidate;
struct search_round;
struct search_result;

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FWD_HPP
