// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LOWRANK_HPP
#define LOWRANK_LOWRANK_HPP

/// \file
/// Every floor but io, which needs nlohmann/json and is included by name. Written by cmake/names.cmake.
///
///     #include <lowrank/lowrank.hpp>
///     auto s = lowrank::make_spectrum(w);             // once per weight
///     auto best = s->truncate(8);                     // any rank after that
///
/// docs/index.md says which header holds what.

#include <lowrank/core/check.hpp>
#include <lowrank/core/checksum.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_map.hpp>
#include <lowrank/core/map_reference.hpp>
#include <lowrank/core/normal_quantile.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/scalar.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/storage.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

#include <lowrank/factor/adaptive_svd.hpp>
#include <lowrank/factor/error_estimate.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/interpolative.hpp>
#include <lowrank/factor/krylov_svd.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/metric.hpp>
#include <lowrank/factor/noise_threshold.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/partition.hpp>
#include <lowrank/factor/randomized_svd.hpp>
#include <lowrank/factor/rank_budget.hpp>
#include <lowrank/factor/rank_rules.hpp>
#include <lowrank/factor/shared_basis.hpp>
#include <lowrank/factor/shrink.hpp>
#include <lowrank/factor/single_pass_svd.hpp>
#include <lowrank/factor/sketch.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/factor/statistics.hpp>
#include <lowrank/factor/subspace.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>
#include <lowrank/factor/truncated_svd.hpp>
#include <lowrank/factor/update.hpp>
#include <lowrank/factor/weighted.hpp>

#include <lowrank/quant/ggml_blocks.hpp>
#include <lowrank/quant/ggml_type.hpp>
#include <lowrank/quant/normal_float.hpp>

#include <lowrank/prune/magnitude.hpp>

#include <lowrank/lora/adalora.hpp>
#include <lowrank/lora/adalora_allocator.hpp>
#include <lowrank/lora/adamw.hpp>
#include <lowrank/lora/adapted_linear.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_stack.hpp>
#include <lowrank/lora/alora.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/arithmetic.hpp>
#include <lowrank/lora/block_dropout.hpp>
#include <lowrank/lora/block_rotation.hpp>
#include <lowrank/lora/boft.hpp>
#include <lowrank/lora/cayley.hpp>
#include <lowrank/lora/combine.hpp>
#include <lowrank/lora/conv.hpp>
#include <lowrank/lora/conv_lora.hpp>
#include <lowrank/lora/convert.hpp>
#include <lowrank/lora/data_init.hpp>
#include <lowrank/lora/diagnostics.hpp>
#include <lowrank/lora/dora.hpp>
#include <lowrank/lora/dropout.hpp>
#include <lowrank/lora/embedding.hpp>
#include <lowrank/lora/extract.hpp>
#include <lowrank/lora/gradient.hpp>
#include <lowrank/lora/hira.hpp>
#include <lowrank/lora/hra.hpp>
#include <lowrank/lora/ia3.hpp>
#include <lowrank/lora/init.hpp>
#include <lowrank/lora/kasa.hpp>
#include <lowrank/lora/loftq.hpp>
#include <lowrank/lora/loha.hpp>
#include <lowrank/lora/lokr.hpp>
#include <lowrank/lora/lora.hpp>
#include <lowrank/lora/merge.hpp>
#include <lowrank/lora/merge_stack.hpp>
#include <lowrank/lora/merge_transformed.hpp>
#include <lowrank/lora/merged_linear.hpp>
#include <lowrank/lora/miss.hpp>
#include <lowrank/lora/miss_bat.hpp>
#include <lowrank/lora/mixed_batch.hpp>
#include <lowrank/lora/oft.hpp>
#include <lowrank/lora/precondition.hpp>
#include <lowrank/lora/randlora.hpp>
#include <lowrank/lora/rank_choice.hpp>
#include <lowrank/lora/resize.hpp>
#include <lowrank/lora/rotation.hpp>
#include <lowrank/lora/schedule.hpp>
#include <lowrank/lora/sgd.hpp>
#include <lowrank/lora/spectral_init.hpp>
#include <lowrank/lora/trainable.hpp>
#include <lowrank/lora/trainer.hpp>
#include <lowrank/lora/tucker.hpp>
#include <lowrank/lora/vera.hpp>
#include <lowrank/lora/weighted_adapter.hpp>

#include <lowrank/laser/component_set.hpp>
#include <lowrank/laser/data_free.hpp>
#include <lowrank/laser/edit.hpp>
#include <lowrank/laser/edit_list.hpp>
#include <lowrank/laser/evaluation.hpp>
#include <lowrank/laser/evidence.hpp>
#include <lowrank/laser/gradient_search.hpp>
#include <lowrank/laser/greedy_search.hpp>
#include <lowrank/laser/group_search.hpp>
#include <lowrank/laser/halving_search.hpp>
#include <lowrank/laser/joint_ranks.hpp>
#include <lowrank/laser/journal.hpp>
#include <lowrank/laser/metrics.hpp>
#include <lowrank/laser/named_weight.hpp>
#include <lowrank/laser/nested_ranks.hpp>
#include <lowrank/laser/random_change.hpp>
#include <lowrank/laser/sample_split.hpp>
#include <lowrank/laser/search.hpp>
#include <lowrank/laser/search_model.hpp>
#include <lowrank/laser/search_options.hpp>
#include <lowrank/laser/sigma_gradient.hpp>
#include <lowrank/laser/weight_editor.hpp>

#endif  // LOWRANK_LOWRANK_HPP
