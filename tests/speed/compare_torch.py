#!/usr/bin/env python3
"""PyTorch's images/s beside `ddpm bench`'s, measured in turns on the same machine in one sitting.

    python tests/speed/compare_torch.py [--preset digits --preset cifar10] [--threads 2] [--rounds 3] [--compile]

The train step is the one that `ddpm train` runs: noise, forward, mean squared error, backward, clipping at 1, AdamW, EMA; here with
channels-last tensors, the fused AdamW and `foreach` for clipping and EMA, which is PyTorch at its fastest. Reading data is left out.
Each figure is the median over the rounds; a ratio above 1 means that `ddpm` is faster. Close everything else first.
Needs torch==2.11.0 and diffusers==0.42.1.
"""

import argparse
import importlib.metadata
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PINNED = {"torch": "2.11.0", "diffusers": "0.42.1"}
ROOT = Path(__file__).resolve().parents[2]

PAPER = dict(norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None)
# The network of a preset, its batch and its number of parameters, which is checked.
PRESETS = {
    "digits": (
        dict(
            sample_size=28, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), norm_num_groups=8, **PAPER,
        ),
        64, 1_112_801,
    ),
    "cifar10": (
        dict(
            sample_size=32, in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=(128, 256, 256, 256),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"), norm_num_groups=32,
            dropout=0.1, **PAPER,
        ),
        16, 35_746_307,
    ),
    "64x64": (
        dict(
            sample_size=64, in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=(128, 256, 256, 384),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), norm_num_groups=32,
            dropout=0.1, **PAPER,
        ),
        4, 49_303_171,
    ),
}
# How `ddpm bench` is told of one that is no preset of its own.
TOLD = {
    "64x64": [
        "--preset", "cifar10", "--set", "data.size=64", "--set", "network.block_out_channels=[128, 256, 256, 384]",
        "--set", 'network.down_block_types=["DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"]',
    ],
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append", choices=PRESETS, help="which to measure (default: all)")
    parser.add_argument("--batch", type=int, help="instead of the preset's (digits 64, cifar10 16)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for both sides (default: all cores)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side (default 3)")
    parser.add_argument("--seconds", type=float, default=8, help="for each of PyTorch's figures in each round (default 8)")
    parser.add_argument("--compile", action="store_true", help="torch.compile, which takes minutes to warm up")
    parser.add_argument("--bf16", action="store_true", help="autocast to bf16, against `--precision bf16`")
    parser.add_argument("--cold", action="store_true", help="64 digits by DDIM in 50 steps instead, whole processes from their start")
    parser.add_argument("--no-ddpm", action="store_true", help="PyTorch alone")
    parser.add_argument("--ddpm", help="the program; a release build of this tree if not given")
    return parser.parse_args()


def check_versions() -> None:
    found = {name: importlib.metadata.version(name).split("+")[0] for name in PINNED}
    if found != PINNED:
        sys.exit(f"these figures are pinned to {PINNED}, found {found}")


class Torch:
    """A preset's network in PyTorch with its optimiser and moving average."""

    def __init__(self, preset: str, batch: int | None, compiled: bool, bf16: bool):
        import torch
        from diffusers import UNet2DModel

        torch.manual_seed(0)
        config, own_batch, parameters = PRESETS[preset]
        self.batch, self.bf16 = batch or own_batch, bf16
        network = UNet2DModel(**config).to(memory_format=torch.channels_last)
        count = sum(p.numel() for p in network.parameters())
        assert count == parameters, f"{preset}: expected {parameters} parameters, got {count}"
        self.network = torch.compile(network, dynamic=False) if compiled else network
        self.parameters = list(network.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=2e-4, fused=True)
        alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
        self.signal, self.noise = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
        shape = (self.batch, config["in_channels"], config["sample_size"], config["sample_size"])
        self.x_0 = torch.rand(shape).mul_(2).sub_(1).to(memory_format=torch.channels_last)

    def train_step(self) -> None:
        import torch

        self.network.train()
        t = torch.randint(0, 1000, (self.batch,))
        eps = torch.randn_like(self.x_0)
        x_t = self.signal[t].view(-1, 1, 1, 1) * self.x_0 + self.noise[t].view(-1, 1, 1, 1) * eps
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            output = self.network(x_t, t).sample
        loss = torch.nn.functional.mse_loss(output.float(), eps)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimiser.step()
        torch._foreach_lerp_(self.ema, [p.detach() for p in self.parameters], 1e-3)
        loss.item()

    def forward(self) -> None:
        import torch

        self.network.eval()
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            self.network(self.x_0, torch.randint(0, 1000, (self.batch,)))

    def images_per_s(self, step, seconds: float) -> float:
        """Images per second of `step`, after two calls that warm up."""
        step(), step()
        steps, start = 0, time.perf_counter()
        while steps < 2 or time.perf_counter() - start < seconds:
            step()
            steps += 1
        return self.batch * steps / (time.perf_counter() - start)


def program(given: str | None) -> str:
    if given:
        return str(Path(given).resolve())
    command = ["cargo", "build", "--release", "-p", "ddpm-cli", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = [json.loads(line).get("executable") for line in built.splitlines() if line.startswith("{")]
    return next(path for path in found if path and Path(path).stem == "ddpm")


def bench(ddpm: str, preset: str, batch: int, options: argparse.Namespace) -> dict:
    """One `ddpm bench --json`."""
    told = TOLD.get(preset, ["--preset", preset])
    command = [ddpm, "bench", *told, "--batch", str(batch), "--threads", str(options.threads), "--json"]
    if options.bf16:
        command += ["--precision", "bf16"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


DRAW = """
import sys, torch
from diffusers import DDIMPipeline
torch.set_num_threads(int(sys.argv[2]))
pipeline = DDIMPipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
pipeline.unet.to(memory_format=torch.channels_last)
images = pipeline(batch_size=64, num_inference_steps=50, generator=torch.manual_seed(0)).images
for i, image in enumerate(images):
    image.save(f"{sys.argv[3]}/{i:02}.png")
"""


def cold(ddpm: str, options: argparse.Namespace) -> None:
    """Seconds from nothing to 64 pictures on disk, by diffusers' pipeline and by `ddpm sample` with the same network."""
    with tempfile.TemporaryDirectory() as folder:
        run, model, out = f"{folder}/run", f"{folder}/model", f"{folder}/out"
        quiet = dict(check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run([ddpm, "train", "--steps", "1", "--set", "preview.count=0", "--out", run], **quiet)
        subprocess.run([ddpm, "export", run, "--out", model], **quiet)
        os.makedirs(out)
        threads = str(options.threads)
        commands = {
            "PyTorch": [sys.executable, "-c", DRAW, model, threads, out],
            "ddpm": [ddpm, "sample", run, "-n", "64", "--batch", "64", "--steps", "50", "--threads", threads, "--out"],
        }
        seconds = {name: [] for name in commands}
        for turn in range(options.rounds):
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command + ([f"{folder}/pictures-{turn}"] if name == "ddpm" else []), **quiet)
                seconds[name].append(time.perf_counter() - start)
        theirs, ours = (statistics.median(s) for s in seconds.values())
        print(f"64 digits from cold: PyTorch {theirs:.2f} s, ddpm {ours:.2f} s, ratio {theirs / ours:.2f}")


def processor() -> str:
    """The processor's name and the instruction sets that matter here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    values = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    values = {key.strip(): value for key, value in values.items()}
    sets = [s for s in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if s in values.get("flags", "").split()]
    return f"{values.get('model name', 'unknown processor').strip()} ({', '.join(sets)})"


def main() -> None:
    options = arguments()
    check_versions()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before torch is imported
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(options.threads)
    ddpm = None if options.no_ddpm else program(options.ddpm)
    kind = f"{'compiled' if options.compile else 'eager'} {'bf16 autocast' if options.bf16 else 'f32'}"
    print(f"{processor()}, {options.threads} threads, PyTorch {torch.__version__} {kind}, median of {options.rounds} rounds")
    if options.cold:
        cold(ddpm, options)
        return
    for preset in options.preset or PRESETS:
        side = Torch(preset, options.batch, options.compile, options.bf16)
        theirs, ours = {"train": [], "forward": []}, {"train": [], "forward": []}
        for _ in range(options.rounds):
            theirs["train"].append(side.images_per_s(side.train_step, options.seconds))
            theirs["forward"].append(side.images_per_s(side.forward, options.seconds))
            if ddpm:
                figures = bench(ddpm, preset, side.batch, options)
                ours["train"].append(figures["train_images_per_s"])
                ours["forward"].append(figures["forward_images_per_s"])
        for what in ("train", "forward"):
            pytorch = statistics.median(theirs[what])
            line = f"{preset:8} batch {side.batch:3} {what:8} PyTorch {pytorch:8.1f}"
            if ddpm:
                rust = statistics.median(ours[what])
                ratios = [o / t for o, t in zip(ours[what], theirs[what])]
                line += f"  ddpm {rust:8.1f}  ratio {rust / pytorch:5.2f} (rounds {min(ratios):.2f} to {max(ratios):.2f})"
            print(f"{line}  images/s", flush=True)
        if ddpm:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{preset:8} peak memory: PyTorch's process so far {peak:.0f} MB, ddpm {figures['peak_memory_mb']:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
