"""Recipes."""

from tests.robustness.bad_input.case import Case, encoded, text


def recipe(name: str, what: str, content: str | bytes, message: str) -> Case:
    """A mistake in a recipe."""
    return Case(name, what, text("my.yaml", content), "train --data synthetic --recipe my.yaml --out new", message)


BOMB = "lr: [&a [x, x]" + "".join(
    f", &{after} [{', '.join([f'*{before}'] * 20)}]" for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)

RECIPES = [
    recipe("odd-yaml", "no YAML", "lr: [0.1\n", "recipe my.yaml cannot be read as YAML: ..."),
    recipe("binary-yaml", "an image for a recipe", encoded("PNG"), "recipe my.yaml cannot be read as YAML: ..."),
    recipe("list-yaml", "a list", "- lr\n", "recipe my.yaml must be a mapping of settings; got list"),
    recipe(
        "new-yaml",
        "a setting that there is not",
        "learning_rate: 1\n",
        "recipe my.yaml: unknown setting 'learning_rate'",
    ),
    recipe(
        "bare-yaml",
        "a setting without a value",
        "momentum:\n",
        "recipe my.yaml: momentum must be a number, e.g. 0.01; got None",
    ),
    recipe(
        "exponent-yaml",
        "1e-3, which YAML takes for text",
        "lr: 1e-3\n",
        "recipe my.yaml: lr must be a number, e.g. 0.01; got '1e-3'",
    ),
    recipe(
        "odd-class-pooling",
        "a pooling of maps that there is not",
        "class_pooling: men\n",
        "recipe my.yaml: class_pooling must be 'mean', 'max', 'lse', 'softmax'; got 'men'",
    ),
    recipe("nan-yaml", "a number that is none", "lr: .nan\n", "recipe my.yaml: lr must be a finite number; got nan"),
    recipe("infinite-yaml", "an infinite number", "lr: .inf\n", "recipe my.yaml: lr must be a finite number; got inf"),
    recipe(
        "huge-seed",
        "a seed of 30 digits",
        f"seed: {10**30}\n",
        "recipe my.yaml: seed must be at least 0 and below 9223372036854775808; got 1000000000000000000000000000000",
    ),
    recipe(
        "tagged-yaml",
        "code",
        "lr: !!python/object/apply:os.system ['touch executed']\n",
        "recipe my.yaml cannot be read as YAML: ...",
    ),
    recipe(
        "bomb-yaml",
        "lists of lists that grow twentyfold",
        BOMB + "]\n",
        "recipe my.yaml: lr must be a number, e.g. 0.01; got [['x', ...",
    ),
    recipe(
        "deep-yaml",
        "a list in a list in a list, 10,000 deep",
        "lr: " + "[" * 10_000,
        "recipe my.yaml cannot be read as YAML: ...",
    ),
]
