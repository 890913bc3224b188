"""Which runs the comparison of recipes is made of: their commands, and what each needs to be there before it.

One language at a time: a teacher; general students of it, one a recipe, all with as many steps over as many tokens; the
teacher and every student fine-tuned on every task; the general student of BASE distilled for every task by each of
the recipes on tasks, in as many steps as fine-tuning takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

BASE = "distilcamembert"
"""the general recipe whose student the recipes on tasks start from"""
ON_TASKS = ("tinybert-6", "task", "patient-kd", "tinybert-task")
ALONE = "tinybert-task"
"""the same stages, from the teacher's own layers: what needs no general student"""
AUGMENTED = "tinybert-6-augmented"
"""tinybert-6 under another name, so that reports tell the two apart; `prepare.py` writes it"""
LONGER, TIMES = "tinybert-task-longer", 4
"""ALONE outside the common budget, first seed: so many times the steps, and the changed copies where they are made"""
WINNER = ALONE
"""the recipe that is also run on the rest of a suite"""
ROW_LENGTH = 128
FEW_LOOKS = ("held_out=0.0005", "training.evaluations=2")
"""of runs on text: their held-out figures are no part of the comparison, and cost time"""


@dataclass(frozen=True)
class Budget:
    """How long runs on text are, in optimizer steps of 24 rows (students) and 48 rows (the English teacher's head)."""

    general: int = 300
    head: int = 400
    together: int = 300


@dataclass(frozen=True)
class Task:
    """A task of the comparison and how long it is trained on."""

    name: str
    data: str
    rows: int
    """of its training part that are trained on: where GLUE's dev part is the test part, a tenth is held out"""
    seeds: int
    epochs: int = 3
    batch: int = 32
    length: int = 128
    augmented: bool = False
    """TinyBERT's stages also get two changed copies of every text"""
    after: str = ""
    """a task that every model is fine-tuned on first: one with more rows, of which this one asks less than it needs"""

    @property
    def steps(self) -> int:
        """Optimizer steps of every run on this task."""
        return -(-self.rows // self.batch) * self.epochs


@dataclass(frozen=True)
class Shape:
    """A shape of student, and the recipes that are run with it."""

    prefix: str
    """before the names of its runs"""
    settings: tuple[str, ...]
    on_tasks: tuple[str, ...]
    base: str
    """recipe on text whose student those on tasks start from"""
    alone: tuple[str, ...]
    """those of `on_tasks` that start from the teacher's own weights instead"""


HALF = Shape(
    "",
    # the last layer of each pair, as the losses between layers suppose
    ("student.num_hidden_layers=3", "student.init=layers", "student.layers=odd", "student.dropout=0"),
    ON_TASKS,
    BASE,
    (ALONE,),
)
"""half the teacher's layers"""
NARROW = Shape(
    "narrow-",
    # as many heads as the teacher, for the losses that compare them
    ("student.num_hidden_layers=6", "student.hidden_size=192", "student.num_attention_heads=12",
     "student.intermediate_size=768", "student.layers=spread", "student.init=svd", "student.dropout=0"),
    ("tinybert-6", "task", ALONE),
    "tinybert-6",
    ("task", ALONE),
)  # fmt: skip
"""all the teacher's layers at half its width, its weights cut down by truncated SVD"""


@dataclass(frozen=True)
class Language:
    """A teacher, text to distil it on, tasks to measure it by, the small ones first."""

    name: str
    teacher: str
    corpus: str
    general: tuple[str, ...]
    """recipes on text"""
    rate: str
    """learning rate of fine-tuning, of all models; `tune.py` compares some on the valid parts"""
    inner_rate: str
    """of the inner layers' stage in LONGER, which is outside the common budget; by looks at valid parts (LOG)"""
    tasks: tuple[Task, ...]
    suite: tuple[Task, ...] = ()
    """more tasks, for the teacher and one winner alone"""
    narrow: tuple[str, ...] = ()
    """recipes on text that NARROW is made by"""
    narrow_tasks: tuple[str, ...] = ()
    """tasks that NARROW is run on: those that tell recipes apart, and need no other task first"""


@dataclass(frozen=True)
class Job:
    """One command of affinage that writes the folder `out`."""

    out: str
    arguments: tuple[str, ...]
    after: tuple[str, ...] = field(default=())
    scores: bool = True
    """whether the comparison reads its scores"""


LANGUAGES = (
    Language(
        "en",
        teacher="en/teacher",
        corpus="en/corpus",
        general=("distilcamembert", "distilbert", "tinybert-6", "minilmv2", "minilm"),
        rate="1e-4",
        inner_rate="3e-4",
        tasks=(
            Task("mrpc", "en/mrpc", 3300, 3, augmented=True),
            Task("rte", "en/rte", 2240, 3, length=256, augmented=True, after="mnli"),
            Task("stsb", "en/stsb", 5170, 3, augmented=True),
            Task("cola", "en/cola", 7700, 1, length=64),
            Task("sst2", "en/sst2", 7200, 1, length=64),
            Task("squad", "en/squad", 5400, 1, epochs=2, batch=16, length=256),
        ),
        suite=(
            Task("wnli", "en/wnli", 570, 1),
            Task("qqp", "en/qqp", 8100, 1),
            Task("qnli", "en/qnli", 9000, 1),
            Task("mnli", "en/mnli", 9000, 1),
        ),
        narrow=("tinybert-6", "minilmv2", "minilm"),
        narrow_tasks=("mrpc", "stsb", "sst2", "squad"),
    ),
    Language(
        "fr",
        teacher="shipped:teacher",
        corpus="fr/corpus",
        general=("distilcamembert", "distilroberta", "tinybert-6", "minilmv2", "minilm"),
        rate="3e-4",
        inner_rate="3e-4",
        tasks=(
            Task("sentiment", "fr/reviews", 5413, 3, epochs=1, batch=16),
            Task("ner", "fr/wikineural", 11400, 1, epochs=1, batch=16, length=96),
            Task("qa", "fr/piaf", 6024, 1, epochs=2, batch=16, length=256),
        ),
    ),
)


def jobs(language: Language, budget: Budget, *, suite: bool = False) -> Iterator[Job]:
    """The runs of a language: teachers and students, then seed by seed and task by task what is scored.

    `suite`: WINNER is also run, once, on the rest of it.
    """
    prefix = f"{language.name}/"
    if language.teacher == f"{prefix}teacher":
        yield from made_teacher(language, budget)
    for recipe in language.general:
        yield general(language, budget, recipe)
    for task in language.tasks:
        if task.augmented:
            yield augmented(language, task)
        if task.after:
            for model in (language.teacher, *(f"{prefix}{recipe}" for recipe in language.general)):
                first = next(one for one in language.suite if one.name == task.after)
                yield tuned(language, first, 0, model, starts(language, task, model))
    for seed in range(max(task.seeds for task in language.tasks)):
        for task in (task for task in language.tasks if seed < task.seeds):
            yield from on_task(language, task, seed, (*ON_TASKS, *language.general))
    yield from narrow(language, budget)
    if suite:
        for task in language.suite:
            yield from on_task(language, task, 0, (WINNER,))


def on_task(language: Language, task: Task, seed: int, recipes: tuple[str, ...]) -> Iterator[Job]:
    """The teacher on a task, what needs no encoder, and students by these recipes: on the task's, or general ones."""
    prefix = f"{language.name}/"
    first = starts(language, task, language.teacher)
    yield tuned(language, task, seed, first, f"{prefix}teacher-{task.name}-{seed}")
    if seed == 0:
        command = ("baseline", language.teacher, "--task", task.name, "--data", task.data)
        chosen = (s for s in settings_on(language, task) if "rate" not in s)  # a head alone has one of its own
        yield Job(f"{prefix}baseline-{task.name}-0", (*command, *settings(*chosen), "--seed", "0"),
                  made(language.teacher))  # fmt: skip
    for recipe in recipes:
        if recipe in ON_TASKS:
            yield distilled(language, task, seed, recipe)
        if recipe == "tinybert-6" and task.augmented:
            yield distilled(language, task, seed, AUGMENTED)
        if recipe == ALONE and seed == 0 and task in language.tasks:
            yield distilled(language, task, seed, LONGER)
        if recipe in language.general:
            student = starts(language, task, prefix + recipe)
            yield tuned(language, task, seed, student, f"{prefix}{recipe}-{task.name}-{seed}")


def narrow(language: Language, budget: Budget) -> Iterator[Job]:
    """Students of the shape NARROW: general ones, fine-tuned plainly, and those by the recipes on tasks."""
    for recipe in language.narrow:
        yield general(language, budget, recipe, NARROW)
    tasks = [task for task in language.tasks if task.name in language.narrow_tasks]
    for seed in range(max((task.seeds for task in tasks), default=0)):
        for task in (task for task in tasks if seed < task.seeds):
            for recipe in NARROW.on_tasks:
                yield distilled(language, task, seed, recipe, NARROW)
            for recipe in language.narrow:
                student = f"{language.name}/{NARROW.prefix}{recipe}"
                yield tuned(language, task, seed, student, f"{student}-{task.name}-{seed}")


def made_teacher(language: Language, budget: Budget) -> Iterator[Job]:
    """all-MiniLM-L6-v2 with a vocabulary head: the head on a frozen encoder, then both together a little."""
    prefix = f"{language.name}/"
    for source, out, recipe, steps in (
        (f"{prefix}encoder", f"{prefix}head", "mlm-head", budget.head),
        (f"{prefix}head", language.teacher, "mlm-together", budget.together),
    ):
        command = ("pretrain", language.corpus, "--from", source, "--recipe", recipe)
        after = (source,) if source.endswith("head") else ()
        yield Job(out, (*command, *settings(*FEW_LOOKS), "--max-steps", str(steps)), after, scores=False)


def general(language: Language, budget: Budget, recipe: str, shape: Shape = HALF) -> Job:
    """A general student: the recipe's losses, the comparison's shape, rate and budget."""
    rows = ("training.batch_size=24", "training.gradient_accumulation_steps=1", f"training.row_length={ROW_LENGTH}")
    rate = ("training.learning_rate=5e-4", "training.warmup=0.05", "training.kernels=compiled")
    command = ("distil", language.teacher, "--corpus", language.corpus, "--recipe", recipe)
    chosen = settings(*shape.settings, *rows, *rate, *FEW_LOOKS)
    steps = ("--max-steps", str(budget.general))
    return Job(
        f"{language.name}/{shape.prefix}{recipe}", (*command, *chosen, *steps), made(language.teacher), scores=False
    )


def augmented(language: Language, task: Task) -> Job:
    """Two changed copies of every text of a task."""
    command = ("augment", language.teacher, "--task", task.name, "--data", task.data, "--copies", "2")
    # The English teacher's vocabulary head was trained on single texts: it knows nothing of pairs.
    more = ("--corpus", language.corpus, "--no-pairs")
    return Job(f"{language.name}/more-{task.name}", (*command, *more), made(language.teacher), scores=False)


def tuned(language: Language, task: Task, seed: int, model: str, out: str) -> Job:
    """A model on a task, by its labels alone."""
    command = ("finetune", model, "--task", task.name, "--data", task.data)
    return Job(out, (*command, *settings(*settings_on(language, task)), "--seed", str(seed)), made(model))


def starts(language: Language, task: Task, model: str) -> str:
    """What a model is when its training on a task begins: itself, or fine-tuned on the task before."""
    name = "teacher" if model == language.teacher else model.rsplit("/", 1)[-1]
    return f"{language.name}/{name}-{task.after}-0" if task.after else model


def distilled(language: Language, task: Task, seed: int, recipe: str, shape: Shape = HALF) -> Job:
    """The general student of the shape's base on a task, with the help of the teacher tuned with the same seed.

    Of those that are run alone, and of LONGER, a student from the teacher's layers.
    """
    alone = recipe in (*shape.alone, LONGER)
    prefix = f"{language.name}/"
    teacher = f"{prefix}teacher-{task.name}-{seed}"
    student = starts(language, task, f"{prefix}{shape.prefix}{shape.base}")
    named = f"{recipe}.yaml" if recipe in (AUGMENTED, LONGER) else recipe
    command: tuple[str, ...] = ("distil", teacher, "--task", task.name, "--data", task.data, "--recipe", named)
    after: tuple[str, ...] = (teacher,) if alone else (teacher, student)
    start = () if alone else ("--from", student)
    chosen = settings_on(language, task)
    if recipe.startswith("tinybert"):  # two stages share the steps
        every, first = task.steps * (TIMES if recipe == LONGER else 1), 0 if alone else 1
        shared = tuple(
            f"stages.{first + number}.training.max_steps={steps}"
            for number, steps in enumerate((every * 2 // 3, every - every * 2 // 3))
        )
        chosen = (*(s for s in chosen if "max_steps" not in s), *shared)
    if recipe == LONGER:
        chosen = (*chosen, f"stages.0.training.learning_rate={language.inner_rate}")
    if recipe in (AUGMENTED, LONGER) and task.augmented:
        more = f"{prefix}more-{task.name}"
        command, after = (*command, "--unlabelled", f"{more}/unlabelled.jsonl"), (*after, more)
    if alone and shape is not HALF:  # which the recipes have of their own
        chosen = (*chosen, *(s for s in shape.settings if s not in chosen))
    out = f"{prefix}{shape.prefix}{recipe}-on-{task.name}-{seed}"
    return Job(out, (*command, *start, *settings(*chosen), "--seed", str(seed)), after)


def settings_on(language: Language, task: Task) -> tuple[str, ...]:
    """How every model is trained on a task."""
    return (
        f"training.learning_rate={language.rate}",
        f"training.batch_size={task.batch}",
        f"training.row_length={task.length}",
        f"training.max_steps={task.steps}",
        "training.evaluations=3",
        "student.dropout=0",
    )


def made(model: str) -> tuple[str, ...]:
    """What has to be there for a model to be."""
    return () if model.startswith("shipped:") else (model,)


def settings(*pairs: str) -> tuple[str, ...]:
    """As options of the command line."""
    return tuple(part for pair in pairs for part in ("--set", pair))


def shortened(job: Job, steps: int) -> Job:
    """The same job with so few steps everywhere: a trial."""
    cut, words = [], list(job.arguments)
    for before, word in zip(["", *words], words, strict=False):
        key = word.split("=")[0]
        cut.append(str(steps) if before == "--max-steps" else f"{key}={steps}" if "max_steps" in key else word)
    return replace(job, arguments=tuple(cut))
