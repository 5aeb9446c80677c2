"""What was found, as a value that reads as a page."""

import dataclasses
import textwrap

SEVERITIES = ("error", "warning", "note")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is, or may be, wrong.

    Args:
        path: the path of the layer in the model, such as "decoder/cross_attention".
        kind: "lost mask", "missing mask", "ignored mask", "weight on padding", "inverted mask", "additive mask", "float mask",
            "float16 scores", or "dead head".
        severity: "error" where results are wrong, "warning" where they may be, "note" for what is good to know.
        message: what was seen.
        advice: what to do.
    """

    path: str
    kind: str
    severity: str
    message: str
    advice: str

    def __str__(self) -> str:
        lines = [f"{self.severity}: {self.kind} at {self.path!r}"]
        for text in (self.message, self.advice):
            lines += textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="  ")
        return "\n".join(lines)


class Findings(tuple[Finding, ...]):
    """Findings, the worst first. Printed, they are a page of text; empty, they say so.

    Example:
        >>> from limelight.linter import Finding, Findings
        >>> print(Findings([Finding("reader", "dead head", "note", "Head 1 is uniform.", "Train on.")]))
        1 finding: 1 note
        <BLANKLINE>
        note: dead head at 'reader'
          Head 1 is uniform.
          Train on.
        >>> Findings()
        Nothing found.
    """

    def __str__(self) -> str:
        if not self:
            return "Nothing found."
        counts = {severity: sum(one.severity == severity for one in self) for severity in SEVERITIES}
        named = ", ".join(
            f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items() if count
        )
        head = f"{len(self)} finding{'s' if len(self) > 1 else ''}: {named}"
        return "\n\n".join([head, *map(str, self)])

    __repr__ = __str__
