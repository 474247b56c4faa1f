#!/usr/bin/env python3
"""Saves `UNet2DModel`s of every option by diffusers and holds `ddpm predict` on them against PyTorch.

    python tests/parity/check_import.py [--ddpm target/release/ddpm] [--random 20] [--only NAME]

Output within 1e-5 (relative norm), each gradient within 2e-5, both against the network in f64.
Needs what tests/fixtures/make_fixtures.py needs. One line a network; exit 1 if any is beyond its bound.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from common import FORWARD_TOLERANCE, GRADIENT_TOLERANCE, fill, in_f64, predict, program, relative, worst_gradient

import numpy as np
import torch
from diffusers import UNet2DModel

# Small, with diffusers' own defaults wherever it says nothing.
SMALL = dict(
    sample_size=16, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)
PAPER = dict(norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None)
EVERYWHERE = dict(
    down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"),
)
NOWHERE = dict(down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"))

OPTIONS = {
    "defaults": {},
    "paper": PAPER,
    "padding_0": dict(downsample_padding=0),
    "padding_0_odd_groups": dict(downsample_padding=0, block_out_channels=(15, 30), norm_num_groups=5, attention_head_dim=15),
    "freq_shift_1": dict(freq_shift=1),
    "sin_cos": dict(flip_sin_to_cos=False),
    "eps_large": dict(norm_eps=1e-2),
    "one_head": dict(attention_head_dim=None),
    "heads_of_4": dict(attention_head_dim=4),
    "heads_of_1": dict(attention_head_dim=1),
    "attention_everywhere": EVERYWHERE,
    "attention_nowhere": {**NOWHERE, "add_attention": False},
    "attention_middle_only": NOWHERE,
    "no_middle_attention": dict(add_attention=False),
    "scale_shift": dict(resnet_time_scale_shift="scale_shift"),
    "scale_shift_everywhere": {**EVERYWHERE, "resnet_time_scale_shift": "scale_shift"},
    "middle_groups": dict(attn_norm_num_groups=16),
    "middle_groups_scale_shift": dict(attn_norm_num_groups=4, resnet_time_scale_shift="scale_shift"),
    "middle_scale": dict(mid_block_scale_factor=2.0),
    "centred": dict(center_input_sample=True),
    "classes": dict(num_class_embeds=7),
    "classes_timestep": dict(class_embed_type="timestep"),
    "classes_identity": dict(class_embed_type="identity"),
    "classes_scale_shift": dict(num_class_embeds=3, resnet_time_scale_shift="scale_shift"),
    "wide_time": dict(time_embedding_dim=40),
    "dropout": dict(dropout=0.3),
    "grey": dict(in_channels=1, out_channels=1),
    "five_channels": dict(in_channels=5, out_channels=5),
    "twice_out": dict(out_channels=6),
    "not_square": dict(sample_size=(8, 20)),
    "tall": dict(sample_size=(28, 4)),
    "three_layers": dict(layers_per_block=3),
    "one_group": dict(norm_num_groups=1),
    "two_groups": dict(norm_num_groups=2),
    "one_level": dict(
        block_out_channels=(16,), down_block_types=("AttnDownBlock2D",), up_block_types=("AttnUpBlock2D",),
    ),
    "four_levels": dict(
        block_out_channels=(8, 16, 8, 24), norm_num_groups=4, sample_size=(16, 24),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    ),
    "narrowing": dict(block_out_channels=(32, 16)),
    "fourier": dict(time_embedding_type="fourier"),
    "fourier_classes": dict(time_embedding_type="fourier", class_embed_type="timestep"),
}


def random_options(seed: int) -> dict:
    """A network whose options are all drawn."""
    random = np.random.Generator(np.random.Philox(seed))

    def one(*choices):
        return choices[random.integers(len(choices))]

    levels = one(1, 2, 3)
    groups = one(1, 2, 4)
    channels = tuple(groups * int(random.integers(2, 9)) for _ in range(levels))
    even = all(c % 4 == 0 for c in channels)
    multiple = 2 ** (levels - 1)
    attention = [bool(random.integers(2)) for _ in range(levels)]
    up = [bool(random.integers(2)) for _ in range(levels)]
    classes = one({}, {}, dict(num_class_embeds=4), dict(class_embed_type="timestep"))
    return dict(
        sample_size=(multiple * int(random.integers(2, 8)), multiple * int(random.integers(2, 8))),
        in_channels=one(1, 2, 3, 4), out_channels=one(1, 3, 6), center_input_sample=one(False, True),
        freq_shift=one(0, 1) if channels[0] > 3 else 0, flip_sin_to_cos=one(False, True),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in up),
        block_out_channels=channels, layers_per_block=one(1, 2), mid_block_scale_factor=one(1, 1.25),
        downsample_padding=one(0, 1), attention_head_dim=one(None, 4) if even else None, norm_num_groups=groups,
        norm_eps=one(1e-6, 1e-5), resnet_time_scale_shift=one("default", "scale_shift"),
        add_attention=one(True, False), **classes,
    )


def check(ddpm: Path, name: str, options: dict, seed: int) -> bool:
    """One network, one batch: prints its line, returns whether it is within both bounds."""
    torch.manual_seed(seed)
    config = {**SMALL, **options}
    network = UNet2DModel(**config).eval()
    fill(network, seed)
    h, w = config["sample_size"] if isinstance(config["sample_size"], tuple) else (config["sample_size"],) * 2
    n = 1 + seed % 3
    x, target = torch.randn(n, config["in_channels"], h, w), torch.randn(n, config["out_channels"], h, w)
    least = 1 if config.get("time_embedding_type") == "fourier" else 0  # it takes logarithms
    t, classes = torch.randint(least, 1000, (n,)), None
    if config.get("num_class_embeds"):
        classes = torch.randint(0, config["num_class_embeds"], (n,))
    elif config.get("class_embed_type") == "timestep":
        classes = torch.randint(least, 1000, (n,))
    elif config.get("class_embed_type") == "identity":
        classes = torch.randn(n, 4 * config["block_out_channels"][0])

    twin = in_f64(network)
    output = twin(x.double(), t, classes.double() if classes is not None and classes.is_floating_point() else classes).sample
    ((output - target.double()) ** 2).mean().backward()
    gradients = {key: p.grad.numpy() for key, p in twin.named_parameters() if p.requires_grad}

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        network.save_pretrained(folder / "model")
        try:
            ours, our_gradients = predict(ddpm, folder / "model", folder, x, t, classes, target)
            forward = relative(ours, output.detach().numpy().transpose(0, 2, 3, 1))
            gradient, whose = worst_gradient(our_gradients, gradients)
        except RuntimeError as error:
            print(f"{name:28} FAILED: {error}")
            return False
    good = forward < FORWARD_TOLERANCE and gradient < GRADIENT_TOLERANCE
    print(f"{name:28} output {forward:.1e}  worst gradient {gradient:.1e} ({whose}){'' if good else '  BEYOND ITS BOUND'}", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ddpm", help="the program; a release build of this tree if not given")
    parser.add_argument("--random", type=int, default=20, help="networks with drawn options (default 20)")
    parser.add_argument("--only", help="only networks whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ddpm = program(options.ddpm)
    networks = [(name, o, seed) for seed, (name, o) in enumerate(OPTIONS.items())]
    # seeds of their own, so that a new option draws no other numbers for them
    networks += [(f"random_{i}", random_options(i), 37 + i) for i in range(options.random)]
    good = [check(ddpm, *network) for network in networks if options.only is None or options.only in network[0]]
    print(f"{sum(good)} of {len(good)} networks within their bounds")
    sys.exit(0 if all(good) and good else 1)


if __name__ == "__main__":
    main()
