"""The results of an evaluation as text."""

from wildcat.metrics.metric_table import Detail, measured, not_scored
from wildcat.metrics.scores import Scores
from wildcat.runs.results import Results


def summary(results: Results) -> str:
    """The main scores as text: a line for the images, then for each task a line of scores in per cent.

    Where a mean leaves classes out, a line of its own says how many, and names them.

    For a model of several scales, these lines for each scale and each combination.

    >>> print(summary(evaluate(load("runs/mine"), "folder:my_images")))  # doctest: +SKIP
    """
    how = ", ".join(each for each in (results.inference.runtime, results.inference.precision) if each)
    lines = [f"{results.scored_images} ({f'{how}, ' if how else ''}{results.seconds:.0f} s)"]
    if results.combination is None:
        return "\n".join([*lines, *_task_lines(results)])
    parts = {f"scale {scale}": scores for scale, scores in results.scales.items()} | dict(results.combinations)
    for name, scores in parts.items():
        used = " (used for predictions)" if name == results.combination else ""
        lines += [f"{name}{used}", *_task_lines(scores)]
    return "\n".join(lines)


def _task_lines(scores: Scores) -> list[str]:
    metrics = [metric for metric, _ in measured(scores, Detail.SUMMARY)]
    lines = []
    for task in scores.tasks:
        shown = [f"{metric.name} {metric.text(scores)}" for metric in metrics if metric.task == task]
        if not shown:
            shown = ["no class has a label here, so there is nothing to score"]
        elif task == "segmentation" and scores.segmentation is not None:
            shown += [f"background {scores.segmentation.background}", f"classes of {scores.segmentation.labels} labels"]
        lines.append(f"  {task}: {', '.join(shown)}")
        if left_out := not_scored(scores, task):
            lines.append(f"    {left_out}")
    return lines
