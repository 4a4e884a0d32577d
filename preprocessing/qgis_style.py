"""The style that QGIS takes up on its own: a ``.qml`` beside the layer, under the layer's name.

QGIS 3 reads the properties of a symbol as ``prop`` elements in all its versions; the more
verbose ``Option`` elements that it writes itself since 3.18 are unknown to older ones.
"""

from pathlib import Path

# Red, green, blue and opacity, 0 to 255: what masks are drawn with in overlays.
_COLOUR, _TINT = "255,0,200,255", "255,0,200,60"
_SYMBOLS = {
    "Polygon": (
        "fill",
        "SimpleFill",
        2,
        {
            "color": _TINT,
            "style": "solid",
            "outline_color": _COLOUR,
            "outline_style": "solid",
            "outline_width": "0.4",
            "outline_width_unit": "MM",
            "joinstyle": "miter",
        },
    ),
    "LineString": (
        "line",
        "SimpleLine",
        1,
        {
            "line_color": _COLOUR,
            "line_style": "solid",
            "line_width": "0.6",
            "line_width_unit": "MM",
            "capstyle": "round",
            "joinstyle": "round",
        },
    ),
}


def style_path(layer: Path) -> Path:
    """Where QGIS looks for the style of a layer: ``town.qml`` for ``town.gpkg``."""
    return layer.with_suffix(".qml")


def style(geometry_type: str) -> str:
    """The style of a layer: polygons have an outline and a light fill, lines are one line.

    Args:
        geometry_type: "Polygon" or "LineString".

    Returns:
        XML.
    """
    symbol, layer, number, properties = _SYMBOLS[geometry_type]
    props = "\n".join(f'          <prop k="{k}" v="{v}"/>' for k, v in properties.items())
    return f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.0.0" styleCategories="Symbology">
  <renderer-v2 type="singleSymbol" symbollevels="0" enableorderby="0" forceraster="0">
    <symbols>
      <symbol type="{symbol}" name="0" alpha="1" clip_to_extent="1">
        <layer class="{layer}" enabled="1" locked="0" pass="0">
{props}
        </layer>
      </symbol>
    </symbols>
    <rotation/>
    <sizescale/>
  </renderer-v2>
  <layerGeometryType>{number}</layerGeometryType>
</qgis>
"""
