// SPDX-License-Identifier: MIT
// Any bytes as the journal of a search: refused with a sentence, or what was accepted reads back alike.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <lowrank/laser/edits/journal.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using lowrank::search_journal;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto journal = search_journal::read(text);
    if (!journal) {
        if (journal.error().message.empty()) {
            std::abort();
        }
        return 0;
    }
    if (journal->accepted_bytes() > size) {
        std::abort();
    }
    const auto again = search_journal::read(text.substr(0, journal->accepted_bytes()));
    if (!again || again->size() != journal->size() || again->accepted_bytes() != journal->accepted_bytes()) {
        std::abort();
    }
    return 0;
}
