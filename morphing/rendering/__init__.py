"""Jinja templates of others, rendered in a process of their own that has limits."""
