"""What a run was asked to do: validated once, written beside every result, and enough to do it again."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal, Self, TypedDict

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from datapruner.errors import UsageError
from datapruner.request.keep import Keep
from datapruner.request.parts import Name, Part, Place, Seed, Stages, is_none
from datapruner.request.targets import Targets
from scorers.method import Method
from scorers.methods import registry

DEFAULT_MODEL = "smollm2-135m"
DEFAULT_METHOD = "qtuning"
TUNED = "tuned"
"""The reference model that is the proxy model, tuned on the target set."""
TUNE_STEPS, TUNE_SECONDS = 20, 300
"""How long that takes, unless it is said otherwise."""
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Overflow = Literal["truncate", "error"]
TrainOn = Literal["all", "last"]
Engine = Literal["local", "ray"]
EngineField = Annotated[
    Engine | None,
    Field(
        exclude_if=is_none,
        description="what measures: local, processes of this machine, or ray, actors of a Ray cluster; the "
        "result is the same (default: local, or what the workers of a service are set to)",
    ),
]


class Reading(Part):
    """Which proxy model reads the samples, and what of them it sees. These decide the signals' values."""

    model: Place = Field(DEFAULT_MODEL, description="proxy model: alias, folder, .gguf file or Hub name")
    dtype: Dtype = Field(
        "auto", description="precision of the proxy model; auto: float32 on CPU, bfloat16 on GPU"
    )
    max_length: int | None = Field(
        None, ge=2, le=2**31 - 1, description="longest sample, in tokens (default: the model's)"
    )
    overflow: Overflow = Field("truncate", description="what becomes of a longer one")
    train_on: TrainOn = Field("all", description="which assistant turns are trained on")


class ReadingSettings(TypedDict, total=False):
    """The fields of `Reading` as keyword arguments."""

    model: str
    dtype: Dtype
    max_length: int | None
    overflow: Overflow
    train_on: TrainOn


class Measuring(Reading):
    """How samples are measured: what reads them, and the further models that some methods read with."""

    embedder: Place | None = Field(
        None,
        exclude_if=is_none,
        description="sentence-embedding model, for methods that read its vectors (default: all-minilm-l6-v2)",
    )
    reference: Place | None = Field(
        None,
        exclude_if=is_none,
        description="a second model, with the same tokens, for methods that compare the two; tuned: the "
        "proxy model itself, tuned on the target set",
    )
    tune_steps: int | None = Field(
        None,
        ge=1,
        le=10_000,
        exclude_if=is_none,
        description=f"for reference tuned: steps of the tuning, of a few rows each (default: {TUNE_STEPS})",
    )
    tune_seconds: float | None = Field(
        None,
        gt=0,
        le=86_400,
        exclude_if=is_none,
        description="for reference tuned: the tuning stops short after so many seconds "
        f"(default: {TUNE_SECONDS})",
    )
    reward_model: Place | None = Field(
        None,
        exclude_if=is_none,
        description="reward model, a folder or Hub name, for method reward",
    )


class MeasuringSettings(ReadingSettings, total=False):
    """The fields of `Measuring` as keyword arguments."""

    embedder: str | None
    reference: str | None
    tune_steps: int | None
    tune_seconds: float | None
    reward_model: str | None


class MethodChoice(Part):
    """One method with its options, those of a preset included."""

    name: str
    options: dict[str, Any] = Field({})

    @classmethod
    def of(cls, name: str, options: dict[str, Any], preset: str | None = None) -> tuple[Self, float | None]:
        """The choice, and the share that its preset keeps. Given options win over the preset's.

        Raises UsageError for a method, preset or option that does not exist, or a value out of range.
        """
        method = find(name)
        published: dict[str, Any] = {}
        if preset is not None:
            if preset not in method.presets:
                known = ", ".join(method.presets) or "none"
                raise UsageError(
                    f"method {name} has no preset {preset!r}", remedy=f"known: {known}", field="preset"
                )
            published = dict(method.presets[preset])
        share = published.pop("keep", None)
        choice = cls(name=name, options=published | options)
        choice.parsed()
        return choice, share

    def parsed(self) -> Any:
        """The options object of the method. Raises UsageError."""
        method = find(self.name)
        known = {field.name for field in fields(method.options)}
        for option in self.options:
            if option not in known:
                raise UsageError(
                    f"method {self.name} has no option {option!r}",
                    remedy=f"known: {', '.join(sorted(known)) or 'none'}",
                    field="options",
                )
        try:
            options = method.options(**self.options)
            method.needs(options)  # which knows what they name
            return options
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(f"method {self.name}: {error}", field="options") from error


class RunConfig(Stages):
    """Everything that decides a result besides the rows and the package versions, and where it is measured.

    Without `combine` and `coverage` the method selects. Without methods a run rewrites and nothing more:
    there are no scores to select by, so `keep` is not given either, and all that the stages before and the
    rewriting leave is kept.
    """

    source: str | None = Field(
        None, description="path or Hub name; null for rows that came from Python or stdin"
    )
    target: Targets = Field(
        None,
        exclude_if=is_none,
        description="likewise, of the rows that methods select towards; of several sets by their tasks",
    )
    task_column: Name | None = Field(
        None,
        exclude_if=is_none,
        description="column of the target set that names each row's task, as in the rows themselves",
    )
    mapping: dict[str, str] = Field({})
    measuring: Measuring = Measuring()
    methods: list[MethodChoice] = Field([], description="may be left out of a run that rewrites")
    keep: Keep | None = Field(None, description="null: nothing is selected, the methods only score")
    seed: Seed = 0
    engine: EngineField = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [choice.name for choice in self.methods]
        if not names:
            return self._rewrites_alone()
        if self.keep is not None and len(names) != 1 and self.combine is None:
            raise _wrong("methods", "pruning takes exactly one method, or a recipe's `combine`")
        if self.coverage is not None and len(names) != 1 and self.combine is None:
            raise _wrong("coverage", "covering takes exactly one method, or `combine`")
        if self.combine is not None and "topsis" in names:
            raise _wrong("combine", "combining is what method topsis does: leave one out")
        for stage in Stages.model_fields:
            if self.keep is None and stage != "combine" and getattr(self, stage) is not None:
                raise _wrong(stage, "this is for runs that prune: say how much to keep, as in keep: 100%")
        return self

    def _rewrites_alone(self) -> Self:
        if self.rewrite is None:
            raise _wrong("methods", "name one method or several, or what to `rewrite` by")
        for stage in (*self.OF_SCORES, "keep"):
            if getattr(self, stage) is not None:
                raise _wrong(stage, "this takes scores: name a method, or leave it out and keep everything")
        return self

    @property
    def has_subset(self) -> bool:
        """Whether rows to train on come of it, and not scores alone."""
        return self.keep is not None or self.rewrite is not None

    @property
    def keeps_copies(self) -> bool:
        """Whether an exact copy fares as the row that it copies: where nothing selects and nothing looks for
        duplicates, a corpus keeps its proportions."""
        return not self.methods and self.dedup is None

    @property
    def title(self) -> str:
        """What it does, in a word or two."""
        names = [choice.name for choice in self.methods]
        return "+".join(names) if self.rewrite is None or names else f"rewrite {self.rewrite.method}"


def _wrong(setting: str, text: str) -> PydanticCustomError:
    """What is wrong with a configuration as a whole, and the setting that it is told of."""
    return PydanticCustomError("configuration", "{text}", {"text": text, "at": [setting]})


def find(name: str) -> Method[Any]:
    """The method called `name`. Raises UsageError."""
    try:
        return registry.get(name)
    except ValueError as error:
        raise UsageError(str(error), remedy="see `datapruner methods`", field="method") from error
