"""The plans on the pages are what `affinage plan` prints; the examples for clusters parse, command lines and all."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from affinage.cli.app import app, run
from affinage.recipe import Recipe, parse_overrides
from affinage.training.hardware import MACHINES, machine
from affinage.training.quantities import count_of
from affinage.workflows.plan import plan

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGES = [ROOT / "docs" / "plan.md", ROOT / "docs" / "clusters.md"]
SHOWN = [
    pytest.param(block[1], block[2], id=f"{page.stem}:{page.read_text('utf-8')[: block.start()].count(chr(10)) + 1}")
    for page in PAGES
    for block in re.finditer(r"^```console\n\$ (.+)\n((?:.*\n)*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE)
]


def stripped(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("command", "printed"), SHOWN)
def test_the_page_shows_what_the_command_prints(command: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(shlex.split(command)[1:]) == 0
    assert stripped(printed) == stripped(capsys.readouterr().out)


def test_every_page_shows_a_plan() -> None:
    assert {param.id.partition(":")[0] for param in SHOWN if param.id} == {"plan", "clusters"}


def test_the_table_of_hardware_is_the_planner_s() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\| `[a-z0-9-]+` \|.*$", text, re.M)
    ]
    expected = [
        [
            f"`{name}`",
            known.name,
            "" if known.bf16_flops is None else f"{known.bf16_flops / 1e12:g}",
            f"{known.fp32_flops / 1e12:g}",
            f"{known.memory_bytes / 1e9:.0f} GB",
            known.source,
        ]
        for name, known in MACHINES.items()
    ]
    assert rows == expected


def test_what_the_text_says_beside_the_plans() -> None:
    """138 GB at 4.2 bytes a token; 18 days of a TITAN RTX."""
    text = " ".join(PAGES[1].read_text(encoding="utf-8").split())
    assert "At 4.2 bytes a token" in text
    assert "138 GB are 33 billion tokens" in text
    assert round(138e9 / 4.2 / 1e9) == 33
    half = plan("camembert-base", tokens=33e9 / 2, hardware=["titan-rtx"]).estimates[0]
    whole = plan("camembert-base", tokens=33e9, hardware=["flops=130e12,memory=24GB"], utilisation=0.1).estimates[0]
    assert half.hours / 24 == pytest.approx(18, rel=0.05)
    assert whole.hours / 24 == pytest.approx(18, rel=0.05)
    flops = half.flops_per_token
    assert 0.28 < flops.head / flops.total < 1 / 3, "almost a third"


def commands() -> dict[str, list[str]]:
    """The arguments behind `affinage` of every command line in the examples."""
    script = (EXAMPLES / "slurm.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in script.splitlines():
        if " -m affinage " in line and not line.lstrip().startswith("#"):
            words = shlex.split(line)
            found["slurm.sh"] = words[words.index("affinage") + 1 :]
    for document in yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text(encoding="utf-8")):
        if document["kind"] == "Job":
            (container,) = document["spec"]["template"]["spec"]["containers"]
            found["kubernetes.yaml"] = container["command"][container["command"].index("affinage") + 1 :]
    return found


@pytest.mark.parametrize("name", ["slurm.sh", "kubernetes.yaml"])
def test_the_command_line_of_an_example_is_one_and_trains_on_the_plan_s_tokens(name: str) -> None:
    verb, *arguments = commands()[name]
    command: Any = typer.main.get_command(app)
    given = command.commands[verb].make_context("affinage", arguments).params
    recipe = Recipe.load(given["recipe"], parse_overrides(given["settings"]))
    training = recipe.stages[0].training
    overrides = {"training.batch_size": str(training.batch_size)}
    (on_eight,) = plan(given["teacher"], tokens=33e9, hardware=["8xa100"], overrides=overrides).estimates
    assert given["max_steps"] == on_eight.steps
    assert recipe.stages[0].streaming
    assert f"{given['max_steps']:,} steps are 33 billion tokens" in (EXAMPLES / name).read_text(encoding="utf-8")
    assert f"{on_eight.steps:,}" in PAGES[1].read_text(encoding="utf-8")


def test_the_batch_script_is_one() -> None:
    done = subprocess.run(["bash", "-n", str(EXAMPLES / "slurm.sh")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    options = re.findall(r"^#SBATCH (--[\w-]+)", (EXAMPLES / "slurm.sh").read_text(encoding="utf-8"), re.M)
    assert {"--requeue", "--gpus-per-node", "--time"} <= set(options)


def test_the_job_asks_for_what_it_starts() -> None:
    claim, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert f"--nproc_per_node={container['resources']['limits']['nvidia.com/gpu']}" in container["command"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert pod["restartPolicy"] == "Never"
    assert count_of(claim["spec"]["resources"]["requests"]["storage"], name="storage") > 138e9
    assert machine("8xa100").devices == container["resources"]["limits"]["nvidia.com/gpu"]
