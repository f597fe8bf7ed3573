"""Reverse-mode automatic differentiation of single numbers: backpropagation to be read.

`Value` does for one number what `torch.Tensor` does for arrays. Every operation remembers its
inputs and the slope of its result along each of them; `backward` then walks from the result to
the inputs and applies the chain rule.
"""

import math
from typing import Self


class Value:
    """A number that knows which numbers it was computed from.

    `data` is the number and `gradient` the derivative, with respect to this number, of the result
    on which `backward` was called. As in PyTorch, gradients add up until you set them to 0.
    Raises ValueError for operands that are not plain real numbers, and where a function has no
    real value or no finite slope.
    """

    def __init__(self, data: float, inputs: tuple["Value", ...] = (),
                 slopes: tuple[float, ...] = ()) -> None:
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise ValueError(f"got {data!r} of type {type(data).__name__}; expected one real "
                             "number: for an array, make a Value of each element")
        self.data = float(data)
        self.gradient = 0.0
        self._inputs = inputs
        self._slopes = slopes  # d self / d input, one for each input

    def __add__(self, other: Self | float) -> "Value":
        other = _as_value(other)
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other: Self | float) -> "Value":
        other = _as_value(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def __truediv__(self, other: Self | float) -> "Value":
        other = _as_value(other)
        if other.data == 0:
            raise ValueError(f"{self.data} / 0 is not a number; expected a divisor other than 0")
        return Value(self.data / other.data, (self, other),
                     (1 / other.data, -self.data / other.data / other.data))

    def __pow__(self, exponent: float) -> "Value":
        """self ** exponent for an exponent that is a constant."""
        try:
            if self.data < 0 and not float(exponent).is_integer():
                raise ArithmeticError("the value is complex")
            slope = exponent * self.data ** (exponent - 1) if exponent != 0 else 0.0
            return Value(self.data**exponent, (self,), (slope,))
        except (ArithmeticError, TypeError):  # also: beyond the largest float, or 1 / 0
            raise ValueError(f"{self.data} ** {exponent!r} has no finite real value or slope; "
                             "expected a positive base, a less extreme exponent, and a constant: "
                             "write a ** b with a variable b as (b * a.log()).exp()") from None

    def exp(self) -> "Value":
        """e to the power of this number."""
        if self.data > 709:
            raise ValueError(f"exp({self.data}) overflows; expected at most 709: subtract the "
                             "largest score before a softmax")
        result = math.exp(self.data)
        return Value(result, (self,), (result,))

    def log(self) -> "Value":
        """Natural logarithm."""
        if self.data <= 0:
            raise ValueError(f"log({self.data}) is not a real number; expected a positive one")
        return Value(math.log(self.data), (self,), (1 / self.data,))

    def tanh(self) -> "Value":
        """Hyperbolic tangent."""
        result = math.tanh(self.data)
        return Value(result, (self,), (1 - result * result,))

    def relu(self) -> "Value":
        """max(0, self). At 0 there is no slope; we take 0, as PyTorch does."""
        return Value(max(0.0, self.data), (self,), (float(self.data > 0),))

    def backward(self) -> None:
        """Add to each input's `gradient` the derivative of this number with respect to it.

        An input comes last, after all numbers that use it: only then is its own share complete.
        """
        shares = {self: 1.0}  # what this pass has found; `gradient` may hold an older pass
        for value in reversed(_topological_order(self)):
            share = shares[value]
            value.gradient += share
            for source, slope in zip(value._inputs, value._slopes):
                shares[source] = shares.get(source, 0.0) + slope * share

    def __neg__(self) -> "Value":
        return self * -1.0

    def __sub__(self, other: Self | float) -> "Value":
        return self + -_as_value(other)

    def __rsub__(self, other: float) -> "Value":
        return _as_value(other) - self

    def __rtruediv__(self, other: float) -> "Value":
        return _as_value(other) / self

    __radd__ = __add__
    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"Value({self.data:.6g}, gradient={self.gradient:.6g})"


def _as_value(number: Value | float) -> Value:
    return number if isinstance(number, Value) else Value(number)


def _topological_order(result: Value) -> list[Value]:
    """All values behind `result`, each after its inputs (a loop: a recursion would overflow)."""
    order, seen, stack = [], set(), [(result, False)]
    while stack:
        value, inputs_done = stack.pop()
        if inputs_done:
            order.append(value)
        elif value not in seen:
            seen.add(value)
            stack.append((value, True))
            stack.extend((source, False) for source in value._inputs)
    return order
