"""The results of all evaluations of a run in its results.json: those of its own data first, the others beside them."""

from __future__ import annotations

from dataclasses import replace

from wildcat.data.registry import options_of, path_of, with_options
from wildcat.errors import WildcatError
from wildcat.runs.results import MAX_OTHERS, Part, Results

_RANKS = {"held out": 0, "training data": 1, "other data": 2, "unknown": 2}


def add_results(earlier: Results, new: Results, background: str) -> Results:
    """The content of results.json after one more evaluation.

    The first of an evaluation on held-out images, one on other images of the training data, and one on other data
    stands at the top; of two equals, the one that stood there. Results of another model, or of a file that does not say
    of which model they are, are dropped. Results on the same data and split are replaced, but for the tasks that
    were not scored again, if all else agrees: images, versions, sizes, precision and runtime.

    Args:
        earlier: the content so far.
        new: the results to add.
        background: of the masks of the model; masks that had another one are not kept.

    >>> held_out = Results(data="folder:mine", split="test", images=9, part="held out", model="a1")
    >>> new = Results(data="folder:new", split="all", images=3, part="other data", model="a1")
    >>> content = add_results(held_out, new, "threshold 0.2")
    >>> content.data, [each.data for each in content.others]
    ('folder:mine', ['folder:new'])
    """
    entries = [each for each in _entries(earlier) if each.model and each.model == new.model]
    key = _key(new.part, new.data, new.split)
    same = next((each for each in entries if _key(each.part, each.data, each.split) == key), None)
    added = new if same is None else _with_tasks_of(new, same, background)
    others = [each for each in entries if each is not same]
    was_first = same is not None and same is entries[0]
    head = min([added, *others] if was_first else [*others, added], key=lambda each: _RANKS[each.part])
    rest = sorted((each for each in [added, *others] if each is not head), key=lambda each: each is not added)
    return replace(head, others=tuple(rest[:MAX_OTHERS]))


def find_results(content: Results, data: str, split: str, part: Part) -> Results | None:
    """The results on a dataset and a split in the content of a results.json; None if there are none.

    Args:
        content: of results.json.
        data: kind:path; of the data that the run was trained on, any place of them.
        split: its split.
        part: what the split is to the training.
    """
    own, place = _key(part, data, split), _place(data)
    for each in _entries(content):
        if _key(each.part, each.data, each.split) == own or (_place(each.data), each.split) == (place, split):
            return each
    return None


def _entries(content: Results) -> tuple[Results, ...]:
    return replace(content, others=()), *content.others


def _key(part: Part, data: str, split: str) -> tuple[str, ...]:
    """What is scored: the run's own data are the same wherever they are."""
    if part in ("held out", "training data"):
        return ("own", *(f"{key}={text}" for key, text in sorted(options_of(data).items())), split)
    return ("other", _place(data), split)


def _place(data: str) -> str:
    """A specification with an absolute path, so that equal places are equal texts."""
    try:
        path = path_of(data)
    except WildcatError:  # of a kind that is not registered here
        return data
    if path is None:
        return data
    kind = data.partition(":")[0]
    return with_options(f"{kind}:{path.resolve()}", options_of(data))


def _with_tasks_of(new: Results, before: Results, background: str) -> Results:
    """New results, with the tasks of earlier ones that were not scored again, if all else agrees."""
    if new.combination is not None or before.combination is not None:
        return new
    inference, earlier = new.inference, before.inference
    map_sizes = earlier.map_sizes if inference.map_sizes is None else inference.map_sizes
    agree = replace(inference, map_sizes=None) == replace(earlier, map_sizes=None)
    agree = agree and earlier.map_sizes in (None, map_sizes)
    agree = agree and (new.images, new.versions) == (before.images, before.versions)
    agree = agree and new.images_digest == before.images_digest != ""
    kept = {task: getattr(before, task) for task in before.tasks if task not in new.tasks}
    if before.segmentation is not None and before.segmentation.background != background:
        kept.pop("segmentation", None)
    if not agree or not kept:
        return new
    return replace(new, **kept, inference=replace(inference, map_sizes=map_sizes))
