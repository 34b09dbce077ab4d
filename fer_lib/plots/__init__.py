"""Every figure of the report. Each function returns a matplotlib Figure whose title states what it shows, taken from
the numbers drawn."""
# ruff: noqa: F403 - what these modules have is what the package offers

from fer_lib.plots.compared import *
from fer_lib.plots.images import *
from fer_lib.plots.networks import *
from fer_lib.plots.runs import *
from fer_lib.plots.searches import *
from fer_lib.plots.style import *
