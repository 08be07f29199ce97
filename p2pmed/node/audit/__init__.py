"""Auditing what a node keeps and what it carries, from the bytes alone (``p2pmed verify``)."""

from __future__ import annotations

from p2pmed.node.audit.bundle import audit_bundle
from p2pmed.node.audit.findings import Finding, Findings
from p2pmed.node.audit.home import audit_home

__all__ = ["Finding", "Findings", "audit_bundle", "audit_home"]
