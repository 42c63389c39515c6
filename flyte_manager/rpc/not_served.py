"""The services and methods of flyteidl2 that this manager does not serve, each with the feature that it belongs to.

They answer UNIMPLEMENTED with a sentence that names the feature and what to use instead.
"""

from collections.abc import Mapping

from flyte_manager.domain.errors import Refusal, Unsupported
from flyte_manager.domain.features import (
    APPS,
    ARTIFACTS,
    CONNECTORS,
    LOGIN,
    SETTINGS,
    TRACKED_RUNS,
    TRIGGERS,
    Feature,
    NotYet,
)

NOT_SERVED: Mapping[str, Feature] = {
    "flyteidl2.app.AppLogsService": APPS,
    "flyteidl2.app.AppService": APPS,
    "flyteidl2.artifact.ArtifactService": ARTIFACTS,
    "flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata": LOGIN,
    "flyteidl2.connector.AsyncConnectorService": CONNECTORS,
    "flyteidl2.connector.ConnectorMetadataService": CONNECTORS,
    "flyteidl2.settings.SettingsService": SETTINGS,
    "flyteidl2.trigger.TriggerService": TRIGGERS,
    "flyteidl2.workflow.TrackedRunService": TRACKED_RUNS,
}
"""By service, or by service and method where the service has others."""


class NotServed(Unsupported):
    """{service}/{method} is not served by this manager: docs/rpc.md lists what is."""


class HealthOnly(Unsupported):
    """this port tells the manager's health only, {service} is at manager.runsService.port"""


def feature_of(service: str, method: str) -> Feature | None:
    """What this method needs and the manager does not have; None where nothing is known to be missing."""
    return NOT_SERVED.get(f"{service}/{method}") or NOT_SERVED.get(service)


def refusal(service: str, method: str) -> Refusal:
    """What a call of this method is told."""
    feature = feature_of(service, method)
    return NotYet(f"{service}/{method}", feature) if feature else NotServed(service=service, method=method)
