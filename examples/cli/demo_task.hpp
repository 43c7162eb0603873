// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_CLI_DEMO_TASK_HPP
#define LOWRANK_EXAMPLES_CLI_DEMO_TASK_HPP

/// \file
/// Noisy in-context recall: the task on which the demo's model learns too much.
///
///     tool::recall_task task(seed, {.triggers = {0, 1}, .noise_share = 0.6});
///     llama::batch lesson = task.lessons(step * 32, 32);      // to train on
///     llama::batch exam = task.questions(0, 1000);            // one question at the end of each sequence
///
/// Sequences follow a random bigram language. Each sequence gives every trigger word an answer of its own; after a
/// trigger comes that answer, or, with probability `noise_share`, one and the same noise word. What comes next can thus
/// be learned in two ways: look back (recall), or always say the noise word. Feed-forward layers learn the second.
/// Chen, Bruna, Bietti: How truncating weights improves reasoning in language models, arXiv 2406.03068.

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <lowrank/core/philox.hpp>

#include "llama/batch.hpp"

namespace tool {

struct recall_options {
    std::vector<int> triggers = {0, 1};
    double noise_share = 0.6;    ///< How often the noise word stands in the place of the answer.
    double trigger_share = 0.3;  ///< How often a word is followed by a trigger.
};

class recall_task {
public:
    static constexpr int vocabulary = 64;
    static constexpr int noise = 63;   ///< The noise word.
    static constexpr int length = 64;  ///< Words a model reads at once.

    /// The language is a function of the seed alone; tasks with other triggers share it.
    recall_task(std::uint64_t seed, recall_options options) : seed_(seed), options_(std::move(options)) {
        const lowrank::philox rng(seed_, language_stream);
        table_.resize(vocabulary);
        for (int from = 0; from < vocabulary; ++from) {
            for (int to = 0; to < noise; ++to) {
                // u^8: few words likely, most of them rare.
                const double u = rng.uniform<double>(static_cast<std::uint64_t>(from * vocabulary + to));
                const double u4 = u * u * u * u;
                table_[static_cast<std::size_t>(from)].push_back(is_trigger(to) ? 0.0 : u4 * u4);
            }
            double sum = 0;
            for (double& weight : table_[static_cast<std::size_t>(from)]) {
                weight = sum += weight;  // cumulative from here on
            }
        }
    }

    /// `count` sequences to train on, the same for the same numbers. Asked for: the word after each trigger, noise and
    /// all.
    [[nodiscard]] llama::batch lessons(std::int64_t first, int count) const {
        llama::batch out;
        for (int i = 0; i < count; ++i) {
            const auto s = sequence(lesson_stream + static_cast<std::uint64_t>(first + i));
            std::vector<int> targets(length, -1);
            for (std::size_t t = 0; t < targets.size(); ++t) {
                if (is_trigger(s.words[t])) {
                    targets[t] = s.words[t + 1];
                }
            }
            out.append({s.words.data(), length}, targets);
        }
        return out;
    }

    /// `count` sequences that no lesson shows. Each ends with a trigger whose answer has been seen; the target is that
    /// answer, or the noise word with `about_noise`.
    [[nodiscard]] llama::batch questions(std::int64_t first, int count, bool about_noise = false) const {
        llama::batch out;
        for (int i = 0; i < count; ++i) {
            const auto q = question(question_stream + static_cast<std::uint64_t>(first + i) * tries);
            std::vector<int> targets(q.words.size(), -1);
            targets.back() = about_noise ? noise : q.answer;
            out.append(q.words, targets);
        }
        return out;
    }

private:
    static constexpr std::uint64_t language_stream = 1, lesson_stream = std::uint64_t{1} << 32,
                                   question_stream = std::uint64_t{1} << 48, tries = 64;

    struct written {
        std::vector<int> words = {};    ///< length + 1 of them.
        std::vector<int> answers = {};  ///< At a trigger whose answer has been seen before: the answer; else -1.
    };
    struct asked {
        std::vector<int> words = {};
        int answer = -1;
    };

    [[nodiscard]] bool is_trigger(int word) const {
        return std::find(options_.triggers.begin(), options_.triggers.end(), word) != options_.triggers.end();
    }

    [[nodiscard]] written sequence(std::uint64_t stream) const {
        const lowrank::philox rng(seed_, stream);
        std::uint64_t at = 0;
        const auto uniform = [&] { return rng.uniform<double>(at++); };
        const auto any_word = [&] {
            int word = 0;
            do {
                word = static_cast<int>(uniform() * noise);
            } while (is_trigger(word));
            return word;
        };
        const std::size_t triggers = options_.triggers.size();
        std::vector<int> answer(triggers);
        std::vector<bool> seen(triggers, false);
        for (int& a : answer) {
            a = any_word();
        }
        written out;
        int word = any_word();
        while (true) {
            out.words.push_back(word);
            const auto which = static_cast<std::size_t>(
                std::find(options_.triggers.begin(), options_.triggers.end(), word) - options_.triggers.begin());
            const bool trigger = which < triggers;
            out.answers.push_back(trigger && seen[which] ? answer[which] : -1);
            if (out.words.size() > length) {
                return out;
            }
            if (trigger) {
                const bool noisy = uniform() < options_.noise_share;
                word = noisy ? noise : answer[which];
                seen[which] = seen[which] || !noisy;
            } else if (uniform() < options_.trigger_share) {
                word = options_.triggers[static_cast<std::size_t>(uniform() * static_cast<double>(triggers))];
            } else {
                const auto& row = table_[static_cast<std::size_t>(word)];
                const double u = uniform() * row.back();
                word = static_cast<int>(std::upper_bound(row.begin(), row.end() - 1, u) - row.begin());
            }
        }
    }

    /// The first of a few sequences that has a question, up to its last one.
    [[nodiscard]] asked question(std::uint64_t stream) const {
        for (std::uint64_t i = 0; i < tries; ++i) {
            auto s = sequence(stream + i);
            for (std::size_t t = length; t-- > 0;) {
                if (s.answers[t] >= 0) {
                    s.words.resize(t + 1);
                    return {std::move(s.words), s.answers[t]};
                }
            }
        }
        throw lowrank::contract_violation("recall_task: with these shares no answer is ever seen");
    }

    std::uint64_t seed_;
    recall_options options_;
    std::vector<std::vector<double>> table_ = {};  ///< Row by word: cumulative weights of the words that follow.
};

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_DEMO_TASK_HPP
