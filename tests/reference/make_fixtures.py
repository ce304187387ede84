"""Makes every fixture of this folder again: `python tests/reference/make_fixtures.py` (README.md says more)."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits

from networks import Network
from reference import MOMENTUM, Normalisation, curves, gradients, kernels

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FIXTURES = HERE / "fixtures"

NOISE = Normalisation(mean=0.5, deviation=0.25)
DIGITS = Normalisation(mean=0.3, deviation=0.35)
DIGITS_FILE = "digits.safetensors"
BATCHES, BATCH, STEPS = 10, 32, 50
SAMPLES = 8
SEEDS = range(7, 15)
# Largest relative error of float32 gradients that rounding alone explains.
NO_KINK = 2e-5


@dataclass(frozen=True)
class Bundle:
    """Options of a bundle, as `nasbn-export build` takes them."""

    space: str
    image_size: int
    bn: str
    width: float = 0.25
    classes: int = 10
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.space}-{self.bn}-{self.image_size}"

    def arguments(self, out: Path) -> list[str]:
        options = {
            "space": self.space,
            "image-size": self.image_size,
            "width": self.width,
            "classes": self.classes,
            "bn": self.bn,
            "seed": self.seed,
            "out": out,
        }
        return ["build", *(f"--{name}={value}" for name, value in options.items())]


@dataclass(frozen=True)
class Weights:
    """Frozen weights and initial BatchNorm parameters of a bundle, and the digest of the weights' file."""

    tensors: dict[str, np.ndarray] | None
    initial: dict[str, np.ndarray] = field(default_factory=dict)
    sha256: str = ""


MACRO = [Bundle("nas-bench-macro", size, bn) for bn in ("every-operator", "convolution") for size in (16, 15)]
MOBILENET = [Bundle("mobilenet", 64, bn) for bn in ("every-operator", "convolution")]
MOBILENET_PATH = "234056101430265016025"
GRADIENTS = [(b, path) for b in MACRO for path in ("22212220", "01020120", "00000000")]
GRADIENTS += [(b, MOBILENET_PATH) for b in MOBILENET]
KERNELS = [(b, "22212220") for b in MACRO if b.image_size == 16] + [(b, "01020120") for b in MACRO if b.image_size == 15]
KERNELS += [(b, MOBILENET_PATH) for b in MOBILENET]
CURVES = [(b, path) for b in MACRO if b.image_size == 16 for path in ("22212220", "01020120")]
# A power of two, so that float32 and float64 take the same rate.
RATE = 0.0625
# Curves start here. From beta 0 half of all activations begin at a ReLU's kink, and training is so chaotic that
# rounding leads as far away as a rate 5 % wrong does; from beta 1 a rate 1 % wrong leads several times as far.
START = {"gamma": 1.0, "beta": 1.0}


def weights_of(directory: Path) -> Weights:
    """Weights of the bundle in `directory`."""
    file = directory / "graphs" / "weights.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Weights(load_file(file), load_file(directory / "initial.safetensors"), digest)


def network_of(bundle: Bundle, path: str, weights: Weights) -> Network:
    network = Network(bundle.space, path, classes=bundle.classes, width=bundle.width, placement=bundle.bn)
    network.load_weights(network.random_weights(bundle.seed) if weights.tensors is None else weights.tensors)
    if weights.initial:
        names = [name for name, _ in network.batch_norms()]
        gamma, beta = ({name: weights.initial[f"{name}.{part}"] for name in names} for part in ("gamma", "beta"))
        network.load_batch_norms(gamma, beta)
    return network


def write(name: str, options: dict, tensors: dict[str, np.ndarray] | None = None) -> None:
    FIXTURES.mkdir(exist_ok=True)
    text = json.dumps(options, indent=1)
    (FIXTURES / f"{name}.json").write_text(text + "\n")
    if tensors is not None:
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, FIXTURES / f"{name}.safetensors")


def batch_of(bundle: Bundle, path: str, weights: Weights, seed: int) -> tuple:
    """A batch of noise, BatchNorm parameters far from their initial values, and what PyTorch says of them."""
    network = network_of(bundle, path, weights)
    rng = np.random.Generator(np.random.PCG64(seed))
    images = rng.integers(0, 256, (SAMPLES, 3, bundle.image_size, bundle.image_size), np.uint8)
    labels = rng.integers(0, bundle.classes, SAMPLES, np.int64)
    norms = [(name, bn.num_features) for name, bn in network.batch_norms()]
    gamma = {name: (1 + 0.5 * rng.standard_normal(n)).astype(np.float32) for name, n in norms}
    beta = {name: (0.5 * rng.standard_normal(n)).astype(np.float32) for name, n in norms}
    network.load_batch_norms(gamma, beta)
    exact, errors = gradients(network, NOISE.apply(images), labels)
    return images, labels, norms, gamma, beta, exact, errors


def make_gradients(bundle: Bundle, path: str, weights: Weights) -> None:
    """The first of a few batches on which no activation lies so near a ReLU's kink that rounding decides
    its side (then PyTorch's own float32 ways disagree, by a thousand times their usual error); if all have
    one, the batch on which they agree best."""
    tries = []
    for seed in SEEDS:
        tries.append(batch_of(bundle, path, weights, seed))
        if max(tries[-1][-1]["gradients"]) < NO_KINK:
            break
    images, labels, norms, gamma, beta, exact, errors = min(tries, key=lambda t: max(t[-1]["gradients"]))
    tensors = {
        "images": images,
        "labels": labels,
        "gamma": np.concatenate(list(gamma.values())),
        "beta": np.concatenate(list(beta.values())),
        **{k: exact[k] for k in ("loss", "logits", "dgamma", "dbeta")},
        **{k: exact[k].astype(np.float32) for k in ("mean", "var")},
    }
    name = f"gradients-{bundle.name}-{path}"
    options = {
        "bundle": asdict(bundle),
        "weights_sha256": weights.sha256,
        "path": path,
        "normalisation": asdict(NOISE),
        "batch_norms": norms,
        "torch": torch.__version__,
        "torch_f32_errors": errors,
    }
    write(name, options, tensors)
    print(f"{name}: loss {exact['loss'][0]:.4f}, float32 gradients off by {rms(errors['gradients']):.2e}")


def make_kernels(bundle: Bundle, path: str, weights: Weights) -> None:
    """Tangent kernels of the batch and the parameters of the gradients' fixture."""
    data = f"gradients-{bundle.name}-{path}.safetensors"
    given = load_file(FIXTURES / data)
    network = network_of(bundle, path, weights)
    norms = [(name, bn.num_features) for name, bn in network.batch_norms()]
    ends = np.cumsum([n for _, n in norms])[:-1]
    gamma, beta = (
        {name: part for (name, _), part in zip(norms, np.split(given[kind], ends))} for kind in ("gamma", "beta")
    )
    network.load_batch_norms(gamma, beta)
    exact, errors = kernels(network, NOISE.apply(given["images"]))
    name = f"kernel-{bundle.name}-{path}"
    options = {
        "bundle": asdict(bundle),
        "weights_sha256": weights.sha256,
        "path": path,
        "data": data,
        "normalisation": asdict(NOISE),
        "batch_norms": norms,
        "torch": torch.__version__,
        "torch_f32_errors": errors,
    }
    write(name, options, exact)
    print(f"{name}: float32 kernels off by", *(f"{rms(errors[kind]):.2e}" for kind in exact))


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Ten batches of handwritten digits, one channel, 8 x 8 pixels of 0 to 16 made 16 x 16 of 0 to 255.

    A little noise keeps pixels apart: on a blank background a whole plane of activations takes one value, and
    when that value comes to lie on a ReLU's kink, rounding decides for all of them at once.
    """
    data = load_digits()
    count = BATCHES * BATCH
    rng = np.random.Generator(np.random.PCG64(0))
    noise = rng.integers(0, 16, (count, 16, 16))
    images = (np.kron(data.images[:count] * 15, np.ones((2, 2))) + noise).astype(np.uint8)
    return images.reshape(BATCHES, BATCH, 16, 16), data.target[:count].astype(np.int64).reshape(BATCHES, BATCH)


def make_curves(bundle: Bundle, path: str, weights: Weights) -> None:
    network = network_of(bundle, path, weights)
    gamma, beta = (
        {name: np.full(bn.num_features, START[part], np.float32) for name, bn in network.batch_norms()}
        for part in ("gamma", "beta")
    )
    network.load_batch_norms(gamma, beta)
    pixels, labels = digits()
    images = np.repeat(DIGITS.apply(pixels)[:, :, None], 3, axis=2)
    exact, single = curves(network, images, labels, rate=RATE, steps=STEPS)
    name = f"curve-{bundle.name}-{path}"
    options = {
        "bundle": asdict(bundle),
        "weights_sha256": weights.sha256,
        "path": path,
        "data": DIGITS_FILE,
        "normalisation": asdict(DIGITS),
        "start": START,
        "rate": RATE,
        "momentum": MOMENTUM,
        "torch": torch.__version__,
        "float64": exact,
        "float32": single,
    }
    write(name, options)
    distances = [rms(np.subtract(run, exact)) for run in single]
    print(f"{name}: loss {np.mean(exact[:BATCHES]):.3f} to {np.mean(exact[-BATCHES:]):.3f}, float32 off by", *(f"{d:.1e}" for d in distances))


def rms(values) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--exporter", default="cargo run --quiet --package nasbn-export --", help="how nasbn-export is run (%(default)s)"
    )
    parser.add_argument("--bundle", type=Path, action="append", default=[], metavar="DIR",
                        help="a folder with ready bundles, named as the fixtures name them; others are built")
    parser.add_argument("--only", default="", help="make only fixtures whose names contain this")
    parser.add_argument("--random-weights", action="store_true",
                        help="try the scripts without an exporter; the fixtures then fit no bundle")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    with tempfile.TemporaryDirectory() as scratch:
        made: dict[Bundle, Weights] = {}

        def weights(bundle: Bundle) -> Weights:
            if options.random_weights:
                return Weights(None)
            if bundle not in made:
                ready = [d / bundle.name for d in options.bundle if (d / bundle.name).is_dir()]
                directory = ready[0] if ready else Path(scratch) / bundle.name
                if not ready:
                    command = shlex.split(options.exporter) + bundle.arguments(directory)
                    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
                made[bundle] = weights_of(directory)
            return made[bundle]

        for bundle, path in GRADIENTS:
            if options.only in f"gradients-{bundle.name}-{path}":
                make_gradients(bundle, path, weights(bundle))
        for bundle, path in KERNELS:
            if options.only in f"kernel-{bundle.name}-{path}":
                make_kernels(bundle, path, weights(bundle))
        if options.only in "curve-":
            pixels, labels = digits()
            save_file({"images": pixels, "labels": labels}, FIXTURES / DIGITS_FILE)
        for bundle, path in CURVES:
            if options.only in f"curve-{bundle.name}-{path}":
                make_curves(bundle, path, weights(bundle))


if __name__ == "__main__":
    main()
