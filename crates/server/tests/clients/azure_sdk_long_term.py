"""Drives long-term retention with Azure's own SDK, unmodified: one copy of `app` is there."""

import os

from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest
from azure.identity import ClientSecretCredential
from azure.mgmt.sql import SqlManagementClient

base = os.environ["BASE"]
group, location, instance, database = "Default", "local", "one", "app"

credential = ClientSecretCredential(
    os.environ["TENANT"],
    os.environ["CLIENT_ID"],
    os.environ["CLIENT_SECRET"],
    authority=base,
    disable_instance_discovery=True,
)
client = SqlManagementClient(
    credential,
    os.environ["SUBSCRIPTION"],
    base_url=base,
    credential_scopes=[base + "/.default"],
)

# The policy.
policies = client.managed_instance_long_term_retention_policies
policy = policies.get(group, instance, database, "default")
assert (policy.weekly_retention, policy.monthly_retention) == ("P4W", "P1Y"), policy
listed = list(policies.list_by_database(group, instance, database))
assert [found.weekly_retention for found in listed] == ["P4W"], listed
wish = {"properties": {"weeklyRetention": "P6W", "yearlyRetention": "P10Y", "weekOfYear": 12}}
changed = policies.begin_create_or_update(group, instance, database, "default", wish).result()
assert (changed.weekly_retention, changed.monthly_retention) == ("P6W", "PT0S"), changed
assert (changed.yearly_retention, changed.week_of_year) == ("P10Y", 12), changed
policies.begin_delete(group, instance, database, "default").result()
policy = policies.get(group, instance, database, "default")
assert policy.weekly_retention == "PT0S", policy

# The backups, by every way there is.
backups = client.long_term_retention_managed_instance_backups
ways = [
    backups.list_by_location(location),
    backups.list_by_resource_group_location(group, location),
    backups.list_by_instance(location, instance),
    backups.list_by_resource_group_instance(group, location, instance),
    backups.list_by_database(location, instance, database),
    backups.list_by_resource_group_database(group, location, instance, database),
    backups.list_by_location(location, only_latest_per_database=True, database_state="Live"),
]
names = [[found.name for found in way] for way in ways]
assert all(found == names[0] and len(found) == 1 for found in names), names
name = names[0][0]
found = backups.get(location, instance, database, name)
assert found.database_name == database and found.managed_instance_name == instance, found
assert found.backup_expiration_time > found.backup_time, found
same = backups.get_by_resource_group(group, location, instance, database, name)
assert same.id == found.id, same
try:
    missing = name.replace(name[:8], "00000000", 1)
    backups.begin_delete_by_resource_group(group, location, instance, database, missing).result()
    raise AssertionError("a backup that is not there was deleted")
except HttpResponseError as error:
    assert error.error.code == "LTRBackupNotExists", error


# A legal hold, which this release has no method for: by its own pipeline, as its other requests go.
def immutability(which, status=200):
    wish = HttpRequest("POST", f"{found.id}/{which}LegalHoldImmutability", params={"api-version": "2025-02-01-preview"})
    answer = client.send_request(wish)
    assert answer.status_code == status, (answer.status_code, answer.text())
    return answer.json()["properties"]["legalHoldImmutability"]


assert immutability("set") == "Enabled"
try:
    backups.begin_delete_by_resource_group(group, location, instance, database, name).result()
    raise AssertionError("a backup that is held was deleted")
except HttpResponseError as error:
    assert error.error.code == "LongTermBackupHeld", error
assert backups.get(location, instance, database, name).backup_expiration_time is None
assert immutability("remove") == "Disabled"
print("long-term retention is served")
