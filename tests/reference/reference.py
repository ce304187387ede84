"""What PyTorch says of a path: loss, logits, statistics and gradients of one batch, its tangent kernel, and curves of SGD.

Everything is computed in float64, and in float32 to learn how far PyTorch's own rounding leads away from it. The
float32 figures come from several runs, one for each way that PyTorch has of computing the same convolutions (memory
format, with and without oneDNN). No exact result differs between them, only how sums are rounded, so that the error
is not the luck of one run.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from networks import Network

# Ways of computing in float32: memory format, and whether oneDNN does the convolutions.
F32_WAYS = [(f, onednn) for f in (torch.contiguous_format, torch.channels_last) for onednn in (True, False)]
EXACT_WAY = F32_WAYS[0]
MOMENTUM = 0.9


@dataclass
class Normalisation:
    """`(pixel / 255 - mean) / deviation`, every operation in float32."""

    mean: float
    deviation: float

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        unit = pixels.astype(np.float32) / np.float32(255)
        return (unit - np.float32(self.mean)) / np.float32(self.deviation)


def statistics_of(network: Network, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, tuple]]:
    """Logits, and mean and biased variance of every BatchNorm's input."""
    seen: dict[str, tuple] = {}

    def hook(name: str):
        def keep(_module: nn.Module, inputs: tuple) -> None:
            h = inputs[0].detach()
            seen[name] = (h.mean((0, 2, 3)), h.var((0, 2, 3), correction=0))

        return keep

    handles = [bn.register_forward_pre_hook(hook(name)) for name, bn in network.batch_norms()]
    try:
        return network(images), seen
    finally:
        for handle in handles:
            handle.remove()


def gradients_once(
    network: Network, images: np.ndarray, labels: np.ndarray, dtype: torch.dtype, way: tuple
) -> dict[str, np.ndarray]:
    """Loss, logits, statistics and gradients as flat float64 vectors, BatchNorms in order of execution."""
    layout, onednn = way
    network = copy.deepcopy(network).to(dtype).to(memory_format=layout).train()
    with torch.backends.mkldnn.flags(enabled=onednn):
        batch = torch.from_numpy(images).to(dtype).contiguous(memory_format=layout)
        logits, seen = statistics_of(network, batch)
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        loss.backward()
    norms = network.batch_norms()

    def flat(tensors: list[torch.Tensor]) -> np.ndarray:
        return torch.cat([t.detach().double().flatten() for t in tensors]).numpy()

    return {
        "loss": flat([loss]),
        "logits": logits.detach().double().numpy(),
        "mean": flat([seen[name][0] for name, _ in norms]),
        "var": flat([seen[name][1] for name, _ in norms]),
        "dgamma": flat([bn.weight.grad for _, bn in norms]),
        "dbeta": flat([bn.bias.grad for _, bn in norms]),
    }


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def gradients(network: Network, images: np.ndarray, labels: np.ndarray) -> tuple[dict, dict]:
    """The float64 results, and the relative L2 errors of every float32 run: gradients are all dgamma and dbeta."""
    exact = gradients_once(network, images, labels, torch.float64, EXACT_WAY)
    errors: dict[str, list[float]] = {}
    for way in F32_WAYS:
        got = gradients_once(network, images, labels, torch.float32, way)
        both = [np.concatenate([r["dgamma"], r["dbeta"]]) for r in (got, exact)]
        errors.setdefault("gradients", []).append(relative(*both))
        for kind in ("loss", "logits", "mean", "var"):
            errors.setdefault(kind, []).append(relative(got[kind], exact[kind]))
    return exact, errors


def kernels_once(network: Network, images: np.ndarray, dtype: torch.dtype, way: tuple) -> dict[str, np.ndarray]:
    """The tangent kernel of all gammas and betas, `[N, N]`: of the summed logits, and of every logit, summed.

    Statistics are those of the whole batch, and constants. Every sample then goes through the network alone, and has a
    backward pass of its own for every number that is differentiated.
    """
    layout, onednn = way
    network = copy.deepcopy(network).to(dtype).to(memory_format=layout).train()
    with torch.backends.mkldnn.flags(enabled=onednn):
        batch = torch.from_numpy(images).to(dtype).contiguous(memory_format=layout)
        with torch.no_grad():
            _, seen = statistics_of(network, batch)
        for name, bn in network.batch_norms():
            bn.running_mean, bn.running_var = seen[name]
        network.eval()
        rows: list[list[torch.Tensor]] = []
        for sample in batch:
            logits = network(sample[None])[0]
            numbers = [logits.sum(), *logits]
            gradients = [torch.autograd.grad(n, network.trainable(), retain_graph=True) for n in numbers]
            rows.append([torch.cat([g.double().flatten() for g in gradient]) for gradient in gradients])
    of_number = [torch.stack(column) for column in zip(*rows)]
    grams = [(j @ j.T).numpy() for j in of_number]
    return {"theta_sum": grams[0], "theta_each_class": np.sum(grams[1:], axis=0)}


def kernels(network: Network, images: np.ndarray) -> tuple[dict, dict]:
    """The float64 kernels, and the relative L2 errors of every float32 run."""
    exact = kernels_once(network, images, torch.float64, EXACT_WAY)
    single = [kernels_once(network, images, torch.float32, way) for way in F32_WAYS]
    return exact, {kind: [relative(run[kind], exact[kind]) for run in single] for kind in exact}


def curve(
    network: Network, images: np.ndarray, labels: np.ndarray, way: tuple, *, rate: float, steps: int, dtype: torch.dtype
) -> list[float]:
    """Loss before each of `steps` SGD steps over `images` `[batches, N, C, H, W]`, taken in turn."""
    layout, onednn = way
    network = copy.deepcopy(network).to(dtype).to(memory_format=layout).train()
    optimiser = torch.optim.SGD(network.trainable(), lr=rate, momentum=MOMENTUM)
    losses = []
    with torch.backends.mkldnn.flags(enabled=onednn):
        for step in range(steps):
            batch = torch.from_numpy(images[step % len(images)]).to(dtype).contiguous(memory_format=layout)
            loss = nn.functional.cross_entropy(network(batch), torch.from_numpy(labels[step % len(images)]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    return losses


def curves(network: Network, images: np.ndarray, labels: np.ndarray, *, rate: float, steps: int) -> tuple[list, list]:
    """The float64 curve and those of the float32 runs."""
    exact = curve(network, images, labels, EXACT_WAY, rate=rate, steps=steps, dtype=torch.float64)
    single = [curve(network, images, labels, way, rate=rate, steps=steps, dtype=torch.float32) for way in F32_WAYS]
    return exact, single
