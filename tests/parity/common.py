"""What both parity scripts need: the program, one call of `predict`, and the distance of two arrays."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))

import make_fixtures  # it also checks the pinned versions
from make_fixtures import fill, in_f64, nhwc, relative  # noqa: F401

import numpy as np
import torch

FORWARD_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 2e-5


def program(given: str | None) -> Path:
    """The `ddpm` to test: the one given, else a release build of this tree."""
    if given:
        return Path(given).resolve()
    command = ["cargo", "build", "--release", "-p", "ddpm-cli", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = [json.loads(line).get("executable") for line in built.splitlines() if line.startswith("{")]
    return Path(next(path for path in found if path and Path(path).stem == "ddpm"))


def run(ddpm: Path, *arguments) -> str:
    """Runs the program and returns its standard output; stops with what it said if it fails."""
    done = subprocess.run([ddpm, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    if done.returncode != 0:
        raise RuntimeError(f"ddpm {' '.join(map(str, arguments))}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def predict(ddpm: Path, model: Path, folder: Path, x: torch.Tensor, t: torch.Tensor, classes=None, target=None, flags=()):
    """`ddpm predict` on NCHW tensors: the NHWC output, and with a target the gradients by diffusers' name."""
    np.save(folder / "x.npy", nhwc(x))
    np.save(folder / "t.npy", t.numpy())
    arguments = ["predict", model, "--input", folder / "x.npy", "--timesteps", folder / "t.npy"]
    if classes is not None:
        np.save(folder / "c.npy", classes.numpy())
        arguments += ["--classes", folder / "c.npy"]
    arguments += ["--output", folder / "y.npy"]
    if target is not None:
        np.save(folder / "target.npy", nhwc(target))
        arguments += ["--target", folder / "target.npy", "--gradients", folder / "g.npz"]
    run(ddpm, *arguments, *flags)
    output = np.load(folder / "y.npy")
    if target is None:
        return output, None
    with np.load(folder / "g.npz") as archive:
        return output, dict(archive)


def worst_gradient(ours: dict, reference: dict) -> tuple[float, str]:
    """As in make_fixtures.py, after a look at names and shapes."""
    if ours.keys() != reference.keys():
        missing, extra = sorted(reference.keys() - ours.keys()), sorted(ours.keys() - reference.keys())
        raise RuntimeError(f"names of gradients differ: missing {missing}, unexpected {extra}")
    for name, g in reference.items():
        if ours[name].shape != g.shape:
            raise RuntimeError(f"gradient of {name}: expected shape {g.shape}, got {ours[name].shape}")
    return make_fixtures.worst_gradient(ours, reference)
