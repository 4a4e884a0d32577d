"""What must hold before a figure is worth stating: it learns, and beats what colour alone gives."""

import json

import numpy as np
import pytest

from experiments import recipes
from experiments.options import SHIPPED
from jointnet import JointNet
from jointnet.evaluation import OVERALL, evaluate_run
from jointnet.metrics import count, threshold_mask
from jointnet.runs import load_run
from jointnet.training_settings import TrainingSettings
from preprocessing.sample_scenes import render_scene
from tests.training_fixtures import load_scene

pytestmark = pytest.mark.usefixtures("plain_graphs")

BINS = 32


@pytest.mark.slow
def test_the_network_overfits_four_patches(eager):
    image, _, mask = render_scene(size=128, seed=3)
    images = np.stack([image[:64, :64], image[:64, 64:], image[64:, :64], image[64:, 64:]])
    masks = np.stack([mask[:64, :64], mask[:64, 64:], mask[64:, :64], mask[64:, 64:]])
    settings = TrainingSettings(learning_rate=5e-3, loss="cross_entropy+dice")
    model = JointNet.from_variant("jointnet_quarter")
    model.compile(settings.make_optimizer(200), settings.make_loss(), jit_compile=False)
    for step in range(1, 201):
        model.train_on_batch(images, masks[..., None])
        if step % 20 == 0:
            prediction = threshold_mask(model.predict_on_batch(images)[..., 0], 0.6)
            reached = count(masks, prediction).metrics()["iou"]
            if reached > 0.95:
                break
    assert reached > 0.95


def colour_bins(image):
    red, green, blue = np.moveaxis(image // (256 // BINS), -1, 0).astype(int)
    return (red * BINS + green) * BINS + blue


def colour_classifier_iou(scenes):
    """Validation IoU of a colour histogram; it and its threshold come from the training side."""
    totals = {split: np.zeros(BINS**3, int) for split in ("train", "validation")}
    targets = {split: np.zeros(BINS**3, int) for split in totals}
    for scene in scenes:
        image, mask = load_scene(scene, 3)[:2]
        bins = colour_bins(image)
        totals[scene.split] += np.bincount(bins[mask != 255], minlength=BINS**3)
        targets[scene.split] += np.bincount(bins[mask == 1], minlength=BINS**3)
    chance = targets["train"] / np.maximum(totals["train"], 1)

    def iou(split, threshold):
        """All pixels of a colour are target, or none."""
        found = chance >= threshold
        both = targets[split][found].sum()
        return both / (totals[split][found].sum() + targets[split].sum() - both)

    best = max(np.linspace(0.1, 0.6, 11), key=lambda threshold: iou("train", threshold))
    return iou("validation", best)


def stated():
    return json.loads((SHIPPED["buildings"] / "evaluation.json").read_text(encoding="utf-8"))


def test_the_stated_figures_are_those_of_their_scenes_and_beat_colour(real_data):
    rows = {(row["threshold"], row["place"]): row for row in stated()["summary"]}
    for threshold in {threshold for threshold, _ in rows}:
        scenes = [scene for scene in stated()["scenes"] if scene["threshold"] == threshold]
        for kind in ("true_positive", "false_positive", "false_negative", "true_negative"):
            assert rows[threshold, OVERALL][kind] == sum(scene[kind] for scene in scenes)
    overall = rows[0.6, OVERALL]
    wrong = overall["false_positive"] + overall["false_negative"]
    iou = overall["true_positive"] / (overall["true_positive"] + wrong)
    assert overall["iou"] == pytest.approx(iou, rel=1e-9)
    baseline = colour_classifier_iou(recipes.open_buildings().scenes(real_data, None))
    assert 0.05 < baseline < iou - 0.15


@pytest.mark.slow
def test_the_shipped_weights_give_the_figures_that_are_stated(real_data):
    """On three places; the table adds up what is stated of each scene."""
    run = load_run(SHIPPED["buildings"])
    held_back = recipes.scenes_of(run, real_data)
    of_chicago = [scene for scene in held_back if scene.place == "chicago"]
    part = [scene for scene in held_back if scene.place in ("nepal", "philippines")]
    assert len(part) == 2 and len(of_chicago) == 20
    part += of_chicago[:1]
    records = evaluate_run(run, part)
    figures = {(scene["threshold"], scene["name"]): scene for scene in stated()["scenes"]}
    assert len(records) == 2 * len(part)
    for record in records:
        expected = figures[record.threshold, record.name]
        assert record.counts.metrics()["iou"] == pytest.approx(expected["iou"], abs=5e-4)
