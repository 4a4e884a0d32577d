"""What a training run is made of: plain values that are written to its ``config.json``."""

import dataclasses
from dataclasses import dataclass, field

import keras

from layers.dense_atrous_block import REMATERIALISATIONS
from losses import BinaryFocalLoss, DiceLoss, WeightedSumLoss
from preprocessing.augmentation import Augmentation

LOSSES = ("dice", "focal", "cross_entropy+dice")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    Attributes:
        crop_size: side of a training sample in pixels; the window at prediction too, unless the
            recipe has another.
        batch_size: samples in a batch.
        micro_batch_size: samples that are in memory at a time, a divisor of ``batch_size``; the
            gradients of a batch are added up over its parts before the weights change. The same
            training, as normalisation and losses are per sample (of a ``ResNetUNet`` not quite:
            its batch normalisation sees the parts). None for whole batches.
        rematerialise: ``"concatenations"`` or ``"blocks"``: what of the dense atrous blocks is
            computed again for the gradients in place of being held (``layers.DenseAtrousBlock``),
            for less memory in more time. None for nothing.
        store_on_device: hold the training patches in the memory of the device and crop, turn and
            recolour them there (``DevicePatches``); for augmentations that do no more than that.
        epochs: number of epochs; validation and checkpoints come after each.
        steps_per_epoch: batches in an epoch, None for one pass over the patches.
        learning_rate: of Adam, after the warm-up.
        schedule: ``"constant"``, or ``"cosine"`` (falls to 0 at the last step).
        warmup_steps: steps over which the learning rate rises from 0.
        weight_decay: decoupled weight decay (Loshchilov and Hutter 2019); 0 is plain Adam.
        weight_average: momentum of an exponential moving average of the weights (Polyak and
            Juditsky 1992), above 0 and below 1, such as 0.99; it is what is validated and kept.
            None is none.
        loss: ``"dice"`` (buildings in the paper's implementation), ``"focal"`` (roads; gamma 2,
            alpha ``focal_alpha``) or ``"cross_entropy+dice"``.
        target_weight: see ``TrainingBatches``.
        source_shares: share of each batch by source, see ``TrainingBatches``; None for all
            patches alike.
        focal_alpha: weight of the target class in the focal loss, 0..1. The paper's 0.25 with
            gamma 2 calls a pixel 0.6 probable only where 9 in 10 such pixels are target; with
            0.75 it is 1 in 2.
        cross_entropy_alpha: weight of the target class in the cross-entropy, 0..1; 0.5 counts
            all pixels alike, more trades precision for recall at the threshold.
        augmentation: what is done to each sample.
        early_stopping: stop after so many epochs without a better validation IoU; None never.
        threshold: probability from which a pixel counts as target, in validation and inference.
        precision: dtype policy, one of ``PRECISIONS``. With ``"mixed_float16"`` Keras scales the
            loss, so that small gradients do not vanish; the others need no such thing.
        seed: seed of initial weights, batches and augmentation.

    Raises:
        ValueError: an unknown loss or schedule, or a number that makes no sense.
    """

    crop_size: int = 512
    batch_size: int = 4
    micro_batch_size: int | None = None
    rematerialise: str | None = None
    store_on_device: bool = False
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
        """Refuse what cannot be trained."""
        for name, known in (
            ("loss", LOSSES),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("rematerialise", REMATERIALISATIONS),
        ):
            if getattr(self, name) not in known:
                named = ", ".join(map(str, known))
                raise ValueError(f"{name} must be one of {named}; got {getattr(self, name)!r}")
        counts = ("crop_size", "batch_size", "micro_batch_size")
        counts += ("epochs", "steps_per_epoch", "early_stopping")
        for name in (*counts, "learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive; got {value}")
        if self.batch_size % (self.micro_batch_size or 1):
            raise ValueError(
                f"micro_batch_size must divide batch_size {self.batch_size}; got "
                f"{self.micro_batch_size}"
            )
        shares = self.source_shares
        if shares and (abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0):
            raise ValueError(f"source_shares must be 0 or more and sum to 1; got {shares}")
        for name in ("warmup_steps", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more; got {getattr(self, name)}")
        average = self.weight_average
        if average is not None and not 0 < average < 1:
            raise ValueError(f"weight_average must lie between 0 and 1; got {average}")
        for name in ("target_weight", "threshold", "focal_alpha", "cross_entropy_alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1; got {getattr(self, name)}")

    @property
    def parts(self) -> int:
        """Parts that a batch is computed in."""
        return self.batch_size // (self.micro_batch_size or self.batch_size)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    def make_loss(self) -> keras.losses.Loss:
        """The loss object named by ``loss``."""
        if self.loss == "dice":
            return DiceLoss()
        if self.loss == "focal":
            return BinaryFocalLoss(gamma=2.0, alpha=self.focal_alpha)
        # Focal loss with gamma 0 and alpha 0.5 is half of the cross-entropy.
        cross_entropy = BinaryFocalLoss(gamma=0.0, alpha=self.cross_entropy_alpha)
        return WeightedSumLoss([cross_entropy, DiceLoss()], [2.0, 1.0])

    def make_optimizer(self, total_steps: int) -> keras.optimizers.Optimizer:
        """Adam with the schedule over ``total_steps`` batches, and the average of the weights.

        It counts parts of batches (``micro_batch_size``).
        """
        rate = self.learning_rate
        if self.schedule == "cosine":
            decay = max(total_steps - self.warmup_steps, 1)
            rate = keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=0.0 if self.warmup_steps else rate,
                decay_steps=decay,
                warmup_target=rate if self.warmup_steps else None,
                warmup_steps=self.warmup_steps,
            )
        elif self.warmup_steps:
            rate = keras.optimizers.schedules.PolynomialDecay(0.0, self.warmup_steps, rate)
        options = {"use_ema": self.weight_average is not None}
        if options["use_ema"]:
            # The average moves after each part, so each moves it by its share.
            options["ema_momentum"] = self.weight_average ** (1 / self.parts)
        if self.parts > 1:
            options["gradient_accumulation_steps"] = self.parts
            if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
                rate = ScheduleOfUpdates(rate, self.parts)
        if self.weight_decay:
            optimizer = keras.optimizers.AdamW(rate, weight_decay=self.weight_decay, **options)
            optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
            return optimizer
        return keras.optimizers.Adam(rate, **options)


@keras.saving.register_keras_serializable(package="jointnet")
class ScheduleOfUpdates(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that counts updates of the weights, where an optimizer counts parts of batches.

    Args:
        schedule: learning rate by number of updates.
        parts: parts of a batch, whose gradients make one update.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, parts: int):
        super().__init__()
        self.schedule = schedule
        self.parts = parts

    def __call__(self, step: keras.KerasTensor) -> keras.KerasTensor:
        """Learning rate of the update that part ``step`` belongs to."""
        return self.schedule(keras.ops.floor_divide(step, self.parts))

    def get_config(self) -> dict:
        """Constructor arguments."""
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"schedule": schedule, "parts": self.parts}

    @classmethod
    def from_config(cls, config: dict) -> "ScheduleOfUpdates":
        """Inverse of ``get_config``."""
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(schedule, config["parts"])
