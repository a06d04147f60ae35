from .folder import Run as Run
from .folder import load_run as load_run
from .folder import read_run as read_run
from .hub import push_to_hub as push_to_hub
from .hub import save_for_hub as save_for_hub
from .scales import ScaleRuns as ScaleRuns
from .scales import read_scales as read_scales
from .settings import InferenceSettings as InferenceSettings
