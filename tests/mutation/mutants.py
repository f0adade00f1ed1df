"""Makes small faults in a syntax tree: one operator, number, condition or statement at a time.

Texts, annotations, decorators and assertions stay as they are: no result depends on them.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
# These keywords decide about a check or about memory, never about a result.
_KEYWORDS_LEFT_ALONE = {"strict", "casting"}


@dataclass(frozen=True)
class Mutant:
    """A module with one fault."""

    number: int  # among the mutants of the module
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.before}  →  {self.after}"


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its text."""
    return [mutant for mutant, _ in _faults(ast.parse(source))]


def mutated(source: str, number: int) -> ast.Module:
    """Return the syntax tree of a module with one of its faults."""
    tree = ast.parse(source)
    put = next(put for mutant, put in _faults(tree) if mutant.number == number)
    put()
    return ast.fix_missing_locations(tree)


def _faults(tree: ast.Module) -> Iterator[tuple[Mutant, Callable[[], None]]]:
    """Yield each fault, and the call that puts it into the tree."""
    number = 0
    for node, put in _places(tree):
        for changed in _changes(node):
            ast.copy_location(changed, node)
            before, after = _short(ast.unparse(node)), _short(ast.unparse(changed))
            yield Mutant(number, getattr(node, "lineno", 0), before, after), partial(put, changed)
            number += 1


def _places(node: ast.AST) -> Iterator[tuple[ast.AST, Callable[[ast.AST], None]]]:
    """Yield each node that may be changed, and the call that puts another in its place."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        items = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, child in items:
            if not isinstance(child, ast.AST) or _is_left_alone(child):
                continue

            def put(
                other: ast.AST, field: str = field, value: object = value, index: int | None = index
            ) -> None:
                if isinstance(value, list) and index is not None:
                    value[index] = other
                else:
                    setattr(node, field, other)

            yield child, put
            yield from _places(child)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name == "__str__"
    if isinstance(node, ast.keyword):
        return node.arg in _KEYWORDS_LEFT_ALONE
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)  # a docstring
    return text or isinstance(node, ast.JoinedStr | ast.Assert | ast.Raise)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _OPERATORS:
        changed = copy.copy(node)
        changed.op = _OPERATORS[type(node.op)]()
        yield changed
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.Compare(node.left, [_COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            ops = [*node.ops[:k], _COMPARISONS[type(op)](), *node.ops[k + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield ast.Constant(2 * node.value or 1.0)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
            other = ast.Name(_FUNCTIONS[node.func.id], ast.Load())
            yield ast.Call(other, node.args, node.keywords)
        for k, keyword in enumerate(node.keywords):
            if keyword.arg and not _is_left_alone(keyword):
                yield ast.Call(node.func, node.args, node.keywords[:k] + node.keywords[k + 1 :])
    if isinstance(node, ast.While) and not any(map(_is_jump, ast.walk(node))):
        yield ast.If(node.test, node.body, node.orelse)
    if isinstance(node, ast.If):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    if isinstance(node, ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()
    if _is_jump(node):
        yield ast.Pass()


def _is_jump(node: ast.AST) -> bool:
    return isinstance(node, ast.Continue | ast.Break)


def _short(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) <= 90 else f"{line[:87]}..."
