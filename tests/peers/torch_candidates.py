"""Times the three measurements of a composite in PyTorch, candidate after candidate of nas-bench-macro.

    python tests/peers/torch_candidates.py --paths 22212220,01100200 --ntk loop
    python tests/peers/torch_candidates.py ... --serve   # answers `N` on stdin with the times of N passes over the paths

Of every path, as it is before training, at one batch size:

* E, log-determinant of the agreement of activation signs after BatchNorm, on one batch;
* T, log-determinant of the tangent kernel of the summed logits over the BatchNorms of stem and head, on the same batch,
  its statistics held constant;
* U, mutual information of the label and the statistics of four other batches, on another batch of images.

A time is milliseconds per candidate: that of a pass over all paths, divided by their number. Making the networks
is not timed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from measures import peak_mb, resident_mb, say, serve

BATCHES = 4


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", required=True, help="eight digits each, separated by commas")
    parser.add_argument(
        "--ntk",
        default="loop",
        choices=("loop", "vmap", "copies"),
        help="a backward pass a sample; torch.func; or one backward pass to copies of gamma and beta, one a sample",
    )
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--layout", default="contiguous", choices=("contiguous", "channels_last"))
    parser.add_argument("--passes", type=int, default=3, help="passes over the paths that are timed")
    parser.add_argument("--seed", type=int, default=0, help="of weights and images")
    parser.add_argument("--serve", action="store_true", help="run as many passes as each line on stdin says")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    import numpy as np
    import torch
    from torch import nn

    from networks import BN_EPSILON, Network

    torch.set_num_threads(options.threads)
    torch.nn.functional.conv2d(torch.zeros(1, 8, 8, 8), torch.zeros(8, 8, 1, 1))
    before = resident_mb()
    layout = torch.channels_last if options.layout == "channels_last" else torch.contiguous_format

    def tracking(bn: nn.BatchNorm2d) -> nn.BatchNorm2d:
        """The same BatchNorm, which keeps the statistics of the last batch that it has seen in training mode."""
        return nn.BatchNorm2d(bn.num_features, eps=BN_EPSILON, momentum=1.0)

    def candidate(path: str) -> Network:
        network = Network("nas-bench-macro", path, classes=options.classes, width=options.width)
        network.load_weights(network.random_weights(options.seed))
        for operator in network.operators:
            for i, layer in enumerate(operator.layers):
                if isinstance(layer, nn.BatchNorm2d):
                    operator.layers[i] = tracking(layer)
        return network.requires_grad_(False).to(memory_format=layout)

    paths = options.paths.split(",")
    networks = [candidate(path) for path in paths]
    rng = np.random.Generator(np.random.PCG64(options.seed))
    shape = (options.batch, 3, options.image_size, options.image_size)

    def images() -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).contiguous(memory_format=layout)

    first, looked_at, others = images(), images(), [images() for _ in range(BATCHES)]

    def log_determinant(kernel: torch.Tensor) -> float:
        return torch.linalg.slogdet(kernel.double()).logabsdet.item()

    def expressivity(network: Network) -> float:
        """Leaves the statistics of the batch in the network."""
        kernel = torch.zeros(options.batch, options.batch)

        def look(_module: nn.Module, _inputs: tuple, y: torch.Tensor) -> None:
            # Plus and minus one: a product is agreements less disagreements.
            signs = (y > 0).flatten(1).float().mul_(2).sub_(1)
            kernel.add_(signs @ signs.T).add_(signs.shape[1])

        hooks = [
            layer.register_forward_hook(look)
            for operator in network.operators
            for layer, after in zip(operator.layers, operator.layers[1:])
            if isinstance(layer, nn.BatchNorm2d) and isinstance(after, nn.ReLU)
        ]
        network.train()
        with torch.no_grad():
            network(first)
        for hook in hooks:
            hook.remove()
        return log_determinant(kernel / 2)

    def shared(network: Network) -> dict[str, nn.Parameter]:
        """Gamma and beta of stem and head."""
        ends = (0, len(network.operators) - 1)
        return {n: p for i in ends for n, p in network.named_parameters() if n.startswith(f"operators.{i}.layers.1.")}

    def jacobian_by_loop(network: Network) -> torch.Tensor:
        parameters = list(shared(network).values())
        for parameter in parameters:
            parameter.requires_grad_(True)
        rows = []
        for n in range(options.batch):
            gradients = torch.autograd.grad(network(first[n : n + 1]).sum(), parameters)
            rows.append(torch.cat(gradients))
        for parameter in parameters:
            parameter.requires_grad_(False)
        return torch.stack(rows)

    def jacobian_by_vmap(network: Network) -> torch.Tensor:
        def logit_sum(parameters: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(network, parameters, (image[None],)).sum()

        parameters = {name: p.detach() for name, p in shared(network).items()}
        gradients = torch.func.vmap(torch.func.grad(logit_sum), in_dims=(None, 0))(parameters, first)
        return torch.cat(list(gradients.values()), 1)

    def jacobian_by_copies(network: Network) -> torch.Tensor:
        leaves: list[torch.Tensor] = []

        def scale(_module: nn.Module, _inputs: tuple, y: torch.Tensor) -> torch.Tensor:
            # Gamma is 1 and beta 0 before training: their copies scale and shift what is normalised.
            copies = [value.expand(*y.shape[:2], 1, 1).clone().requires_grad_(True) for value in (ONE, ZERO)]
            leaves.extend(copies)
            return torch.addcmul(copies[1], y, copies[0])

        ends = (network.operators[0], network.operators[-1])
        hooks = [operator.layers[1].register_forward_hook(scale) for operator in ends]
        logits = network(first)
        for hook in hooks:
            hook.remove()
        return torch.cat([g.flatten(1) for g in torch.autograd.grad(logits.sum(), leaves)], 1)

    ONE, ZERO = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    jacobian = {"loop": jacobian_by_loop, "vmap": jacobian_by_vmap, "copies": jacobian_by_copies}[options.ntk]

    def trainability(network: Network) -> float:
        network.eval()
        rows = jacobian(network).double()
        return log_determinant(rows @ rows.T)

    @torch.inference_mode()
    def uncertainty(network: Network) -> float:
        drawn = []
        for batch in others:
            network.train()
            network(batch)
            network.eval()
            drawn.append(network(looked_at).double())
        log_p = torch.stack(drawn).log_softmax(2)
        entropy = torch.special.entr(log_p.exp()).sum(2).mean()
        predictive = torch.special.entr(log_p.exp().mean(0)).sum(1).mean()
        return (predictive - entropy).log().item()

    def measure(network: Network) -> tuple[float, float, float]:
        return expressivity(network), trainability(network), uncertainty(network)

    def run() -> float:
        """Milliseconds per candidate of one pass."""
        start = time.perf_counter()
        for network in networks:
            measure(network)
        return (time.perf_counter() - start) * 1e3 / len(networks)

    def figures(times: list[float]) -> dict:
        return {
            "passes": len(times),
            "median_ms": round(float(np.median(times)), 3),
            "peak_rss_mb": round(peak_mb(), 1),
            "rss_before_mb": round(before, 1),
        }

    first_parts = measure(networks[0])
    start = time.process_time()
    measure(networks[0])
    first_cpu_ms = (time.process_time() - start) * 1e3
    about = {
        "peer": "torch",
        "paths": len(paths),
        "batch": options.batch,
        "layout": options.layout,
        "ntk": options.ntk,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "python": sys.version.split()[0]},
        "first": [round(part, 3) for part in first_parts],
        "first_cpu_ms": round(first_cpu_ms, 1),
    }
    if options.serve:
        serve(about, run, figures)
    else:
        say({**about, **figures([run() for _ in range(options.passes)])})


if __name__ == "__main__":
    main()
