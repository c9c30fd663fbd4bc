r"""The board as a LaTeX table in booktabs' rules, for a paper: needs `\usepackage{booktabs}` and nothing else."""

from __future__ import annotations

import re

from whitebench_leaderboards.board import Board
from whitebench_leaderboards.column import Column, head_of
from whitebench_leaderboards.notation import Quantity, plain
from whitebench_leaderboards.sheet import PUBLISHED, Field, Row, Sheet, budget, sheets_of, title

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "–": "--",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


def to_latex(board: Board, link: str = "") -> str:
    """Return the board as one LaTeX table: a block of rows per task, the best mean of each in bold.

    `link` is the address at which the board is to be found; it stands in the caption.
    """
    sheets = [sheet.select({column.key for column in sheet.columns if column.in_paper}) for sheet in sheets_of(board)]
    columns = sheets[0].columns if sheets else ()
    notes = list(dict.fromkeys(note for sheet in sheets for note in sheet.notes))
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\small",
        rf"\caption{{{_caption(board, sheets, link)}}}",
        rf"\label{{tab:{re.sub(r'[^a-z0-9-]', '-', board.heading.suite.lower())}}}",
        rf"\begin{{tabular}}{{@{{}}{''.join('l' if column.is_text else 'r' for column in columns)}@{{}}}}",
        r"\toprule",
        *_head(columns, sheets),
    ]
    for sheet in sheets:
        lines.append(r"\midrule")
        if len(sheets) > 1:
            lines += [
                rf"\multicolumn{{{len(columns)}}}{{@{{}}l}}{{\emph{{{escape(sheet.task)}}}}} \\",
                r"\addlinespace",
            ]
        lines += [_line(_row(row, sheet, notes)) for row in sheet.rows]
    lines += [r"\bottomrule", r"\end{tabular}", *_below(sheets, notes), r"\end{table}"]
    return "\n".join([*lines, ""])


def escape(text: str) -> str:
    """Return `text` with every character that LaTeX reads as a command made literal."""
    return "".join(_SPECIAL.get(letter, letter) for letter in plain(text))


def _caption(board: Board, sheets: list[Sheet], link: str) -> str:
    heading = board.heading
    name = plain(heading.suite)
    rest = title(heading).removeprefix(name) + (f" on {sheets[0].task}" if len(sheets) == 1 else "")
    how = f"Mean over seeds with half its {100 * board.confidence:g} % Student-t interval, best mean in bold"
    how += (
        ", underlined what the data do not tell from the best" if any(entry.is_tied for entry in board.entries) else ""
    )
    when = f" Results as of {board.ended[:10]}." if board.ended else ""
    where = f" {link}" if link else ""
    why = "a rank is a range where the data do not tell entries apart"
    return rf"\textsc{{{escape(name)}}}" + escape(f"{rest}: {budget(heading)}. {how}; {why}.{when}{where}")


def _line(cells: list[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _head(columns: tuple[Column, ...], sheets: list[Sheet]) -> list[str]:
    """Return the head's rows, names broken so that they are no wider than what stands below them."""
    heads = []
    has_units = any(column.unit for column in columns)
    for index, column in enumerate(columns):
        width = max(len(str(row.fields[index].cell)) for sheet in sheets for row in sheet.rows)
        lines = head_of(column, width)
        heads.append(lines if column.unit or not has_units else [*lines, ""])
    height = max((len(head) for head in heads), default=0)
    return [
        _line([escape(head[line - height + len(head)]) if line >= height - len(head) else "" for head in heads])
        for line in range(height)
    ]


def _row(row: Row, sheet: Sheet, notes: list[str]) -> list[str]:
    return [
        _field(
            one,
            [1 + notes.index(sheet.notes[number - 1]) for number in one.notes],
            mark=_mark(row) if column.is_primary else None,
        )
        for one, column in zip(row.fields, sheet.columns, strict=True)
    ]


def _mark(row: Row) -> str | None:
    return r"\mathbf" if row.is_leader else r"\underline" if row.is_tied else None


def _field(one: Field, numbers: list[int], *, mark: str | None) -> str:
    """Write a field; footnotes are numbered through all sheets."""
    text = escape(one.cell.text) if one.cell.quantity is None else _quantity(one.cell.quantity, mark)
    return text + (rf"\textsuperscript{{{','.join(map(str, numbers))}}}" if numbers else "")


def _quantity(quantity: Quantity, mark: str | None) -> str:
    mean = quantity.mean.replace("−", "-")
    maths = rf"{mark}{{{mean}}}" if mark else mean
    if quantity.half_width is not None:
        maths += rf" \pm {quantity.half_width}"
    if quantity.exponent is not None:
        both = rf"({maths})" if quantity.half_width is not None else maths
        maths = rf"{both} \times 10^{{{quantity.exponent}}}"
    return f"${maths}$" + (rf"\,{escape(quantity.unit)}" if quantity.unit else "")


def _below(sheets: list[Sheet], notes: list[str]) -> list[str]:
    lines = [rf"\textsuperscript{{{number}}} {escape(note)}." for number, note in enumerate(notes, start=1)]
    for sheet in sheets:
        where = f"On {sheet.task}: " if len(sheets) > 1 else ""
        if sheet.ranking:
            lines.append(escape(where + sheet.ranking))
        if sheet.absent:
            lines.append(escape(f"{where}Cells without a current result: {'; '.join(sheet.absent)}."))
        if sheet.published:
            lines.append(escape(f"{where}{PUBLISHED} {'; '.join(sheet.published)}."))
    return [r"\par\medskip\footnotesize\raggedright", *(rf"\par {line}" for line in lines)] if lines else []
