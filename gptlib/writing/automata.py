"""Finite automata over bytes: which bytes may come next, so that a text stays in a language.

A pattern's tree becomes an automaton with free moves (Thompson, 1968), and that one without them,
by keeping the set of all states one could be in (Rabin and Scott, 1959). Characters become their
UTF-8 bytes on the way, since a token stands for bytes and may end inside a character.

    digits = Automaton.from_pattern("[0-9]{2,4}")
    digits.accepts(b"123")        # True: `re.fullmatch` with re.ASCII says the same
"""

from collections.abc import Iterable, Iterator

import numpy as np

from gptlib.writing.patterns import Choice, Node, Repeated, Sequential, parse, without

MOST_STATES = 20_000
DEAD, START = 0, 1  # no text of the language begins so; nothing has been read yet
FAR = 2**30  # more steps than any way has
SURROGATES = (0xD800, 0xDFFF)  # code points that are no characters: UTF-8 has no form for them


class Automaton:
    """A deterministic automaton over bytes.

    `table` (S, 256) int32 holds the state after a state and a byte, `accepting` (S,) whether a text
    may end there. State 0 is dead: no continuation leads into the language; 1 is the start.
    """

    def __init__(self, table: np.ndarray, accepting: np.ndarray):
        moves = np.unique(np.arange(len(table))[:, None] * len(table) + table)
        alive = fewest_steps(accepting, moves // len(table), moves % len(table)) < FAR
        self.table = np.where(alive[table], table, DEAD).astype(np.int32)
        self.accepting = accepting

    @classmethod
    def from_pattern(cls, pattern: str) -> "Automaton":
        """The automaton of a regular expression; ValueError for what it cannot express."""
        return _deterministic(parse(pattern))

    @classmethod
    def beginning(cls, prefix: bytes) -> "Automaton":
        """All byte strings that begin with `prefix`."""
        n = len(prefix)
        table = np.zeros((n + 2, 256), np.int32)
        table[np.arange(n) + 1, list(prefix)] = np.arange(n) + 2
        table[n + 1] = n + 1
        return cls(table, np.arange(n + 2) == n + 1)

    def run(self, text: bytes, state: int = START) -> int:
        """The state after a text; 0 if no text of the language goes on like that."""
        for byte in text:
            state = int(self.table[state, byte])
        return state

    def accepts(self, text: bytes) -> bool:
        """Whether the text is in the language."""
        return bool(self.accepting[self.run(text)])


def fewest_steps(accepting: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(S,) moves needed from each state to an accepting one, along sources[i] -> targets[i] only;
    FAR where none can be reached."""
    steps, n = np.where(accepting, 0, FAR), 0
    while True:
        new = sources[steps[targets] == n]
        new, n = new[steps[new] == FAR], n + 1
        if not len(new):
            return steps
        steps[new] = n


def utf8_ranges(first: int, last: int) -> Iterator[list[tuple[int, int]]]:
    """The code points from first to last as sequences of byte ranges, none of them twice.

    A range is cut until all its characters have equally many bytes and differ in the last ones
    only from end to end: é to ÿ is C3 A9-BF, one sequence.
    """
    for longest in (0x7F, 0x7FF, 0xFFFF):  # the last character of one, two and three bytes
        if first <= longest < last:
            yield from utf8_ranges(first, longest)
            yield from utf8_ranges(longest + 1, last)
            return
    for bits in (6, 12, 18):  # what the last one, two and three bytes hold
        low = (1 << bits) - 1
        if last > 0x7F and first | low != last | low:
            if first & low:
                yield from utf8_ranges(first, first | low)
                yield from utf8_ranges((first | low) + 1, last)
                return
            if last & low != low:
                yield from utf8_ranges(first, (last & ~low) - 1)
                yield from utf8_ranges(last & ~low, last)
                return
    yield list(zip(chr(first).encode(), chr(last).encode()))


class _FreeMoves:
    """An automaton that is still being built: moves by byte ranges, and moves that cost nothing."""

    def __init__(self) -> None:
        self.moves: list[list[tuple[int, int, int]]] = []  # (first byte, last byte, next state)
        self.free: list[list[int]] = []

    def state(self) -> int:
        if len(self.free) == MOST_STATES:
            raise ValueError(f"the pattern needs more than {MOST_STATES:,} states; expected a "
                             f"smaller one: lower its counts, or maxLength and maxItems")
        self.moves.append([])
        self.free.append([])
        return len(self.free) - 1

    def add(self, node: Node, here: int) -> int:
        """Build the node from state `here` on; the state in which it ends."""
        if isinstance(node, Sequential):
            for part in node.parts:
                here = self.add(part, here)
            return here
        if isinstance(node, Repeated):
            return self.add_repeated(node, here)
        end = self.state()
        if isinstance(node, Choice):
            for option in node.options:
                self.free[self.add(option, here)].append(end)
            return end
        for first, last in without(node.ranges, [SURROGATES]):
            for sequence in utf8_ranges(first, last):
                at = here
                for low, high in sequence[:-1]:
                    self.moves[at].append((low, high, self.state()))
                    at = len(self.free) - 1
                self.moves[at].append((*sequence[-1], end))
        return end

    def add_repeated(self, node: Repeated, here: int) -> int:
        for _ in range(node.least):
            here = self.add(node.part, here)
        end = self.state()
        if node.most is None:
            self.free[here].append(end)  # a state of its own, so that what comes before the
            self.free[self.add(node.part, end)].append(end)  # loop is not repeated with it
            return end
        for _ in range(node.most - node.least):
            self.free[here].append(end)
            here = self.add(node.part, here)
        self.free[here].append(end)
        return end


def _deterministic(tree: Node) -> Automaton:
    """Follow all possible states at once: each set of them that occurs becomes one state."""
    built = _FreeMoves()
    end = built.add(tree, built.state())

    def reachable(states: Iterable[int]) -> frozenset[int]:
        found, waiting = set(states), list(states)
        while waiting:
            new = set(built.free[waiting.pop()]) - found
            found |= new
            waiting += new
        return frozenset(found)

    start = reachable([0])
    number, sets, rows = {start: START}, [start], [np.zeros(256, np.int32)]
    for states in sets:  # grows while it is read
        row = np.zeros(256, np.int32)
        moves = [move for state in states for move in built.moves[state]]
        edges = sorted({edge for low, high, _ in moves for edge in (low, high + 1)})
        for low, following in zip(edges, edges[1:]):
            to = frozenset(state for first, last, state in moves if first <= low <= last)
            if to:
                to = reachable(to)
                if to not in number:
                    number[to] = len(number) + 1
                    sets.append(to)
                row[low:following] = number[to]
        rows.append(row)
        if len(number) > MOST_STATES:
            raise ValueError(f"the pattern needs more than {MOST_STATES:,} states; expected a "
                             f"smaller one: lower its counts, or maxLength and maxItems")
    accepting = np.array([False] + [end in states for states in sets])
    return Automaton(np.stack(rows), accepting)
