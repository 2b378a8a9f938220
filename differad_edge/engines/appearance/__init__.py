"""Comparing where good parts are not the same picture: what each place looks like, not what each pixel shows."""
