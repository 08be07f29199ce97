"""Bytes: one value, one spelling."""
