"""A search on hardware rented from the Hub (HF Jobs), its results in a private dataset there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from morphing.benchmarks.judging.metrics import module_of
from morphing.benchmarks.leave import code_of_others
from morphing.errors import MorphingError
from morphing.hub_errors import LOGIN, Subject, ask, hub_errors
from morphing.publishing.names import ZOO, hub_id
from morphing.publishing.push import check_hidden
from morphing.runs.spec import RunSpec

if TYPE_CHECKING:
    from huggingface_hub import JobHardwareInfo, JobInfo

# The run folder goes up every ten minutes and at the end, so that a Job that times out or fails
# leaves its trials behind: download the folder and `morphing search --run DIR --resume`.
_PROGRAM = """
set -um
printf '%s' "$MORPHING_SPEC" > spec.yaml
upload() { hf upload "$MORPHING_RESULTS" run . --repo-type dataset --private; }
(while sleep 600; do upload; done) &
uploads=$!
python -m morphing search spec.yaml --run run
status=$?
kill -- "-$uploads"
upload || exit 1
exit "$status"
"""


def flavors(token: str | None = None) -> list[JobHardwareInfo]:
    """The hardware on offer, with its prices.

    Raises:
        MorphingError: the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    return ask(Subject.writing("the list of hardware"), HfApi(token=token).list_jobs_hardware)


def launch(
    spec: RunSpec,
    results: str,
    *,
    image: str,
    flavor: str,
    timeout: str,
    token: str | None = None,
    allow_code: bool = False,
) -> JobInfo:
    """Start a search as a Job of the logged-in user, who pays for it.

    Args:
        spec: what to search; it may name the Hub and the zoo, no local folders.
        results: dataset repository for the run folder, one a run; made private if
            missing, and refused if it is public.
        image: a Docker image or ``hf.co/spaces/org/name`` in which Morphing is installed.
        flavor: a name from `flavors`.
        timeout: after which the Job is ended, as "90m" or "4h".
        token: with write access; by default the login stored on this machine. It reaches the Job
            as a secret: it is in neither its command, its environment nor its logs.
        allow_code: let benchmarks run code of others there: programs that models wrote (in a
            sandbox), metrics of the evaluate library.

    Raises:
        MorphingError: a spec that cannot run there, no login, or the Hub's refusal in its words.
    """
    from huggingface_hub import HfApi, get_token

    spec = _portable(spec)
    for use in spec.benchmarks:
        if not allow_code and (what := code_of_others(use.declaration)) is not None:
            raise MorphingError(
                f"Benchmark {use.declaration.name!r} {what}, which is off in the Job too: allow it"
                " with --allow-code."
            )
    token = token or get_token()
    if token is None:
        raise MorphingError(f"There is no Hub login for the Job: {LOGIN}.")
    with hub_errors(Subject.writing(f"the Job for {results}")):
        api = HfApi(token=token)
        results = api.create_repo(results, repo_type="dataset", private=True, exist_ok=True).repo_id
        check_hidden(api, results, "dataset")
        return api.run_job(
            image=image,
            command=["bash", "-c", _PROGRAM],
            env={
                "MORPHING_SPEC": spec.to_yaml(),
                "MORPHING_RESULTS": results,
                **({"MORPHING_ALLOW_CODE": "1"} if allow_code else {}),
            },
            secrets={"HF_TOKEN": token},
            flavor=flavor,
            timeout=timeout,
            name=f"morphing-{spec.name}",
        )


def _portable(spec: RunSpec) -> RunSpec:
    """The spec as a machine that has nothing but the Hub and the zoo can run it.

    Benchmarks are written out, as their declarations may lie in files here.
    """
    for name in (spec.base, *spec.sources):
        if not name.startswith(ZOO) and hub_id(name) is None:
            raise MorphingError(f"A Job cannot see the model {name}: push it to the Hub first.")
    uses = []
    for use in spec.benchmarks:
        benchmark = use.declaration
        if (module := module_of(benchmark.metric)) is not None and "/" in module:
            raise MorphingError(f"A Job cannot see the metric {module}: choose one with a name.")
        if benchmark.local and not benchmark.dataset.startswith(ZOO):
            raise MorphingError(
                f"A Job cannot see the dataset {benchmark.dataset}: push it to the Hub first."
            )
        uses.append(use.model_copy(update={"benchmark": benchmark}))
    return spec.model_copy(update={"benchmarks": tuple(uses)})
