"""elision doctor."""

__all__ = ["doctor"]


def doctor(*, json: bool = False) -> None:
    """Say what of the library works on this machine, what is fast, and what to mend.

    Looked at are torch, the cores and their load, the compiler, the cache and the native
    kernels (built if they are not, and compared with torch), Numba, denormal numbers,
    GPUs, the counters of joules, and every extra. The exit status is 1 if something that
    is promised does not work.

    Parameters
    ----------
    json
        Print JSON: a list of name, state, found and mend.
    """
    from dataclasses import asdict
    from json import dumps

    from elision.study.doctor import examined

    findings = examined()
    if json:
        print(dumps([asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(f"{finding.state:6}  {finding.name:{width}}  {finding.found}")
            if finding.mend:
                print(f"{'':6}  {'':{width}}  -> {finding.mend}")
    broken = [finding.name for finding in findings if finding.state == "broken"]
    if broken:
        raise RuntimeError(f"what is promised does not work here: {', '.join(broken)}")
