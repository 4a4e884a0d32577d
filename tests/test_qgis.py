"""Layers as QGIS itself sees them; skipped where no QGIS is installed for the system's Python."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from preprocessing.raster_access import raster_info
from preprocessing.raster_writers import MaskWriter
from preprocessing.tiling import Window
from preprocessing.vector_writers import write_layers
from preprocessing.vectorising import centre_line_layer, footprint_layer
from tests.helpers import write_image

# QGIS brings its own modules, for the Python of the system.
PYTHON = "/usr/bin/python3"
SCRIPT = """
import json, sys
from qgis.core import QgsApplication, QgsVectorLayer, QgsWkbTypes
application = QgsApplication([], False)
application.initQgis()
found = []
for path in sys.argv[1:]:
    layer = QgsVectorLayer(path, "layer", "ogr")
    shapes = [feature.geometry() for feature in layer.getFeatures()]
    symbol = layer.renderer().symbol().symbolLayer(0)
    found.append({
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "features": len(shapes),
        "sound": all(shape.isGeosValid() for shape in shapes),
        "size": sum(shape.area() or shape.length() for shape in shapes),
        "fields": [field.name() for field in layer.fields() if field.name() != "fid"],
        "kind": QgsWkbTypes.displayString(layer.wkbType()),
        "symbol": symbol.layerType(),
        "colour": symbol.color().name(),
    })
print(json.dumps(found))
sys.stdout.flush()
# Its own clearing up crashes in some versions.
import os
os._exit(0)
"""


def in_qgis(*paths: Path) -> list[dict]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    environment |= {"QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT, *map(str, paths)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    """A block with a yard, and a crossing of two roads of 6 m."""
    pixels = np.zeros((200, 300), np.uint8)
    pixels[20:60, 20:80] = 1
    pixels[30:40, 30:40] = 0
    pixels[100:120, 10:290] = 1
    pixels[70:190, 150:170] = 1
    folder = tmp_path_factory.mktemp("mask")
    image = write_image(folder / "image.tif", np.ones((*pixels.shape, 3), np.uint8))
    with MaskWriter(folder / "mask.tif", raster_info(image)) as writer:
        writer.write(Window(0, 0, *pixels.shape), pixels)
    return folder / "mask.tif"


@pytest.mark.slow
def test_layers_open_with_their_style(mask, tmp_path):
    probe = [PYTHON, "-c", "import qgis.core"]
    missing = shutil.which(PYTHON) is None
    if missing or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no QGIS for the system's Python")
    footprints, lines = footprint_layer(mask), centre_line_layer(mask)
    written = []
    for layer, name in ((footprints, "footprints"), (lines, "lines")):
        paths = [tmp_path / f"{name}{ending}" for ending in (".gpkg", ".fgb", ".geojson")]
        write_layers(layer.frame, paths, layer.geometry_type)
        written += paths
    found = in_qgis(*written)
    assert all(one["valid"] and one["sound"] for one in found)
    assert [one["crs"] for one in found] == ["EPSG:32633", "EPSG:32633", "EPSG:4326"] * 2
    assert [one["features"] for one in found] == [2] * 3 + [4] * 3
    assert [one["kind"] for one in found] == ["Polygon"] * 3 + ["LineString"] * 3
    assert [one["symbol"] for one in found] == ["SimpleFill"] * 3 + ["SimpleLine"] * 3
    # The colour of the style, not the one that QGIS draws by lot.
    assert len({one["colour"] for one in found[:3]}) == 1
    assert found[0]["fields"] == ["id", "area_m2"]
    assert found[3]["fields"] == ["id", "length_m"]
    # 2,300 pixels of the block, 280 x 20 + 120 x 20 - 20 x 20 of the crossing, of 0.09 m2 each.
    for one in found[:2]:
        assert one["size"] == pytest.approx((2300 + 7600) * 0.09)
    # The arms of the crossing, to half a road's width at their ends.
    assert found[3]["size"] == pytest.approx((280 + 120) * 0.3, abs=4 * 10 * 0.3 + 1)
