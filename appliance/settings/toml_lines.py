"""On which line of a TOML document each key stands, and where its value begins and ends.

tomllib reads the values but keeps no positions, so the lines come from tree-sitter's syntax tree.
"""

import tomllib
from collections.abc import Iterator, Mapping

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

from appliance.settings.source import KeyPath


def lines_of(text: str) -> Mapping[KeyPath, int]:
    """Return the line, counted from 1, of every key, table and array item of a valid document."""
    return _walked(text).lines


def values_of(text: str) -> Mapping[KeyPath, slice]:
    """Return which bytes of a valid document, as UTF-8, are the value of each key."""
    return _walked(text).values


def _walked(text: str) -> "_Finder":
    parser = Parser(Language(tree_sitter_toml.language()))
    finder = _Finder()
    for node in parser.parse(text.encode()).root_node.named_children:
        if node.type == "table":
            finder.table(node)
        elif node.type == "table_array_element":
            finder.array_table(node)
        else:
            finder.value((), node)
    return finder


class _Finder:
    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.values: dict[KeyPath, slice] = {}
        self._last_item: dict[KeyPath, int] = {}

    def table(self, node: Node) -> None:
        header, *body = _parts(node)
        path = self._inside((), _keys(header))
        self._note(path, header)
        for pair in body:
            self.value(path, pair)

    def array_table(self, node: Node) -> None:
        header, *body = _parts(node)
        *parents, last = _keys(header)
        array = (*self._inside((), parents), last)
        self._last_item[array] = self._last_item.get(array, -1) + 1
        path = (*array, self._last_item[array])
        self._note(path, header)
        for pair in body:
            self.value(path, pair)

    def value(self, start: KeyPath, start_node: Node) -> None:
        """Note a pair or value and everything within it."""
        pending = [(start, start_node)]
        while pending:
            path, node = pending.pop()
            parts = _parts(node)
            if node.type == "pair" and len(parts) == 2:
                inner = self._inside(path, _keys(parts[0]))
                self._note(inner, node)
                self.values[inner] = slice(parts[1].start_byte, parts[1].end_byte)
                pending.append((inner, parts[1]))
            elif node.type == "inline_table":
                pending.extend((path, pair) for pair in parts)
            elif node.type == "array":
                for index, item in enumerate(parts):
                    self._note((*path, index), item)
                    pending.append(((*path, index), item))

    def _inside(self, path: KeyPath, keys: list[str]) -> KeyPath:
        """Go down from `path`; an array of tables on the way means its last item so far."""
        for key in keys:
            path = (*path, key)
            if path in self._last_item:
                path = (*path, self._last_item[path])
        return path

    def _note(self, path: KeyPath, node: Node) -> None:
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                break
            self.lines[path[:length]] = node.start_point[0] + 1


def _parts(node: Node) -> list[Node]:
    return [child for child in node.named_children if child.type != "comment"]


def _keys(node: Node) -> list[str]:
    """Return the keys of a bare, quoted or dotted key."""
    return list(_chain(tomllib.loads(f"{(node.text or b'').decode()} = 0")))


def _chain(table: object) -> Iterator[str]:
    while isinstance(table, dict):
        key, table = next(iter(table.items()))
        yield key
