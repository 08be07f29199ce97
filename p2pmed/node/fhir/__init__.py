"""FHIR files into a node and out again: what has no place in the pure core, and no screen.

Rule: a document becomes one sealed record per resource, one for its skeleton and one for its
name, in this order; the last one makes it complete. ``documents`` says who a resource is about,
``plan`` gives each its place, ``journal`` remembers what is done, ``files`` touches the disk,
``importing`` and ``exporting`` are the two walks, ``describe`` is for screens.
"""
