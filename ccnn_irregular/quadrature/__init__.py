"""Quadrature: positions to weights, so that ``sum_n w_n f(p_n)`` approximates ``integral f(p) dp``.

Weights carry the unit of the coordinates (hours, mm^3 ...) and are float64.
"""

from ccnn_irregular.quadrature.clouds import density_compensation, plain_mean, voronoi
from ccnn_irregular.quadrature.grids import cell_volumes, product_rule, spherical_areas
from ccnn_irregular.quadrature.lines import gauss_legendre, midpoint, simpson, trapezoid
from ccnn_irregular.quadrature.polygons import spherical_polygons
from ccnn_irregular.quadrature.regions import covered_volume

__all__ = [
    "cell_volumes",
    "covered_volume",
    "density_compensation",
    "gauss_legendre",
    "midpoint",
    "plain_mean",
    "product_rule",
    "simpson",
    "spherical_areas",
    "spherical_polygons",
    "trapezoid",
    "voronoi",
]
