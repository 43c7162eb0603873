#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Merge an adapter into a synthetic sharded bf16 checkpoint of several gigabytes: memory and speed.

    python3 bench/large_merge.py build/demo/examples/lowrank --gigabytes 8 --folder /var/tmp

Writes a checkpoint in the shapes of an 8-billion Llama (as many layers as fit), an adapter of rank 16 for its linear
layers, copies the files with the system's copy and merges with `lowrank merge` in turn, and prints one line of JSON: seconds of
the copy and of the merge, both read from the disk and synced to it, their ratio, CPU seconds, and the peak memory of the
merge. Needs twice the size on the disk; removes all.
"""
import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

LAYER = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
RANK = 16


def plausible(count):
    """bf16 numbers of size 1/64 to 1/32 with random signs and mantissas."""
    values = []
    state = 12345
    for _ in range(count):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        bits = (0x3C80 | (state >> 8 & 0x7F)) | ((state >> 20 & 1) << 15)
        values.append(bits)
    return struct.pack("<%dH" % count, *values)


def write_file(path, tensors, block, dtype):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    width = {"BF16": 2, "F32": 4}[dtype]
    for name, shape in tensors:
        size = shape[0] * shape[1] * width
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        left = at
        while left:
            piece = block if left >= len(block) else block[:left]
            out.write(piece)
            left -= len(piece)
        out.flush()
        os.fsync(out.fileno())
    return at


def make_checkpoint(folder, gigabytes):
    os.makedirs(folder)
    block = plausible(1 << 20) * 8
    layer_bytes = sum(2 * r * c for r, c in LAYER.values())
    layers = max(1, int(gigabytes * 1e9 // layer_bytes))
    weight_map, total, modules = {}, 0, []
    for layer in range(layers):
        shard = "model-%05d-of-%05d.safetensors" % (layer + 1, layers)
        tensors = sorted(("model.layers.%d.%s.weight" % (layer, name), shape) for name, shape in LAYER.items())
        total += write_file(os.path.join(folder, shard), tensors, block, "BF16")
        for name, shape in tensors:
            weight_map[name] = shard
            modules.append((name[: -len(".weight")], shape))
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as out:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, out)
    with open(os.path.join(folder, "config.json"), "w") as out:
        json.dump({"model_type": "llama"}, out)
    return total, modules


def make_adapter(folder, modules):
    os.makedirs(folder)
    block = struct.pack("<1024f", *[0.01 * ((i * 37 % 101) / 50.0 - 1.0) for i in range(1024)]) * 256
    tensors = []
    for name, (rows, cols) in modules:
        tensors.append(("base_model.model.%s.lora_A.weight" % name, (RANK, cols)))
        tensors.append(("base_model.model.%s.lora_B.weight" % name, (rows, RANK)))
    write_file(os.path.join(folder, "adapter_model.safetensors"), sorted(tensors), block, "F32")
    with open(os.path.join(folder, "adapter_config.json"), "w") as out:
        json.dump({"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": sorted(n.split(".")[-1] for n in LAYER)}, out)


def forget(folder):
    """Drops the pages of a folder's files from the cache, so that both sides read from the disk."""
    os.sync()
    for name in os.listdir(folder):
        handle = os.open(os.path.join(folder, name), os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def measure(base, command):
    """Seconds of a command that reads `base` from the disk until its result is on the disk; CPU seconds, peak MB."""
    forget(base)
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    os.sync()
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tool")
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="copies and merges in turn; the middle one counts")
    parser.add_argument("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    home = tempfile.mkdtemp(prefix="lowrank-large-merge-", dir=options.folder)
    try:
        base, adapter = os.path.join(home, "base"), os.path.join(home, "adapter")
        total, modules = make_checkpoint(base, options.gigabytes)
        make_adapter(adapter, modules)
        rounds = []
        for _ in range(options.rounds):
            copied, merged = os.path.join(home, "copy"), os.path.join(home, "merged")
            copy = measure(base, ["cp", "-r", base, copied])
            shutil.rmtree(copied)
            merge = measure(base, [options.tool, "merge", base, "--adapter", adapter, "--output", merged, "--json"])
            shutil.rmtree(merged)
            rounds.append((copy, merge))
            print("copy %.1f s, %.1f s CPU; merge %.1f s, %.1f s CPU, %d MB" % (*copy[:2], *merge), file=sys.stderr)
        middle = sorted(rounds, key=lambda r: r[0][0] / r[1][0])[len(rounds) // 2]
        (copy_s, copy_cpu, _), (merge_s, merge_cpu, peak) = middle
        print(json.dumps({"gigabytes": round(total / 1e9, 2), "copy_s": round(copy_s, 1), "merge_s": round(merge_s, 1),
                          "speed_of_copy": round(copy_s / merge_s, 2), "copy_cpu_s": round(copy_cpu, 1),
                          "merge_cpu_s": round(merge_cpu, 1), "peak_mb": max(round(r[1][2]) for r in rounds)}))
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
