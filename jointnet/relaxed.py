"""Relaxed completeness, correctness and quality: road metrics that forgive a few pixels.

Road labels are often map lines drawn at one width, a few pixels off the road in the image, so a
perfect prediction can have a low IoU. The relaxed measures count a pixel as matched where the
other mask has road within a buffer.

Sources: Wiedemann, Heipke, Mayer and Jamet 1998, "Empirical Evaluation of Automatically Extracted
Road Axes" (completeness, correctness, quality); Mnih and Hinton 2010, "Learning to Detect Roads in
High-Resolution Aerial Images", and Mnih 2013, "Machine Learning for Aerial Image Labeling", who
apply the first two to pixels as relaxed recall and relaxed precision, with a buffer of 3 pixels.
"""

from dataclasses import dataclass

import numpy as np

from jointnet.metrics import VOID, check_masks

BUFFER_PX = 3


@dataclass(frozen=True)
class RelaxedCounts:
    """Pixels that have a counterpart within the buffer, and all of them.

    Attributes:
        true_found: true target pixels with predicted target within the buffer.
        true_total: true target pixels.
        predicted_right: predicted target pixels with true target within the buffer.
        predicted_total: predicted target pixels.
    """

    true_found: int = 0
    true_total: int = 0
    predicted_right: int = 0
    predicted_total: int = 0

    def __add__(self, other: "RelaxedCounts") -> "RelaxedCounts":
        return RelaxedCounts(
            self.true_found + other.true_found,
            self.true_total + other.true_total,
            self.predicted_right + other.predicted_right,
            self.predicted_total + other.predicted_total,
        )

    def measures(self) -> dict[str, float]:
        """Completeness, correctness and quality, each in 0..1.

        Completeness (relaxed recall) is the share of true pixels that were found, correctness
        (relaxed precision) the share of predicted pixels that are right; quality is
        ``cp * cr / (cp + cr - cp * cr)``, which is the IoU where the buffer is 0.

        A share of no pixels is 1 where all pixels on the other side are matched, as they are
        where there are none either, and 0 otherwise.
        """
        true_matched = self.true_found == self.true_total
        predicted_matched = self.predicted_right == self.predicted_total

        def share(part: int, whole: int, others_matched: bool) -> float:
            return part / whole if whole else float(others_matched)

        completeness = share(self.true_found, self.true_total, predicted_matched)
        correctness = share(self.predicted_right, self.predicted_total, true_matched)
        both = completeness * correctness
        return {
            "completeness": completeness,
            "correctness": correctness,
            "quality": both / (completeness + correctness - both) if both else 0.0,
        }


def count_relaxed(
    truth: np.ndarray,
    prediction: np.ndarray,
    buffer_px: int = BUFFER_PX,
    label: np.ndarray | None = None,
) -> RelaxedCounts:
    """Relaxed counts of a prediction against the truth.

    Void pixels are left out of the counting, not of the search: a true pixel is matched by
    predicted target where the truth is void, and a predicted pixel by a road that the label draws
    where there is no imagery. The second needs ``label``, as void hides it in ``truth``.

    Args:
        truth: ``(height, width)`` uint8 mask of 0, 1 and 255 (void); may be empty.
        prediction: mask of 0 and 1, or 255 where nothing was predicted; same shape.
        buffer_px: pixels, 0 or more, up to which two pixels match: the Euclidean distance of
            their centres, inclusive.
        label: the truth as it was before void was put in, of 0, 1 and 255 where it has no data
            itself; same shape. None for ``truth``.

    Returns:
        Counts over the pixels that are void neither in ``truth`` nor in ``prediction``.

    Raises:
        ValueError: shapes that differ or are not two-dimensional, a value that is none of 0, 1
            and 255, or a negative buffer.
    """
    label = truth if label is None else label
    check_masks(truth=truth, prediction=prediction, label=label)
    valid = (truth != VOID) & (prediction != VOID)
    true, predicted = (truth == 1) & valid, (prediction == 1) & valid
    return RelaxedCounts(
        true_found=_number(true & near(prediction == 1, buffer_px)),
        true_total=_number(true),
        predicted_right=_number(predicted & near(label == 1, buffer_px)),
        predicted_total=_number(predicted),
    )


def near(target: np.ndarray, buffer_px: int) -> np.ndarray:
    """Where target lies within a distance.

    Target is dilated with the disc of that radius, row by row of the disc, which is exact: no
    distance is rounded. Time grows with the radius, not with its square.

    Args:
        target: ``(height, width)`` bool; may be empty.
        buffer_px: pixels, 0 or more; Euclidean, inclusive.

    Returns:
        ``(height, width)`` bool. Nothing lies outside the array.

    Raises:
        ValueError: not two-dimensional, or a negative buffer.
    """
    if target.ndim != 2 or buffer_px < 0:
        raise ValueError(
            "masks must be (height, width) and the buffer 0 pixels or more; "
            f"got {target.shape} and {buffer_px}"
        )
    # From the disc's outermost rows, which are the narrowest, to its middle.
    found, widened, reach = np.zeros_like(target), target.copy(), 0
    for offset in range(buffer_px, -1, -1):
        while (reach + 1) ** 2 + offset**2 <= buffer_px**2:
            reach += 1
            widened[:, reach:] |= target[:, :-reach]
            widened[:, :-reach] |= target[:, reach:]
        rest = max(len(target) - offset, 0)
        found[offset:] |= widened[:rest]
        found[:rest] |= widened[offset:]
    return found


def _number(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))
