"""What is kept of a raster's files: the same wherever they are seen, another once they change."""

import os
import shutil
import zipfile

import numpy as np
import pytest
import rasterio

from jointnet.raster_job import absolute_name, compare_files, files_of, raster_of
from preprocessing.image_names import RasterName
from preprocessing.rasters import RasterReader
from tests.helpers import blotches, write_image
from tests.range_server import RangeServer


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / "a.tif", blotches(40, 30))


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
        assert RasterReader(found).height == 40
        monkeypatch.chdir(tmp_path)


# Remote files


def test_a_server_tells_size_and_time(tmp_path, image):
    os.utime(image, (1e9, 1e9))
    size, time = image.stat().st_size, "Sun, 09 Sep 2001 01:46:40 GMT"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(image, "in/a.tif")
    os.utime(tmp_path / "a.zip", (1e9, 1e9))
    with RangeServer(tmp_path) as server:
        address = f"{server.address}/a.tif"
        for name in (f"/vsicurl/{address}", address, f"{address}?se=1&sig=x"):
            assert files(name) == [[address, size, time]]
        assert raster(f"{address}?se=1&sig=x") == raster(f"{address}?se=2&sig=y")
        assert raster(f"{address}?id=1") != raster(f"{address}?id=2")
        for start in ("/vsizip//vsicurl/", "/vsizip/vsicurl/"):
            ((name, *stamp),) = files(f"{start}{server.address}/a.zip/in/a.tif")
            assert stamp == [(tmp_path / "a.zip").stat().st_size, time]
        before = files(address)
        os.utime(image, (2e9, 2e9))
        assert compare_files(before, files(address)) == "changed"
        server.stop()
        # GDAL remembers the file, the server is asked.
        assert compare_files(before, files(address)) == "gone"
        server.start()


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
