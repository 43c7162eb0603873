// SPDX-License-Identifier: MIT
// lowrank::io: a file that is not there is a status, not a crash.
#include <cstdio>

#include <lowrank/io/containers/safetensors.hpp>

int main() {
    const auto file = lowrank::safetensors_file::open("no-such-file.safetensors");
    if (file || file.error().code != lowrank::errc::not_found) {
        std::fputs("a missing file must be reported as not found\n", stderr);
        return 1;
    }
    return 0;
}
