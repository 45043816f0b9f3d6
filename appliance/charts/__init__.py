"""Line charts as SVG, without a plotting library: a few series, two axes, readable on light and dark pages."""

from appliance.charts.axis import Axis
from appliance.charts.line_chart import Chart, Series, as_svg

__all__ = ["Axis", "Chart", "Series", "as_svg"]
