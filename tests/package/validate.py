"""Validate a package with roc-validator, without a network: python validate.py CRATE PROFILE.

Prints JSON: the checks that were made, and the issues found. What the validator would fetch is one document,
the JSON-LD context of RO-Crate; the package `rocrate` brings it, and it is served from there. Any other
address is an error. A process of its own, because the validator changes how rdflib reads documents.
"""

from __future__ import annotations

import importlib.resources
import io
import json
import os
import sys
from typing import Any

os.environ["ROCRATE_VALIDATOR_AUTO_WARM"] = "0"

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from rocrate_validator import services
from rocrate_validator.models import ValidationSettings
from rocrate_validator.utils.http import HttpRequester

CONTEXT = "https://w3id.org/ro/crate/1.2/context"


class OneDocument(BaseAdapter):
    """Answers for the context of RO-Crate and for nothing else."""

    def __init__(self) -> None:
        super().__init__()
        data = importlib.resources.files("rocrate") / "data" / "ro-crate.jsonld"
        self.document = data.read_bytes()

    def send(self, request: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        if request.url != CONTEXT:
            raise requests.ConnectionError(f"{request.url} is not served here")
        response = requests.Response()
        response.status_code = 200
        response.url, response.request = request.url, request
        response.headers = CaseInsensitiveDict({"Content-Type": "application/ld+json"})
        response.encoding = "utf-8"
        response.raw = io.BytesIO(self.document)
        return response

    def close(self) -> None:
        pass


def main(crate: str, profile: str, severity: str) -> None:
    settings = ValidationSettings(
        rocrate_uri=crate,
        profile_identifier=profile,
        requirement_severity=severity,
        no_cache=True,
        skip_availability_check=True,
    )
    for scheme in ("https://", "http://"):
        HttpRequester().session.mount(scheme, OneDocument())
    found = services.validate(settings)
    issues = [
        {
            "check": issue.check.name,
            "profile": issue.check.requirement.profile.identifier,
            "severity": issue.severity.name,
            "message": issue.message,
            "entity": str(issue.violatingEntity),
        }
        for issue in found.get_issues()
    ]
    checks = sorted(
        {f"{c.requirement.profile.identifier}: {c.name}" for c in found.executed_checks}
    )
    print(json.dumps({"issues": issues, "checks": checks}))


if __name__ == "__main__":
    main(*sys.argv[1:])
