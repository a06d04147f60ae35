from .build import render_page as render_page
from .build import write_report as write_report
