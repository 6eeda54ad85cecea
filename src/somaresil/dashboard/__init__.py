"""What a service looks like now: a page to mount, the data behind it, and its workers as one.

Nothing here is imported, listened for or started unless somebody asks for a dashboard.
"""
