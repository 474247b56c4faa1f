#!/usr/bin/env python3
"""How time grows: with threads, with the batch, with the image.

    python tests/speed/growth.py [--ddpm PROGRAM] [--rounds 3]

Medians of rounds; close everything else first.
"""

import argparse
import json
import statistics
import subprocess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ddpm", default="target/release/ddpm", help="the program (default: the release build)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    def bench(*told: str) -> dict:
        command = [options.ddpm, "bench", "--quick", "--json", *told]
        done = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(options.rounds)]
        rows = [json.loads(text.splitlines()[-1]) for text in done]
        return {key: statistics.median(row[key] for row in rows) for key in ("train_images_per_s", "forward_images_per_s")}

    print("threads: images/s, and times as fast as with one")
    for preset, batch in (("digits", 64), ("cifar10", 16)):
        one, two = (bench("--preset", preset, "--batch", str(batch), "--threads", str(n)) for n in (1, 2))
        for key in one:
            print(f"  {preset:8} {key:20} {one[key]:8.1f} {two[key]:8.1f} {two[key] / one[key]:6.2f}", flush=True)
    print("batch: ms an image, forward")
    for preset, batches in (("digits", (1, 4, 16, 64)), ("cifar10", (1, 4, 16, 64))):
        for batch in batches:
            figures = bench("--preset", preset, "--batch", str(batch))
            print(f"  {preset:8} {batch:3} {1e3 / figures['forward_images_per_s']:8.2f}", flush=True)
    print("image: ns a pixel, forward, without attention")
    plain = ["--set", 'network.down_block_types=["DownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]', "--set", "network.add_attention=false"]
    for side, batch in ((32, 16), (64, 4), (128, 1)):
        figures = bench("--preset", "cifar10", *plain, "--set", f"data.size={side}", "--batch", str(batch))
        print(f"  {side:3}² {1e9 / figures['forward_images_per_s'] / side**2:8.0f}", flush=True)


if __name__ == "__main__":
    main()
