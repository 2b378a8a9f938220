"""Engines: each compares a part with prepared references and returns Evidence."""
