"""Whether SageMaker has the instance types that a run asks for, as far as the SDK of this function knows them. Pure.

SageMaker itself refuses one only when a job or an endpoint is to be made of it, and all that is before it is paid for.
"""

from collections.abc import Collection, Mapping

from run_input import InvalidInput


def check(
    instances: Mapping[str, str], optimised: bool, for_jobs: Collection[str], for_endpoints: Collection[str]
) -> None:
    """Raise InvalidInput for a type that SageMaker does not have for its step.

    optimised: whether there is a job `optimize`. A family that nobody knows may be newer than the SDK.
    """
    for step, instance_type in instances.items():
        known, purpose = (for_endpoints, "endpoints") if step == "endpoint" else (for_jobs, "jobs")
        if instance_type in known or (step == "optimize" and not optimised):
            continue
        family = instance_type.rpartition(".")[0]
        sizes = _of_family(family, known)
        if not sizes and not _of_family(family, {*for_jobs, *for_endpoints}):
            continue
        there = f"of {family} it has {', '.join(sizes)}" if sizes else f"it has nothing of {family}, choose another"
        or_else = "; or serving.variant float32, which needs no such job" if step == "optimize" else ""
        raise InvalidInput(
            f"instances.{step} {instance_type!r} is no instance type that SageMaker has for {purpose}: {there}{or_else}"
        )


def _of_family(family: str, types: Collection[str]) -> list[str]:
    return sorted(one for one in types if one.startswith(f"{family}."))
