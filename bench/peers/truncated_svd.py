#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Truncated SVD: the library, Spectra, torch.svd_lowrank and scikit-learn on the same matrices, one thread, CPU time.

    /usr/bin/python3 bench/peers/truncated_svd.py --program build/bench/bench/peers/peer_truncated_svd \
        --size 2048x2048 --rank 8 64 256 --spectrum fast slow spike

Each line of the table is one method: seconds, relative excess of the Frobenius error over the best possible one, and
the largest relative error of a singular value. `peer / ours` compares at equal error: it is the time of the fastest
peer whose excess is not above that of the line (both floored at 1e-6, the rounding of float) over the time of the line.
A peer that is not installed is named and skipped.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np  # noqa: E402  (after the thread count)


def orthonormal(rows, cols, rng):
    return np.linalg.qr(rng.standard_normal((rows, cols), dtype=np.float32))[0]


def make(rows, cols, spectrum):
    """W in float, its singular values, and ||W - W_k||_F for every k."""
    rng = np.random.default_rng(1)
    p = min(rows, cols)
    if spectrum == "spike":
        w = rng.standard_normal((rows, cols), dtype=np.float32)
        w += orthonormal(rows, 32, rng) @ np.diag(np.linspace(4, 2, 32, dtype=np.float32) * np.sqrt(p)) @ orthonormal(cols, 32, rng).T
    else:
        i = np.arange(p)
        s = 10.0 ** (-i / 20) if spectrum == "fast" else (i + 1.0) ** -0.5
        w = (orthonormal(rows, p, rng) * s.astype(np.float32)) @ orthonormal(cols, p, rng).T
    # The truth for the matrix as it was rounded. Squares of values below 1e-8 of the largest are lost, so the tail of
    # a made spectrum is taken from its formula.
    wide = w.astype(np.float64)
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(wide @ wide.T if rows <= cols else wide.T @ wide)[::-1], 0))
    tail = values if spectrum != "fast" else s
    return np.ascontiguousarray(w), values, np.sqrt(np.append(np.cumsum(tail[::-1] ** 2)[::-1], 0))


def judge(wide, u, s, v, values, best):
    rest = np.linalg.norm(wide - (u.astype(np.float64) * s) @ v.astype(np.float64).T)
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = np.finfo(np.float32).eps * np.linalg.norm(wide)  # below it only rounding is compared
        return (rest - best) / max(best, floor), float(np.max(np.abs(s - values) / values))


def seconds(call, rounds):
    times, out = [], None
    for _ in range(rounds + 1):
        start = time.thread_time()
        out = call()
        times.append(time.thread_time() - start)
    return sorted(times[1:])[rounds // 2], out


def python_peers(w, k):
    try:
        import torch

        torch.set_num_threads(1)
        t = torch.from_numpy(w)
        for niter in (2, 4, 8):
            yield f"torch.svd_lowrank niter={niter}", lambda n=niter: [
                x.numpy() for x in torch.svd_lowrank(t, q=min(k + 8, min(w.shape)), niter=n)]
    except ImportError:
        print("# torch (python3-torch) is not installed; skipped")
    try:
        from sklearn.utils.extmath import randomized_svd

        for n in (4, 7, 12):
            def run(n=n):
                u, s, vt = randomized_svd(w, k, n_iter=n, random_state=0)
                return u, s, vt.T
            yield f"scikit-learn n_iter={n}", run
    except ImportError:
        print("# scikit-learn (python3-sklearn) is not installed; skipped")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--size", nargs="+", default=["2048x2048"])
    parser.add_argument("--rank", nargs="+", type=int, default=[8, 64, 256])
    parser.add_argument("--spectrum", nargs="+", default=["fast", "slow", "spike"])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print("| W | spectrum | k | method | s | excess | worst value | peer / ours |\n|---|---|---|---|---|---|---|---|")
    for size in args.size:
        rows, cols = map(int, size.split("x"))
        for spectrum in args.spectrum:
            w, all_values, all_best = make(rows, cols, spectrum)
            wide = w.astype(np.float64)
            for k in args.rank:
                values, best = all_values[:k], all_best[k]
                lines = []
                with tempfile.TemporaryDirectory() as folder:
                    path = os.path.join(folder, "w")
                    w.tofile(path)
                    out = subprocess.run([args.program, path, str(rows), str(cols), str(k), str(args.rounds)],
                                         check=True, capture_output=True, text=True).stdout
                    for line in out.splitlines():
                        if line.startswith("#"):
                            print(line, file=sys.stderr)
                            continue
                        name, took, file = line.split("\t")
                        f = np.fromfile(file, dtype=np.float32)
                        u = f[:rows * k].reshape(k, rows).T
                        s = f[rows * k:rows * k + k]
                        v = f[rows * k + k:].reshape(k, cols).T
                        lines.append((name, float(took), *judge(wide, u, s, v, values, best), name != "Spectra"))
                for name, call in python_peers(w, k):
                    took, (u, s, v) = seconds(call, args.rounds)
                    lines.append((name, took, *judge(wide, u[:, :k], s[:k], v[:, :k], values, best), False))
                for name, took, excess, worst, ours in lines:
                    equal = [x[1] for x in lines if not x[4] and max(x[2], 1e-6) <= max(excess, 1e-6)]
                    ratio = f"{min(equal) / took:.2f}" if ours and equal else "none as good" if ours else ""
                    print(f"| {size} | {spectrum} | {k} | {name} | {took:.3f} | {excess:.1e} | {worst:.1e} | {ratio} |")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
