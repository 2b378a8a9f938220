"""Sparkplug B: the line as an edge node, each station as a device of it."""
