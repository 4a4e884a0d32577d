"""A recipe: a network, its data and how it is trained, as plain values."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.augmentation import Augmentation
from preprocessing.patch_store import PatchSettings
from preprocessing.scenes import Scene

if TYPE_CHECKING:
    # --help lists the recipes, and must not wait for Keras.
    import keras

LOSSES = ("dice", "focal", "cross_entropy+dice")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    Attributes:
        crop_size: side of a training sample in pixels, and of a window at prediction unless the
            recipe has another.
        micro_batch_size: samples in memory at a time, a divisor of ``batch_size``; their
            gradients are added up before the weights change. Normalisation and losses are per
            sample, so the training is the same, except for the batch normalisation of a
            ``ResNetUNet``. None for whole batches.
        rematerialise: see ``layers.DenseAtrousBlock``; saves memory and takes time.
        steps_per_epoch: batches in an epoch, None for one pass over the patches.
        learning_rate: of Adam, after the warm-up.
        schedule: ``"constant"``, or ``"cosine"`` (falls to 0 at the last step).
        warmup_steps: steps over which the learning rate rises from 0.
        weight_decay: decoupled weight decay (Loshchilov and Hutter 2019); 0 is plain Adam.
        weight_average: momentum of a moving average of the weights (Polyak and Juditsky 1992),
            which is validated and kept: above 0 and below 1, such as 0.99. None for no average.
        loss: ``"dice"`` (buildings in the paper's implementation), ``"focal"`` (roads; gamma 2)
            or ``"cross_entropy+dice"``.
        target_weight, source_shares: see ``TrainingBatches``.
        focal_alpha: weight of the target class in the focal loss, 0..1. With the paper's 0.25,
            pixels of probability 0.6 are target in 9 of 10 cases; with 0.75 in 1 of 2.
        cross_entropy_alpha: weight of the target class in the cross-entropy, 0..1; above 0.5 it
            trades precision for recall.
        early_stopping: epochs without a better validation IoU after which to stop; None never.
        threshold: probability from which a pixel counts as target, in validation and inference.
        precision: dtype policy, one of ``PRECISIONS``.
        seed: seed of initial weights, batches and augmentation.

    Raises:
        ValueError: a setting has no such value; the message says which it may have.
    """

    crop_size: int = 512
    batch_size: int = 4
    micro_batch_size: int | None = None
    rematerialise: str | None = None
    epochs: int = 100
    steps_per_epoch: int | None = None
    learning_rate: float = 1e-4
    schedule: str = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    weight_average: float | None = None
    loss: str = "dice"
    target_weight: float = 0.0
    source_shares: dict[str, float] | None = None
    focal_alpha: float = 0.25
    cross_entropy_alpha: float = 0.5
    augmentation: Augmentation = field(default_factory=Augmentation)
    early_stopping: int | None = None
    threshold: float = 0.6
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self):
        """Check all values."""
        known = {"loss": LOSSES, "schedule": SCHEDULES, "precision": PRECISIONS}
        if self.rematerialise is not None:
            from layers.dense_atrous_block import REMATERIALISATIONS

            known["rematerialise"] = REMATERIALISATIONS
        for name, values in known.items():
            if getattr(self, name) not in values:
                named = ", ".join(map(str, values))
                raise ValueError(f"{name} must be one of {named}; got {getattr(self, name)!r}")
        counts = ("crop_size", "batch_size", "micro_batch_size")
        counts += ("epochs", "steps_per_epoch", "early_stopping")
        for name in (*counts, "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive; got {value}")
        if self.batch_size % (self.micro_batch_size or 1):
            raise ValueError(
                f"micro_batch_size must divide batch_size {self.batch_size}; got "
                f"{self.micro_batch_size}"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in 0..{2**32 - 1}; got {self.seed}")
        shares = self.source_shares
        if shares and (abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0):
            raise ValueError(f"source_shares must be 0 or more and sum to 1; got {shares}")
        for name in ("warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more; got {getattr(self, name)}")
        average = self.weight_average
        if average is not None and not 0 < average < 1:
            raise ValueError(f"weight_average must lie between 0 and 1; got {average}")
        for name in ("target_weight", "threshold", "focal_alpha", "cross_entropy_alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1; got {getattr(self, name)}")

    @property
    def micro_batches(self) -> int:
        """Number of micro-batches in a batch."""
        return self.batch_size // self.samples_at_a_time

    @property
    def samples_at_a_time(self) -> int:
        """Number of samples in a micro-batch."""
        return self.micro_batch_size or self.batch_size

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return dataclasses.asdict(self)

    def make_loss(self) -> "keras.losses.Loss":
        """Make the loss object that ``loss`` names."""
        from losses import BinaryFocalLoss, DiceLoss, WeightedSumLoss

        if self.loss == "dice":
            return DiceLoss()
        if self.loss == "focal":
            return BinaryFocalLoss(gamma=2.0, alpha=self.focal_alpha)
        # Focal loss with gamma 0 and alpha 0.5 is half of the cross-entropy.
        cross_entropy = BinaryFocalLoss(gamma=0.0, alpha=self.cross_entropy_alpha)
        return WeightedSumLoss([cross_entropy, DiceLoss()], [2.0, 1.0])

    def make_optimizer(self, total_steps: int) -> "keras.optimizers.Optimizer":
        """Make Adam with a schedule over ``total_steps`` batches."""
        import keras

        rate = self.learning_rate
        if self.schedule == "cosine":
            rate = keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=0.0 if self.warmup_steps else rate,
                decay_steps=max(total_steps - self.warmup_steps, 1),
                warmup_target=rate if self.warmup_steps else None,
                warmup_steps=self.warmup_steps,
            )
        elif self.warmup_steps:
            rate = keras.optimizers.schedules.PolynomialDecay(0.0, self.warmup_steps, rate)
        options = {"use_ema": self.weight_average is not None}
        if options["use_ema"]:
            # Each micro-batch moves the average by its share.
            options["ema_momentum"] = self.weight_average ** (1 / self.micro_batches)
        if self.micro_batches > 1:
            options["gradient_accumulation_steps"] = self.micro_batches
        if self.micro_batches > 1 and callable(rate):
            # Keras counts micro-batches, a schedule counts updates of the weights.
            schedule = rate
            rate = lambda: schedule(optimizer.iterations)
        if self.weight_decay:
            optimizer = keras.optimizers.AdamW(rate, weight_decay=self.weight_decay, **options)
            optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        else:
            optimizer = keras.optimizers.Adam(rate, **options)
        return optimizer


Validation = Sequence[int | str] | None


@dataclass(frozen=True)
class Recipe:
    """A network, its data and its training.

    Attributes:
        scenes: lists the scenes under the data folder, given ``validation``.
        variant: one of ``jointnet.model.VARIANTS``, or of ``jointnet.resnet.BACKBONES``.
        network: arguments of the network that differ from the variant's.
        validation: tile indices or names held back, None for the recipe's own split.
        initial: run folder to begin with, in place of a new network.
        window: side of a window at prediction in pixels, a quarter of which neighbours share;
            None for the training's crop size.
    """

    name: str
    scenes: Callable[[Path, Validation], list[Scene]]
    variant: str
    patches: PatchSettings
    training: TrainingSettings
    network: dict[str, Any] = field(default_factory=dict)
    validation: Validation = None
    initial: Path | None = None
    window: int | None = None

    def with_training(self, **changes: Any) -> "Recipe":
        """Return the recipe with other training settings; TypeError or ValueError if unknown."""
        return replace(self, training=replace(self.training, **changes))
