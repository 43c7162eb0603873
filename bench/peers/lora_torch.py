#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Times the LoRA and DoRA layers of bench_lora and the arithmetic of PEFT's layers in PyTorch, in turns.

    python3 bench/peers/lora_torch.py build/bench/bench/bench_lora [rounds]

One thread, CPU time, medians of the rounds; prints peer / lowrank, so that more than 1 means that lowrank is faster.
Without PyTorch (Debian: python3-torch) it says so and ends.
"""

import json
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import torch
except ImportError:
    print("peer missing: torch (Debian: python3-torch)")
    sys.exit(0)

CASES = [(r, d, n) for d in (1024, 4096) for n in (1, 16, 512) for r in (8, 16, 64)]


def layers(r, d, n):
    """What huggingface/peft runs for one linear layer, without dropout: base, LoRA, DoRA, merge, each a function."""
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(d, d, generator=generator) * 0.02
    a = torch.nn.Parameter(torch.randn(r, d, generator=generator) / d**0.5)
    b = torch.nn.Parameter(torch.randn(d, r, generator=generator) * 0.02)
    m = w.norm(dim=1)
    x = torch.randn(n, d, generator=generator)
    dy = torch.randn(n, d, generator=generator)
    linear = torch.nn.functional.linear

    def lora(x):
        return linear(x, w) + linear(linear(x, a), b) * 1.0

    def forward():
        with torch.no_grad():
            lora(x)

    def dora_forward():
        with torch.no_grad():
            # peft: the norm of W + s B A is formed anew on every call, from B (A I)
            delta = linear(linear(torch.eye(d), a), b).T
            scale = (m / (w + delta).norm(dim=1)).view(1, -1)
            y = linear(x, w)
            return y + (scale - 1) * y + scale * linear(linear(x, a), b)

    def forward_backward():
        leaf = x.detach().requires_grad_(True)
        a.grad = b.grad = None
        lora(leaf).backward(dy)

    def merging():
        with torch.no_grad():
            # peft: delta = B A scaled, checked in a copy for NaN, then added to the weight
            copy = w.clone()
            copy += (b @ a) * 1.0
            torch.isfinite(copy).all()
            w.copy_(copy)

    return {"forward": forward, "dora_forward": dora_forward, "forward_backward": forward_backward, "merging": merging}


def cpu_time(work, least=0.05):
    work()
    count = 0
    start = time.process_time()
    while True:
        work()
        count += 1
        if (spent := time.process_time() - start) >= least:
            return spent / count


def ours(program, name, arguments):
    pattern = f"^{name}<float>/{'/'.join(map(str, arguments))}(/manual_time)?$"
    out = subprocess.run([program, f"--benchmark_filter={pattern}", "--benchmark_min_time=0.05", "--benchmark_format=json"],
                         capture_output=True, text=True, check=True).stdout
    return json.loads(out)["benchmarks"][0]["real_time"] / 1e3


def main():
    program = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, CPU time, medians of {rounds} rounds; ratio = torch / lowrank")
    print("| case | r | d | n | lowrank ms | torch ms | ratio |")
    print("|---|---|---|---|---|---|---|")
    for r, d, n in CASES:
        peer = layers(r, d, n)
        for name in ("forward", "dora_forward", "forward_backward", "merging"):
            if name == "merging" and (n != 1 or (r, d) not in ((16, 1024), (16, 4096), (64, 4096))):
                continue
            arguments = (r, d) if name == "merging" else (r, d, n, 0)
            mine, theirs = [], []
            for _ in range(rounds):
                theirs.append(cpu_time(peer[name]))
                mine.append(ours(program, name, arguments))
            a, b = statistics.median(mine), statistics.median(theirs)
            print(f"| {name} | {r} | {d} | {n} | {a * 1e3:.3f} | {b * 1e3:.3f} | {b / a:.2f} |", flush=True)


main()
