"""Regular expressions read into a tree: the first step from a pattern to an automaton.

Known are characters, `.`, classes such as [a-z] and [^"], the escapes d D w W s S n r t f v uXXXX
xXX behind a backslash, groups ( ) and (?: ), the bar, and the counts * + ? {m} {m,} {m,n}. They
mean what they mean in `re` with re.ASCII. Everything else is a ValueError that says where it
stands; what refers back or counts nestings could not be a finite automaton at all.
"""

import string
from collections.abc import Iterable
from typing import NamedTuple

Ranges = tuple[tuple[int, int], ...]  # code points from first to last, both included
EVERYTHING: Ranges = ((0, 0x10FFFF),)
NAMED = {"d": "0-9", "w": "a-zA-Z0-9_", "s": " \t\n\r\f\v"}
CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}


class Characters(NamedTuple):
    """One character out of a set."""

    ranges: Ranges


class Sequential(NamedTuple):
    """One part after the other."""

    parts: tuple["Node", ...]


class Choice(NamedTuple):
    """One of several."""

    options: tuple["Node", ...]


class Repeated(NamedTuple):
    """At least `least` and at most `most` times; None: no limit."""

    part: "Node"
    least: int
    most: int | None


Node = Characters | Sequential | Choice | Repeated


def parse(pattern: str) -> Node:
    """The tree of a regular expression; ValueError for what is not known, and where it stands."""
    try:
        return _Parser(pattern).tree()
    except RecursionError:
        raise ValueError(f"the pattern {pattern[:80]!r} is nested too deeply; expected a few "
                         f"hundred groups inside each other at most") from None


def without(ranges: Iterable[tuple[int, int]], removed: Iterable[tuple[int, int]]) -> Ranges:
    """The ranges less those that are removed."""
    rest = tuple(ranges)
    for low, high in removed:
        rest = tuple(part for first, last in rest
                     for part in ((first, min(last, low - 1)), (max(first, high + 1), last))
                     if part[0] <= part[1])
    return rest


class _Parser:
    """Recursive descent: a choice of sequences of repeated atoms."""

    def __init__(self, pattern: str):
        self.pattern, self.at = pattern, 0

    def tree(self) -> Node:
        tree = self.choice()
        if self.at < len(self.pattern):
            raise self.error("a ) that nothing opened")
        return tree

    def error(self, what: str) -> ValueError:
        return ValueError(f"the pattern {self.pattern[:80]!r} has {what} at position {self.at}; "
                          f"known are characters, classes, groups, | and the counts * + ? {{m,n}}")

    def peek(self, count: int = 1) -> str:
        return self.pattern[self.at:self.at + count]

    def take(self) -> str:
        if self.at == len(self.pattern):
            raise self.error("its end, where more was expected,")
        self.at += 1
        return self.pattern[self.at - 1]

    def choice(self) -> Node:
        options = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            options.append(self.sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def sequence(self) -> Node:
        parts = []
        while self.peek() not in ("", "|", ")"):
            parts.append(self.repeated(self.atom()))
        return parts[0] if len(parts) == 1 else Sequential(tuple(parts))

    def repeated(self, part: Node) -> Node:
        sign = self.peek()
        if sign not in ("*", "+", "?", "{") or not sign:
            return part
        self.at += 1
        bounds = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(sign) or self.bounds()
        if self.peek() and self.peek() in "*+?{":
            raise self.error("a second count")  # x*? and x*+ say how to search: nobody searches
        return Repeated(part, *bounds)

    def bounds(self) -> tuple[int, int | None]:
        end = self.pattern.find("}", self.at)
        least, comma, most = self.pattern[self.at:max(end, self.at)].partition(",")
        if not least.isdecimal() or not (most.isdecimal() or most == ""):
            raise self.error("no count {m}, {m,} or {m,n}")
        least, most = int(least), int(most) if most else None if comma else int(least)
        if most is not None and most < least:
            raise self.error("a count with more at least than at most")
        self.at = end + 1
        return least, most

    def atom(self) -> Node:
        sign = self.take()
        if sign == "(":
            if self.peek() == "?":
                if self.peek(2) != "?:":
                    raise self.error("a group of an unknown kind")
                self.at += 2
            inside = self.choice()
            if self.peek() != ")":
                raise self.error("no ) for a (")
            self.at += 1
            return inside
        if sign == "[":
            return Characters(self.character_class())
        if sign == ".":
            return Characters(without(EVERYTHING, [(10, 10)]))
        if sign == "\\":
            return Characters(self.escape())
        if sign in "^$*+?{":
            self.at -= 1
            raise self.error(f"an unknown use of {sign!r}")
        return Characters(((ord(sign), ord(sign)),))

    def escape(self) -> Ranges:
        """What stands behind a backslash."""
        sign = self.take()
        if sign.lower() in NAMED:
            ranges = _Parser(NAMED[sign.lower()] + "]").character_class()
            return ranges if sign.islower() else without(EVERYTHING, ranges)
        if sign in ("u", "x"):
            count = 4 if sign == "u" else 2
            digits = self.peek(count)
            if len(digits) < count or not set(digits) <= set(string.hexdigits):
                raise self.error("no hexadecimal number")
            self.at += count
            return ((int(digits, 16), int(digits, 16)),)
        if sign.isalnum() and sign not in CONTROLS:
            raise self.error(f"the unknown escape \\{sign}")
        code = ord(CONTROLS.get(sign, sign))
        return ((code, code),)

    def character_class(self) -> Ranges:
        """From behind [ to its ]."""
        negated = self.peek() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        while not ranges or self.peek() != "]":
            first = self.member()
            if self.peek() == "-" and self.peek(2) not in ("-", "-]"):
                self.at += 1
                last = self.member()
                if len(first) > 1 or len(last) > 1 or last[0][1] < first[0][0]:
                    raise self.error("a range that is none")
                first = ((first[0][0], last[0][1]),)
            ranges += first
        self.at += 1
        return without(EVERYTHING, ranges) if negated else tuple(ranges)

    def member(self) -> Ranges:
        sign = self.take()
        return self.escape() if sign == "\\" else ((ord(sign), ord(sign)),)
