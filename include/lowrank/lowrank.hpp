// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LOWRANK_HPP
#define LOWRANK_LOWRANK_HPP

/// \file
/// Every floor but io, which needs nlohmann/json and is included by name. Written by cmake/names.cmake.
///
///     #include <lowrank/lowrank.hpp>
///     auto s = lowrank::svd(w);                       // once per weight
///     auto best = s.truncate(8);                      // any rank after that
///
/// docs/index.md says which header holds what.

#include <lowrank/core/check.hpp>
#include <lowrank/core/checksum.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/normal_quantile.hpp>
#include <lowrank/core/operator_columns.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/packets.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/scalar.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/storage.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/error_evidence.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/partition.hpp>
#include <lowrank/factor/ranks/noise_threshold.hpp>
#include <lowrank/factor/ranks/rank_budget.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/ranks/shrink.hpp>
#include <lowrank/factor/sketched/adaptive_svd.hpp>
#include <lowrank/factor/sketched/error_estimate.hpp>
#include <lowrank/factor/sketched/interpolative.hpp>
#include <lowrank/factor/sketched/krylov_svd.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/sketched/single_pass_svd.hpp>
#include <lowrank/factor/sketched/sketch.hpp>
#include <lowrank/factor/sketched/update.hpp>
#include <lowrank/factor/subspace.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>
#include <lowrank/factor/truncated_svd.hpp>
#include <lowrank/factor/weighted/shared_basis.hpp>
#include <lowrank/factor/weighted/statistics.hpp>
#include <lowrank/factor/weighted/weighted.hpp>
#include <lowrank/factor/weighted/weighting.hpp>

#include <lowrank/quant/formats/ggml_blocks.hpp>
#include <lowrank/quant/formats/ggml_type.hpp>
#include <lowrank/quant/formats/normal_float.hpp>
#include <lowrank/quant/formats/small_floats.hpp>

#include <lowrank/prune/magnitude.hpp>

#include <lowrank/lora/adapted_linear.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/adapter_stack.hpp>
#include <lowrank/lora/algebra/block_diagonal.hpp>
#include <lowrank/lora/algebra/block_rotation.hpp>
#include <lowrank/lora/algebra/cayley.hpp>
#include <lowrank/lora/algebra/rotation.hpp>
#include <lowrank/lora/algebra/tucker.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/combine/arithmetic.hpp>
#include <lowrank/lora/combine/combine.hpp>
#include <lowrank/lora/combine/weighted_adapter.hpp>
#include <lowrank/lora/convert/convert.hpp>
#include <lowrank/lora/convert/extract.hpp>
#include <lowrank/lora/convert/resize.hpp>
#include <lowrank/lora/diagnostics.hpp>
#include <lowrank/lora/hold_adapter.hpp>
#include <lowrank/lora/init/data_init.hpp>
#include <lowrank/lora/init/init.hpp>
#include <lowrank/lora/init/loftq.hpp>
#include <lowrank/lora/init/precondition.hpp>
#include <lowrank/lora/init/spectral_init.hpp>
#include <lowrank/lora/kinds/adalora.hpp>
#include <lowrank/lora/kinds/delora.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/hira.hpp>
#include <lowrank/lora/kinds/ia3.hpp>
#include <lowrank/lora/kinds/list.hpp>
#include <lowrank/lora/kinds/loha.hpp>
#include <lowrank/lora/kinds/lokr.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/kinds/lora_forms/alora.hpp>
#include <lowrank/lora/kinds/lora_forms/bdlora.hpp>
#include <lowrank/lora/kinds/lora_forms/conv_lora.hpp>
#include <lowrank/lora/kinds/lora_forms/expert_lora.hpp>
#include <lowrank/lora/kinds/lora_forms/kasa.hpp>
#include <lowrank/lora/kinds/lora_forms/merged_linear.hpp>
#include <lowrank/lora/kinds/lora_forms/qalora.hpp>
#include <lowrank/lora/kinds/lora_forms/table_lora.hpp>
#include <lowrank/lora/kinds/miss.hpp>
#include <lowrank/lora/kinds/miss_bat.hpp>
#include <lowrank/lora/kinds/replacement.hpp>
#include <lowrank/lora/kinds/rotations/boft.hpp>
#include <lowrank/lora/kinds/rotations/hra.hpp>
#include <lowrank/lora/kinds/rotations/oft.hpp>
#include <lowrank/lora/kinds/rotations/output_rotation.hpp>
#include <lowrank/lora/kinds/rotations/road.hpp>
#include <lowrank/lora/kinds/shared/randlora.hpp>
#include <lowrank/lora/kinds/shared/tinylora.hpp>
#include <lowrank/lora/kinds/shared/vblora.hpp>
#include <lowrank/lora/kinds/shared/vera.hpp>
#include <lowrank/lora/kinds/structured/c3a.hpp>
#include <lowrank/lora/kinds/structured/entry_positions.hpp>
#include <lowrank/lora/kinds/structured/fourierft.hpp>
#include <lowrank/lora/kinds/structured/gralora.hpp>
#include <lowrank/lora/kinds/structured/shira.hpp>
#include <lowrank/lora/layers/conv.hpp>
#include <lowrank/lora/layers/embedding.hpp>
#include <lowrank/lora/merge/merge.hpp>
#include <lowrank/lora/merge/merge_change.hpp>
#include <lowrank/lora/merge/merge_stack.hpp>
#include <lowrank/lora/merge/merge_transformed.hpp>
#include <lowrank/lora/mixed_batch.hpp>
#include <lowrank/lora/new_adapter.hpp>
#include <lowrank/lora/train/adalora_allocator.hpp>
#include <lowrank/lora/train/adamw.hpp>
#include <lowrank/lora/train/block_dropout.hpp>
#include <lowrank/lora/train/dropout.hpp>
#include <lowrank/lora/train/schedule.hpp>
#include <lowrank/lora/train/sgd.hpp>
#include <lowrank/lora/train/trainable.hpp>
#include <lowrank/lora/train/trainer.hpp>

#include <lowrank/laser/edits/component_set.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/edit_list.hpp>
#include <lowrank/laser/edits/joint_ranks.hpp>
#include <lowrank/laser/edits/journal.hpp>
#include <lowrank/laser/edits/named_weight.hpp>
#include <lowrank/laser/edits/nested_ranks.hpp>
#include <lowrank/laser/edits/random_change.hpp>
#include <lowrank/laser/edits/weight_editor.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/evidence/evidence.hpp>
#include <lowrank/laser/scores/data_free.hpp>
#include <lowrank/laser/scores/metrics.hpp>
#include <lowrank/laser/scores/sigma_gradient.hpp>
#include <lowrank/laser/search/gradient_search.hpp>
#include <lowrank/laser/search/greedy_search.hpp>
#include <lowrank/laser/search/group_search.hpp>
#include <lowrank/laser/search/halving_search.hpp>
#include <lowrank/laser/search/sample_split.hpp>
#include <lowrank/laser/search/search.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

#endif  // LOWRANK_LOWRANK_HPP
