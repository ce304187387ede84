"""Times a BN-only training step of one path in PyTorch: forward, loss, backward to gamma and beta, SGD with momentum.

    python tests/peers/torch_step.py --space nas-bench-macro --path 22212220 --image-size 32 --batch 64
    python tests/peers/torch_step.py ... --serve      # answers `N` on stdin with the times of N steps, as a line of JSON

The first line that is written describes the run; with `--serve` it also says that the warm-up is over.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from measures import peak_mb, resident_mb, say, serve


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", required=True, choices=("nas-bench-macro", "mobilenet"))
    parser.add_argument("--path", required=True, help="one digit per searchable layer")
    parser.add_argument("--bn", default="every-operator", choices=("every-operator", "convolution"))
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--layout", default="contiguous", choices=("contiguous", "channels_last"))
    parser.add_argument("--compile", type=int, default=0, choices=(0, 1), help="1: through torch.compile")
    parser.add_argument("--steps", type=int, default=30, help="steps that are timed")
    parser.add_argument("--warmup", type=int, default=5, help="steps before them")
    parser.add_argument("--seed", type=int, default=0, help="of weights and images")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--bundle", type=Path, help="take the weights of this bundle")
    parser.add_argument("--serve", action="store_true", help="run as many steps as each line on stdin says")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    import numpy as np
    import torch

    from networks import Network

    torch.set_num_threads(options.threads)
    # The first use of a convolution loads the libraries behind it; that is not the network's memory.
    torch.nn.functional.conv2d(torch.zeros(1, 8, 8, 8), torch.zeros(8, 8, 1, 1))
    before = resident_mb()

    network = Network(
        options.space, options.path, classes=options.classes, width=options.width, placement=options.bn
    ).train()
    if options.bundle is None:
        network.load_weights(network.random_weights(options.seed))
    else:
        from safetensors.numpy import load_file

        network.load_weights(load_file(options.bundle / "graphs" / "weights.safetensors"))
    rng = np.random.Generator(np.random.PCG64(options.seed))
    shape = (options.batch, 3, options.image_size, options.image_size)
    images = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    labels = torch.from_numpy(rng.integers(0, options.classes, options.batch))
    layout = torch.channels_last if options.layout == "channels_last" else torch.contiguous_format
    network = network.to(memory_format=layout)
    images = images.contiguous(memory_format=layout)
    optimiser = torch.optim.SGD(network.trainable(), lr=options.rate, momentum=0.9, foreach=True)
    run = torch.compile(network) if options.compile else network

    def step() -> float:
        """Milliseconds of one step."""
        start = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(run(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return (time.perf_counter() - start) * 1e3

    def figures(times: list[float]) -> dict:
        low, median, high = np.percentile(times, (10, 50, 90))
        return {
            "steps": len(times),
            "median_ms": round(float(median), 3),
            "min": round(min(times), 3),
            "p10": round(float(low), 3),
            "p90": round(float(high), 3),
            "peak_rss_mb": round(peak_mb(), 1),
            "rss_before_mb": round(before, 1),
        }

    for _ in range(options.warmup):
        step()
    about = {
        "peer": "torch",
        "space": options.space,
        "path": options.path,
        "batch": options.batch,
        "image_size": options.image_size,
        "layout": options.layout,
        "compile": bool(options.compile),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": sys.version.split()[0]},
    }
    if not options.serve:
        say({**about, **figures([step() for _ in range(options.steps)])})
        return
    serve(about, step, figures)


if __name__ == "__main__":
    main()
