"""README.md of a folder of made data: what it is, how it was made, from what."""

from collections.abc import Mapping

from affinage.report.report import Provenance


def data_card(title: str, *, about: str, facts: Mapping[str, str], provenance: Provenance) -> str:
    """Markdown. `about`: what stands in which file; `facts`: name -> value, for a table."""
    made = provenance
    table = {
        **facts,
        "command": f"`{made.command}`",
        "seed": f"{made.seed}",
        "versions": ", ".join(
            f"{name} {value}"
            for name, value in (
                ("affinage", made.affinage),
                ("torch", made.torch),
                ("transformers", made.transformers),
                ("tokenizers", made.tokenizers),
                ("numpy", made.numpy),
            )
            if value
        ),
        "machine": f"{made.hardware.accelerator or made.hardware.cpu}, {made.hardware.cores} cores",
        "made": f"{made.date}, in {made.seconds:,.0f} s",
    }
    rows = "\n".join(f"| {name} | {value.replace('|', '&#124;')} |" for name, value in table.items())
    sources = "\n".join(f"- `{file}`: {digest}" for file, digest in made.data.items())
    return f"""# {title}

{about.strip()}

| | |
|---|---|
{rows}

Read, with sha256:

{sources}
"""
