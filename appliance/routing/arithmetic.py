"""The arithmetic of seed prompts: + - * / and parentheses over whole numbers, nothing else."""

import ast
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction

_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
LONGEST = 200


def compute(expression: str, values: Mapping[str, int]) -> str:
    """Return the value as text: `7`, `2.5`.

    Raises:
        ValueError: the expression holds something else, or divides by 0.
    """
    if len(expression) > LONGEST:
        raise ValueError(f"the expression is longer than {LONGEST} characters")
    try:
        result = _value(ast.parse(expression, mode="eval").body, values)
    except (SyntaxError, ZeroDivisionError, RecursionError) as error:
        raise ValueError(f"{expression!r} can't be computed: {error}") from None
    return str(result.numerator) if result.denominator == 1 else repr(float(result))


def _value(node: ast.expr, values: Mapping[str, int]) -> Fraction:
    match node:
        case ast.Constant(value=int() as number):
            return Fraction(number)
        case ast.Name(id=name) if name in values:
            return Fraction(values[name])
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, values), _value(right, values))
    raise ValueError(f"{ast.unparse(node)!r} is neither a whole number, a known name nor one of + - * /")
