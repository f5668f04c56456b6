"""Where values were sampled or are wanted: ``Points`` (irregular), ``Grid`` (uniform), ``Product`` of both.

Geometry is float64 throughout; engines cast it to the values' dtype after differences are taken.
"""

from ccnn_irregular.domains.grid import Axis, Grid
from ccnn_irregular.domains.points import Points, shares_memory
from ccnn_irregular.domains.product import Product

__all__ = ["Axis", "Domain", "Grid", "Points", "Product", "shares_memory"]

Domain = Points | Grid | Product
