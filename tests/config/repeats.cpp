// SPDX-License-Identifier: MIT
// Lists the places where two files of a folder say the same for eight lines or more.
//
//     lint_repeats include
//
// Counted are lines of logic without white space: no comments, no preprocessor, no line of punctuation alone, no
// namespace. The status is 1 if there is such a place.
#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace {

struct line {
    std::size_t number;
    std::string text;
};

std::vector<line> logic_of(const std::filesystem::path& path) {
    std::vector<line> out;
    std::ifstream file(path);
    std::string raw;
    for (std::size_t number = 1; std::getline(file, raw); ++number) {
        std::string text;
        for (const char c : raw) {
            if (std::isspace(static_cast<unsigned char>(c)) == 0) {
                text.push_back(c);
            }
        }
        if (text.find('"') == text.npos) {
            text = text.substr(0, text.find("//"));
        }
        const bool words = std::any_of(text.begin(), text.end(), [](char c) { return std::isalnum(c) != 0; });
        if (words && text[0] != '#' && !text.starts_with("//") && !text.starts_with("namespace")) {
            out.push_back({number, std::move(text)});
        }
    }
    return out;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) {
        std::fputs("usage: lint_repeats <folder>\n", stderr);
        return 2;
    }
    constexpr std::size_t run = 8;
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(arguments[1])) {
        if (entry.path().extension() == ".hpp" || entry.path().extension() == ".ipp") {
            paths.push_back(entry.path());
        }
    }
    std::sort(paths.begin(), paths.end());
    std::map<std::string, std::pair<std::size_t, std::size_t>> first;  // the text of a run -> its file and line
    int found = 0;
    for (std::size_t f = 0; f < paths.size(); ++f) {
        const auto lines = logic_of(paths[f]);
        for (std::size_t i = 0; i + run <= lines.size(); ++i) {
            std::string text;
            for (std::size_t j = i; j < i + run; ++j) {
                text += lines[j].text + '\n';
            }
            const auto [at, is_new] = first.try_emplace(std::move(text), f, lines[i].number);
            if (!is_new && at->second.first != f) {
                std::printf("%s:%zu says the same as %s:%zu for eight lines\n", paths[f].string().c_str(),
                            lines[i].number, paths[at->second.first].string().c_str(), at->second.second);
                ++found;
                i += run - 1;
            }
        }
    }
    std::printf("%zu files, %d repetitions\n", paths.size(), found);
    return paths.empty() || found > 0 ? 1 : 0;
}
