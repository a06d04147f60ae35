"""Learn from image-level tags alone to classify images, point at what is in them, and segment them.

>>> import wildcat
>>> predictor = wildcat.load("imagenet")

Names are imported when they are first used, so that ``import wildcat`` and ``wildcat --help`` cost next to nothing.
``__init__.pyi`` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
