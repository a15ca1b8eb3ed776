"""The command line: parse, call, print.

Exit codes: 0 done, 2 something that the user can mend (one line on stderr says what), 130 stopped.
"""

import errno
import json
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from typer.core import TyperGroup

from activegen import __version__
from activegen.records import UserError, choose

WIDTH = 88  # of the help in docs/cli.md
FULL = (errno.ENOSPC, errno.EDQUOT)
DEMOS = {"classification": "demo", "segmentation": "demo_segmentation"}
SAID = {
    "read": "reading images",
    "judge": "training the judge of labels",
    "train": "training",
    "generate": "generating",
    "held_out": "training the held-out judge",
    "diagnose": "looking into arms",
}


class _Commands(TyperGroup):
    """What the user can mend is one line, and Ctrl-C is no error."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            _say(f"activegen: {error}")
            raise typer.Exit(2) from error
        except OSError as error:
            if error.errno not in FULL:
                raise
            of = f" ('{error.filename}')" if error.filename else ""
            _say(f"activegen: no space is left{of}; free some and run the same command to go on")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as stop:
            _say("stopped; run the same command to go on")
            raise typer.Exit(130) from stop


app = typer.Typer(
    name="activegen",
    cls=_Commands,
    help="Makes the training images a vision model is missing.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RecipeName = Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged recipe.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key; may be given often."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Nothing on stdout but one JSON object, the last line.")
]


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    task: Annotated[
        str, typer.Option(help=f"What is learnt: {', '.join(DEMOS)}.")
    ] = "classification",
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/<recipe> by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """See whether it helps, in minutes.

    Trains on real images only, with unguided and with guided ones; nothing is downloaded.
    """
    recipe = choose(DEMOS, task, "task")
    _run(recipe, [f"seed={seed}"], out or Path("runs") / recipe, as_json)


@app.command()
def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/<name> by default.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, print the plan and its cost here, and stop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Carry out a recipe, or go on with it.

    The same command goes on where it was stopped, and ends as if it had not been.
    """
    if dry_run:
        _dry(recipe, overrides or [], out, as_json)
    else:
        _run(recipe, overrides or [], out, as_json)


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(help="Your data: folders of images, masks, parquet or CSV.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write the recipe.")] = Path("recipe.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented recipe for your data."""
    import yaml

    from activegen.recipes import parse, writing

    if out.exists() and not force:
        raise UserError(f"'{out}' is there already; choose another --out, or add --force")
    seen = writing.look(folder)
    parse(yaml.safe_load(seen.recipe), str(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(seen.recipe, encoding="utf-8")
    head, *rows = seen.rows
    table = Table(*_columns(*head), title=f"{seen.layout}: {seen.path}")
    for row in rows:
        table.add_row(*map(_plain, row))
    Console().print(table)
    typer.echo(seen.sizes)
    _tell_skipped(seen.skipped)
    typer.echo(f"wrote {out}; read it, then: activegen run {out} --dry-run")


@app.command()
def generate(
    recipe: RecipeName,
    model: Annotated[
        list[Path],
        typer.Option(
            help="A trained model: RUN/arms/active/model.safetensors. More of them make a "
            "committee, for guidance that asks one."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the store and the PNG files.")],
    count: Annotated[int, typer.Option(help="How many images.")] = 16,
    overrides: Overrides = None,
) -> None:
    """Draw guided images for a trained model.

    Once, without the loop, for the training images that the model gets wrong.
    """
    from activegen.recipes import Run, drawing, load

    with _Bars() as bars:
        verdicts = drawing.draw(Run(load(recipe, overrides or []), out, bars.see), model, count)
    accepted = sum(verdict.accepted for verdict in verdicts)
    typer.echo(f"{accepted} of {len(verdicts)} images were accepted; they are in {out / 'images'}")


@app.command()
def annotate(
    recipe: RecipeName,
    count: Annotated[int, typer.Option(help="How many images to draw.")] = 500,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/<name> by default.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Make images with masks from text alone.

    Masks are read out of the generator's attention. OUT/dataset opens with datasets.load_dataset.
    The same command goes on where it was stopped.
    """
    from activegen.recipes import load
    from activegen.recipes.annotating import FOLDER
    from activegen.recipes.annotating import annotate as made_by
    from activegen.report import write

    loaded = load(recipe, overrides or [])
    folder = out or Path("runs") / loaded.name
    begun = time.monotonic()
    with _Bars() as bars:
        made = made_by(loaded, folder, count, bars.see)
    page = write(folder)
    if as_json:
        seconds = round(time.monotonic() - begun, 1)
        typer.echo(json.dumps({**made, "seconds": seconds, "report": str(page)}))
        return
    rejected = "".join(f", {number} {reason}" for reason, number in made["rejected"].items())
    typer.echo(f"{made['images']} of {count} images{rejected}; they are in {folder / FOLDER}")
    typer.echo(f"report: {page}")


@app.command()
def adapt(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option(help="Folder of the result.")],
    what: Annotated[
        str | None, typer.Option(help="lora, full or controlnet; short for --set adapt.what=...")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the generator on your real images.

    Of the recipe's training split: a LoRA (the default) or all weights from images and their
    classes, or a ControlNet from masks. The same command goes on where it was stopped.
    """
    from activegen.recipes import load
    from activegen.recipes.adapting import adapt as made_by

    more = [] if what is None else [f"adapt.what={what}"]
    loaded = load(recipe, [*(overrides or []), *more])
    with _Bars() as bars:
        card = made_by(loaded, out, bars.see)
    _tell_skipped(tuple((id, reason) for id, reason in card["skipped"]))
    if card["long_captions"]:
        _say(f"{card['long_captions']} images show more classes than the text encoder can read")
    if as_json:
        typer.echo(json.dumps({"out": str(out), **card}))
        return
    listed = loaded.segmentation is not None and loaded.segmentation.controls
    key, value = {
        "lora": ("model.lora", str(out)),
        "full": ("model.path", str(out)),
        "controlnet": ("segmentation.controls.0.path", str(out))
        if listed
        else ("segmentation.controls", [{"path": str(out)}]),
    }[card["settings"]["what"]]
    arm = {"generate": "plain", "judge": False, "changes": {key: value}}

    def command(name: str, use: str, *more: str) -> str:
        words = [word for of in (*(overrides or []), use) for word in ("--set", of)]
        return shlex.join(["activegen", name, recipe, *words, *more])

    said = value if isinstance(value, str) else json.dumps(value)
    typer.echo(f"to draw with it: {command('run', f'{key}={said}')}")
    of_it = command("compare", f"arms.adapted={json.dumps(arm)}", "--arms", "unguided,adapted")
    typer.echo(f"to see whether it helps: {of_it}")


@app.command()
def compare(
    recipe: RecipeName,
    arms: Annotated[
        str,
        typer.Option(
            help="Names with commas between: the recipe's arms or standard ones (real_only, "
            "augmented, unguided, unguided_4x, selected, guided, guided_judged, more_real, "
            "synthetic_only), all for all of these that fit; the recipe's own by default."
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(help="How many, from the recipe's on.")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Folder; runs/compare-<name> by default.")
    ] = None,
    overrides: Overrides = None,
    budget: Annotated[
        float | None, typer.Option(help="Seconds after which no more arm is begun.")
    ] = None,
    seconds_per_arm: Annotated[
        float | None,
        typer.Option(
            help="Of the comparison at equal seconds, which cuts each arm off there; the seconds "
            "of the cheapest arm that generates by default."
        ),
    ] = None,
    stop: Annotated[
        bool,
        typer.Option(
            "--stop",
            help="Guided arms stop generating when they do not beat unguided on val images, which "
            "data.val has to name.",
        ),
    ] = False,
    diagnose: Annotated[
        bool,
        typer.Option(
            help="Look into the synthetic images with a held-out judge, which is trained first."
        ),
    ] = True,
    judge: Annotated[
        str,
        typer.Option(
            help="The held-out judge: a network by name, or a safetensors file of one; a small "
            "ResNet by default."
        ),
    ] = "",
    devices: Annotated[
        str, typer.Option(help="As cuda:0,cuda:1: arms at the same time, one on each.")
    ] = "",
    jobs: Annotated[int, typer.Option(help="Arms at the same time, on each device.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Say whether it helped.

    Each arm with each seed, paired differences with their intervals, and a verdict. Arms that
    cannot be compared fairly are refused. The same command goes on where it was stopped; more arms
    or seeds compute only what is missing.
    """
    from activegen.recipes import load
    from activegen.recipes.comparing import Ways
    from activegen.recipes.comparing import compare as made_by
    from activegen.recipes.diagnosing import HeldOutSettings
    from activegen.report import write_comparison
    from activegen.report.comparison import HOLM, PAGE

    for name, number in (("seeds", seeds), ("jobs", jobs)):
        if number < 1:
            raise UserError(f"--{name} is {number}; give at least 1")
    loaded = load(recipe, overrides or [])
    folder = out or Path("runs") / f"compare-{loaded.name}"
    names = [name.strip() for name in arms.split(",") if name.strip()]
    numbers = range(loaded.seed, loaded.seed + seeds)
    places = [name.strip() for name in devices.split(",") if name.strip()]
    beside = (places or [loaded.model.device]) * jobs
    ways = Ways(
        budget_seconds=budget,
        seconds_per_arm=seconds_per_arm,
        stop=stop,
        devices=tuple(beside) if places or jobs > 1 else (),
        held_out=HeldOutSettings(judge) if diagnose else None,
    )
    with _Bars() as bars:
        told = lambda _: write_comparison(folder)  # noqa: E731
        made = made_by(loaded, folder, names, numbers, bars.see, ways, told)
    page = folder / PAGE
    for notice in made["notices"]:
        _say(notice)
    if as_json:
        typer.echo(json.dumps({**made, "report": str(page)}))
        return
    for family, title in (("comparisons", "against"), ("step_by_step", "step after")):
        for other in dict.fromkeys(of["baseline"] for of in made[family]):
            Console().print(_verdicts(made, made[family], title, other))
    if made["comparisons"]:
        typer.echo(f"{HOLM}.")
    typer.echo(f"report: {page}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not, or comparison.")],
) -> None:
    """Write RUN/report.html."""
    from activegen.recipes.comparing import FILE
    from activegen.report import write, write_comparison

    typer.echo(write_comparison(run) if (run / FILE).is_file() else write(run))


@app.command()
def doctor(
    recipe: Annotated[str | None, typer.Argument(help="A recipe to check, too.")] = None,
    overrides: Overrides = None,
) -> None:
    """Show versions and machine; find problems.

    Checks the embedded generator and, where one is given, all that a recipe names.
    """
    from activegen.recipes import Run, load
    from activegen.recipes.health import embedded_problem, facts
    from activegen.zoo import LAND_COVER, LAND_COVER_SCENES

    table = Table(show_header=False)
    for name, value in facts().items():
        table.add_row(name, value)
    Console().print(table)
    for folder in (LAND_COVER, LAND_COVER_SCENES):
        if problem := embedded_problem(folder):
            raise UserError(problem)
    if recipe is not None:
        checked = Run(load(recipe, overrides or []), Path("runs") / "doctor")
        checked.check()
        _tell_skipped(checked.data.skipped)
    typer.echo("no problems found")


def documentation() -> str:
    """``docs/cli.md``: the help of each command."""
    group: Any = typer.main.get_command(app)
    top = group.make_context(
        "activegen", ["--version"], resilient_parsing=True, max_content_width=WIDTH
    )
    parts = ["# The command line\n\nMade by `python -m activegen.cli`; do not edit.\n"]
    parts.append(f"```text\n{group.get_help(top).rstrip()}\n```\n")
    for name, command in group.commands.items():
        inner = command.context_class(
            command, info_name=name, parent=top, max_content_width=WIDTH, terminal_width=WIDTH
        )
        parts.append(f"## activegen {name}\n\n```text\n{command.get_help(inner).rstrip()}\n```\n")
    return "\n".join(parts)


def main() -> None:
    """The command ``activegen``."""
    _quiet()
    app()


def _run(recipe: str, overrides: list[str], out: Path | None, as_json: bool) -> None:
    from activegen.recipes import Run, load
    from activegen.recipes.notices import not_believed
    from activegen.report import write

    loaded = load(recipe, overrides)
    folder = out or Path("runs") / loaded.name
    begun = time.monotonic()
    with _Bars() as bars:
        at_work = Run(loaded, folder, bars.see)
        result = at_work.carry_out()
    _tell_skipped(at_work.data.skipped)
    for text in not_believed([folder], [*loaded.arms]):
        _say(text)
    train = at_work.data.train
    page = write(folder, lambda id: train.image(train.index_of(id)))
    arms = result["arms"]
    if as_json:
        typer.echo(json.dumps(_figures(arms, time.monotonic() - begun, page)))
        return
    Console().print(_table(arms))
    Console().print(_costs(arms))
    typer.echo(f"report: {page}")


def _figures(arms: dict[str, Any], seconds: float, page: Path) -> dict[str, Any]:
    from activegen.loop.metering import Cost

    last = arms.get("active") or next(
        (arm for arm in reversed(arms.values()) if arm["proposed"]), {"images": 0, "rejected": {}}
    )
    return {
        "figure": last.get("figure"),
        **{name: round(arm[arm["figure"]], 4) for name, arm in arms.items()},
        "images": last["images"],
        "rejected": last["rejected"],
        "seconds": round(seconds, 1),
        "cost": {name: Cost.of(arm["rounds"]).told() for name, arm in arms.items()},
        "report": str(page),
    }


def _costs(arms: dict[str, Any]) -> Table:
    """Seconds of each arm, those places alone that took a hundredth of one."""
    from activegen.loop.metering import PLACES, Cost
    from activegen.report.words import duration, percent

    costs = {name: Cost.of(arm["rounds"]) for name, arm in arms.items()}
    table = Table(*_columns("", *map(_plain, costs)), title="where the time went")
    shown = [of for of in PLACES if any(cost.share(of) >= 0.01 for cost in costs.values())]
    for place in shown:
        cells = ((cost.seconds.get(place), cost.share(place)) for cost in costs.values())
        table.add_row(
            PLACES[place], *(f"{duration(s)}, {share:.0%}" if s else "" for s, share in cells)
        )
    table.add_row("all", *(duration(cost.total) for cost in costs.values()))
    for kind in ("drawing", "training"):
        used = [cost.mfu[kind] for cost in costs.values()]
        if any(used):
            table.add_row(f"{kind}: model FLOPs of peak", *map(percent, used))
    return table


def _columns(*heads: str) -> list[Column]:
    """Of a table in which no name is cut off, however narrow the terminal is."""
    return [Column(head, overflow="fold") for head in heads]


def _table(arms: dict[str, Any]) -> Table:
    figure = next(iter(arms.values()))["figure"]
    head = _columns("arm", figure, "to real_only", "worst class", "images", "rejected")
    table = Table(*head)
    base = arms.get("real_only", {}).get(figure)
    for name, arm in arms.items():
        worst = arm["per_class"][arm["worst_class"]]
        difference = "" if base is None or name == "real_only" else f"{arm[figure] - base:+.2%}"
        table.add_row(
            name,
            f"{arm[figure]:.2%}",
            difference,
            f"{_plain(arm['worst_class'])} {'' if worst is None else f'{worst:.0%}'}",
            str(arm["images"]),
            ", ".join(f"{count} {reason}" for reason, count in arm["rejected"].items()),
        )
    return table


def _verdicts(
    made: dict[str, Any], comparisons: list[dict[str, Any]], title: str, other: str
) -> Table:
    """Of all arms that were compared with the other."""
    from activegen.report.comparison import between, p_of, verdict_of
    from activegen.report.words import percent, points

    head = ("arm", made["figure"], "difference", "95 %", "verdict", "p", "seeds needed")
    whole = percent(made["arms"][other]["mean"])
    table = Table(*_columns(*head), title=f"{title} {_plain(other)}, {whole}")
    for of in comparisons:
        if of["baseline"] == other:
            needed = of["seeds_needed"]
            table.add_row(
                _plain(of["arm"]),
                percent(made["arms"][of["arm"]]["mean"]),
                points(of["difference"]),
                between(of["interval"]),
                verdict_of(of),
                p_of(of),
                "" if needed is None else f"{needed:.0f}",
            )
    return table


def _dry(recipe: str, overrides: list[str], out: Path | None, as_json: bool) -> None:
    from activegen.recipes import Run, load
    from activegen.recipes.plan import judge_steps, paces, plan

    loaded = load(recipe, overrides)
    with _Bars() as bars:
        checked = Run(loaded, out or Path("runs") / loaded.name, bars.see)
        checked.check()
        pace = paces(checked)
    arms = plan(checked)
    seconds = {arm.name: pace[arm.name].seconds(arm) for arm in arms}
    judging = judge_steps(checked) * pace[arms[0].name].learner_step
    total = sum(seconds.values()) + judging
    _tell_skipped(checked.data.skipped)
    if as_json:
        planned = {arm.name: vars(arm) | {"seconds": seconds[arm.name]} for arm in arms}
        typer.echo(json.dumps({"arms": planned, "minutes": total / 60}))
        return
    train, test = checked.data.train, checked.data.test
    typer.echo(f"{len(train)} real images of {len(train.classes)} classes, {len(test)} to test on")
    head = ("arm", "images", "denoiser calls", "steps of all its learners", "about minutes")
    table = Table(*_columns(*head))
    for arm in arms:
        cells = (arm.images, arm.denoiser_calls, arm.learner_steps)
        table.add_row(arm.name, *map(str, cells), f"{seconds[arm.name] / 60:.1f}")
    Console().print(table)
    beside = f", {judging / 60:.1f} of them for the judge" if judging else ""
    typer.echo(f"about {total / 60:.1f} minutes on this machine{beside}; nothing was written")


class _Bars:
    """Progress on stderr: what is done now, with its rate and the time left, and each round."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.now: tuple[str, TaskID] = ("", TaskID(0))
        self.rounds: dict[str, TaskID] = {}
        self.begun = time.monotonic()

    def __enter__(self) -> "_Bars":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.now[0]:
            self.progress.remove_task(self.now[1])
        self.progress.stop()

    def see(self, event: Any) -> None:
        """An event of a run."""
        if event.phase == "round":
            self._round(event)
            return
        name = f"{event.arm} {SAID[event.phase]}".strip()
        if self.now[0] != name or event.done == 1:
            if self.now[0]:
                self.progress.remove_task(self.now[1])
            self.now = (name, self.progress.add_task(name, total=event.total, rate=""))
            self.begun = time.monotonic()
        rate = event.done / max(time.monotonic() - self.begun, 1e-3)
        self.progress.update(
            self.now[1], completed=event.done, total=event.total, rate=f"{rate:.1f}/s"
        )

    def _round(self, event: Any) -> None:
        if event.arm not in self.rounds:
            task = self.progress.add_task(f"{event.arm}: rounds", total=event.total, rate="")
            self.rounds[event.arm] = task
        self.progress.update(self.rounds[event.arm], completed=event.done)
        figure = event.summary.get("figure")
        measured = f", test {figure} {event.summary[figure]:.1%}" if figure else ""
        drawn = event.summary["proposed"]
        images = f", {event.summary['accepted']} of {drawn} images accepted" if drawn else ""
        self.progress.console.print(
            f"{event.arm}: round {event.done} of {event.total}{measured}{images}", markup=False
        )


def _tell_skipped(skipped: tuple[tuple[str, str], ...]) -> None:
    for _, reason in skipped[:5]:
        _say(f"left out: {reason}")
    if len(skipped) > 5:
        _say(f"left out: {len(skipped) - 5} more images that cannot be read")


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _plain(text: str) -> str:
    """Names of data hold no markup."""
    return escape(text)


def _quiet() -> None:
    """Libraries that we call tell what we do not want to know."""
    warnings.filterwarnings("ignore")
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for logging in (of_diffusers, of_transformers):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


if __name__ == "__main__":
    sys.stdout.write(documentation())
