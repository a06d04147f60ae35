from .scoring import evaluate as evaluate
from .submission import write_submission as write_submission
