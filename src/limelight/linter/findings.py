"""The findings of `lint`, as values that print as a report."""

import dataclasses
import textwrap

SEVERITIES = ("error", "warning", "note")


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may be.

    Args:
        path: the path of the layer in the model, such as "decoder/cross_attention", with "#1" and so on after its first call.
        kind: "lost mask", "missing mask", "ignored mask", "weight on padding", "inverted mask", "additive mask", "float mask",
            "float16 scores", "single key", or "dead head".
        severity: "error" if results are wrong, "warning" if they may be, "note" for what is good to know.
        message: what was seen, and why it matters.
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
    """Findings, the most severe first. They print as a report.

    Example:
        >>> from limelight.linter import Finding, Findings
        >>> print(Findings([Finding("reader", "dead head", "note", "Head 1 is uniform.", "Train for longer.")]))
        1 finding: 1 note
        <BLANKLINE>
        note: dead head at 'reader'
          Head 1 is uniform.
          Train for longer.
        >>> Findings()
        No findings.
    """

    def __str__(self) -> str:
        if not self:
            return "No findings."
        counts = {severity: sum(finding.severity == severity for finding in self) for severity in SEVERITIES}
        by_severity = ", ".join(
            f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items() if count
        )
        title = f"{len(self)} finding{'s' if len(self) > 1 else ''}: {by_severity}"
        return "\n\n".join([title, *map(str, self)])

    __repr__ = __str__
