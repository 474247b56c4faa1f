#!/usr/bin/env python3
"""Converts pytorch-fid's Inception-v3 for `ddpm eval ... --features FILE.safetensors`.

    pip install torch==2.11.0 safetensors==0.8.0
    python tests/convert/inception_to_safetensors.py pt_inception-2015-12-05-6726825d.pth inception.safetensors

The .pth file is the one that pytorch-fid downloads on its first use.
"""

import sys

import torch
from safetensors.torch import save_file

state = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
kept = {name: value.float().contiguous() for name, value in state.items() if not name.endswith("num_batches_tracked")}
save_file(kept, sys.argv[2])
print(f"{len(kept)} tensors, {sum(value.numel() for value in kept.values())} numbers")
