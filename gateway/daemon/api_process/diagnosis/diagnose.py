"""What is wrong, and what to do about it: facts in, findings out, the worst first.
Runs in the API process.

A pure function. A VM without a problem gets one finding that is good, with how much is left. Which
facts there are is in ``facts.py``; what is said of ports, of other traffic and of the gateway
itself, in ``ports.py``, ``traffic.py`` and ``gateway.py``.
"""

from __future__ import annotations

from gateway.daemon.api_process.diagnosis.facts import Facts, VirtualMachine
from gateway.daemon.api_process.diagnosis.finding import (
    CRITICAL,
    GOOD,
    INFORMATION,
    SEVERITIES,
    WARNING,
    Finding,
    count,
)
from gateway.daemon.api_process.diagnosis.gateway_findings import gateway_findings
from gateway.daemon.api_process.diagnosis.port_findings import headroom, least_left, port_findings
from gateway.daemon.api_process.diagnosis.traffic_findings import traffic_findings

MOST = 200
"""Findings of one diagnosis."""


def diagnose(facts: Facts, *, one: bool) -> list[Finding]:
    """All findings; ``one``: the facts are of one VM that was asked for."""
    findings = list(gateway_findings(facts))
    well: list[VirtualMachine] = []
    for vm in facts.machines:
        own = [*port_findings(vm, facts), *traffic_findings(vm, facts)]
        findings += own
        if not any(finding.severity in (CRITICAL, WARNING) for finding in own):
            well.append(vm)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    if len(findings) > MOST:
        left_out = len(findings) - MOST
        text = (
            f"{count(left_out, 'finding')} of less weight left out; ask for one VM to see its own."
        )
        findings = [*findings[:MOST], Finding(INFORMATION, None, "There is more", text)]
    if any(finding.host and finding.severity == CRITICAL for finding in findings):
        return findings  # whatever the ports, no VM is healthy
    if one:
        findings += [Finding(GOOD, vm.name, f"{vm.name} is healthy", _one(vm)) for vm in well]
    elif well or not facts.machines:
        findings.append(_all(well, len(facts.machines)))
    return findings


def _one(vm: VirtualMachine) -> str:
    failed = sum(supply.failed for supply in vm.supplies.values())
    text = f"{vm.name} {headroom(vm)}."
    if failed:
        since = "since the gateway started, none lately"
        return f"{text} {count(failed, 'attempt')} found no port {since}."
    if not vm.flows or any(not drops.inward for drops in vm.drops):
        return text
    return f"{text} Nothing it sent was dropped."


def _all(well: list[VirtualMachine], number: int) -> Finding:
    if not number:
        return Finding(GOOD, None, "No findings", "No VM has sent anything yet.")
    nearest = max(well, key=least_left)
    if number == 1:
        title = f"{nearest.name} is healthy"
    elif len(well) == number:
        title = f"All {number:,} VMs are healthy"
    else:
        title = f"{count(len(well), 'other VM')} {'is' if len(well) == 1 else 'are'} healthy"
    text = f"{nearest.name} {headroom(nearest)}"
    if len(well) > 1:
        text = f"The nearest to its limit is {nearest.name}: it {headroom(nearest)}"
    return Finding(GOOD, None, title, f"{text}.", data={"virtualMachines": len(well)})
