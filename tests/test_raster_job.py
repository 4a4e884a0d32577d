"""One raster to predict: its key, its files, its swaths on disk, and going on with them."""

import os
import shutil
import tempfile
import threading
import time
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from jointnet import raster_job, raster_prediction
from jointnet.prediction import WindowGrid, predict_swath
from jointnet.raster_job import (
    PredictionOptions,
    RasterJob,
    SwathFiles,
    absolute_name,
    compare_files,
    files_of,
    job_in,
    raster_of,
)
from jointnet.raster_prediction import finish, predict_raster, predict_swaths
from jointnet.runs import load_run
from preprocessing.errors import OutputError, RasterError, RunError
from preprocessing.image_names import RasterName
from preprocessing.rasters import RasterReader, read_label
from preprocessing.tiling import Window
from tests.helpers import (
    blotches,
    make_run,
    predict_strips,
    stored_stand_in_run,
    write_image,
)
from tests.range_server import RangeServer

# Rows of windows lie 24 apart: three swaths.
SHAPE = (600, 40)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stored_stand_in_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / "a.tif", blotches(*SHAPE))


def job(run, image, folder, **options):
    return RasterJob(run, image, folder, PredictionOptions(**options))


def broken(tmp_path):
    path = write_image(tmp_path / "b.tif", blotches(*SHAPE), compress="deflate", blockysize=16)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path, content


# The key


def test_the_key_is_that_of_network_options_and_input(run, image, tmp_path):
    first = job(run, image, tmp_path).key
    assert job(run, image, tmp_path / "elsewhere").key == first
    assert job(run, image, tmp_path, threshold=0.5).key == first
    assert job(run, image, tmp_path, batch_size=16).key == first
    others = [
        {"threshold": 0.6},
        {"bands": [3, 2, 1]},
        {"probabilities": True},
        {"batch_size": 3},
        {"augment": True},
    ]
    keys = {job(run, image, tmp_path, **options).key for options in others}
    assert len(keys | {first}) == len(others) + 1
    os.utime(image, ns=(1, 1))
    assert job(run, image, tmp_path).key != first


def test_the_key_is_that_of_the_weights(image, tmp_path):
    keys = {
        job(load_run(make_run(tmp_path / str(seed), seed=seed)), image, tmp_path).key
        for seed in (0, 1)
    }
    assert len(keys) == 2


def test_sources_of_a_vrt_count(run, tmp_path, image):
    vrt = tmp_path / "a.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}"><SimpleSource><SourceFilename '
        f'relativeToVRT="1">a.tif</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for n in (1, 2, 3)
    )
    height, width = SHAPE
    vrt.write_text(f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{bands}</VRTDataset>')
    before = job(run, vrt, tmp_path).key
    os.utime(image, ns=(1, 1))
    assert job(run, vrt, tmp_path).key != before


def test_a_key_that_holds_no_place(run, tmp_path):
    """Two views of the same shared files, and of the same results."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    write_image(one / "a.tif", blotches(*SHAPE))
    shutil.copytree(one, other)
    (tmp_path / "results").mkdir()
    for place in (one, other):
        os.symlink(tmp_path / "results", place / "out")
    first, second = (job(run, place / "a.tif", place / "out") for place in (one, other))
    assert first.key == second.key and first.files.folder.name == second.files.folder.name
    first.predict(first.begin()[0])
    # What the first has written down of where things lie is of no use to the second.
    shutil.rmtree(one)
    assert [swath.number for swath in second.files.missing()] == [1, 2]
    done = predict_raster(run, other / "a.tif", other / "out")
    assert sorted(os.listdir(tmp_path / "results")) == sorted(path.name for path in done.outputs)
    alone = predict_raster(run, other / "a.tif", tmp_path / "alone")
    for ours, theirs in zip(done.outputs, alone.outputs, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


# Pixels that are not square


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 1), (3, 2)])
def test_pixels_that_are_not_square_are_fed_as_square_ones(run, tmp_path, rows, columns):
    """Each pixel cut into rows and columns: means of these are the pixel."""
    image = blotches(90, 70)
    square = job(run, write_image(tmp_path / "a.tif", image), tmp_path / "a")
    cut = np.repeat(np.repeat(image, rows, axis=0), columns, axis=1)
    transform = Affine(0.3 / columns, 0, 500_000, 0, -0.3 / rows, 5_000_000)
    path = write_image(tmp_path / "b.tif", cut, transform=transform)
    fed = job(run, path, tmp_path / "b")
    assert fed.input.size == square.input.size == (90, 70)
    for begun in (fed, square):
        predict_swaths(begun, begun.begin())
    ours, theirs = (
        np.concatenate([strip for _, strip in begun.files.strips()]) for begun in (fed, square)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    finish(fed)
    mask = read_label(fed.paths["_output.tif"])
    assert mask.shape == cut.shape[:2]
    expected = np.repeat(np.repeat(theirs > 0.5, rows, axis=0), columns, axis=1)
    assert (mask == expected).mean() > 0.97


def test_an_image_in_degrees_is_resampled_on_each_axis(run, tmp_path):
    # At 60 degrees, a pixel as high as 0.3 m is half as wide.
    step = 0.3 / 111_412
    transform = Affine(step, 0, 10, 0, -step, 60)
    path = write_image(tmp_path / "a.tif", blotches(60, 80), crs="EPSG:4326", transform=transform)
    assert job(run, path, tmp_path).input.size == (60, 40)
    assert job(run, path, tmp_path, gsd="native").input.size == (60, 80)
    assert job(run, path, tmp_path, gsd=0.15).input.size == (30, 40)


def test_a_real_image_in_degrees(run, real_data, tmp_path):
    (path,) = (real_data / "geo_cases").rglob("RGB-PanSharpen_img1447.tif")
    # 0.300 m high and 0.198 m wide.
    assert job(run, path, tmp_path).input.size == (651, 428)


# Going on


def test_a_second_start_predicts_only_what_is_missing(run, image, tmp_path, monkeypatch):
    whole = predict_raster(run, image, tmp_path / "whole", probabilities=True)
    begun = job(run, image, tmp_path / "out", probabilities=True)
    predict_swaths(begun, begun.begin()[:2])
    read = []
    predict = RasterJob.predict
    monkeypatch.setattr(
        RasterJob, "predict", lambda self, swath, *rest: (read.append(swath), predict(self, swath))
    )
    done = predict_raster(run, image, tmp_path / "out", probabilities=True)
    assert [swath.number for swath in read] == [2]
    for ours, theirs in zip(done.outputs, whole.outputs, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    assert sorted(os.listdir(tmp_path / "out")) == sorted(path.name for path in done.outputs)


def test_what_is_done_is_known_by_its_key(run, image, tmp_path):
    assert not job(run, image, tmp_path).is_done()
    predict_raster(run, image, tmp_path)
    assert job(run, image, tmp_path).is_done()
    assert not job(run, image, tmp_path, threshold=0.9).is_done()
    assert not job(run, image, tmp_path, probabilities=True).is_done()
    (tmp_path / "a_overlay.png").unlink()
    assert not job(run, image, tmp_path).is_done()


def test_a_block_that_cannot_be_read_fails_its_swath_and_no_other(run, tmp_path):
    path, content = broken(tmp_path)
    with pytest.raises(RasterError) as caught:
        predict_raster(run, path, tmp_path / "out")
    line = str(caught.value)
    assert "cannot read the window of" in line
    assert (
        "rows 188 to 388, 380 to 600 are missing, 1 of 3 swaths are kept: while the file stays"
        in line
    )
    assert [name for name in os.listdir(tmp_path / "out") if not name.startswith(".")] == []
    # Repaired it is another input: nothing of the old is taken.
    path.write_bytes(content)
    predict_raster(run, path, tmp_path / "out")
    assert read_label(tmp_path / "out" / "b_output.tif").any()


def test_a_raster_that_changes_on_the_way_is_refused(run, image, tmp_path):
    begun = job(run, image, tmp_path / "out")
    swaths = begun.begin()
    predict_swaths(begun, swaths[:1])
    os.utime(image, ns=(1, 1))
    read = []
    with pytest.raises(RasterError, match="changed while it was predicted; start again") as caught:
        begun.predict(swaths[1], lambda: read.append(1))
    assert "kept" not in str(caught.value)
    # Nothing more was read, and nothing of it is of use to another start.
    assert read == []
    assert not begun.files.folder.exists()


def test_a_raster_that_changes_while_a_swath_is_read_loses_the_swath(run, image, tmp_path):
    begun = job(run, image, tmp_path / "out")
    swaths = begun.begin()
    with pytest.raises(RasterError, match="changed while it was predicted"):
        begun.predict(swaths[0], lambda: os.utime(image, ns=(1, 1)))
    assert not begun.files.folder.exists()


def test_outputs_that_a_killed_process_had_begun_to_put_in_place_are_replaced(
    run, image, tmp_path, monkeypatch
):
    whole = predict_raster(run, image, tmp_path / "whole")
    publish, arrived = raster_prediction.publish_all, []

    def killed(moves, *rest):
        # As after kill -9: no rollback, the bands stay.
        os.replace(*moves[0])
        arrived.append(moves[0][1])
        raise SystemExit

    def kept(files):
        return nullcontext(Path(tempfile.mkdtemp(prefix="drafts-", dir=files.folder)))

    monkeypatch.setattr(raster_prediction, "publish_all", killed)
    # Nor does a killed process take its drafts away.
    with monkeypatch.context() as patched:
        patched.setattr(SwathFiles, "drafts", kept)
        with pytest.raises(SystemExit):
            predict_raster(run, image, tmp_path / "out")
    monkeypatch.setattr(raster_prediction, "publish_all", publish)
    assert arrived[0].exists() and arrived[0].name != "a_output.tif"
    assert not job(run, image, tmp_path / "out").is_done()
    done = predict_raster(run, image, tmp_path / "out")
    for ours, theirs in zip(done.outputs, whole.outputs, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_outputs_of_another_that_came_meanwhile_are_not_replaced_by_a_second_start(
    run, image, tmp_path, monkeypatch
):
    overlay = tmp_path / "out" / "a_overlay.png"
    finished = raster_prediction.publish_all

    def late(*words):
        overlay.write_text("of another")
        finished(*words)

    monkeypatch.setattr(raster_prediction, "publish_all", late)
    for _ in range(2):
        with pytest.raises(OutputError, match="a_overlay.png: exists already"):
            predict_raster(run, image, tmp_path / "out")
        assert overlay.read_text() == "of another"


def test_what_was_written_when_the_disk_filled_up_goes_with_its_reading_thread(
    run, image, tmp_path, monkeypatch
):
    begun = job(run, image, tmp_path / "out")
    (swath, *_) = begun.begin()
    closed = []

    class Reader:
        def __init__(self, reader):
            self.reader = reader

        def __enter__(self):
            return self

        def __exit__(self, *error):
            closed.append(threading.active_count())
            self.reader.close()

        def read(self, window):
            time.sleep(0.02)
            return self.reader.read(window)

    monkeypatch.setattr(begun.input, "fed", lambda: Reader(begun.input.open()))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    before = threading.active_count()
    with pytest.raises(OutputError, match="No space left"):
        begun.predict(swath)
    assert closed == [before]
    assert [p.name for p in begun.files.folder.iterdir()] == ["job.json"]


def test_a_raster_that_vanishes_on_the_way_is_refused(run, image, tmp_path):
    begun = job(run, image, tmp_path / "out")
    predict_swaths(begun, begun.begin())
    image.unlink()
    with pytest.raises(RasterError, match="no such file"):
        finish(begun)
    assert not begun.paths["_output.tif"].exists()


def test_formats_are_told_apart(run, image, tmp_path, monkeypatch):
    before = job(run, image, tmp_path).key
    monkeypatch.setattr(raster_job, "FORMAT", "another")
    assert job(run, image, tmp_path).key != before


def test_another_process_finds_the_job(image, tmp_path):
    loaded = load_run(make_run(tmp_path / "run"))
    begun = job(loaded, image, tmp_path / "out", bands=[3, 2, 1])
    begun.begin()

    def load(folder, precision, weights):
        assert (precision, weights) == ("float32", begun.described["weights"])
        return load_run(Path(folder), precision)

    found = job_in(begun.files.folder, load)
    assert (found.key, found.image.name) == (begun.key, "a.tif")
    assert [swath.number for swath in found.files.missing()] == [0, 1, 2]
    make_run(tmp_path / "run", seed=5)
    with pytest.raises(RunError, match="have changed since"):
        job_in(begun.files.folder, load)
    with pytest.raises(RunError, match="holds no job"):
        job_in(tmp_path, load)


# Swaths on disk

GRID = WindowGrid(height=150, width=7, window=12, overlap=4)
IMAGE = np.random.default_rng(0).random((150, 7, 1)).astype(np.float32)
VALID = np.random.default_rng(1).random((150, 7)) < 0.8


def read_array(window: Window):
    return IMAGE[window.slices], VALID[window.slices]


def network(batch):
    return batch * 0.5 + batch.mean(axis=(1, 2), keepdims=True) * 0.25


def saved(folder, numbers=None):
    files = SwathFiles(folder, GRID, folder.parent / "a_output.tif")
    files.begin({"key": 1})
    for swath in files.swaths:
        if numbers is None or swath.number in numbers:
            files.save(swath, predict_swath(read_array, GRID, swath, network, 2))
    return files


def test_swaths_come_back_as_they_were_predicted(tmp_path):
    files = saved(tmp_path / "swaths")
    found = np.concatenate([strip for _, strip in files.strips()])
    expected = np.concatenate([strip for _, strip in predict_strips(read_array, GRID, network, 2)])
    np.testing.assert_array_equal(found, expected)
    assert files.missing() == []


def test_what_is_missing_is_known_to_another_process(tmp_path):
    assert len(saved(tmp_path / "swaths", {1}).swaths) == 2
    again = SwathFiles(tmp_path / "swaths", GRID, tmp_path / "a_output.tif")
    again.begin({"key": 1})
    assert [swath.number for swath in again.missing()] == [0]


def test_a_swath_that_fails_leaves_nothing(tmp_path):
    files = saved(tmp_path / "swaths", {0})

    def half(swath):
        yield next(iter(predict_swath(read_array, GRID, swath, network, 2)))
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="a_output.tif: cannot be written: No space left"):
        files.save(files.swaths[1], half(files.swaths[1]))
    assert sorted(os.listdir(tmp_path / "swaths")) == ["job.json", "swath_00000.f32"]


def test_a_swath_that_was_cut_off_is_refused(tmp_path):
    files = saved(tmp_path / "swaths")
    path = tmp_path / "swaths" / "swath_00001.f32"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(OutputError, match="swath_00001.f32 has .* bytes, not .*; delete it"):
        list(files.strips())


def test_a_missing_swath_is_refused(tmp_path):
    with pytest.raises(OutputError, match="swath_00001.f32: cannot be read: No such file"):
        list(saved(tmp_path / "swaths", {0}).strips())


def test_no_room_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": 10})())
    with pytest.raises(OutputError, match="a_output.tif: cannot be written: needs up to"):
        SwathFiles(tmp_path / "swaths", GRID, tmp_path / "a_output.tif").begin({"key": 1})


def test_an_empty_folder_goes_and_a_finished_swath_stays(tmp_path):
    files = saved(tmp_path / "swaths", set())
    files.remove_if_empty()
    assert not (tmp_path / "swaths").exists()
    files = saved(tmp_path / "swaths", {0})
    files.remove_if_empty()
    assert (tmp_path / "swaths" / "swath_00000.f32").exists()
    files.remove()
    assert not (tmp_path / "swaths").exists()


def test_a_second_run_of_the_same_job_is_told_and_goes_on_when_the_first_has_ended(tmp_path):
    one, other = (SwathFiles(tmp_path / "swaths", GRID, tmp_path / "a_output.tif") for _ in "ab")
    with one.locked():
        with (
            pytest.raises(OutputError, match="a_output.tif: another process is at work on it"),
            other.locked(),
        ):
            pass
        assert one.folder.exists()
    with other.locked():
        pass


def test_what_killed_runs_left_undone_goes_and_what_they_published_is_known(tmp_path):
    files = saved(tmp_path / "swaths", {0})
    (files.folder / "swath_00001.f32-1f").touch()
    (files.folder / "drafts-a").mkdir()
    (files.folder / "drafts-b" / "replaced").mkdir(parents=True)
    files.begin({"key": 1})
    assert sorted(os.listdir(files.folder)) == ["drafts-b", "job.json", "swath_00000.f32"]
    assert files.publishing


# What is kept of a raster's files: the same wherever they are seen, another once they change


def mosaic(folder, *sources):
    """A VRT of one band of each source, one over the other."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename '
        f'relativeToVRT="1">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for band, source in enumerate(sources, start=1)
    )
    path = folder / "all.vrt"
    path.write_text(f'<VRTDataset rasterXSize="30" rasterYSize="40">{bands}</VRTDataset>')
    return path


def files(name):
    return files_of(RasterName(name))


def raster(name):
    """What a raster is beside its files."""
    with RasterReader(name) as reader:
        return raster_of(reader.info, reader.validity.marks, RasterName(name))


def test_names_are_bare_and_those_of_sources_follow(tmp_path, image):
    (tmp_path / "parts").mkdir()
    source = write_image(tmp_path / "parts" / "a.tif", blotches(40, 30, seed=1))
    vrt = mosaic(tmp_path, "a.tif", "parts/a.tif", "a.tif")
    expected = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in (vrt, image)]
    assert files(vrt)[0] == expected[0]
    assert sorted(files(vrt)[1:]) == sorted(
        [expected[1], ["a.tif", source.stat().st_size, source.stat().st_mtime_ns]]
    )


def test_the_same_files_under_another_mount_point_are_the_same(tmp_path):
    one, other = tmp_path / "one" / "deep", tmp_path / "other"
    (one / "parts").mkdir(parents=True)
    for name in ("a.tif", "parts/b.tif"):
        write_image(one / name, blotches(40, 30))
    mosaic(one, "a.tif", "parts/b.tif", "a.tif")
    with zipfile.ZipFile(one / "a.zip", "w") as archive:
        archive.write(one / "a.tif", "in/a.tif")
    # What a file system tells of its files stays, their place is another.
    shutil.copytree(one, other)
    for name in ("a.tif", "all.vrt"):
        assert files(one / name) == files(other / name)
        assert raster(one / name) == raster(other / name)
    for form in ("/vsizip/{}/a.zip/in/a.tif", "zip://{}/a.zip!in/a.tif", "GTIFF_DIR:1:{}/a.tif"):
        assert files(form.format(one)) == files(form.format(other))
        assert files(form.format(one))[0][1] is not None
        assert raster(form.format(one)) == raster(form.format(other))
    assert raster(f"/vsizip/{one}/a.zip/in/a.tif") != raster(one / "a.tif")


def test_a_change_of_any_file_is_a_change(tmp_path, image):
    source = write_image(tmp_path / "b.tif", blotches(40, 30, seed=1))
    vrt = mosaic(tmp_path, "a.tif", "b.tif", "a.tif")
    before = files(vrt)
    os.utime(source, ns=(1, 1))
    assert compare_files(before, files(vrt)) == "changed"


def test_a_mask_beside_an_image_counts_and_overviews_and_statistics_do_not(tmp_path, image):
    before = files(image), raster(image)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(image, "r+") as file:
        file.build_overviews([2])
    image.with_name("a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">9</MDI>'
        "</Metadata></PAMRasterBand></PAMDataset>"
    )
    os.utime(image, ns=(before[0][0][2],) * 2)
    beside = sorted(path.name for path in tmp_path.iterdir())
    assert beside == ["a.tif", "a.tif.aux.xml", "a.tif.ovr"]
    assert (files(image), raster(image)) == before
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(image, "r+") as file:
        file.write_mask(np.ones((40, 30), bool))
    assert [name for name, *_ in files(image)] == ["a.tif", "a.tif.msk"]


def test_nodata_beside_an_image_counts(image):
    before = raster(image)
    image.with_name("a.tif.aux.xml").write_text(
        "<PAMDataset>"
        + "".join(
            f'<PAMRasterBand band="{band}"><NoDataValue>7</NoDataValue></PAMRasterBand>'
            for band in (1, 2, 3)
        )
        + "</PAMDataset>"
    )
    assert raster(image) != before


@pytest.mark.parametrize(
    ("was", "now", "found"),
    [
        ([["a", 1, 2]], [["a", 1, 2]], "same"),
        ([["a", 1, 2]], [["a", 1, 3]], "changed"),
        ([["a", 1, 2]], [["a", None, None]], "gone"),
        ([["a", 1, 2]], [], "gone"),
        ([["v", 1, 2], ["a", 1, 2]], [["v", 1, 2]], "gone"),
        ([["v", 1, 2], ["a", 1, 2]], [["v", 5, 2]], "changed"),
        ([["v", 1, 2]], [["v", 1, 2], ["a", 1, 2]], "changed"),
        ([["a", None, None]], [["a", 1, 2]], "same"),
        ([["a", None, None]], [["a", None, None]], "same"),
    ],
)
def test_what_became_of_files(was, now, found):
    assert compare_files(was, now) == found


def test_names_for_processes_in_another_folder(tmp_path, image, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("b.zip", "w") as archive:
        archive.write("a.tif", "in/a.tif")
    for name, absolute in {
        "a.tif": f"{tmp_path}/a.tif",
        "GTIFF_DIR:1:a.tif": f"GTIFF_DIR:1:{tmp_path}/a.tif",
        "/vsizip/b.zip/in/a.tif": f"/vsizip/{tmp_path}/b.zip/in/a.tif",
        f"/vsizip/{tmp_path}/b.zip/in/a.tif": f"/vsizip/{tmp_path}/b.zip/in/a.tif",
    }.items():
        found = absolute_name(RasterName(name))
        assert found == absolute
        monkeypatch.chdir("/")
        assert RasterReader(found).height == 600
        monkeypatch.chdir(tmp_path)


# Remote files


def test_a_remote_file_is_its_address_without_a_signature(tmp_path, image):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(image, "in/a.tif")
    with RangeServer(tmp_path) as server:
        address = f"{server.address}/a.tif"
        for name in (f"/vsicurl/{address}", address, f"{address}?se=1&sig=x"):
            assert files(name) == [[address, None, None]]
        assert raster(f"{address}?se=1&sig=x") == raster(f"{address}?se=2&sig=y")
        assert raster(f"{address}?id=1") != raster(f"{address}?id=2")
        for start in ("/vsizip//vsicurl/", "/vsizip/vsicurl/"):
            ((_, *stamp),) = files(f"{start}{server.address}/a.zip/in/a.tif")
            assert stamp == [None, None]


def test_an_address_of_s3_is_gdals_own(tmp_path, monkeypatch):
    """Asked of a server on this machine: what GDAL makes of the name, and that nothing is lost."""
    (tmp_path / "bucket").mkdir()
    write_image(tmp_path / "bucket" / "a.tif", blotches(40, 30))
    with RangeServer(tmp_path) as server:
        monkeypatch.setenv("AWS_S3_ENDPOINT", server.address.removeprefix("http://"))
        monkeypatch.setenv("AWS_HTTPS", "NO")
        monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
        monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
        assert files("s3://bucket/a.tif") == [["/vsis3/bucket/a.tif", None, None]]
        assert raster("s3://bucket/a.tif")[0] == "s3://bucket/a.tif"
