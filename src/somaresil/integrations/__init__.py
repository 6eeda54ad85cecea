"""Adapters to what a service uses already. Each is imported only by whoever uses it; nothing below imports any of them."""
