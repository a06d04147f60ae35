"""The results of an evaluation as text."""

from wildcat.metrics.metric_table import Detail, measured
from wildcat.metrics.scores import Scores
from wildcat.runs.results import Results


def summary(results: Results) -> str:
    """The main scores as text: a line for the dataset, then a line per task, in per cent.

    For a model of several scales, these lines for each scale and each combination.

    >>> print(summary(evaluate(load("runs/mine"), "folder:my_images")))  # doctest: +SKIP
    """
    lines = [f"{results.data} {results.split}: {results.images} images, {results.seconds:.0f} s"]
    if results.combination is None:
        return "\n".join([*lines, *_task_lines(results)])
    parts = {f"scale {scale}": scores for scale, scores in results.scales.items()} | dict(results.combinations)
    for name, scores in parts.items():
        used = " (used for predictions)" if name == results.combination else ""
        lines += [f"{name}{used}", *_task_lines(scores)]
    return "\n".join(lines)


def _task_lines(scores: Scores) -> list[str]:
    values = measured(scores, Detail.SUMMARY)
    lines = []
    for task in scores.tasks:
        shown = [f"{metric.name} {value:.1f}" for metric, value in values if metric.task == task]
        if not shown:
            shown = ["no class has a label here, so there is nothing to score"]
        elif task == "segmentation" and scores.segmentation is not None:
            shown += [f"background {scores.segmentation.background}", f"classes of {scores.segmentation.labels} labels"]
        lines.append(f"  {task}: {', '.join(shown)}")
    return lines
