from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from preprocessing.vector_writers import style, style_path


@pytest.mark.parametrize(
    ("geometry_type", "symbol", "layer", "number", "colour"),
    [
        ("Polygon", "fill", "SimpleFill", "2", "outline_color"),
        ("LineString", "line", "SimpleLine", "1", "line_color"),
    ],
)
def test_a_style_is_one_symbol_of_the_right_kind(geometry_type, symbol, layer, number, colour):
    text = style(geometry_type)
    # QGIS parses it as a document of this type.
    assert text.startswith("<!DOCTYPE qgis PUBLIC")
    root = ET.fromstring(text)
    assert root.tag == "qgis" and root.findtext("layerGeometryType") == number
    assert root.find("renderer-v2").get("type") == "singleSymbol"
    (drawn,) = root.findall("renderer-v2/symbols/symbol")
    assert (drawn.get("type"), drawn.get("name")) == (symbol, "0")
    (inside,) = drawn.findall("layer")
    assert inside.get("class") == layer
    props = {prop.get("k"): prop.get("v") for prop in inside.findall("prop")}
    assert props[colour] == "255,0,200,255"


def test_the_fill_lets_the_image_through():
    root = ET.fromstring(style("Polygon"))
    (fill,) = [prop.get("v") for prop in root.iter("prop") if prop.get("k") == "color"]
    assert 0 < int(fill.split(",")[3]) < 128


def test_the_style_has_the_name_of_the_layer():
    assert style_path(Path("a/town.v2.gpkg")) == Path("a/town.v2.qml")
