"""Every bound, with its reason. Asserted against each other where they depend.

A name ends in its unit. A bound that a peer could reach is also a test.
"""

from __future__ import annotations

from typing import Final

# --- bytes on the wire -------------------------------------------------------------------

CBOR_DEPTH_MAX: Final = 16
"""Deepest signed value; the deepest of ours is 7 (threats row 2)."""

CBOR_KEYS_MAX: Final = 64
"""Keys in one map: colliding keys cost quadratic time (threats row 4)."""

ENTRY_BYTES_MAX: Final = 96 * 1024
"""One signed transaction with its envelope."""

SEALED_PART_BYTES_MAX: Final = 64 * 1024
"""Sealed bytes carried by one transaction; a longer body is cut into parts from the start."""

RECORD_BYTES_MAX: Final = 64 * 1024 * 1024
"""One FHIR resource as it came in; larger things are attachments."""

assert SEALED_PART_BYTES_MAX < ENTRY_BYTES_MAX

FRAME_BYTES_MAX: Final = 256 * 1024
"""One message between peers, before encryption."""

assert ENTRY_BYTES_MAX + 1024 <= FRAME_BYTES_MAX

NOISE_FRAME_BYTES_MAX: Final = 65_535
"""Noise specification, section 3: a transport message is at most this long."""

BATCH_ENTRIES_MAX: Final = 256
BATCH_BYTES_MAX: Final = 128 * 1024
"""Entries sent or stored in one go; more brings little speed and much latency."""

assert BATCH_BYTES_MAX + ENTRY_BYTES_MAX < FRAME_BYTES_MAX

TEXT_CHARS_MAX: Final = 1_024
"""A text field in a signed core; longer text belongs in a sealed body."""

REFS_MAX: Final = 64
"""Transactions that one transaction may name."""

# --- ledger --------------------------------------------------------------------------------

BLOCK_ENTRIES_MAX: Final = 4_096
BLOCK_BYTES_MAX: Final = 4 * 1024 * 1024
"""Newly ordered by one block (design, section 12)."""

BLOCK_TIPS_MAX: Final = 1_536
BLOCK_CONTENT_BYTES_MAX: Final = 160 * 1024
"""A block's content: its tips, about 92 bytes each; a proposal must fit a frame."""

assert BLOCK_TIPS_MAX * 96 < BLOCK_CONTENT_BYTES_MAX < FRAME_BYTES_MAX - 16 * 1024

VALIDATORS_MAX: Final = 20
"""Seats in one mesh; the certificate's bitmap and the message count are sized for it."""

LANES_MAX: Final = 65_536
"""Author logs one node keeps."""

INCARNATIONS_MAX: Final = 64
"""Logs of one device: each restored backup opens one more. Else one member fills the table."""

assert LANES_MAX > INCARNATIONS_MAX

FORK_BRANCHES_MAX: Final = 2
"""Branches kept of a forked author log: two prove the fork, more prove nothing else."""

CREDENTIAL_CHAIN_MAX: Final = 3
"""Authority, county, clinic."""

# --- peers ---------------------------------------------------------------------------------

PEERS_MAX: Final = 64
"""A cell: full mesh and direct push up to here."""

HALF_OPEN_MAX: Final = 32
HALF_OPEN_PER_ADDRESS_MAX: Final = 8
HANDSHAKE_MS_MAX: Final = 5_000
"""Before a stranger has proved who it is (threats row 9)."""

SEND_QUEUE_BYTES_MAX: Final = 1024 * 1024
CONTROL_QUEUE_BYTES_MAX: Final = 256 * 1024
"""Per peer. On overflow the peer is marked behind and anti-entropy repairs it."""

ADDRESSES_REMEMBERED_MAX: Final = 1_024
"""Peer addresses kept for redialling."""

# --- time ----------------------------------------------------------------------------------

PING_MS: Final = 1_000
PEER_SILENT_MS: Final = 15_000
"""Liveness comes from authenticated channels only; fifteen pings missed."""

assert PEER_SILENT_MS >= 3 * PING_MS

REDIAL_MS_MIN: Final = 500
REDIAL_MS_MAX: Final = 60_000
"""Redialled for ever, with full jitter."""

HLC_AHEAD_MS_MAX: Final = 24 * 3_600_000
"""How far a hybrid clock follows a peer's; beyond it the peer's clock is flagged."""
