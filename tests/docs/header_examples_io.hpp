// What the examples in headers of io use, beside the names of header_examples.hpp.
#ifndef LOWRANK_TESTS_HEADER_EXAMPLES_IO_HPP
#define LOWRANK_TESTS_HEADER_EXAMPLES_IO_HPP

#include <cstddef>
#include <optional>

#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/gguf.hpp>
#include <lowrank/io/formats/adapter_format.hpp>
#include <lowrank/io/models/model_config.hpp>
#include <lowrank/io/peft.hpp>

#include "header_examples.hpp"

namespace examples_of_io {
extern lowrank::result<lowrank::checkpoint> before, after;  // of a fine-tuning
extern lowrank::result<lowrank::peft_adapter> poet, coder;
extern std::span<const std::byte> bytes;
extern lowrank::model_config config;
extern lowrank::matrix<float> blocks;
extern std::vector<lowrank::gguf_entry> entries;
lowrank::lora_name parse_my_name(std::string_view tensor);
lowrank::status emit_my_tensors(lowrank::lora_tensors& tensors, const std::string& module,
                                const lowrank::lora_adapter<float>& lora, const lowrank::lora_write_options& options);
lowrank::index rows_of(const std::string& module);
lowrank::index cols_of(const std::string& module);
}  // namespace examples_of_io

#endif
