from .open import RUNTIMES as RUNTIMES
from .open import Runtime as Runtime
from .open import open_network as open_network
from .write import TOLERANCE as TOLERANCE
from .write import export as export
