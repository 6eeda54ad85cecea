"""Pools: several endpoints, models or regions behind one name."""

from somaresil.pool.balance import EndpointState, EndpointView, PoolView
from somaresil.pool.core import Pool
from somaresil.pool.options import Endpoint, OutlierEjection, PoolOptions
from somaresil.pool.registry import Pools

__all__ = ["Endpoint", "EndpointState", "EndpointView", "OutlierEjection", "Pool", "PoolOptions", "PoolView", "Pools"]
