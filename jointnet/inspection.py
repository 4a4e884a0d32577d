"""Look into a network: its first filters, the activations of a layer, and Grad-CAM.

Layers have the names of ``keras.Model.layers``; those inside a dense atrous block are
``encoder_1/convolution_3``, ``encoder_1/normalization_3`` or ``encoder_1/fusion``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from layers import BilinearUpsampling, DenseAtrousBlock
from preprocessing.errors import RunError

LOGITS = "logits"
Tap = Callable[[Any], Any]
"""Gets a layer's outputs as they pass, and returns what goes on in their place."""


@dataclass(frozen=True)
class Observation:
    """What a network gives for one image.

    Attributes:
        activations: ``(h, w, channels)`` float32, output of the layer that was asked for.
        logits: ``(height, width)`` float32, before the sigmoid.
        probabilities: ``(height, width)`` float32, 0..1.
    """

    activations: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class GradCam:
    """Where the activations of a layer speak for the target.

    Attributes:
        heat: ``(height, width)`` float32, 0..1: ``coarse`` enlarged to the image by bilinear
            interpolation and divided by its maximum; 0 everywhere if nothing speaks for it.
        coarse: ``(h, w)`` float32, at least 0, at the layer's own size.
        weights: ``(channels,)`` float32, weight of each channel.
    """

    heat: np.ndarray
    coarse: np.ndarray
    weights: np.ndarray


def named_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return the layers that can be looked at, from the first after the input to the logits.

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
    """Return the layer of a name.

    Raises:
        RunError: there is none; the message names those that there are.
    """
    layers = named_layers(model)
    if name not in layers:
        raise RunError(f"no layer {name!r}; there are {', '.join(grouped(list(layers)))}")
    return layers[name]


def default_layer(model: keras.Model) -> str:
    """Return the last layer before the decoder: the coarsest, which sees most of the image."""
    layers = named_layers(model)
    before = next(iter(layers))
    for name, layer in layers.items():
        if isinstance(layer, BilinearUpsampling):
            break
        before = name
    return before


def grouped(names: list[str]) -> list[str]:
    """Return names that differ only in their numbers as one: ``a_1``, ``a_2`` as ``a_1..2``.

    Each of several numbers gets its own range; not every combination need exist.
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
    """Return how many channels each of ``named_layers`` gives."""
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
    """Return name and kernels of the first convolution that sees more than one pixel.

    The kernels are ``(rows, columns, bands, filters)`` float32, bands in the order of the
    network's input.

    Raises:
        RunError: the network has no such layer.
    """
    for name, layer in named_layers(model).items():
        if isinstance(layer, keras.layers.Conv2D) and max(layer.kernel_size) > 1:
            kernels = keras.ops.convert_to_numpy(layer.kernel).astype(np.float32)
            return name, kernels[:, :, ::-1] if _sees_bgr(model) else kernels
    raise RunError(f"{model.name} has no convolution of more than one pixel")


def observe(model: keras.Model, image: np.ndarray, layer: str) -> Observation:
    """Feed a network one image, and keep the activations of one of its ``named_layers``.

    The network ends with a layer ``logits`` and a sigmoid, as all of this project do. The image is
    ``(height, width, bands)`` raw pixels of a size that the network takes.

    Raises:
        RunError: no such layer.
    """
    kept: dict[str, Any] = {}
    taps = {find_layer(model, name): _keeper(kept, name) for name in (layer, LOGITS)}
    probabilities = _forward(model, image, taps)
    activations, logits = (_plain(kept[name])[0] for name in (layer, LOGITS))
    return Observation(activations, logits[..., 0], _plain(probabilities)[0, ..., 0])


def grad_cam(
    model: keras.Model, image: np.ndarray, layer: str, pixels: np.ndarray | None = None
) -> GradCam:
    """Compute Grad-CAM of a layer for the target at some pixels.

    Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", equations 1 and 2: weigh each of the layer's channels by the gradient of a
    score with respect to it, averaged over all positions, add them, and take the ReLU. For
    segmentation the score is the sum of the target's logits over a set of pixels (Vinogradova,
    Dibrov and Myers 2020, "Towards Interpretable Semantic Segmentation via Gradient-weighted
    Class Activation Mapping").

    Network, image and layer are as in ``observe``. ``pixels``, ``(height, width)`` bool, are those
    whose logits are added, all by default; the map is 0 if none are.

    Raises:
        RunError: no such layer, or a backend that is neither TensorFlow nor JAX.
    """
    activations = observe(model, image, layer).activations
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

    # A zero that is added to the activations has their gradient.
    gradient = _gradient(score, np.zeros((1, *activations.shape), np.float32))
    weights = gradient[0].mean(axis=(0, 1), dtype=np.float64)
    coarse = np.maximum((activations * weights).sum(axis=-1), 0).astype(np.float32)
    heat = keras.ops.image.resize(coarse[..., None], image.shape[:2], interpolation="bilinear")
    heat = _plain(heat)[..., 0]
    return GradCam(heat / (heat.max() or 1), coarse, weights.astype(np.float32))


def _forward(model: keras.Model, image: np.ndarray, taps: Mapping[keras.layers.Layer, Tap]) -> Any:
    """Feed one image, with taps on the outputs of layers, whose ``call`` is replaced meanwhile.

    A layer inside a block is no node of the network's graph, so no model can end or begin there.
    """

    def tapped(call: Callable[..., Any], tap: Tap) -> Callable[..., Any]:
        return lambda *args, **kwargs: tap(call(*args, **kwargs))

    for layer, tap in taps.items():
        # The layer's own ``__setattr__`` would track the function.
        object.__setattr__(layer, "call", tapped(layer.call, tap))
    try:
        return model(keras.ops.convert_to_tensor(image[None]), training=False)
    finally:
        for layer in taps:
            object.__delattr__(layer, "call")


def _keeper(kept: dict[str, Any], name: str) -> Tap:
    def keep(outputs: Any) -> Any:
        kept[name] = outputs
        return outputs

    return keep


def _gradient(function: Callable[[Any], Any], at: np.ndarray) -> np.ndarray:
    """Return the gradient of a scalar function of one array, float32."""
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
    """Return whether the first convolution sees blue, green, red (``resnet._as_pretrained``)."""
    backbone = getattr(model, "backbone", None)
    return backbone is not None and not backbone.endswith("V2") and model.bands == 3
