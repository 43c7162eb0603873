// SPDX-License-Identifier: MIT
// A kind of modules of PEFT folders that does not say how it is read.
// expects: join\(parts, context\) is missing: a module from its tensors
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

namespace {

struct row_shift {
    lowrank::vector<float> by = {};
};

}  // namespace

template <>
struct lowrank::peft_kind<row_shift> {
    static constexpr const char* only_merges = "shifts rows";
    static std::vector<peft_type> types() { return {{.name = "SHIFT", .leaves = {"shift"}}}; }
    static const char* label(const row_shift&) { return "row shift"; }
    static module_shape shape(const row_shift& m) { return {m.by.size(), 0}; }
    static bool fit(row_shift& m, lowrank::index out, lowrank::index) { return m.by.size() == out; }
    static peft_facts facts(const row_shift&) { return {}; }
    static peft_change change(const row_shift&) { return {}; }
    static void write(const row_shift& m, peft_tensors& to) { to.add("shift", {1}, m.by); }
#ifndef LOWRANK_COMPILE_FAIL
    static row_shift join(peft_parts& parts, const peft_context&) { return {parts.take_vector("shift")}; }
#endif
};

int main() {
    const lowrank::peft_module m = row_shift{};
    return m.get<row_shift>() != nullptr ? 0 : 1;
}
