"""Family D: texts in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule

__all__ = ["FilledUp"]


class FilledUp(Rule):
    """A text is answered otherwise when it is filled up to the length of a longer one beside it.

    The attention mask hides from attention alone what fills up. Positions that are counted from the beginning
    shift where it stands before the text; a mean over all tokens, or the last of them, takes it in.
    """

    code = "D030"
    severity: ClassVar[Severity] = "warning"
    title = "padding changes the answers"
    case = "GPT-2 with a tokenizer that fills up on the left; outputs.last_hidden_state.mean(1)"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare a text alone with the same one in its batch."""
        seen = evidence.padding
        if seen is None or not seen.moved:
            return
        side = "before" if seen.left else "behind"
        yield self.found(
            evidence.name,
            f"a text of {seen.tokens} tokens, with {seen.filled} to fill up {side} it: "
            f"the scores differ by {seen.moved:.1%} from those of the text alone",
            hint="fill up on the right: tokenizer.padding_side = 'right', and save it again"
            if seen.left
            else "leave out what attention_mask leaves out, wherever tokens are pooled",
        )
