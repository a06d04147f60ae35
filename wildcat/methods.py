"""The methods that the paper compares, as settings of the one framework: names for ``wildcat train --method``."""

from typing import Any

from wildcat.errors import WildcatError, guess

# Source: Table 1 for the pooling, Section 4 for what each published method is there. Regions (kmax) stay the recipe's.
METHODS: dict[str, dict[str, Any]] = {
    "wildcat": {"pooling": "wildcat", "architecture": "a", "solver": "sgd"},
    "weldon": {"pooling": "weldon", "num_maps": 1, "architecture": "a", "solver": "sgd"},
    "deepmil": {"pooling": "max", "num_maps": 1, "architecture": "a", "solver": "sgd"},
    "top": {"pooling": "top", "num_maps": 1, "architecture": "a", "solver": "sgd"},
    "llp": {"pooling": "llp", "num_maps": 1, "architecture": "a", "solver": "sgd"},
    "pronet": {"pooling": "lse", "num_maps": 1, "architecture": "a", "solver": "sgd"},
    "gap": {"pooling": "average", "num_maps": 1, "architecture": "b", "solver": "sgd"},
    "features": {"pooling": "average", "num_maps": 1, "architecture": "a", "solver": "svm"},
}


def method_settings(name: str) -> dict[str, Any]:
    """The settings of a method; they go before a recipe's.

    Raises:
        WildcatError: for a name that is not known.

    >>> method_settings("deepmil")["pooling"]
    'max'
    """
    if name not in METHODS:
        raise WildcatError(f"no method {name!r}{guess(name, METHODS)} (methods: {', '.join(METHODS)})")
    return dict(METHODS[name])
