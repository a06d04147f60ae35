"""Run directories: settings, weights and scores on disk, and sharing them on the Hugging Face hub."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
