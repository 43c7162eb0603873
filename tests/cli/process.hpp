// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_CLI_PROCESS_HPP
#define LOWRANK_TESTS_CLI_PROCESS_HPP

/// \file
/// Runs the built tool as a process and keeps what it printed.
///
///     auto r = run_tool({"inspect", folder.string(), "--json"});
///     CHECK(r.exit_code == 0);

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace lowrank_tests {

/// A new empty folder, removed with all it holds.
class temporary_folder {
public:
    temporary_folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "lowrank-cli-XXXXXX").string();
        if (mkdtemp(pattern.data()) == nullptr) {
            throw std::runtime_error("cannot make a temporary folder");
        }
        path_ = pattern;
    }
    ~temporary_folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    temporary_folder(const temporary_folder&) = delete;
    temporary_folder& operator=(const temporary_folder&) = delete;

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
    [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

private:
    std::filesystem::path path_;
};

inline std::string read_text(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

inline void write_text(const std::filesystem::path& file, const std::string& text) {
    std::ofstream(file, std::ios::binary) << text;
}

/// Names of everything in a folder, hidden files included.
inline std::vector<std::string> listing(const std::filesystem::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
}

struct process_options {
    std::optional<std::uint64_t> file_size_limit = {};  ///< RLIMIT_FSIZE: stands in for a full disk.
    std::string stdout_to = {};                         ///< A path instead of a capture.
    int signal = 0;                                     ///< Sent once `signal_when` holds.
    std::function<bool(const std::string& err)> signal_when = {};
    double timeout_s = 120;
};

struct process_result {
    int exit_code = -1;  ///< -signal if a signal ended it.
    std::string out = {};
    std::string err = {};
};

inline process_result run_tool(const std::vector<std::string>& arguments, const process_options& options = {}) {
    const temporary_folder capture;
    const auto out = options.stdout_to.empty() ? (capture / "out").string() : options.stdout_to;
    const auto err = (capture / "err").string();
    std::vector<const char*> argv = {LOWRANK_TOOL};
    for (const auto& a : arguments) {
        argv.push_back(a.c_str());
    }
    argv.push_back(nullptr);

    const pid_t child = fork();
    if (child == 0) {
        const int to_out = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        const int to_err = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        const int from_nothing = open("/dev/null", O_RDONLY);
        if (to_out < 0 || to_err < 0 || dup2(to_out, 1) < 0 || dup2(to_err, 2) < 0 || dup2(from_nothing, 0) < 0) {
            _exit(125);
        }
        if (options.file_size_limit) {
            const rlimit limit{*options.file_size_limit, *options.file_size_limit};
            setrlimit(RLIMIT_FSIZE, &limit);
        }
        execv(argv[0], const_cast<char* const*>(argv.data()));
        _exit(126);
    }
    const auto start = std::chrono::steady_clock::now();
    int state = 0;
    bool sent = options.signal == 0;
    while (waitpid(child, &state, WNOHANG) == 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        if (!sent && options.signal_when(read_text(err))) {
            kill(child, options.signal);
            sent = true;
        }
        if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > options.timeout_s) {
            kill(child, SIGKILL);
            waitpid(child, &state, 0);
            break;
        }
    }
    process_result result;
    result.exit_code = WIFEXITED(state) ? WEXITSTATUS(state) : -WTERMSIG(state);
    result.out = options.stdout_to.empty() ? read_text(out) : "";
    result.err = read_text(err);
    return result;
}

/// True if `err` is the one sentence the tool gives for bad input: one line, no trace, its name in front.
inline bool one_sentence(const std::string& err) {
    return err.rfind("lowrank: ", 0) == 0 && err.size() > 20 && err.find('\n') == err.size() - 1 &&
           err.find("terminate called") == std::string::npos;
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_CLI_PROCESS_HPP
