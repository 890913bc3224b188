"""What the experiment of compression tries: every method at three strengths, stacks of them; on which models and tasks.

Sizes and speeds that the stacks aim at, by counting. French: teacher of 6 layers, width 384, 17.2 M parameters, 68.6
MB in float32; student of 3 layers, 11.8 M, of which embeddings 6.3. English: teacher of 6 layers, 22.7 M, 90.9 MB;
student of 3 layers, 17.2 M, of which embeddings 11.9. A map in int8 takes a byte a weight and 0.35 to 0.5 of the time,
a table in 4 bits half a byte, product-quantized (pieces of 4) a quarter and its books.

    aim                   French, MB / what does it            English, MB / what does it
    6× smaller, ≤ 1 %     11.4  int8 alone has 11.8: + table   15.1  int8 alone has 17.2: + table
    12×, ≤ 3.5 %           5.7  pq table 2.0 + 0.6 of the maps  7.6  pq table 3.4 + 0.7 of the maps
    8× faster             3 of 6 layers (2×) × ONNX (1.7×) × int8 (2.2×) = 7.5, + a cut
    15× faster            the same × a cut to 0.4 of the work, or 2 layers × a cut to 0.6
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "recipes"))
from jobs import LANGUAGES as RECIPES
from jobs import Task

SCREEN_STEPS, FINAL_STEPS, LONG_STEPS = 60, 300, 1500
"""of recovery; the screen's are few so that all of it fits into about four hours of two cores"""
BATCH_TOKENS = 2048
"""at most, in a batch of recovery: rows of 256 tokens would take most of the time"""
TRAINED_STEPS = 200
"""of methods that happen during training, which do nothing in a few steps"""
SEEDS = (0, 1, 2)
"""of the final; the screen has the first"""


WHOLE = "whole-"
"""how names begin of variants that are made of the teacher, without a student: is it worth distilling first?"""


@dataclass(frozen=True)
class Language:
    """The teacher that everything is compared with, and the student that is compressed."""

    name: str
    teacher: str
    """folder of the teacher tuned on a task: `{task}`, `{seed}`"""
    student: str
    tasks: tuple[Task, ...]
    screened: tuple[str, ...]
    """names of those that the screen has"""


@dataclass(frozen=True)
class Job:
    """One model, one plan, one seed."""

    language: Language
    task: Task
    stage: str
    """screen, final or speed"""
    name: str
    """of the variant: method and strength, or the stack's"""
    steps: tuple[str, ...]
    """as `--with` takes them"""
    recover: int
    seed: int

    @property
    def out(self) -> str:
        """Its result below `results/`."""
        return f"{self.language.name}/{self.stage}/{self.task.name}-{self.name}-{self.seed}.json"

    @property
    def batch(self) -> int:
        """Rows of a training step."""
        return min(self.task.batch, BATCH_TOKENS // self.task.length)

    @property
    def after(self) -> tuple[str, ...]:
        """The tuned models that it starts from: the teacher, and what is compressed, the student or that itself."""
        teacher, student = self.language.teacher, self.language.student
        folders = (teacher, teacher if self.name.startswith(WHOLE) else student)
        return tuple(folder.format(task=self.task.name, seed=self.seed) for folder in folders)


SQUAD2 = Task("squad2", "en/squad2", 8100, 3, epochs=2, batch=16, length=256)
"""5,400 questions of SQuAD 1.1 and half as many that were moved away from their answers"""


def tasks(language: str, *names: str) -> tuple[Task, ...]:
    """Tasks of the comparison of recipes: data, lengths and batches as there."""
    known = next(one.tasks for one in RECIPES if one.name == language)
    return tuple(next(task for task in known if task.name == name) for name in names)


LANGUAGES: Mapping[str, Language] = {
    "en": Language(
        "en",
        teacher="en/teacher-{task}-{seed}",
        student="en/student-{task}-{seed}",
        tasks=(*tasks("en", "sst2", "mrpc", "rte", "squad"), SQUAD2),
        screened=("sst2", "mrpc"),
    ),
    "fr": Language(
        "fr",
        teacher="fr/teacher-{task}-{seed}",
        student="fr/shipped-student-{task}-{seed}",
        tasks=tasks("fr", "sentiment", "qa", "ner"),
        screened=("sentiment", "qa"),
    ),
}

_TABLE = "parts=embeddings"
_MAPS = "parts=linears"

SCREEN: Mapping[str, tuple[str, ...]] = {
    # pruning
    "prune-magnitude": ("sparsity=0.5", "sparsity=0.7", "sparsity=0.85"),
    "prune-magnitude-uniform": ("sparsity=0.5", "sparsity=0.7", "sparsity=0.85"),
    "prune-magnitude-distribution": ("sparsity=0.5", "sparsity=0.7", "sparsity=0.85"),
    "prune-obd": ("sparsity=0.5", "sparsity=0.7", "sparsity=0.85"),
    "prune-gradual": ("sparsity=0.5", "sparsity=0.7", "sparsity=0.85"),
    "prune-movement": ("sparsity=0.5", "sparsity=0.7", "sparsity=0.85"),
    "prune-movement-soft": ("penalty=50", "penalty=100", "penalty=200"),
    "prune-blocks": ("sparsity=0.3", "sparsity=0.5", "sparsity=0.7"),
    "prune-n-m": ("n=4,m=8", "n=2,m=4", "n=1,m=4"),
    "prune-heads": ("keep=0.75", "keep=0.5", "keep=0.25"),
    "prune-neurons": ("keep=0.75", "keep=0.5", "keep=0.25"),
    "prune-neurons-evenly": ("keep=0.75", "keep=0.5", "keep=0.25"),
    "prune-neurons-onorm": ("keep=0.75", "keep=0.5", "keep=0.25"),
    "prune-fisher": ("keep=0.75", "keep=0.5", "keep=0.3"),
    "prune-to-latency": ("latency=0.75", "latency=0.5", "latency=0.35"),
    "prune-width": ("keep=0.75", "keep=0.5", "keep=0.34"),
    "drop-layers": ("keep=2", "keep=1"),
    "drop-layers-by-contribution": ("keep=2", "keep=1"),
    "layer-drop": ("keep=2", "keep=1"),
    "search-layers": ("keep=2", "keep=1"),
    "trim-vocabulary": ("min_count=1", "min_count=2", "min_count=4"),
    # quantization
    "int8": ("", "embeddings=false", "per_channel=false"),
    "int8-static": ("", "ranges=percentile", "ranges=entropy"),
    "qat-int8": ("", "activations=dynamic"),
    "int8-embeddings": ("",),
    "int4": ("group=32", "group=64", "group=128"),
    "int4-embeddings": ("group=32", "group=64", "group=128"),
    "qat-int4": ("", "embeddings=false"),
    "mixed-bits": ("bits=5", "bits=4", "bits=3"),
    "k-means": ("bits=4", "bits=3", "bits=2"),
    "pq-embeddings": ("width=2", "width=4", "width=8"),
    "ternary": ("", "embeddings=false"),
    "qat-ternary": ("", "embeddings=false"),
    "binary": ("", "embeddings=false"),
    "qat-binary": ("", "embeddings=false"),
    # sharing
    "share-layers": ("groups=2", "groups=1", "parts=feed-forward"),
    "albert": ("groups=2", "groups=1", "embedding_size=128"),
    "quotient-remainder": ("keep=0.5", "keep=0.25", "keep=0.1"),
    "light-rnn": ("keep=0.1", "keep=0.05", ""),
    "slim-embeddings": ("keep=0.25", "keep=0.125", "keep=0.06"),
    # decomposition
    "svd": (f"keep=0.7,{_MAPS}", f"keep=0.5,{_MAPS}", f"keep=0.5,{_TABLE}"),
    "fisher-svd": (f"keep=0.7,{_MAPS}", f"keep=0.5,{_MAPS}", f"keep=0.5,{_TABLE}"),
    "activation-svd": (f"keep=0.7,{_MAPS}", f"keep=0.5,{_MAPS}", f"keep=0.5,{_TABLE}"),
    "sensitivity-svd": ("keep=0.7", "keep=0.5", "keep=0.35"),
    "kronecker": ("terms=3,parts=linears", "terms=2,parts=linears", f"terms=1,{_TABLE}"),
    "tensor-train": (f"keep=0.5,{_MAPS}", f"keep=0.25,{_TABLE}", f"keep=0.1,{_TABLE}"),
    "tucker": (f"keep=0.7,{_MAPS}", f"keep=0.5,{_MAPS}", f"keep=0.5,{_TABLE}"),
    "west": ("length=4", "length=8", "length=16"),
}
"""method -> its strengths, the mildest first. A student of three layers has but two to leave out; a method that has no
strength has variants instead"""

_INT4 = "int4:activations=dynamic"
_TERNARY = "qat-ternary:activations=dynamic"
STACKS: Mapping[str, tuple[str, ...]] = {
    # ≤ 1 %: ≥ 8× faster, ≥ 6× smaller
    "int8": ("int8",),
    "int4": (_INT4,),
    "fisher60-int4table-int8": ("prune-fisher:keep=0.6", "int4-embeddings", "int8"),
    "trim-fisher60-int4": ("trim-vocabulary", "prune-fisher:keep=0.6", _INT4),
    # ≤ 3.5 %: ≥ 15× faster, ≥ 12× smaller
    "fisher50-pq-int4": ("prune-fisher:keep=0.5", "pq-embeddings", _INT4),
    "fisher30-pq-int8": ("prune-fisher:keep=0.3", "pq-embeddings", "int8"),
    "latency35-pq-int4": ("prune-to-latency:latency=0.35", "pq-embeddings", _INT4),
    "two-layers-fisher60-pq-int4": ("drop-layers:keep=2", "prune-fisher:keep=0.6", "pq-embeddings", _INT4),
    # the fewest bytes
    "fisher60-k-means3": ("prune-fisher:keep=0.6", "k-means:bits=3,activations=dynamic"),
    "qat-ternary": (_TERNARY,),
    "fisher60-qat-ternary": ("prune-fisher:keep=0.6", _TERNARY),
    # other paradigms on top of each other
    "width75-pq-int8": ("prune-width:keep=0.75", "pq-embeddings", "int8"),
    "fisher60-activation-svd-int8": ("prune-fisher:keep=0.6", f"activation-svd:keep=0.6,{_MAPS}", "int8"),
    "share2-pq-int8": ("share-layers:groups=2", "pq-embeddings", "int8"),
    # of the teacher: as much work as the student's with 0.7 and 0.5 of its own
    f"{WHOLE}fisher35-int4": ("prune-fisher:keep=0.35", _INT4),
    f"{WHOLE}fisher25-pq-int4": ("prune-fisher:keep=0.25", "pq-embeddings", _INT4),
}
"""sixteen variants, of which thirteen are stacks: the final, chosen by the English screen and looks at strengths (LOG).
Trained once, after the last step that can be"""
LONG: Mapping[str, tuple[str, ...]] = {f"{WHOLE}fisher35-int4-long": STACKS[f"{WHOLE}fisher35-int4"]}
"""of English alone, with `LONG_STEPS`: added when the first seed had shown that question answering wants them (LOG)"""


def stacks(language: str) -> Mapping[str, tuple[str, ...]]:
    """Of a language's final."""
    return {**STACKS, **LONG} if language == "en" else STACKS


def screen(language: Language) -> Iterator[Job]:
    """Every method alone at its strengths, on two tasks."""
    for task in (task for task in language.tasks if task.name in language.screened):
        for method, strengths in SCREEN.items():
            for strength in strengths:
                step = f"{method}:{strength}" if strength else method
                yield Job(language, task, "screen", variant_name(method, strength), (step,), SCREEN_STEPS, SEEDS[0])


def variant_name(method: str, strength: str) -> str:
    """Of one that is screened: `prune-heads-keep0.5`."""
    return method + "".join(f"-{part}" for part in strength.replace("=", "").split(",") if part)


def final(language: Language) -> Iterator[Job]:
    """The stacks, on every task, with every seed."""
    for seed in SEEDS:
        for task in language.tasks:
            for name, steps in stacks(language.name).items():
                recover = LONG_STEPS if name in LONG else FINAL_STEPS
                yield Job(language, task, "final", name, steps, recover, seed)


def speed(language: Language) -> Iterator[Job]:
    """Every variant once more, untrained, which changes nothing of its speed: on one machine that does nothing else."""
    alone = {job.name: job.steps for job in screen(language)}
    for name, steps in {**alone, **stacks(language.name)}.items():
        yield Job(language, language.tasks[0], "speed", name, steps, 0, SEEDS[0])


def jobs(names: tuple[str, ...], stages: tuple[str, ...]) -> list[Job]:
    """Those of some languages and stages: the screen of all, then the final, one seed after the other, then speeds."""
    found = [job for name in names for job in screen(LANGUAGES[name])] if "screen" in stages else []
    last = [job for name in names for job in final(LANGUAGES[name])] if "final" in stages else []
    timed = [job for name in names for job in speed(LANGUAGES[name])] if "speed" in stages else []
    return [*found, *sorted(last, key=lambda job: job.seed), *timed]
