"""To look: one self-contained HTML page about a run, finished or not.

Everything on the page is read from the run folder, but real images, which are read from the data
that its recipe names. Names from data are escaped, pictures and plots are data URIs, and no script
is needed.
"""

from activegen.report.comparison import write_comparison
from activegen.report.page import write

__all__ = ["write", "write_comparison"]
