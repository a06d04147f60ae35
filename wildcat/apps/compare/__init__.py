"""Compares runs on the same images: `compare_runs`, and a page about it: `comparison_page`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
