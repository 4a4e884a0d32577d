"""One call that compares masks or runs, as ``compare.py`` does, and what it leaves on disk."""

from collections.abc import Sequence
from pathlib import Path

from jointnet.compared_inputs import MaskSet, is_run, mask_sets
from jointnet.comparison_text import mask_text, run_text
from jointnet.mask_comparison import compare_masks, describe_comparison
from jointnet.run_comparison import describe_runs, read_runs
from preprocessing.errors import OutputError, RunError
from preprocessing.output_files import (
    folder_beside,
    publish,
    refuse_existing,
    write_csv,
    write_json,
)

FILES = ("comparison.json", "comparison.csv")


def compare(
    paths: Sequence[Path],
    truth: Path | None = None,
    align: bool = False,
    output: Path | None = None,
    overwrite: bool = False,
    maps: bool = True,
) -> dict:
    """Compare masks with each other and with a truth, or list runs.

    Args:
        paths: run folders, among which whatever else there is is skipped; or, where none is a run,
            files and folders of masks (``compared_inputs.mask_sets``).
        truth: file or folder of the true masks; None for none, and for runs, which were measured
            when they were evaluated.
        align: bring masks of another size or place onto the grid of the truth or first mask.
        output: folder for ``comparison.json``, ``comparison.csv`` and, of masks, the error maps
            (``preprocessing.raster_writers``) as ``errors/<mask>/<scene>.tif`` or, without a truth,
            ``differences/<mask>/<scene>.tif`` against the first; None to write nothing. All
            files appear at the end, or none.
        overwrite: replace outputs that exist.
        maps: whether maps are written.

    Returns:
        What the JSON holds: ``run_comparison.describe_runs`` where any path is a run, else
        ``mask_comparison.describe_comparison``.

    Raises:
        JointNetError: of the kind that says what is wrong.
    """
    paths = [Path(path) for path in paths]
    if any(map(is_run, paths)):
        if truth is not None or align:
            raise RunError(
                "a truth and --align are for masks; a run is measured by `evaluate.py --model RUN` "
                "and listed with what that found"
            )
        _refuse(output, [], overwrite)
        content = describe_runs(*read_runs(paths))
        _write(output, content, _run_rows(content))
        return content
    sets = mask_sets(paths, None if truth is None else Path(truth))
    places = _map_paths(sets, truth is not None) if maps and output is not None else {}
    _refuse(output, places.values(), overwrite)
    if output is None:
        return describe_comparison(compare_masks(sets, truth is not None, align), sets, bool(truth))
    with folder_beside(output / FILES[0]) as beside:
        hidden = {key: beside / f"{number}.tif" for number, key in enumerate(places)}
        scenes = compare_masks(sets, truth is not None, align, hidden)
        content = describe_comparison(scenes, sets, truth is not None)
        for key, place in places.items():
            try:
                (output / place).parent.mkdir(parents=True, exist_ok=True)
                publish(hidden[key], output / place, overwrite)
            except OSError as error:
                raise OutputError(f"{output / place}: cannot be written: {error}") from error
    _write(output, content, _mask_rows(content))
    return content


def comparison_text(content: dict) -> str:
    """All that a command prints of what ``compare`` returns."""
    return run_text(content) if "runs" in content else mask_text(content)


def _map_paths(sets: Sequence[MaskSet], has_truth: bool) -> dict[tuple[str, str], Path]:
    """Where maps go, by name of the mask and scene."""
    kind, compared = ("errors", sets[:-1]) if has_truth else ("differences", sets[1:])
    return {
        (one.name, scene): Path(kind, one.name.replace("/", "_"), f"{scene}.tif")
        for one in compared
        for scene in one.files
    }


def _refuse(output: Path | None, maps: Sequence[Path], overwrite: bool) -> None:
    if output is not None:
        for name in (*FILES, *maps):
            refuse_existing(output / name, overwrite)


def _write(output: Path | None, content: dict, rows: Sequence[dict]) -> None:
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / FILES[0], content)
    columns = dict.fromkeys(key for row in rows for key in row)
    write_csv(output / FILES[1], [dict.fromkeys(columns, "") | row for row in rows])


def _mask_rows(content: dict) -> list[dict]:
    """Rows of the CSV: all tables under each other, told apart by their first column."""
    kinds = ("metrics", "agreement", "differences")
    return [{"table": kind, **row} for kind in kinds for row in content.get(kind, [])]


def _run_rows(content: dict) -> list[dict]:
    heads = ("name", "network", "parameters", "steps", "kept_epoch", "epochs", "measured")
    rows = [
        {"table": "results", **{key: run[key] for key in heads}, **row}
        for run in content["runs"]
        for row in run["results"] or [{}]
    ]
    return rows + [{"table": "differences", **row} for row in content["differences"]]
