"""The settings of a home: ``p2pmed.toml``, checked field by field.

What is not written keeps its default; a wrong value is named with its place. Secrets are never
settings.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

import msgspec

from p2pmed.errors import ConfigError
from p2pmed.sync.founding import MeshPolicy

__all__ = ["DEFAULT_PORT", "Config", "read_config", "write_config"]

DEFAULT_PORT: Final = 7_420
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class _Mesh(msgspec.Struct, forbid_unknown_fields=True):
    auto: bool = False
    engine: Literal["bft", "raft"] = "bft"
    size: Annotated[int, msgspec.Meta(ge=1, le=20)] = 4
    roles: tuple[str, ...] = ("clinic", "pharmacy")
    quiet_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 2_000
    name: Annotated[str, msgspec.Meta(max_length=64)] = "mesh"
    follow: bool = True


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    host: str = "0.0.0.0"  # noqa: S104 (a clinic's peers are on its LAN)
    port: Port = DEFAULT_PORT
    discovery: bool = True
    """Multicast DNS."""
    loopback: bool = False
    """Discovery on the loopback interface only: several nodes on one machine."""
    peers: tuple[str, ...] = ()
    mesh: _Mesh = msgspec.field(default_factory=_Mesh)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a node is told when it opens."""

    host: str = "0.0.0.0"  # noqa: S104 (as above)
    port: int = DEFAULT_PORT
    """0: any free port."""
    discovery: bool = True
    loopback: bool = False
    peers: tuple[str, ...] = ()
    """Typed addresses, ``host:port``."""
    mesh: MeshPolicy = field(default_factory=MeshPolicy)


def read_config(text: str) -> Config:
    """Settings from TOML. Raises ``ConfigError`` that names the field."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"p2pmed.toml: {error}") from None
    try:
        read = msgspec.convert(raw, _Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"p2pmed.toml: {error}") from None
    mesh = MeshPolicy(**msgspec.structs.asdict(read.mesh))
    return Config(
        host=read.host,
        port=read.port,
        discovery=read.discovery,
        loopback=read.loopback,
        peers=read.peers,
        mesh=mesh,
    )


def write_config(config: Config) -> str:
    """TOML that ``read_config`` reads back to the same settings."""
    mesh = config.mesh
    return "\n".join(
        [
            f"host = {_text(config.host)}",
            f"port = {config.port}",
            f"discovery = {_flag(config.discovery)}",
            f"loopback = {_flag(config.loopback)}",
            f"peers = [{', '.join(map(_text, config.peers))}]",
            "",
            "[mesh]",
            "# form a mesh with credentialed neighbours without being told to",
            f"auto = {_flag(mesh.auto)}",
            f"engine = {_text(mesh.engine)}",
            f"size = {mesh.size}",
            f"roles = [{', '.join(map(_text, mesh.roles))}]",
            f"quiet_ms = {mesh.quiet_ms}",
            f"name = {_text(mesh.name)}",
            f"follow = {_flag(mesh.follow)}",
            "",
        ]
    )


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _flag(value: bool) -> str:
    return "true" if value else "false"
