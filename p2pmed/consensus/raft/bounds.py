"""Every number of the Raft core: how long, how many, how large, and why.

Times are milliseconds. The ratio of election timeout to heartbeat is etcd's advice (ten);
the spread of the timeouts is Raft, section 5.2. The sizes are our own choice, made so that
one slow peer never holds more than a few blocks in a send queue.
"""

from __future__ import annotations

from typing import Final

from p2pmed.limits import BATCH_BYTES_MAX, FRAME_BYTES_MAX, SEND_QUEUE_BYTES_MAX

__all__ = [
    "BEHIND_MS",
    "BLOCKS_AT_ONCE_MAX",
    "BLOCKS_IN_FLIGHT_MAX",
    "CHECKS_PER_STEP_MAX",
    "ELECTION_BEATS_MAX",
    "ELECTION_BEATS_MIN",
    "ENTRY_RAW_BYTES_MAX",
    "HEARTBEAT_MS",
    "IDLE_AFTER_MS",
    "IDLE_HEARTBEAT_MS",
    "INFLIGHT_BYTES_MAX",
    "INFLIGHT_MESSAGES_MAX",
    "LOG_BYTES_MAX",
    "LOG_ENTRIES_MAX",
    "LOG_KEEP_BYTES",
    "LOG_KEEP_ENTRIES",
    "PATIENCE_MS",
    "PATIENCE_MS_MAX",
    "READS_MAX",
    "READ_MS",
    "RESENT_ATTESTATIONS_MAX",
    "UNDECIDED_BYTES_MAX",
]

HEARTBEAT_MS: Final = 100
"""A LAN round trip and a slow flush fit in several times over."""
assert 50 <= HEARTBEAT_MS <= 150

ELECTION_BEATS_MIN: Final = 10
ELECTION_BEATS_MAX: Final = 20
"""An election timeout, in heartbeats, drawn anew each time it is armed."""
assert ELECTION_BEATS_MIN >= 10
assert ELECTION_BEATS_MAX >= 2 * ELECTION_BEATS_MIN

IDLE_HEARTBEAT_MS: Final = 1_000
"""When nothing is to be ordered; whoever has work goes back to ``HEARTBEAT_MS`` by itself."""
IDLE_AFTER_MS: Final = 2_000
assert IDLE_HEARTBEAT_MS > HEARTBEAT_MS
assert IDLE_AFTER_MS > HEARTBEAT_MS * ELECTION_BEATS_MIN
assert IDLE_AFTER_MS >= 2 * IDLE_HEARTBEAT_MS  # a living follower answers within it

BEHIND_MS: Final = 1_000
"""``Behind`` for one and the same height is not said more often than this."""

BLOCKS_AT_ONCE_MAX: Final = 2
BLOCKS_IN_FLIGHT_MAX: Final = 8
"""Blocks a leader has proposed and not decided. The first two at once: one on the way while the
next fills up. Each further one only when the one before is on the leader's own disk, so that a
long way to the followers is filled, and a slow disk gets larger blocks, not more of them."""
assert BLOCKS_AT_ONCE_MAX <= BLOCKS_IN_FLIGHT_MAX
UNDECIDED_BYTES_MAX: Final = 1024 * 1024
"""Beyond it nothing is added to the first two: etcd's uncommitted cap."""

INFLIGHT_MESSAGES_MAX: Final = 32
INFLIGHT_BYTES_MAX: Final = 512 * 1024
"""Appends sent to one follower and not answered."""
assert INFLIGHT_BYTES_MAX + FRAME_BYTES_MAX < SEND_QUEUE_BYTES_MAX

ENTRY_RAW_BYTES_MAX: Final = FRAME_BYTES_MAX - 4_096
"""One log entry must fit one frame with the rest of its ``Append``."""
assert BATCH_BYTES_MAX <= ENTRY_RAW_BYTES_MAX

CHECKS_PER_STEP_MAX: Final = 16
"""Blocks handed to the application in one step, so that heartbeats are not starved."""

LOG_KEEP_ENTRIES: Final = 512
LOG_KEEP_BYTES: Final = 4 * 1024 * 1024
"""Decided entries kept for followers that are a little late; older ones go by ``sync``."""

LOG_ENTRIES_MAX: Final = 4_096
LOG_BYTES_MAX: Final = 32 * 1024 * 1024
"""Entries a follower holds at all; beyond, it takes no more until it has decided some."""
assert LOG_ENTRIES_MAX >= 4 * LOG_KEEP_ENTRIES
assert LOG_BYTES_MAX >= 2 * LOG_KEEP_BYTES + BLOCKS_IN_FLIGHT_MAX * ENTRY_RAW_BYTES_MAX

PATIENCE_MS: Final = 1_000
"""A leader that cannot build or check lets somebody lead who can; doubled each time."""
PATIENCE_MS_MAX: Final = 3_600_000

READ_MS: Final = 3_000
"""A read that no quorum stood behind fails: long enough for one election and a round."""
assert READ_MS > ELECTION_BEATS_MAX * HEARTBEAT_MS

READS_MAX: Final = 1_024
"""Readers of one node that wait; more fail at once."""

RESENT_ATTESTATIONS_MAX: Final = 8
"""Own signatures repeated in one answer to a heartbeat."""
assert RESENT_ATTESTATIONS_MAX >= BLOCKS_IN_FLIGHT_MAX
