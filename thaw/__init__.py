"""Thaw's client: the `thaw` command, and `thaw.client.Thaw` for programs."""
