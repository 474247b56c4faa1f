#!/usr/bin/env python3
"""Trains every objective in PyTorch with the program's own initial weights, batches, time steps and noise, and compares the
loss of every step.

    pip install torch==2.11.0 diffusers==0.42.1 safetensors==0.8.0 numpy==2.4.6
    python tests/parity/objectives.py                 # export, train, compare, write tests/fixtures/objectives.json
    python tests/parity/objectives.py --folder F      # F holds what the example wrote already

The losses are written here from the papers' formulas, with autograd for the gradients; nothing of the program is used but what
it exports (`cargo run --release -p ddpm-tests --example objective_losses`). The table goes to standard output, the losses of
the first ten steps into the fixture, which `tests/tests/objectives.rs` holds the program against.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))

from make_fixtures import check_versions

check_versions()

import numpy as np
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

FIXTURE = ROOT / "tests" / "fixtures" / "objectives.json"
FIRST_TOLERANCE = 1e-4
LAST_TOLERANCE = 2e-2
LAST = 50
KEPT = 10


class Process:
    """The schedule in f64, as tables over t that give [N, 1, 1, 1]."""

    def __init__(self, run):
        d = self.d = run["diffusion"]
        # the schedule from its own definition
        beta = np.linspace(d["beta_start"], d["beta_end"], d["timesteps"], dtype=np.float64)
        alpha_bar = np.cumprod(1 - beta)
        if d["zero_terminal_snr"]:  # Lin et al. 2024, algorithm 1
            root = np.sqrt(alpha_bar)
            root = (root - root[-1]) * root[0] / (root[0] - root[-1])
            alpha_bar = root**2
        before = np.append(1.0, alpha_bar[:-1])
        alpha = alpha_bar / before
        self.total = d["timesteps"]
        self.alpha_bar, self.alpha, self.before = alpha_bar, alpha, before
        self.beta = beta = 1 - alpha
        self.mean_x_0 = np.sqrt(before) * beta / (1 - alpha_bar)
        self.mean_x_t = np.sqrt(alpha) * (1 - before) / (1 - alpha_bar)
        tilde = beta * (1 - before) / (1 - alpha_bar)
        tilde[0] = tilde[1]
        self.log_tilde = np.log(tilde)
        large = np.append(tilde[1], beta[1:])
        v = d["variance_blend"]
        self.fixed = {"fixed_large": np.log(large), "fixed_small": np.log(tilde), "blend": np.log((1 - v) * tilde + v * beta)}


    def at(self, table, t):
        return torch.from_numpy(table)[t][:, None, None, None].float()

    def x_0(self, prediction, output, x_t, t):
        """The image of a prediction."""
        a = self.at(self.alpha_bar, t)
        if prediction == "eps":
            return (x_t - (1 - a).sqrt() * output) / a.sqrt()
        if prediction == "v":
            return a.sqrt() * x_t - (1 - a).sqrt() * output
        if prediction == "mean":
            return (output - self.at(self.mean_x_t, t) * x_t) / self.at(self.mean_x_0, t)
        return output

    def target(self, prediction, x_0, x_t, eps, t):
        a = self.at(self.alpha_bar, t)
        return {
            "eps": eps,
            "x0": x_0,
            "v": a.sqrt() * eps - (1 - a).sqrt() * x_0,
            "mean": self.at(self.mean_x_0, t) * x_0 + self.at(self.mean_x_t, t) * x_t,
        }[prediction]

    def log_variance(self, said, t):
        """The model's log-variance."""
        kind = self.d["variance"]
        if kind == "learned":
            return said
        if kind == "learned_range":
            f = (said + 1) / 2
            return f * self.at(np.log(self.beta), t) + (1 - f) * self.at(self.log_tilde, t)
        return self.at(self.fixed[kind], t).expand_as(said)


def cdf(x):
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def bound(process, x_0, x_t, mean, log_variance, t):
    """L_t of each image in bits per dimension, computed in f64."""
    x_0, x_t, mean, log_variance = (x.double() for x in (x_0, x_t, mean, log_variance))
    truth = process.at(process.mean_x_0, t).double() * x_0 + process.at(process.mean_x_t, t).double() * x_t
    log_truth = process.at(process.log_tilde, t).double()
    kl = 0.5 * (log_variance - log_truth + torch.exp(log_truth - log_variance)
                + (truth - mean) ** 2 * torch.exp(-log_variance) - 1)
    inverse = torch.exp(-0.5 * log_variance)
    high, low = cdf(inverse * (x_0 - mean + 1 / 255)), cdf(inverse * (x_0 - mean - 1 / 255))
    mass = torch.where(x_0 < -0.999, high, torch.where(x_0 > 0.999, 1 - low, high - low))
    decoder = -torch.log(mass.clamp(min=1e-12))
    terms = torch.where((t == 0)[:, None, None, None], decoder, kl)
    return terms.flatten(1).mean(1) / math.log(2)


def weights(process, prediction, t):
    """w_t and the bound's weights, from those of a loss on x_0."""
    d = process.d
    a, alpha, beta = (torch.from_numpy(x)[t] for x in (process.alpha_bar, process.alpha, process.beta))
    snr = a / (1 - a)
    per = {"eps": snr, "x0": torch.ones_like(snr), "v": snr + 1, "mean": torch.from_numpy(process.mean_x_0)[t] ** 2}[prediction]
    if d["min_snr_gamma"] > 0:
        w = torch.clamp(snr, max=d["min_snr_gamma"]) / per
    elif d["weighting"] == "p2":
        w = snr / (d["p2_k"] + snr) ** d["p2_gamma"] / per
    elif d["weighting"] == "snr":
        w = snr / per
    else:
        w = torch.ones_like(snr)
    lvlb = None
    if d["elbo_weight"] > 0:  # latent diffusion's, for eps
        assert prediction == "eps"
        v = d["variance_blend"]
        tilde = process.beta * (1 - process.before) / (1 - process.alpha_bar)
        variance = (1 - v) * tilde + v * process.beta
        with np.errstate(divide="ignore"):
            table = process.beta**2 / (2 * variance * process.alpha * (1 - process.alpha_bar))
        table[0] = table[1]
        lvlb = torch.from_numpy(table)[t]
    return w, lvlb


class History:
    """The loss-second-moment resampler's weights, from losses of its own."""

    def __init__(self, total):
        self.losses = [[] for _ in range(total)]

    def weights(self, t):
        if any(len(losses) < 10 for losses in self.losses):
            return np.ones(len(t))
        p = np.sqrt(np.mean(np.square(self.losses), axis=1))
        p = p / p.sum() * 0.999 + 0.001 / len(p)
        return 1 / (len(p) * p[t])

    def record(self, t, losses):
        for t, loss in zip(t, losses):
            self.losses[t] = (self.losses[t] + [loss])[-10:]


def train(folder):
    run = json.loads((folder / "run.json").read_text())
    d, o, steps, n, h, w = run["diffusion"], run["optimiser"], run["steps"], run["batch"], run["height"], run["width"]
    config = {k: v for k, v in json.loads((folder / "config.json").read_text()).items() if not k.startswith("_")}
    network = UNet2DModel(**config)
    network.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    network.train()
    read = lambda name, shape: torch.from_numpy(np.fromfile(folder / f"{name}.f32", "<f4").reshape(shape))
    all_x_0, all_eps = read("x_0", (steps, n, 1, h, w)), read("eps", (steps, n, 1, h, w))
    all_offset, all_t = read("offset", (steps, n, 1, 1, 1)), read("t", (steps, n)).long()

    process, prediction = Process(run), d["prediction"]
    assert np.allclose(process.beta, run["beta"], rtol=1e-9, atol=0)
    learns_variance = d["variance"].startswith("learned")
    parameters = list(network.parameters())
    s = torch.full((process.total,), float(d["log_variance_init"]), requires_grad=True)
    if d["learn_log_variance"]:
        parameters.append(s)
    optimiser = torch.optim.AdamW(parameters, lr=1, betas=(o["beta_1"], o["beta_2"]), eps=o["eps"], weight_decay=o["weight_decay"])
    history = History(process.total) if d["time_steps"] == "loss_second_moment" else None
    losses = []
    for step in range(steps):
        x_0, t = all_x_0[step], all_t[step]
        eps = all_eps[step] + d["offset_noise"] * all_offset[step]
        a = process.at(process.alpha_bar, t)
        x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps
        shown = x_t
        if d["self_conditioning"]:
            before = torch.zeros_like(x_t)
            if run["looks_back"][step]:
                with torch.no_grad():
                    output = network(torch.cat([x_t, before], 1), t).sample
                    before = process.x_0(prediction, output, x_t, t).clamp(-1, 1)
            shown = torch.cat([x_t, before], 1)
        output = network(shown, t).sample
        said = torch.zeros_like(x_t)
        if learns_variance:
            output, said = output.chunk(2, 1)
        gap = output - process.target(prediction, x_0, x_t, eps, t)
        if d["loss"] == "l1":
            each = gap.abs()
        elif d["loss"] == "huber":
            each = torch.nn.functional.huber_loss(gap, torch.zeros_like(gap), reduction="none", delta=d["huber_delta"])
        else:
            each = gap**2
        each = each.flatten(1).mean(1)
        total = torch.zeros(n, dtype=torch.float64)
        if d["loss"] != "vlb":
            w_t, lvlb = weights(process, prediction, t)
            s_t = s[t] if d["learn_log_variance"] else torch.zeros(n)
            total = total + d["simple_weight"] * (w_t * each / s_t.exp() + s_t)
            if lvlb is not None:
                total = total + d["elbo_weight"] * lvlb * each
        if d["loss"] == "vlb" or learns_variance:
            held = output if d["loss"] == "vlb" else output.detach()
            predicted = process.x_0(prediction, held.double(), x_t.double(), t)
            mean = process.at(process.mean_x_0, t) * predicted + process.at(process.mean_x_t, t) * x_t
            terms = bound(process, x_0, x_t, mean, process.log_variance(said, t), t)
            total = total + d["vlb_weight"] * process.total * terms
        drawn_with = torch.from_numpy(history.weights(t.numpy())) if history else torch.ones(n, dtype=torch.float64)
        loss = (drawn_with * total).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, o["clip_norm"])
        for group in optimiser.param_groups:
            group["lr"] = run["lr"][step]
        optimiser.step()
        losses.append(float(loss))
        if history:
            history.record(t.numpy(), total.detach().numpy())
    return run, np.array(losses)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--folder", type=Path, help="what the example wrote")
    arguments.add_argument("--only", help="one objective")
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder
        if folder is None:
            folder = Path(temporary)
            command = ["cargo", "run", "--release", "-p", "ddpm-tests", "--example", "objective_losses", "--", folder]
            subprocess.run(command, cwd=ROOT, check=True)
        compare(folder, arguments.only)


def compare(folder, only):
    failed, kept = [], {}
    print("| objective | first step | ten steps, worst | last 50, ours | last 50, PyTorch | difference |")
    print("|---|---|---|---|---|---|")
    for folder in sorted(folder.iterdir(), key=lambda f: f.stat().st_mtime):
        name = json.loads((folder / "run.json").read_text())["name"]
        if only and name != only:
            continue
        run, theirs = train(folder)
        ours = np.array(run["losses"])
        relative = np.abs(ours / theirs - 1)
        last = [losses[-LAST:].mean() for losses in (ours, theirs)]
        difference = abs(last[0] / last[1] - 1)
        print(f"| {name} | {relative[0]:.1e} | {relative[:KEPT].max():.1e} | {last[0]:.5f} | {last[1]:.5f} | {100 * difference:.2f} % |", flush=True)
        if not (relative[0] <= FIRST_TOLERANCE and difference <= LAST_TOLERANCE):
            failed.append(name)
        kept[name] = theirs[:KEPT].tolist()
    if not only:
        FIXTURE.write_text(json.dumps(kept, indent=1) + "\n")
    if failed:
        sys.exit(f"too far off: {', '.join(failed)}")


if __name__ == "__main__":
    main()
