"""A dictionary of numbers for what is met by the million."""

from __future__ import annotations

from array import array


class DigestTable:
    """A dictionary from 64-bit digests to 64-bit numbers in 16 bytes a place, at most two thirds of them taken.

    Keys must be digests: their lowest bits choose the place, so numbers in a pattern make it slow. A Python
    dictionary of as many numbers takes some 170 bytes each.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._mask = 0xFFFF
        self._keys = array("Q", bytes(8 << 16))  # 0: a free place
        self._values = array("Q", bytes(8 << 16))

    def __len__(self) -> int:
        return self._taken

    def setdefault(self, key: int, value: int) -> int | None:
        """The value stored for a key before; None, and `value` is stored, when there was none."""
        place = self._place(key or 1)  # 0 and 1 share a place: one more chance in 2 ** 63 of a false clash
        if self._keys[place]:
            return self._values[place]
        self._keys[place], self._values[place] = key or 1, value
        self._taken += 1
        if 3 * self._taken > 2 * self._mask:
            self._grow()
        return None

    def _place(self, key: int) -> int:
        """Where a key is, or the free place where it would be put: the next one free from its own."""
        place = key & self._mask
        while self._keys[place] not in (0, key):
            place = (place + 1) & self._mask
        return place

    def _grow(self) -> None:
        keys, values = self._keys, self._values
        size = 2 * (self._mask + 1)
        self._mask = size - 1
        self._keys, self._values = array("Q", bytes(8 * size)), array("Q", bytes(8 * size))
        for key, value in zip(keys, values, strict=True):
            if key:
                place = self._place(key)
                self._keys[place], self._values[place] = key, value
