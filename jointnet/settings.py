"""What a training run is made of: plain values that are written to its ``config.json``."""

import dataclasses
from dataclasses import dataclass, field

import keras

from losses import BinaryFocalLoss, DiceLoss, WeightedSumLoss
from preprocessing.augmentation import Augmentation

LOSSES = ("dice", "focal", "cross_entropy+dice")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    Attributes:
        crop_size: side of a training sample in pixels; also the window at prediction.
        batch_size: samples in a batch.
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
        precision: dtype policy, ``"float32"`` or ``"mixed_bfloat16"``.
        seed: seed of initial weights, batches and augmentation.

    Raises:
        ValueError: an unknown loss or schedule, or a number that makes no sense.
    """

    crop_size: int = 512
    batch_size: int = 4
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
            ("precision", ("float32", "mixed_bfloat16")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}"
                )
        counts = ("crop_size", "batch_size", "epochs", "steps_per_epoch", "early_stopping")
        for name in (*counts, "learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive; got {value}")
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
        """Adam with the schedule over ``total_steps`` batches, and the average of the weights."""
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
        average = {"use_ema": self.weight_average is not None}
        if average["use_ema"]:
            average["ema_momentum"] = self.weight_average
        if self.weight_decay:
            optimizer = keras.optimizers.AdamW(rate, weight_decay=self.weight_decay, **average)
            optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
            return optimizer
        return keras.optimizers.Adam(rate, **average)
