"""A month of a service from its journals: attainment of objectives, budgets, incidents, deployments."""
