"""Which runs the comparison of recipes is made of: their commands, and what each needs to be there before it.

One language at a time: a teacher; general students of it, one a recipe, all with as many steps over as many tokens; the
teacher and every student fine-tuned on every task; the general student of BASE distilled for every task by each of
the recipes on tasks, in as many steps as fine-tuning takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

BASE = "distilcamembert"
"""the general recipe whose student the recipes on tasks start from"""
ON_TASKS = ("task", "patient-kd", "tinybert-6")
AUGMENTED = "tinybert-6-augmented.yaml"
"""tinybert-6 under another name, so that reports tell the two apart; `run.py` writes it"""
GENERAL_STEPS, GENERAL_ROWS, ROW_LENGTH = 800, 24, 128
SHAPE = ("student.num_hidden_layers=3", "student.init=layers", "student.layers=odd", "student.dropout=0")
"""of every student: half the teacher's layers, the last of each pair, as the losses between layers suppose"""


@dataclass(frozen=True)
class Task:
    """A task of the comparison and how long it is trained on."""

    name: str
    data: str
    rows: int
    """of its training part, or those that the comparison takes"""
    seeds: int
    epochs: int = 3
    batch: int = 16
    length: int = 128
    augmented: bool = False
    """TinyBERT's stages also get two changed copies of every text"""

    @property
    def steps(self) -> int:
        """Optimizer steps of every run on this task."""
        return -(-self.rows // self.batch) * self.epochs


@dataclass(frozen=True)
class Language:
    """A teacher, text to distil it on, tasks to measure it by."""

    name: str
    teacher: str
    corpus: str
    general: tuple[str, ...]
    """recipes on text"""
    rate: str
    """learning rate of fine-tuning, of all models, chosen on the valid parts (LOG)"""
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Job:
    """One command of affinage that writes the folder `out`."""

    out: str
    arguments: tuple[str, ...]
    after: tuple[str, ...] = field(default=())


LANGUAGES = (
    Language(
        "en",
        teacher="en/teacher",
        corpus="en/corpus",
        general=("distilcamembert", "distilbert", "tinybert-6", "minilm", "minilmv2"),
        rate="1e-4",
        tasks=(
            Task("cola", "en/cola", 8551, 3, batch=32, length=64),
            Task("mrpc", "en/mrpc", 3668, 3, augmented=True),
            Task("stsb", "en/stsb", 5749, 3, augmented=True),
            Task("rte", "en/rte", 2490, 3, length=256, augmented=True),
            Task("sst2", "en/sst2", 8000, 1, length=64),
            Task("squad", "en/squad", 6000, 1, epochs=2, length=256),
        ),
    ),
    Language(
        "fr",
        teacher="shipped:teacher",
        corpus="fr/corpus",
        general=("distilcamembert", "distilroberta", "tinybert-6", "minilm", "minilmv2"),
        rate="3e-4",
        tasks=(
            Task("sentiment", "fr/reviews", 5413, 3, epochs=1),
            Task("ner", "fr/wikineural", 11400, 3, epochs=1, length=96),
            Task("qa", "fr/piaf", 6024, 1, epochs=2, length=256),
        ),
    ),
)


def jobs(language: Language) -> Iterator[Job]:
    """All runs of a language, those that others wait for first."""
    prefix = f"{language.name}/"
    for recipe in language.general:
        yield general(language, recipe, prefix + recipe)
    for task in language.tasks:
        for seed in range(task.seeds):
            yield finetuned(language, task, seed, language.teacher, f"{prefix}teacher-{task.name}-{seed}")
    for task in language.tasks:
        if task.augmented:
            taught = f"{prefix}teacher-{task.name}-0"
            command = ("augment", language.teacher, "--task", task.name, "--data", task.data, "--copies", "2")
            # The English teacher's vocabulary head was trained on single texts: it knows nothing of pairs.
            yield Job(f"{prefix}more-{task.name}", (*command, "--corpus", language.corpus, "--no-pairs"), (taught,))
        for seed in range(task.seeds):
            for recipe in language.general:
                out = f"{prefix}{recipe}-{task.name}-{seed}"
                yield finetuned(language, task, seed, prefix + recipe, out, after=(prefix + recipe,))
            for recipe in ON_TASKS:
                yield distilled(language, task, seed, recipe)
            if task.augmented:
                yield distilled(language, task, seed, "tinybert-6", augmented=True)


def general(language: Language, recipe: str, out: str) -> Job:
    """A general student: the recipe's losses and rates, the comparison's shape and budget."""
    budget = (f"training.batch_size={GENERAL_ROWS}", "training.gradient_accumulation_steps=1")
    rate = ("training.learning_rate=5e-4", f"training.row_length={ROW_LENGTH}", "training.warmup=0.05")
    command = ("distil", language.teacher, "--corpus", language.corpus, "--recipe", recipe)
    return Job(out, (*command, *settings(*SHAPE, *budget, *rate), "--max-steps", str(GENERAL_STEPS)))


def finetuned(language: Language, task: Task, seed: int, model: str, out: str, *, after: tuple[str, ...] = ()) -> Job:
    """A model on a task, by its labels alone."""
    command = ("finetune", model, "--task", task.name, "--data", task.data)
    return Job(out, (*command, *settings(*on(language, task)), "--seed", str(seed)), after)


def distilled(language: Language, task: Task, seed: int, recipe: str, *, augmented: bool = False) -> Job:
    """The general student of BASE on a task, with the help of the teacher that was tuned with the same seed."""
    prefix = f"{language.name}/"
    teacher, student = f"{prefix}teacher-{task.name}-{seed}", prefix + BASE
    named = AUGMENTED if augmented else recipe
    command: tuple[str, ...] = ("distil", teacher, "--task", task.name, "--data", task.data, "--recipe", named)
    after: tuple[str, ...] = (teacher, student)
    out = f"{prefix}{recipe}-on-{task.name}-{seed}"
    budget: tuple[str, ...] = (f"training.max_steps={task.steps}",)
    if recipe == "tinybert-6":  # two stages share the steps
        layers = task.steps * 2 // 3
        budget = (f"stages.1.training.max_steps={layers}", f"stages.2.training.max_steps={task.steps - layers}")
    if augmented:
        more = f"{prefix}more-{task.name}"
        command, after = (*command, "--unlabelled", f"{more}/unlabelled.jsonl"), (*after, more)
        out = f"{prefix}tinybert-6-augmented-on-{task.name}-{seed}"
    chosen = (*(s for s in on(language, task) if "epochs" not in s), *budget)
    return Job(out, (*command, "--from", student, *settings(*chosen), "--seed", str(seed)), after)


def on(language: Language, task: Task) -> tuple[str, ...]:
    """How every model is trained on a task."""
    return (
        f"training.learning_rate={language.rate}",
        f"training.batch_size={task.batch}",
        f"training.row_length={task.length}",
        f"training.epochs={task.epochs}",
        "student.dropout=0",
    )


def settings(*pairs: str) -> tuple[str, ...]:
    """As options of the command line."""
    return tuple(part for pair in pairs for part in ("--set", pair))
