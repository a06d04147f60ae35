from wildcat.apps.compare.page import comparison_page
from wildcat.apps.compare.runs import compare_runs

__all__ = ["compare_runs", "comparison_page"]
