"""What must hold before a figure is worth stating: it learns, and beats what colour alone gives."""

import json

import numpy as np
import pytest

from experiments import recipes
from experiments.evaluate import evaluate_run
from experiments.options import SHIPPED
from jointnet import JointNet
from jointnet.evaluation import OVERALL, summarise
from jointnet.metrics import Counts, count, threshold_mask
from jointnet.runs import load_run
from jointnet.settings import TrainingSettings
from preprocessing.patches import load_scene
from preprocessing.sample_scenes import render_scene

BINS = 32


@pytest.mark.slow
def test_the_network_overfits_four_patches():
    image, _, mask = render_scene(size=128, seed=3)
    images = np.stack([image[:64, :64], image[:64, 64:], image[64:, :64], image[64:, 64:]])
    masks = np.stack([mask[:64, :64], mask[:64, 64:], mask[64:, :64], mask[64:, 64:]])
    settings = TrainingSettings(learning_rate=5e-3, loss="cross_entropy+dice")
    model = JointNet.from_variant("jointnet_quarter")
    model.compile(settings.make_optimizer(200), settings.make_loss(), jit_compile=False)
    for _ in range(200):
        model.train_on_batch(images, masks[..., None])
    prediction = threshold_mask(model.predict_on_batch(images)[..., 0], 0.6)
    assert count(masks, prediction).metrics()["iou"] > 0.95


def colour_bins(image):
    red, green, blue = np.moveaxis(image // (256 // BINS), -1, 0).astype(int)
    return (red * BINS + green) * BINS + blue


def colour_classifier_iou(scenes):
    """Validation IoU of a colour histogram; it and its threshold come from the training side."""
    totals, targets = np.zeros((2, BINS**3))
    loaded = [(scene.split, *load_scene(scene, 3)[:2]) for scene in scenes]
    for split, image, mask in loaded:
        if split == "train":
            bins, valid = colour_bins(image), mask != 255
            totals += np.bincount(bins[valid], minlength=BINS**3)
            targets += np.bincount(bins[valid & (mask == 1)], minlength=BINS**3)
    chance = targets / np.maximum(totals, 1)

    def iou(wanted, threshold):
        counts = Counts()
        for split, image, mask in loaded:
            if split == wanted:
                counts += count(mask, threshold_mask(chance[colour_bins(image)], threshold))
        return counts.metrics()["iou"]

    best = max(np.linspace(0.1, 0.6, 11), key=lambda threshold: iou("train", threshold))
    return iou("validation", best)


@pytest.mark.slow
def test_the_shipped_weights_beat_colour_and_give_the_figures_that_are_stated(real_data):
    run = load_run(SHIPPED["buildings"])
    rows = {
        (row["threshold"], row["place"]): row["iou"]
        for row in summarise(evaluate_run(run, real_data))
    }
    baseline = colour_classifier_iou(recipes.open_buildings().scenes(real_data, None))
    assert rows[0.6, OVERALL] > baseline + 0.15
    stated = json.loads((SHIPPED["buildings"] / "evaluation.json").read_text(encoding="utf-8"))
    for row in stated["summary"]:
        assert rows[row["threshold"], row["place"]] == pytest.approx(row["iou"], abs=5e-4)
