from .network import RUNTIMES as RUNTIMES
from .network import ExportedNetwork as ExportedNetwork
from .network import Runtime as Runtime
from .open import open_network as open_network
from .write import TOLERANCE as TOLERANCE
from .write import Exported as Exported
from .write import export as export
