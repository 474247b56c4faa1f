#!/usr/bin/env python3
"""PyTorch's (oneDNN's) 3x3 convolutions beside ours, each direction, in GFLOP/s of the definition's multiply-adds, in one sitting.

    python tests/speed/compare_convolutions.py [--threads 2] [--rounds 3] [--bf16]

PyTorch's convolution is bare and channels-last; ours normalises and activates its operand, adds its bias and makes the statistics of
its result within the same time. Close everything else first. Needs torch==2.11.0.
"""

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# images, side, channels in, channels out: as the example names them
SHAPES = [(8, 32, 128, 128), (8, 16, 256, 256), (8, 8, 256, 256), (8, 16, 512, 256)]
DIRECTIONS = ["forward", "input", "weight"]


def theirs(shape: tuple, bf16: bool, seconds: float) -> dict:
    """GFLOP/s of each direction."""
    import torch

    n, side, c, o = shape
    kind = torch.bfloat16 if bf16 else torch.float32
    make = lambda *size: torch.randn(size).to(kind).to(memory_format=torch.channels_last)
    x, w, dy = make(n, c, side, side), make(o, c, 3, 3), make(n, o, side, side)
    bias = torch.randn(o).to(kind)

    def backward(mask: list) -> None:
        torch.ops.aten.convolution_backward(dy, x, w, [o], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask)

    runs = {
        "forward": lambda: torch.nn.functional.conv2d(x, w, bias, padding=1),
        "input": lambda: backward([True, False, False]),
        "weight": lambda: backward([False, True, True]),
    }
    work, speed = 2 * 9 * n * side * side * c * o, {}
    for name, run in runs.items():
        run(), run()
        times, begun = [], time.perf_counter()
        while len(times) < 5 or time.perf_counter() - begun < seconds:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        speed[name] = work / statistics.median(times) / 1e9
    return speed


def ours(shape: tuple, options: argparse.Namespace) -> dict:
    n, side, c, o = shape
    name = f"{n}x{side}² {c}→{o} 3x3/1"
    example = ROOT / "target/release/examples/convolution_speed"
    command = [example, f"shape={name}", f"threads={options.threads}", "runs=15", f"precision={'bf16' if options.bf16 else 'f32'}"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    figures = next(line for line in lines if line.startswith(name)).removeprefix(name).split()
    return dict(zip(DIRECTIONS, map(float, figures)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each of PyTorch's figures in each round")
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before torch is imported
    import torch

    torch.set_num_threads(options.threads)
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "ddpm-kernels", "--example", "convolution_speed"], cwd=ROOT, check=True)
    print(f"{'shape':18} " + " ".join(f"{d:>24}" for d in DIRECTIONS) + "   PyTorch / ours / ratio")
    for shape in SHAPES:
        rounds = [(theirs(shape, options.bf16, options.seconds), ours(shape, options)) for _ in range(options.rounds)]
        cells = []
        for direction in DIRECTIONS:
            a, b = (statistics.median(r[i][direction] for r in rounds) for i in (0, 1))
            cells.append(f"{a:9.0f} {b:7.0f} {b / a:6.2f}")
        n, side, c, o = shape
        print(f"{f'{n}x{side}² {c}→{o}':18} " + " ".join(cells), flush=True)


if __name__ == "__main__":
    main()
