import matplotlib as mpl
import numpy as np
from matplotlib.image import imread

from jointnet.figures import draw_feature_maps, draw_filters, draw_grad_cam
from jointnet.inspection import GradCam, Observation


def pixels_of(path, *colour, near=1):
    """How many pixels of a picture have a colour, or one near it."""
    picture = np.rint(imread(path)[..., :3] * 255)
    return int((np.abs(picture - colour) <= near).all(axis=-1).sum())


def colour_of(cmap, value):
    return [round(255 * part) for part in mpl.colormaps[cmap](value)[:3]]


def test_kernels_are_red_green_and_blue_around_grey(tmp_path):
    kernels = np.zeros((3, 3, 3, 3), np.float32)
    kernels[..., 0, 1] = 0.2
    kernels[..., 2, 2] = -5
    draw_filters(kernels, "title", tmp_path / "a.png")
    counts = [
        pixels_of(tmp_path / "a.png", *colour)
        for colour in ((127, 127, 127), (255, 127, 127), (127, 127, 0))
    ]
    # Each is a panel of one colour, whatever the size of its weights.
    assert min(counts) > 3000 and max(counts) < 1.1 * min(counts)


def test_kernels_of_one_band_are_grey_and_of_four_bands_the_first_three(tmp_path):
    draw_filters(np.full((3, 3, 1, 1), 2, np.float32), "title", tmp_path / "a.png")
    draw_filters(np.full((3, 3, 1, 1), -2, np.float32), "title", tmp_path / "b.png")
    # Text and frame are as black in the first.
    assert pixels_of(tmp_path / "b.png", 0, 0, 0) > 3000 + pixels_of(tmp_path / "a.png", 0, 0, 0)
    four = np.ones((3, 3, 4, 1), np.float32)
    four[:, :, 3] = -9
    draw_filters(four[:, :, :3], "title", tmp_path / "three.png")
    draw_filters(four, "title", tmp_path / "four.png")
    assert (tmp_path / "three.png").read_bytes() == (tmp_path / "four.png").read_bytes()


def test_channels_of_largest_magnitude_are_drawn_each_in_its_own_range(tmp_path):
    features = np.zeros((8, 8, 3), np.float32)
    features[:4, :, 0] = 1e-6
    features[:, :2, 1] = -10
    features[..., 2] = 0.5
    draw_feature_maps(features, "title", tmp_path / "a.png", 1)
    low, high = (pixels_of(tmp_path / "a.png", *colour_of("viridis", v)) for v in (0.0, 1.0))
    # Of channel 1 alone, a quarter is low.
    assert 2.5 < high / low < 3.5
    draw_feature_maps(features, "title", tmp_path / "a.png", 64)
    low, high = (pixels_of(tmp_path / "a.png", *colour_of("viridis", v)) for v in (0.0, 1.0))
    # A quarter, half, and all of the one that is constant.
    assert 0.6 < high / low < 0.8


def test_grad_cam_is_drawn_where_there_is_imagery(tmp_path):
    image = np.full((16, 16, 3), (200, 100, 0), np.uint8)
    valid = np.ones((16, 16), bool)
    valid[8:] = False
    coarse = np.zeros((2, 2), np.float32)
    coarse[0, 1] = 3
    heat = np.kron(coarse, np.ones((8, 8), np.float32)) / 3
    probabilities = np.full((16, 16), 0.25, np.float32)
    seen = Observation(coarse[..., None], probabilities, probabilities)
    cam = GradCam(heat, coarse, np.ones(1, np.float32))
    path = tmp_path / "a.png"
    draw_grad_cam(image, valid, seen, cam, 0.5, "title", path)
    panel = 2 * pixels_of(path, 200, 100, 0)
    assert panel > 50_000
    # Void is grey in the first two panels and left out in the others; of what is valid, half is
    # hottest, half coldest.
    assert 0.95 < pixels_of(path, 127, 127, 127) / panel < 1.05
    for value in (0.0, 1.0):
        assert 0.2 < pixels_of(path, *colour_of("inferno", value)) / panel < 0.35
    assert 0.45 < pixels_of(path, 64, 64, 64) / panel < 0.6
    # With an outline, where the threshold cuts.
    outline = (86, 180, 233)
    assert pixels_of(path, *outline, near=40) == 0
    probabilities[:, 5:9] = 0.75
    draw_grad_cam(image, valid, seen, cam, 0.5, "title", path)
    assert pixels_of(path, *outline, near=40) > 100
