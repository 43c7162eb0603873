#!/usr/bin/env python3
"""What compiling costs, in multiples of #include <Eigen/Core>, with its budget.

    bench/compile_time/measure.py                     # g++, the Eigen that pkg-config or the usual places know
    bench/compile_time/measure.py --compiler clang++ --runs 5 --headers

Prints the CPU time (user and system, the smallest of some runs) of compiling small programs with -O2, and the same with
LOWRANK_COMPILED. --headers lists every public header that costs more than 1.3 times <Eigen/Core>; --compiled builds what
lowrank::compiled is made of. Meaningful on idle cores. The exit status says whether every budget is met.
"""
import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

here = pathlib.Path(__file__).resolve().parent
include = here.parent.parent / "include"


def readme_program():
    text = (here.parent.parent / "README.md").read_text()
    begin = text.index("```cpp\n") + len("```cpp\n")
    return text[begin : text.index("```", begin)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--eigen", default="/usr/include/eigen3")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--headers", action="store_true", help="every public header alone")
    parser.add_argument("--compiled", action="store_true", help="build what lowrank::compiled is made of")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "input.cpp")

        def cost(text, *flags, runs=options.runs):
            """CPU seconds and megabytes of compiling `text`."""
            pathlib.Path(source).write_text(text)
            command = [options.compiler, "-std=c++20", "-O2", "-DNDEBUG", f"-I{include}", "-isystem", options.eigen, *flags]
            command += ["-c", source, "-o", os.path.join(folder, "output.o")]
            best, peak = None, 0
            for _ in range(runs):
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                done = subprocess.run(command, capture_output=True, text=True)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                if done.returncode != 0:
                    sys.exit(done.stderr)
                seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
                best = seconds if best is None else min(best, seconds)
                peak = after.ru_maxrss // 1024
            return best, peak

        unit, _ = cost("#include <Eigen/Core>\n")
        print(f"{options.compiler}: #include <Eigen/Core> takes {unit:.2f} CPU s\n")
        print("| what | CPU s | / <Eigen/Core> | budget |\n|---|---|---|---|")
        met = True

        def row(name, text, budget, *flags):
            nonlocal met
            seconds, _ = cost(text, *flags)
            met = met and seconds / unit <= budget
            print(f"| {name} | {seconds:.2f} | {seconds / unit:.2f} | {budget:g} |", flush=True)

        compiled = "-DLOWRANK_COMPILED"
        for header, budget in (("lowrank.hpp", 2.5), ("io/peft.hpp", 2.5), ("lora/any_adapter.hpp", 1.8)):
            text = f"#include <lowrank/{header}>\n"
            row(f"`{header}`", text, budget)
            row(f"`{header}`, compiled", text, budget, compiled)
        row("README's program", readme_program(), 10)
        row("README's program, compiled", readme_program(), 2.5, compiled)
        bridge = (here / "bridge.cpp").read_text()
        row("an engine's bridge", bridge, 8)
        row("an engine's bridge, compiled", bridge, 3, compiled)

        if options.headers:
            print("\n| public header alone | / <Eigen/Core> | compiled |\n|---|---|---|")
            for header in sorted(include.rglob("*.hpp")):
                if "detail" in header.parts:
                    continue
                text = f"#include <{header.relative_to(include)}>\n"
                alone, declared = (cost(text, *flags, runs=1)[0] / unit for flags in ((), (compiled,)))
                if alone > 1.3:
                    print(f"| `{header.relative_to(include)}` | {alone:.2f} | {declared:.2f} |", flush=True)

        if options.compiled:
            rooms = {}
            for body in sorted(include.rglob("*.ipp")):
                rooms.setdefault(body.parent, []).append(f"#include <{body.relative_to(include)}>\n")
            total, peak = 0.0, 0
            print("\n| room of lowrank::compiled | CPU s |\n|---|---|")
            for room, lines in rooms.items():
                seconds, megabytes = cost("".join(lines), compiled, runs=1)
                total, peak = total + seconds, max(peak, megabytes)
                print(f"| `{room.relative_to(include)}` | {seconds:.1f} |", flush=True)
            met = met and total <= 90 and peak <= 1200
            print(f"| all; budget 90 | {total:.1f} |\n\nThe largest compiler process held {peak} MB; budget 1200.")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
