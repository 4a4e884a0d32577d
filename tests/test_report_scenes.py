"""Where the layers of a report's scenes come from."""

import numpy as np
import pytest

from jointnet.evaluation import LabelledImage
from jointnet.mask_evaluation import mask_scenes
from jointnet.report import SceneWriter, images_of, mask_strips, predicted_strips
from preprocessing.errors import DatasetError
from preprocessing.pictures import TILE
from preprocessing.raster_access import raster_info
from tests.helpers import blotches, write_image


def joined(strips) -> list[np.ndarray | None]:
    parts = list(zip(*strips(), strict=True))
    return [None if part[0] is None else np.concatenate(part) for part in parts]


@pytest.fixture
def folders(tmp_path):
    shape = (TILE + 9, 20)
    random = np.random.default_rng(0)
    for kind in ("found", "labels"):
        (tmp_path / kind).mkdir()
        mask = random.integers(0, 2, (*shape, 1), np.uint8) * 255
        write_image(tmp_path / kind / "a1.tif", mask)
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a1.tif", blotches(*shape))
    return tmp_path


def test_files_come_in_strips_as_they_are(folders):
    (scene,) = mask_scenes(folders / "found", folders / "labels")
    image = folders / "images" / "a1.tif"
    strips = mask_strips(scene, False, image)
    assert [len(truth) for _, truth, _ in strips()] == [TILE, 9]
    pixels, truth, prediction = joined(strips)
    np.testing.assert_array_equal(pixels, blotches(TILE + 9, 20))
    assert set(np.unique(truth)) == set(np.unique(prediction)) == {0, 1}
    assert (truth != prediction).any()
    assert joined(mask_strips(scene, False, None))[0] is None


def test_deep_imagery_is_stretched_by_the_whole_scene(folders):
    deep = np.zeros((TILE + 9, 20, 4), np.uint16)
    deep[:TILE], deep[TILE:] = 1000, 3000
    write_image(folders / "images" / "a1.tif", deep)
    (scene,) = mask_scenes(folders / "found", folders / "labels")
    image, _, _ = joined(mask_strips(scene, False, folders / "images" / "a1.tif"))
    assert image.shape == (TILE + 9, 20, 3) and image.dtype == np.uint8
    # One strip alone would be stretched to the same grey as the other.
    assert image[:TILE].max() < image[TILE:].min()


def test_a_prediction_is_cut_at_the_threshold_and_void_where_there_is_none():
    probabilities = np.array([[0.2, 0.5, 0.9, np.nan]], np.float32)
    label = np.array([[1, 0, 1, 255]], np.uint8)
    scene = LabelledImage("a", "a", np.full((1, 4, 1), 7, np.uint8), label)
    image, truth, prediction = joined(predicted_strips(scene, probabilities, 0.5))
    np.testing.assert_array_equal(prediction, [[0, 1, 1, 255]])
    np.testing.assert_array_equal(truth, label)
    np.testing.assert_array_equal(image, np.full((1, 4, 3), 7))


def test_scenes_keep_their_order_and_an_error_is_passed_on(folders, tmp_path):
    (scene,) = mask_scenes(folders / "found", folders / "labels")
    info = raster_info(scene.image)
    with SceneWriter(tmp_path / "out") as writer:
        for number in range(6):
            writer.add(f"s{number}", info, mask_strips(scene, False, None))
        scenes = writer.finish()
    assert [one.name for one in scenes] == [f"s{number}" for number in range(6)]
    assert [one.folder for one in scenes] == [f"scenes/{number}" for number in range(1, 7)]

    def broken():
        raise DatasetError("no")
        yield

    with pytest.raises(DatasetError, match="no"), SceneWriter(tmp_path / "two") as writer:
        writer.add("a", info, broken)
        writer.finish()


def test_images_belong_by_stem(folders):
    scenes = mask_scenes(folders / "found", folders / "labels")
    assert images_of(scenes, None) == {}
    assert images_of(scenes, folders / "images") == {"a1": folders / "images" / "a1.tif"}
    (folders / "images" / "a1.tif").rename(folders / "images" / "a2.tif")
    with pytest.raises(DatasetError, match="no image of 1 mask"):
        images_of(scenes, folders / "images")
