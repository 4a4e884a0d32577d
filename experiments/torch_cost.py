"""What training the U-Net of segmentation-models-pytorch costs, where torch is installed."""

import contextlib
import importlib.util
import math
import statistics
import time
from typing import Any

from experiments.benchmark_training import figures, patches

PACKAGES = ("torch", "segmentation_models_pytorch")
DTYPES = {"float32": "float32", "mixed_bfloat16": "bfloat16"}


def at_hand() -> bool:
    """Whether torch and segmentation-models-pytorch are installed."""
    return all(importlib.util.find_spec(package) for package in PACKAGES)


def torch_training(precision: str, crop: int, repeats: int, batch: int = 1) -> dict[str, Any]:
    """Training steps of ``smp.Unet("resnet34")``, its defaults, with its dice loss and Adam.

    Args:
        precision: ``"float32"``, or ``"mixed_bfloat16"`` for torch's autocast.
        crop: side of a patch in pixels.
        repeats: steps that are timed, after the first; none where 0.
        batch: patches in a batch.

    Returns:
        See ``benchmark_training.figures``.
    """
    import torch
    from torch import library

    # segmentation-models-pytorch asks torchvision for them when it is imported, and a torchvision
    # that was built for another torch has none.
    operators = library.Library("torchvision", "FRAGMENT")
    for name in ("nms(Tensor d, Tensor s, float t) -> Tensor", "qnms(Tensor d) -> Tensor"):
        with contextlib.suppress(RuntimeError):
            operators.define(name)
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = smp.Unet("resnet34", encoder_weights=None).to(device)
    operations = _convolution_operations(model, device)
    loss_of = smp.losses.DiceLoss("binary")
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    images, masks = (torch.from_numpy(a).to(device) for a in patches(batch, crop))
    images = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    masks = masks.permute(0, 3, 1, 2)
    dtype = getattr(torch, DTYPES[precision])

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            logits = model(images)
        loss = loss_of(logits.float(), masks)
        loss.backward()
        optimizer.step()
        loss.item()

    def peak(_: str, side: int = 4096) -> float:
        matrix = torch.randn(side, side, device=device, dtype=dtype)
        seconds = []
        for _ in range(8):
            began = time.perf_counter()
            (matrix @ matrix)[0, 0].item()
            seconds.append(time.perf_counter() - began)
        return 2 * side**3 / statistics.median(seconds[1:])

    return figures(step, repeats, batch, crop, operations, peak, precision)


def _convolution_operations(model: Any, device: str, side: int = 64) -> float:
    """As ``benchmark_training.convolution_operations``."""
    import torch

    counted = []

    def count(layer: Any, inputs: Any, outputs: Any) -> None:
        counted.append(2 * math.prod(layer.weight.shape) * math.prod(outputs.shape[2:]))

    convolutions = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)]
    handles = [layer.register_forward_hook(count) for layer in convolutions]
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, 3, side, side, device=device))
    model.train()
    for handle in handles:
        handle.remove()
    return sum(counted) / side**2
