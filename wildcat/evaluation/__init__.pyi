from .background import fit_masks as fit_masks
from .run import RunEvaluation as RunEvaluation
from .run import evaluate_run as evaluate_run
from .run import submit_run as submit_run
from .scoring import evaluate as evaluate
from .submission import write_submission as write_submission
from .summary import summary as summary
