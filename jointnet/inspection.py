"""Looking into a network: its first filters, what a layer gives, and what that did for the result.

Layers are named as in ``keras.Model.layers``; those within a dense atrous block as
``encoder_1/convolution_3``, ``encoder_1/normalization_3`` or ``encoder_1/fusion``.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from layers import BilinearUpsampling, DenseAtrousBlock
from preprocessing.errors import RunError

LOGITS = "logits"
Change = Callable[[Any], Any]


@dataclass(frozen=True)
class Observation:
    """What a network gives for one image.

    Attributes:
        features: ``(h, w, channels)`` float32, output of the layer that was asked for.
        logits: ``(height, width)`` float32, before the sigmoid.
        probabilities: ``(height, width)`` float32, 0..1.
    """

    features: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class GradCam:
    """Where, by a layer's features, a network found what speaks for the target.

    Attributes:
        heat: ``(height, width)`` float32, 0..1: ``coarse`` by bilinear interpolation at the size
            of the image, divided by its maximum; 0 throughout where nothing speaks for it.
        coarse: ``(h, w)`` float32, not negative, at the layer's own size.
        weights: ``(channels,)`` float32, what a channel counts.
    """

    heat: np.ndarray
    coarse: np.ndarray
    weights: np.ndarray


def named_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers whose outputs can be looked at, in the order of the network.

    The input, and what comes after the logits, are left out.

    Raises:
        RunError: the network has no layer of logits.
    """
    found: dict[str, keras.layers.Layer] = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        found[layer.name] = layer
        if isinstance(layer, DenseAtrousBlock):
            inner = [*layer.convolutions, *layer.normalizations, layer.fusion]
            found |= {f"{layer.name}/{part.name}": part for part in inner}
        if layer.name == LOGITS:
            return found
    raise RunError(f"{model.name} has no layer that is named {LOGITS}")


def find_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """The layer of a name.

    Raises:
        RunError: there is none; the message says which there are.
    """
    layers = named_layers(model)
    if name not in layers:
        raise RunError(f"no layer {name!r}; there are {', '.join(grouped(list(layers)))}")
    return layers[name]


def default_layer(model: keras.Model) -> str:
    """The last layer before the decoder: the coarsest one, which has seen most of the image."""
    before = next(iter(named_layers(model)))
    for name, layer in named_layers(model).items():
        if isinstance(layer, BilinearUpsampling):
            break
        before = name
    return before


def grouped(names: list[str]) -> list[str]:
    """Names that differ in their numbers alone as one: ``a_1``, ``a_2`` as ``a_1..2``.

    Of several numbers each gets its range, though not every combination need be there.
    """
    groups: dict[str, list[list[int]]] = {}
    for name in names:
        numbers = [int(number) for number in re.findall(r"[0-9]+", name)]
        groups.setdefault(re.sub(r"[0-9]+", "{}", name), []).append(numbers)
    found = []
    for pattern, numbers in groups.items():
        columns = [sorted(set(column)) for column in zip(*numbers, strict=True)]
        ranges = (f"{c[0]}..{c[-1]}" if len(c) > 1 else c[0] for c in columns)
        found.append(pattern.format(*ranges))
    return found


def channels_of(model: keras.Model) -> dict[str, int]:
    """Channels that each of ``named_layers`` gives."""
    found = {}
    for name, layer in named_layers(model).items():
        if "/" not in name:
            found[name] = layer.output.shape[-1]
        elif isinstance(layer, keras.layers.Conv2D):
            found[name] = layer.filters
        else:
            found[name] = layer.gamma.shape[0]
    return found


def first_filters(model: keras.Model) -> tuple[str, np.ndarray]:
    """Kernels of the first convolution that sees more than one pixel.

    Returns:
        The layer's name, and ``(rows, columns, bands, filters)`` float32, bands in the order in
        which the network is fed them.

    Raises:
        RunError: the network has no such layer.
    """
    for name, layer in named_layers(model).items():
        if isinstance(layer, keras.layers.Conv2D) and max(layer.kernel_size) > 1:
            kernels = keras.ops.convert_to_numpy(layer.kernel).astype(np.float32)
            return name, kernels[:, :, ::-1] if _sees_bgr(model) else kernels
    raise RunError(f"{model.name} has no convolution of more than one pixel")


def observe(model: keras.Model, image: np.ndarray, layer: str) -> Observation:
    """Feed a network one image, and take what a layer gives.

    Args:
        model: with a layer ``logits``, then a sigmoid, as all of this project.
        image: ``(height, width, bands)`` raw pixels of a size that the network takes.
        layer: one of ``named_layers``.

    Raises:
        RunError: no such layer.
    """
    kept: dict[str, Any] = {}
    taps = {find_layer(model, name): _keeper(kept, name) for name in (layer, LOGITS)}
    if layer == LOGITS:
        taps = {find_layer(model, LOGITS): _keeper(kept, LOGITS)}
    probabilities = _forward(model, image, taps)
    features, logits = (_plain(kept[name])[0] for name in (layer, LOGITS))
    return Observation(features, logits[..., 0], _plain(probabilities)[0, ..., 0])


def grad_cam(
    model: keras.Model, image: np.ndarray, layer: str, pixels: np.ndarray | None = None
) -> GradCam:
    """Grad-CAM of a layer for the target at some pixels.

    Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", equations 1 and 2: the ReLU of the sum of the layer's channels A_k, each
    multiplied by a_k, the mean over all positions of the gradient of a score with respect to
    A_k. For segmentation the score is the sum of the target's logits over a set of pixels
    (Vinogradova, Dibrov and Myers 2020, "Towards Interpretable Semantic Segmentation via
    Gradient-weighted Class Activation Mapping").

    Args:
        model: as in ``observe``.
        image: ``(height, width, bands)`` raw pixels.
        layer: one of ``named_layers``.
        pixels: ``(height, width)`` bool, those that count in the score; None for all. Where none
            does, the map is 0.

    Raises:
        RunError: no such layer, or a backend that is neither TensorFlow nor JAX.
    """
    features = observe(model, image, layer).features
    counted = np.ones(image.shape[:2], bool) if pixels is None else pixels
    counted = keras.ops.convert_to_tensor(counted[None, ..., None].astype(np.float32))

    def score(added: Any) -> Any:
        kept: dict[str, Any] = {}
        keep = _keeper(kept, LOGITS)

        def add(outputs: Any) -> Any:
            return outputs + keras.ops.cast(added, outputs.dtype)

        tapped, logits = find_layer(model, layer), find_layer(model, LOGITS)
        taps = {logits: keep, tapped: add} if layer != LOGITS else {logits: lambda z: keep(add(z))}
        _forward(model, image, taps)
        return keras.ops.sum(keras.ops.cast(kept[LOGITS], "float32") * counted)

    # What is added, zero, has the gradient of what it is added to.
    gradient = _gradient(score, np.zeros((1, *features.shape), np.float32))
    weights = gradient[0].mean(axis=(0, 1), dtype=np.float64)
    coarse = np.maximum((features * weights).sum(axis=-1), 0).astype(np.float32)
    heat = keras.ops.image.resize(coarse[..., None], image.shape[:2], interpolation="bilinear")
    heat = _plain(heat)[..., 0]
    return GradCam(heat / (heat.max() or 1), coarse, weights.astype(np.float32))


def _forward(
    model: keras.Model, image: np.ndarray, taps: Mapping[keras.layers.Layer, Change]
) -> Any:
    """Feed one image, with the outputs of layers changed on their way."""
    with ExitStack() as stack:
        for layer, change in taps.items():
            stack.enter_context(_tapped(layer, change))
        return model(keras.ops.convert_to_tensor(image[None]), training=False)


@contextmanager
def _tapped(layer: keras.layers.Layer, change: Change) -> Iterator[None]:
    """Change what a layer gives.

    A layer within a block is no node of the network's graph: no model can be built that ends or
    begins there.
    """
    call = layer.call

    def changed(*arguments: Any, **named: Any) -> Any:
        return change(call(*arguments, **named))

    # Not by the layer's own, which would track it.
    object.__setattr__(layer, "call", changed)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")


def _keeper(kept: dict[str, Any], name: str) -> Change:
    def keep(outputs: Any) -> Any:
        kept[name] = outputs
        return outputs

    return keep


def _gradient(function: Callable[[Any], Any], at: np.ndarray) -> np.ndarray:
    """Gradient of a number with respect to the one argument of its function, float32."""
    backend = keras.backend.backend()
    tensor = keras.ops.convert_to_tensor(at)
    if backend == "jax":
        import jax

        return _plain(jax.grad(function)(tensor))
    if backend != "tensorflow":
        raise RunError(
            f"no gradients with the backend {backend}; set KERAS_BACKEND to tensorflow or jax"
        )
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensor)
        value = function(tensor)
    return _plain(tape.gradient(value, tensor))


def _plain(tensor: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def _sees_bgr(model: keras.Model) -> bool:
    """Whether the first convolution sees blue, green, red: see ``resnet._as_pretrained``."""
    backbone = getattr(model, "backbone", None)
    return backbone is not None and not backbone.endswith("V2") and model.bands == 3
