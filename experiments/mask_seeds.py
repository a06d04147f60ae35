"""Masks over several seeds, with and without the background cue.

    python -m experiments.mask_seeds --data voc07:DIR --score voc07:DIR voc12:DIR --out DIR

One run of a recipe (`voc07-mini` unless given) is trained for each seed. For each run the background is fitted twice on
the masks of its training split: its constant alone, and its constant together with the exponent of the background cue
(`wildcat.evaluation.background_fit`). Both are scored, without and with CRF, on the masks of the scoring splits, whose
images take part in nothing else. All runs train in the same precision: that of the first row, or, for a new file, the
one that is faster on this machine.

A seed that was stopped is resumed, and one that is in mask_seeds.csv is not computed again. mask_seeds.md is made from
this file, and `python -m experiments.ledger` includes it in README.md of this folder.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.ledger import RESULTS, cpu_name, label_of, short_commit
from experiments.rows import Row, read_rows, write_rows
from experiments.segmentation import first, score
from wildcat.config import TrainConfig, read_recipe
from wildcat.data.registry import default_splits
from wildcat.errors import WildcatError
from wildcat.evaluation.background import masked_images, with_masks
from wildcat.evaluation.background_fit import fit_background
from wildcat.evaluation.scoring import evaluate, open_scored
from wildcat.prediction.loading import load
from wildcat.system.devices import device_of
from wildcat.system.files import write_atomically
from wildcat.training.launch import train
from wildcat.training.setup import with_precision

CUES = ("without", "with")
KEY = ("recipe", "data", "seed", "scored")


def measure(config: TrainConfig, run: Path, recipe: str, spec: str, count: int | None) -> list[Row]:
    """The rows of a run on a dataset, without and with the cue.

    Args:
        config: the settings of the training, which is completed first.
        run: its folder.
        recipe: its name, for the rows.
        spec: the dataset to score.
        count: score that many masks; all unless given.
    """
    train(config, run, resume=True)
    predictor = load(run)
    classes = predictor.settings.classes
    split = config.train_split or default_splits(config.data)[0]
    fitted_on = list(masked_images(predictor, with_masks(open_scored(config.data, split, classes))))
    fits = [
        fit_background("threshold", images, len(classes))
        for images in ([replace(image, cue=None) for image in fitted_on], fitted_on)
    ]
    split = default_splits(spec)[1]
    scored = first(with_masks(open_scored(spec, split, classes)), count)
    masks = score(predictor, [background for background, _ in fits], scored)
    others = evaluate(predictor, spec, split=split)
    key = {"recipe": recipe, "data": label_of(config.data), "seed": config.seed, "scored": f"{label_of(spec)} {split}"}
    return [
        key
        | {
            "cue": cue,
            "masks": len(scored),
            "background": str(background),
            "fitted_masks": len(fitted_on),
            "fitted_miou": f"{100 * fitted:.2f}",
            "miou": f"{result.miou:.2f}",
            "interval": _bounds(result.miou_interval),
            "miou_crf": f"{result.miou_crf:.2f}",
            "interval_crf": _bounds(result.miou_crf_interval),
            "map": "" if others.classification is None else f"{others.classification.map_area:.2f}",
            "points": "" if others.pointing is None else f"{others.pointing.map:.2f}",
            "precision": config.precision,
            "commit": short_commit("HEAD"),
            "cores": os.cpu_count(),
            "cpu": cpu_name(),
        }
        for cue, (background, fitted), result in zip(CUES, fits, masks, strict=True)
    ]


def _bounds(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.2f} {interval[1]:.2f}"


def markdown(rows: Sequence[Row], command: str) -> str:
    """The table: two rows for each scored dataset, and the paired difference between them."""
    header = ["scored", "cue", "seeds", "mIoU", "mIoU with CRF", "mAP", "pointing mAP"]
    text = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for scored in dict.fromkeys(row["scored"] for row in rows):
        own = {cue: [row for row in rows if (row["scored"], row["cue"]) == (scored, cue)] for cue in CUES}
        for cue, group in own.items():
            cells = [f"{scored}, {group[0]['masks']} masks", cue, str(len(group))]
            cells += [_spread(group, "miou", "interval"), _spread(group, "miou_crf", "interval_crf")]
            cells += [_spread(group, "map"), _spread(group, "points")]
            text.append("| " + " | ".join(cells) + " |")
        differences = []
        for name in ("miou", "miou_crf"):
            pairs = zip(own["with"], own["without"], strict=True)
            values = [float(one[name]) - float(other[name]) for one, other in pairs]
            deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            differences.append(f"{statistics.fmean(values):+.1f}{deviation}")
        text.append(f"| {scored} | difference | | {' | '.join(differences)} | | |")
    places = ", ".join(dict.fromkeys(f"{row['cores']} cores, {row['cpu']}, {row['precision']}" for row in rows))
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    recipes = ", ".join(dict.fromkeys(f"{row['recipe']} on {row['data']}" for row in rows))
    about = f"""Masks of {recipes}, in per cent: mean and standard deviation over seeds, and the mean 95 % interval over
images. The background is fitted on {rows[0]["fitted_masks"]} masks of training images. Commit {commits}; {places}.
`experiments/mask_seeds.py` describes the experiment, `experiments/results/mask_seeds.csv` has all seeds."""
    return f"## Masks over seeds\n\n{about}\n\n    {command}\n\n" + "\n".join(text) + "\n"


def _spread(rows: Sequence[Row], name: str, interval: str | None = None) -> str:
    values = [float(row[name]) for row in rows if row[name]]
    if not values:
        return ""
    text = f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
    bounds = [[float(bound) for bound in row[interval].split()] for row in rows] if interval else []
    if bounds and all(bounds):
        low, high = (statistics.fmean(side) for side in zip(*bounds, strict=True))
        text += f" (95 %: {low:.1f} to {high:.1f})"
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the missing seeds, add each to the CSV file, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="SPEC", help="dataset to train on, kind:path")
    parser.add_argument("--score", nargs="+", metavar="SPEC", help="datasets with masks to score (default: --data)")
    parser.add_argument("--recipe", default="voc07-mini")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--masks", type=int, help="score that many masks of each dataset (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of mask_seeds.csv and mask_seeds.md")
    options = parser.parse_args(arguments)
    file = options.results / "mask_seeds.csv"
    options.results.mkdir(parents=True, exist_ok=True)
    specs = options.score or [options.data]
    try:
        config = TrainConfig(**{**read_recipe(options.recipe), "data": options.data})
        done = [row for row in read_rows(file) if row["recipe"] == options.recipe]
        if done:
            config = replace(config, precision=done[0]["precision"])
        config = with_precision(config, device_of("auto"))
        for seed in options.seeds:
            for spec in specs:
                key = (options.recipe, label_of(options.data), str(seed), f"{label_of(spec)} {default_splits(spec)[1]}")
                if any(tuple(row[name] for name in KEY) == key for row in read_rows(file)):
                    continue
                run = options.out / f"{options.recipe}-seed{seed}"
                rows = measure(replace(config, seed=seed), run, options.recipe, spec, options.masks)
                write_rows(file, [*read_rows(file), *rows])
                print(*rows[-1].values(), flush=True)
    except WildcatError as error:
        sys.exit(f"error: {error}")
    if rows := read_rows(file):
        shown = [f"{spec.partition(':')[0]}:DIR/{label_of(spec)}" for spec in (options.data, *specs)]
        command = f"python -m experiments.mask_seeds --data {shown[0]} --score {' '.join(shown[1:])} --out DIR"
        write_atomically(file.with_suffix(".md"), markdown(rows, command).encode())
        print(f"written: {file}, {file.with_suffix('.md')}")


if __name__ == "__main__":
    main()
