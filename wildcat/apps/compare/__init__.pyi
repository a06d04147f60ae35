from .page import comparison_page as comparison_page
from .runs import compare_runs as compare_runs
