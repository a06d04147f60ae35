from .frozen import RateChoice as RateChoice
from .frozen import reproduce_frozen as reproduce_frozen
from .run import reproduce as reproduce
