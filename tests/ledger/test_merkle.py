"""Merkle trees against the definition of RFC 9162, section 2.1, written out by recursion."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmed.ledger.merkle import merkle_proof, merkle_root, verify_merkle_proof

SIZES = [*range(1, 18), 31, 32, 33, 64, 100]


def hashed(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def split(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1."""
    if not leaves:
        return hashed(b"")
    if len(leaves) == 1:
        return hashed(b"\x00" + leaves[0])
    k = split(len(leaves))
    return hashed(b"\x01" + defined_root(leaves[:k]) + defined_root(leaves[k:]))


def defined_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 9162, 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return [*defined_path(index, leaves[:k]), defined_root(leaves[k:])]
    return [*defined_path(index - k, leaves[k:]), defined_root(leaves[:k])]


def leaves_of(count: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(count)]


@pytest.mark.parametrize("count", [0, *SIZES])
def test_the_root_is_the_one_that_the_rfc_defines(count: int) -> None:
    """Whatever the number of leaves, the tree has the RFC's shape."""
    assert merkle_root(leaves_of(count)) == defined_root(leaves_of(count))


@pytest.mark.parametrize("count", SIZES)
def test_every_leaf_has_the_proof_that_the_rfc_defines(count: int) -> None:
    """The path is the RFC's, and proves its leaf at its place."""
    leaves = leaves_of(count)
    root = merkle_root(leaves)
    for index, leaf in enumerate(leaves):
        proof = merkle_proof(leaves, index)
        assert proof == defined_path(index, leaves)
        assert verify_merkle_proof(leaf, index, count, proof, root)


@given(count=st.integers(1, 40), seed=st.randoms(use_true_random=False))
def test_a_proof_proves_nothing_else(count: int, seed) -> None:  # type: ignore[no-untyped-def]
    """Another leaf, place, path or root is refused."""
    leaves = leaves_of(count)
    root, index = merkle_root(leaves), seed.randrange(count)
    proof = merkle_proof(leaves, index)
    assert not verify_merkle_proof(b"another", index, count, proof, root)
    assert not verify_merkle_proof(leaves[index], index, count, proof, hashed(root))
    assert not verify_merkle_proof(leaves[index], index, count, [*proof, bytes(32)], root)
    assert not verify_merkle_proof(leaves[index], count, count, proof, root)
    assert not verify_merkle_proof(leaves[index], -1, count, proof, root)
    for other in range(count):
        if other != index:
            assert not verify_merkle_proof(leaves[index], other, count, proof, root)
    for place in range(len(proof)):
        assert not verify_merkle_proof(
            leaves[index], index, count, proof[:place] + proof[place + 1 :], root
        )
        changed = [*proof]
        changed[place] = hashed(changed[place])
        assert not verify_merkle_proof(leaves[index], index, count, changed, root)


def test_a_node_never_passes_for_a_leaf() -> None:
    """The root of a tree is not the root of a tree whose leaf is the inner node."""
    left, right = hashed(b"\x00a"), hashed(b"\x00b")
    assert merkle_root([b"a", b"b"]) != merkle_root([left + right])
    assert not verify_merkle_proof(left + right, 0, 1, [], merkle_root([b"a", b"b"]))


def test_order_and_number_of_leaves_count() -> None:
    """A permutation, a leaf less or a leaf twice gives another root."""
    roots = {
        merkle_root(leaves)
        for leaves in ([b"a", b"b"], [b"b", b"a"], [b"a"], [b"a", b"b", b"b"], [b"a", b"a"], [])
    }
    assert len(roots) == 6
