"""Sums in a graph: what ComfyMathExpression works out.

Owns a small language: numbers, names, `+ - * / // % **`, comparisons, `and or not`, `a if b else c` and a dozen functions.
Nothing is ever evaluated as Python: the text is parsed, and only what is listed here is walked through, so that a graph from
anywhere can do no more than reckon. The functions are those of ComfyUI's node (comfy_extras/nodes_math.py).
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

LARGEST_POWER = 4000
LARGEST_BITS = 2**16
MOST_DIGITS = 300
LONGEST_TEXT = 10_000

Number = int | float


def _power(base: Number, exponent: Number) -> Any:
    if abs(exponent) > LARGEST_POWER:
        raise ValueError(f"Exponent {exponent} exceeds maximum allowed ({LARGEST_POWER})")
    if isinstance(base, int) and base.bit_length() * abs(exponent) > LARGEST_BITS:
        raise OverflowError("the number is too large")
    return base**exponent


def _rounded(number: Number, digits: int = 0) -> Any:
    if abs(digits) > MOST_DIGITS:
        raise OverflowError("the number has no such digit")
    return round(number, digits) if digits else round(number)


def _total(*numbers: Any) -> Any:
    return sum(numbers[0]) if len(numbers) == 1 and isinstance(numbers[0], list) else sum(numbers)


_FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "sum": _total, "min": min, "max": max, "abs": abs, "round": _rounded, "pow": _power, "sqrt": math.sqrt, "ceil": math.ceil, "floor": math.floor,
        "log": math.log, "log2": math.log2, "log10": math.log10, "sin": math.sin, "cos": math.cos, "tan": math.tan, "int": int, "float": float,
    }
)  # fmt: skip
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = MappingProxyType(
    {
        ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod, ast.Pow: _power,
    }
)  # fmt: skip
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = MappingProxyType({ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_})
_COMPARED: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = MappingProxyType(
    {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq: operator.ne}
)


def worked_out(expression: str, values: Mapping[str, Any]) -> Number:
    """Work an expression out.

    Args:
        expression: e.g. `floor(a / 2) * b + 1`.
        values: numbers by name; all of them are `values` as well.

    Raises:
        ValueError: it is empty, cannot be read, uses what is not there, or gives no finite number.
    """
    if not expression.strip():
        raise ValueError("Expression cannot be empty.")
    try:
        tree = ast.parse(expression.strip()[:LONGEST_TEXT], mode="eval")
        result = _value(tree.body, {**values, "values": list(values.values())})
        finite = isinstance(result, (int, float)) and math.isfinite(result)
    except (SyntaxError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"Math Expression '{expression}' cannot be worked out: {error}") from error
    if not finite:
        raise ValueError(f"Math Expression '{expression}' must evaluate to a finite number, got {result!r}")
    number: Number = result
    return number


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float()):
            return node.value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _checked(_BINARY[type(op)](_number(left, names), _number(right, names)))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand, names))
        case ast.BoolOp(op=op, values=parts):
            return _either(parts, names, until=isinstance(op, ast.Or))
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _compared(left, ops, others, names)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, names) else orelse, names)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_value(argument, names) for argument in arguments))
    raise ValueError(f"'{ast.unparse(node)}' is nothing this node can work out.")


def _number(node: ast.expr, names: Mapping[str, Any]) -> Number:
    """Give a number: a list would grow when multiplied."""
    value = _value(node, names)
    if not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return value


def _checked(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
        raise OverflowError("the number is too large")
    return value


def _either(parts: list[ast.expr], names: Mapping[str, Any], *, until: bool) -> Any:
    """Give the first part that is true (`until`) or false, else the last, as `or` and `and` do."""
    value: Any = None
    for part in parts:
        value = _value(part, names)
        if bool(value) is until:
            return value
    return value


def _compared(left: ast.expr, ops: list[ast.cmpop], others: list[ast.expr], names: Mapping[str, Any]) -> bool:
    first = _value(left, names)
    for op, other in zip(ops, others, strict=True):
        if type(op) not in _COMPARED:
            raise ValueError(f"'{type(op).__name__}' is no comparison of numbers.")
        second = _value(other, names)
        if not _COMPARED[type(op)](first, second):
            return False
        first = second
    return True
