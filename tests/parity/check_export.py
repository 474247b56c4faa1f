#!/usr/bin/env python3
"""Exports a model by `ddpm export`, loads it by diffusers, and compares the network and its schedule.

    python tests/parity/check_export.py MODEL_DIR [--ddpm target/release/ddpm] [--picture sample.png]

For the averaged and for the raw weights: `DDPMPipeline.from_pretrained` loads the folder, its network's output equals
`ddpm predict MODEL_DIR` and `ddpm predict EXPORTED` within 1e-5 (relative norm). Then its pipeline samples a picture.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from common import FORWARD_TOLERANCE, in_f64, nhwc, predict, program, relative, run

import numpy as np
import torch
from diffusers import DDPMPipeline
from PIL import Image


def batch(config, time_steps: int, n: int = 4):
    """Noise of the network's size, time steps from end to end, classes if it wants them."""
    random = np.random.Generator(np.random.Philox(7))
    size = config.sample_size
    h, w = size if isinstance(size, (tuple, list)) else (size, size)
    x = torch.from_numpy(random.standard_normal((n, config.in_channels, h, w)).astype(np.float32))
    t = torch.from_numpy(np.array([0, *random.integers(1, time_steps - 1, n - 2), time_steps - 1]))
    classes = None
    if config.num_class_embeds:
        classes = torch.from_numpy(random.integers(0, config.num_class_embeds, n))
    return x, t, classes


def sample(pipeline: DDPMPipeline, steps: int) -> np.ndarray:
    """One picture `[H, W, C]` in [0, 1]; the pipeline itself knows no classes, so those are walked here."""
    generator = torch.Generator().manual_seed(0)
    unet, scheduler = pipeline.unet, pipeline.scheduler
    if not unet.config.num_class_embeds:
        return pipeline(batch_size=1, generator=generator, num_inference_steps=steps, output_type="np").images[0]
    x, _, classes = batch(unet.config, scheduler.config.num_train_timesteps, n=2)
    x, classes = x[:1], classes[:1]
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t, classes).sample, t, x, generator=generator).prev_sample
    return nhwc(x / 2 + 0.5).clip(0, 1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a run directory, a checkpoint or a diffusers folder")
    parser.add_argument("--ddpm", help="the program; a release build of this tree if not given")
    parser.add_argument("--picture", type=Path, help="where to keep the picture that the pipeline samples")
    parser.add_argument("--steps", type=int, default=50, help="steps of that picture (default 50)")
    options = parser.parse_args()
    torch.set_num_threads(2)
    ddpm = program(options.ddpm)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for weights in ("ema", "raw"):
            exported = folder / weights
            run(ddpm, "export", options.model, "--out", exported, "--weights", weights)
            pipeline = DDPMPipeline.from_pretrained(exported)
            network = pipeline.unet.eval()
            x, t, classes = batch(network.config, pipeline.scheduler.config.num_train_timesteps)
            with torch.no_grad():
                theirs = nhwc(network(x, t, classes).sample)
                exact = nhwc(in_f64(network)(x.double(), t, classes).sample)
            flags = ("--weights", weights)
            ours, _ = predict(ddpm, options.model, folder, x, t, classes, flags=flags)
            again, _ = predict(ddpm, exported, folder, x, t, classes)
            errors = relative(ours, theirs), relative(ours, exact), relative(again, theirs)
            good &= max(errors) < FORWARD_TOLERANCE
            count = sum(p.numel() for p in network.parameters())
            print(f"{weights}: {count:,} parameters; `predict` against diffusers in f32 {errors[0]:.1e}, in f64 {errors[1]:.1e}; of the exported folder {errors[2]:.1e}")
            if weights == "ema":
                scheduler = pipeline.scheduler.config
                print(f"     scheduler: {scheduler.beta_schedule}, T {scheduler.num_train_timesteps}, {scheduler.prediction_type}, {scheduler.variance_type}")
                picture = sample(pipeline, options.steps)
                finite = bool(np.isfinite(picture).all())
                good &= finite
                print(f"     its pipeline sampled {picture.shape}, mean {picture.mean():.3f}, standard deviation {picture.std():.3f}")
                if options.picture:
                    Image.fromarray((picture.squeeze() * 255).round().astype(np.uint8)).save(options.picture)
    print("within 1e-5" if good else "BEYOND 1e-5")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
