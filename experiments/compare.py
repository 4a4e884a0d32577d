"""Compare masks of any origin with each other and with a truth, or list runs side by side."""

from pathlib import Path

import click

from experiments.options import Command, overwrite_option


@click.command(cls=Command)
@click.argument(
    "inputs", nargs=-1, required=True, metavar="A B [C...]", type=click.Path(path_type=Path)
)
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    metavar="GT",
    help="File or folder of the true masks.",
)
@click.option(
    "--align",
    is_flag=True,
    help="Bring masks of another size or place onto the pixels of the truth or, without one, of "
    "the first, by nearest neighbour; without, they are refused.",
)
@click.option(
    "--maps/--no-maps",
    default=True,
    help="Write a map per mask and scene: errors/<mask>/<scene>.tif, 0 background (black), 1 "
    "missed (blue), 2 false (orange), 3 true (green), 255 void (grey). Without a truth the first "
    "mask takes its part: differences/<mask>/<scene>.tif.  [default: maps]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for comparison.json, comparison.csv and the maps.  [default: results/comparison; "
    "runs are only printed]",
)
@overwrite_option
def main(
    inputs: tuple[Path, ...],
    truth: Path | None,
    align: bool,
    maps: bool,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Compare masks of any origin, files or folders of them, or list runs.

    Masks pair by file name, with or without _output, and must lie on one grid. Grey ones, such as
    JPEGs, are thresholded at 128, and the command says so. Pixels that are void in any of them
    count nowhere. The command prints how far each pair agrees; with a truth also IoU, F1,
    precision, recall and accuracy per place and overall, and the differences of these with
    bootstrap intervals of 95 % over the tiles, so that noise is not taken for progress. Where
    neither truth nor mask has target, the ratios are 1; where only one of them has, IoU is 0.

    Of run folders it prints what differs in their configurations, what came out, and the
    differences on the same scenes. Whatever else is named with them is skipped.

    \b
    python experiments/compare.py mine theirs --truth gt
    python experiments/compare.py bellingham15_output.jpg results/bellingham15_output.tif
    python experiments/compare.py results/*
    """  # noqa: D301 (click takes the control character itself)
    from jointnet.mask_comparison import compare_masks, mask_text
    from jointnet.run_comparison import compare_runs, is_run, run_text

    if any(map(is_run, inputs)):
        if truth is not None or align:
            raise click.UsageError(
                "--truth and --align are for masks; a run is measured by `evaluate.py --model RUN` "
                "and listed with what that found"
            )
        click.echo(run_text(compare_runs(inputs, output, overwrite)))
    else:
        output = output or Path("results", "comparison")
        click.echo(mask_text(compare_masks(inputs, truth, align, output, overwrite, maps)))
    if output is not None:
        click.echo(f"\nwritten to {output}")


if __name__ == "__main__":
    main()
